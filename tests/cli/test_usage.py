"""What can be said without a server: help, versions, wrong words, wrong settings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from repositories.errors import TimedOut, Unavailable
from uvian_worker import __version__
from uvian_worker.cli import app
from uvian_worker.cli.errors import ExitCode, explained
from uvian_worker.client.calls import DatabaseAway

_NO_USER = "00000000-0000-4000-8000-0000000000aa"


def invoke(*words: str) -> Result:
    """A command in this process."""
    return CliRunner().invoke(app, list(words))


def test_help_loads_neither_arq_nor_a_server_nor_numpy() -> None:
    """``uvian --help`` is instant: what a command needs is imported when it runs."""
    code = (
        "import sys, uvian_worker.cli\n"
        "heavy = {'arq', 'asyncpg', 'numpy', 'redis', 'PIL', 'aiohttp', 'pydantic'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert said.strip() == "[]"


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["demo"],
        ["dev"],
        ["worker"],
        ["gateway"],
        ["migrate"],
        ["submit"],
        ["watch"],
        ["chat"],
        ["jobs"],
        ["jobs", "list"],
        ["jobs", "show"],
        ["jobs", "cancel"],
        ["jobs", "retry"],
        ["credits"],
        ["credits", "grant"],
        ["credits", "show"],
    ],
    ids=" ".join,
)
def test_every_command_explains_itself(words: list[str]) -> None:
    """Each has a help page with at least a sentence about what it does."""
    result = invoke(*words, "--help")
    assert result.exit_code == 0
    assert "Usage: " in result.stdout
    assert len(result.stdout.splitlines()) > 5


def test_the_version_is_the_release() -> None:
    """``uvian --version`` names the release."""
    assert invoke("--version").stdout == f"uvian-worker {__version__}\n"


def test_a_mistyped_command_is_answered_by_the_nearest() -> None:
    """``uvian migrat`` asks whether migrate was meant."""
    result = invoke("migrat")
    assert result.exit_code == ExitCode.USAGE
    assert "Did you mean 'migrate'" in " ".join(result.output.split())


def test_a_wrong_setting_is_answered_by_the_nearest(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``UVIAN_REDIS_ULR`` is not accepted in silence."""
    monkeypatch.setenv("UVIAN_REDIS_ULR", "redis://elsewhere")
    result = invoke("jobs", "list")
    assert result.exit_code == ExitCode.USAGE
    assert "There is no setting UVIAN_REDIS_ULR. Did you mean UVIAN_REDIS_URL?" in result.stderr


def test_without_a_database_every_command_says_which_setting_is_missing(folder: Path) -> None:
    """The next step is in the sentence."""
    for words in (["jobs", "list"], ["migrate"], ["worker"], ["credits", "show", _NO_USER]):
        result = invoke(*words)
        assert result.exit_code == ExitCode.USAGE, words
        assert "UVIAN_DATABASE_URL is not set" in result.stderr
        assert "uvian dev" in result.stderr


def test_an_unreachable_redis_is_named_without_its_password(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Setting and host are said, the password never is."""
    monkeypatch.setenv("UVIAN_DATABASE_URL", "postgresql://u:secret1@127.0.0.1:9/app")
    monkeypatch.setenv("UVIAN_REDIS_URL", "redis://:secret2@127.0.0.1:9/3")
    for words in (["submit", "generation"], ["jobs", "cancel", "abcd"]):
        result = invoke(*words)
        assert result.exit_code == ExitCode.UNREACHABLE, result.output
        assert "Redis at 127.0.0.1:9/3 (UVIAN_REDIS_URL) is not reachable" in result.stderr
        assert "secret" not in result.output


def test_an_unreachable_postgres_is_named_without_its_password(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Setting and host are said, the password never is."""
    monkeypatch.setenv("UVIAN_DATABASE_URL", "postgresql://u:secret1@127.0.0.1:9/app")
    result = invoke("jobs", "list")
    assert result.exit_code == ExitCode.UNREACHABLE, result.output
    assert "Postgres does not answer at 127.0.0.1:9/app (UVIAN_DATABASE_URL)" in result.stderr
    assert "secret" not in result.output


@pytest.mark.parametrize("words", [["jobs", "list"], ["worker"], ["migrate"], ["gateway"]])
def test_what_is_no_connection_string_is_a_wrong_setting(
    folder: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    """One sentence, with the setting and its form; nothing is tried."""
    monkeypatch.setenv("UVIAN_DATABASE_URL", "postgres://h:port/x")
    result = invoke(*words)
    assert result.exit_code == ExitCode.USAGE, result.output
    said = " ".join(result.stderr.split())
    assert said.startswith("✗ UVIAN_DATABASE_URL: is no connection string: it reads postgresql://")
    assert said.count("✗") == 1


def test_an_option_of_the_connection_string_that_there_is_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong setting, and no server that does not answer."""
    monkeypatch.setenv("UVIAN_DATABASE_URL", "postgres://u:secret@127.0.0.1:9/x?sslmode=foo")
    result = invoke("jobs", "list")
    assert result.exit_code == ExitCode.USAGE, result.output
    assert "UVIAN_DATABASE_URL: has a sslmode that is none of disable, allow" in " ".join(
        result.stderr.split()
    )
    assert "secret" not in result.output


def away(error: Exception, cause: Exception | None = None) -> Exception:
    """As it comes when ``raise … from`` has raised it."""
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (TimedOut("a lock was not free within a second"), "has happened all the same"),
        (away(DatabaseAway("late"), TimedOut("late")), "has happened all the same"),
        (Unavailable("deadlock detected"), "check that the database runs, and UVIAN_DATABASE_URL"),
        (away(DatabaseAway("x"), Unavailable("x")), "check that the database runs"),
        (DatabaseAway("no answer in time"), "check that the database runs"),
        (Unavailable("Supabase is not reachable. Check UVIAN_SUPABASE_URL."), None),
    ],
)
def test_a_fault_that_passes_says_what_helps_against_it(
    capsys: pytest.CaptureFixture[str], error: Exception, hint: str | None
) -> None:
    """A database that answers is not looked for in a setting, and no setting is named twice."""
    with pytest.raises(typer.Exit) as ended, explained():
        raise error
    said = " ".join(capsys.readouterr().err.split())
    assert ended.value.exit_code == ExitCode.UNREACHABLE
    assert said.startswith(f"✗ {error}")
    assert (hint in said) if hint else ("→" not in said)
    assert ("UVIAN_DATABASE_URL" in said) == (hint is not None and "check" in hint)


@pytest.mark.parametrize("url", ["http://127.0.0.1", "redis://127.0.0.1:port", "nonsense"])
def test_what_is_no_redis_url_is_a_wrong_setting(
    folder: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """Its form is shown; it is not tried."""
    monkeypatch.setenv("UVIAN_DATABASE_URL", "postgresql://127.0.0.1:9/app")
    monkeypatch.setenv("UVIAN_REDIS_URL", url)
    result = invoke("submit", "generation")
    assert result.exit_code == ExitCode.USAGE, result.output
    assert "redis://[user:password@]host:port/db" in " ".join(result.stderr.split())


def test_debug_shows_the_stack_trace(folder: Path) -> None:
    """``--debug`` is for whoever wants to know where an error came from."""
    code = "from uvian_worker.cli import main; main()"
    said = subprocess.run(
        [sys.executable, "-P", "-c", code, "--debug", "jobs", "list"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == ExitCode.USAGE
    assert "Traceback" in said.stderr
    assert "ConfigError" in said.stderr


def test_every_part_of_the_demo_can_be_had_alone() -> None:
    """What ``--only`` offers is what there is."""
    from uvian_worker.cli.demo import Part
    from uvian_worker.local.demo import PARTS, STAGES

    assert [part.value for part in Part] == list(PARTS)
    assert set(STAGES) >= set(PARTS)


def test_submit_takes_no_time_to_run_at(folder: Path) -> None:
    """Neither with a zone nor without: at the command line a job is for now."""
    for run_at in ("2040-01-01T00:00:00", "2040-01-01T00:00:00Z"):
        result = CliRunner().invoke(app, ["submit", "generation", "--run-at", run_at])
        assert result.exit_code == ExitCode.USAGE
        assert "No such option" in " ".join(result.output.split())
