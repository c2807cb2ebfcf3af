"""What is said of settings and commands outside of the code is what the code says."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path
from types import ModuleType

import pytest
from pydantic import SecretStr

from uvian_worker.cli.errors import ExitCode
from uvian_worker.config import Config

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    """The script that writes it."""
    path = ROOT / "scripts" / "generate_reference.py"
    spec = importlib.util.spec_from_file_location("generate_reference", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_everything_written_by_the_script_is_up_to_date(reference: ModuleType) -> None:
    """A change of a setting or a command comes with its documentation."""
    for path, content in reference.pages().items():
        assert path.read_text() == content, f"{path.name}: run scripts/generate_reference.py"


def test_the_example_of_env_has_every_setting_with_its_default(reference: ModuleType) -> None:
    """In the order of Config, each under its sentence, none with another default."""
    text = (ROOT / ".env.example").read_text()
    lines = re.findall(r"^#(UVIAN_\w+)=(.*)$", text, re.MULTILINE)
    assert [name for name, _ in lines] == [f"UVIAN_{name.upper()}" for name in Config.model_fields]
    for setting in reference.settings():
        assert f"# {setting.words}\n" in text
        if setting.name not in reference.IN_WORDS:
            written = dict(lines)[setting.variable]
            assert written == _as_written(Config.model_fields[setting.name].default)


def _as_written(default: object) -> str:
    if isinstance(default, SecretStr):
        return default.get_secret_value()
    if isinstance(default, bool):
        return str(default).lower()
    return "" if default is None else f"{default:g}" if isinstance(default, float) else str(default)


def test_the_example_of_env_can_be_used_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every line switched on the settings are the defaults; empty values count as unset."""
    monkeypatch.chdir(tmp_path)
    expected = Config.load()
    text = (ROOT / ".env.example").read_text()
    (tmp_path / ".env").write_text(re.sub(r"^#(UVIAN_)", r"\1", text, flags=re.MULTILINE))
    assert Config.load() == expected


def test_defaults_in_words_are_those_of_the_machine(reference: ModuleType) -> None:
    """What depends on the machine is the number of threads; on a setting, where pictures are kept."""
    assert set(reference.IN_WORDS) == {"cpu_threads", "images"}
    assert Config.model_fields["cpu_threads"].default == min(os.cpu_count() or 1, 8)


def test_the_manual_has_every_exit_code() -> None:
    """Scripts rely on them."""
    text = (ROOT / "docs" / "cli.md").read_text()
    documented = re.findall(r"^\| (\d+) \|", text, re.MULTILINE)
    assert [int(code) for code in documented] == [int(code) for code in ExitCode]


def test_links_lead_somewhere() -> None:
    """Every relative link of the pages is a file of the project."""
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.relative_to(ROOT)} → {link}"


def test_every_piece_of_python_in_the_pages_is_python() -> None:
    """What readers copy can at least be compiled."""
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for code in re.findall(
            r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL
        ):
            compile(code, str(page), "exec")
