"""How this program is called, as it tells people to: what it says works in their shell."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from uvian_worker.cli.terminal.program import as_called, program


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment with a ``uvian`` that answers, in a folder with a blank in its name; nobody knows it."""
    scripts = tmp_path / "a b" / ".venv" / "bin"
    scripts.mkdir(parents=True)
    for name in ("uvian", "python"):
        script = scripts / name
        script.write_text('#!/bin/sh\necho "it is me: $*"\n')
        script.chmod(0o755)
    monkeypatch.setenv("PATH", os.defpath)
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.executable", str(scripts / "python"))
    monkeypatch.setattr("sys.argv", [str(scripts / "uvian"), "dev"])
    return scripts


def typed(command: str) -> str:
    """What a shell with our variables answers to the command."""
    done = subprocess.run(
        ["sh", "-c", f"{command} jobs list"], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_a_program_that_is_not_on_the_path_is_called_by_its_own(environment: Path) -> None:
    """As after `make demo`: relative to here, with quotes where they are needed."""
    assert program() == "'a b/.venv/bin/uvian'"
    assert typed(program()).startswith("it is me")


def test_from_elsewhere_by_the_whole_path(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And called by a relative path, from within its folder, as well."""
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.chdir(other)
    assert program() == f"'{environment}/uvian'"
    monkeypatch.chdir(environment)
    monkeypatch.setattr("sys.argv", ["uvian"])
    assert program() == "./uvian"
    assert typed(program()).startswith("it is me")


def test_an_activated_environment_has_the_short_name_here_alone(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another shell has not activated it."""
    monkeypatch.setenv("PATH", str(environment), prepend=os.pathsep)
    assert program() == program(elsewhere=True) == "uvian"
    monkeypatch.setenv("VIRTUAL_ENV", str(environment.parent))
    assert program() == "uvian"
    assert typed(program()).startswith("it is me")
    assert program(elsewhere=True) == "'a b/.venv/bin/uvian'"


def test_another_uvian_on_the_path_is_not_ours(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Installed twice: the one that runs is named."""
    other = tmp_path / "uvian"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert program() == "'a b/.venv/bin/uvian'"


def test_a_module_without_its_script(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``python -m uvian_worker.cli`` from a checkout: as it was called."""
    monkeypatch.setattr("sys.argv", ["/x/uvian_worker/cli/__main__.py"])
    assert program() == "'a b/.venv/bin/uvian'"
    (environment / "uvian").unlink()
    assert program() == f"'{environment}/python' -m uvian_worker.cli"
    assert typed(program()) == "it is me: -m uvian_worker.cli jobs list"


@pytest.mark.usefixtures("environment")
def test_the_commands_of_a_sentence_are_as_this_shell_finds_them() -> None:
    """Whatever a next step names can be typed; a schema or a bucket of our name is none."""
    ours = "'a b/.venv/bin/uvian'"
    assert (
        as_called("Grant some: uvian credits grant x 1") == f"Grant some: {ours} credits grant x 1"
    )
    assert as_called("See `uvian jobs list`.") == f"See `{ours} jobs list`."
    assert as_called("uvian chat …") == f"{ours} chat …"
    for sentence in ("The schema uvian is missing.", "no bucket uvian-images", "in uvian.jobs"):
        assert as_called(sentence) == sentence
