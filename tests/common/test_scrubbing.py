"""No secret leaves a process, wherever an error of another library quotes it."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from repositories.errors import Permanent
from uvian_common import scrubbing
from uvian_common.scrubbing import HIDDEN, keep_secret, scrubbed
from uvian_worker.cli.errors import ExitCode, Fault, keep_traces, print_fault
from uvian_worker.config import Config
from uvian_worker.gateway.http.problems import Problem
from uvian_worker.process import logs
from uvian_worker.process.health import postgres_state

#: A secret for every setting that holds one; what stands in a URL is its password.
PASSWORD = "p@ss/w:rd#1 'x'"
SECRETS = {
    "database_url": f"postgresql://u:{quote(PASSWORD, safe='')}@db.example:5432/x",
    "database_direct_url": "postgresql://u:direct-word@db.example:5432/x",
    "redis_url": "redis://default:redis-word@redis.example:6379/0",
    "supabase_key": "sb_secret_abcdefgh",
    "jwt_secrets": json.dumps(["an old jwt secret, with a comma/ and more", "j" * 40]),
    "images_secret": "signs the urls of pictures",
    "wake_secret": "of a database webhook",
    "openai_api_key": "openai-key-1234",
    "fal_api_key": "fal-id:fal-key-1234",
    "runpod_api_key": "rpa_1234567",
    "jigsawstack_api_key": "sk_jig_1234567",
}
TOLD = {
    "database_url": PASSWORD,
    "database_direct_url": "direct-word",
    "redis_url": "redis-word",
    "jwt_secrets": "an old jwt secret, with a comma/ and more",
}


def _secret(setting: str) -> str:
    return TOLD.get(setting, SECRETS[setting])


def _raise(text: str) -> None:
    cause = ValueError(f"Port could not be cast to integer value as {text!r}")
    raise RuntimeError(f"cannot use {text}") from cause


def _logged(style: str, say: Callable[[logging.Logger], None], name: str = "uvian.test") -> str:
    heard = io.StringIO()
    logs.configure("DEBUG", style)  # type: ignore[arg-type]
    handler = logging.StreamHandler(heard)
    handler.setFormatter(logging.getLogger("uvian").handlers[0].formatter)
    logger = logging.getLogger(name)
    logger.addHandler(handler)
    logger.propagate = False
    try:
        say(logger)
    finally:
        logger.removeHandler(handler)
        logger.propagate = True
    return heard.getvalue()


def _with_trace(logger: logging.Logger, text: str) -> None:
    try:
        _raise(text)
    except RuntimeError:
        logger.exception("it failed")


def _of_health(text: str) -> str:
    class Broken:
        async def select(self, *_: object, **__: object) -> None:
            raise Permanent(f"InvalidURL: {text}")

    import asyncio

    return asyncio.run(postgres_state(Broken()))  # type: ignore[arg-type]


def _told(fault: Fault) -> str:
    stream, sys.stderr = sys.stderr, io.StringIO()
    try:
        print_fault(fault)
        return sys.stderr.getvalue()
    finally:
        sys.stderr = stream


def _told_with_trace(text: str) -> str:
    keep_traces()
    try:
        _raise(text)
    except RuntimeError as error:
        return _told(Fault(str(error), ExitCode.UNEXPECTED))
    raise AssertionError


#: Every place where words leave a process.
PLACES: dict[str, Callable[[str], str]] = {
    "message": lambda s: _logged("text", lambda log: log.warning(f"no: {s}")),
    "argument": lambda s: _logged("text", lambda log: log.warning("no: %s", ValueError(s))),
    "repr": lambda s: _logged("text", lambda log: log.warning("no: %r", {"url": s})),
    "unfit": lambda s: _logged("text", lambda log: log.warning("no %d", s)),
    "trace": lambda s: _logged("text", lambda log: _with_trace(log, s)),
    "json": lambda s: _logged("json", lambda log: log.warning("no: %s", s)),
    "json trace": lambda s: _logged("json", lambda log: _with_trace(log, s)),
    "extra": lambda s: _logged("json", lambda log: log.info("x", extra={"a": {"b": [s, Path(s)]}})),
    "another library": lambda s: _logged("text", lambda log: log.error("no: %s", s), "asyncio"),
    "command": lambda s: _told(Fault(f"no: {s}", ExitCode.USAGE, hint=f"try {s}")),
    "command --debug": _told_with_trace,
    "health": _of_health,
    "problem": lambda s: str(Problem("unavailable", f"no: {s}").document("1")),
}


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A process that has read its settings; afterwards none has."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(scrubbing, "_known", [])
    monkeypatch.setattr("uvian_worker.cli.errors._Traces.wanted", False)
    factory = logging.getLogRecordFactory()
    Config.load({}, **SECRETS)
    yield
    logging.setLogRecordFactory(factory)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.filterwarnings("ignore")
def test_no_secret_of_the_settings_is_told(place: str) -> None:
    """By no log, command, page or document, whichever it is, as it is or escaped."""
    for setting in SECRETS:
        secret = _secret(setting)
        for written in (secret, quote(secret, safe="")):
            said = PLACES[place](written)
            assert HIDDEN in said, setting
            for form in (written, repr(written)[1:-1], json.dumps(written)[1:-1]):
                assert form not in said, setting


def test_every_secret_of_the_settings_is_among_them() -> None:
    """A new one that nobody scrubs fails here."""
    secret = {
        name for name, field in Config.model_fields.items() if "Secret" in str(field.annotation)
    }
    assert secret == set(SECRETS)


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://u:{}@h/x",
        "cannot connect to redis://:{}@h:6379/0",
        "https://user:{}@host/path",
        "'[{}]' does not appear to be an IPv4 address in postgresql://u:[{}]@h",
        "Authorization: Bearer {}",
        '{{"apikey": "{}"}}',
        "password={}",
        "key sb_secret_{}",
        "eyJhbGciOiJIUzI1NiJ9.{}.{}",
    ],
)
def test_what_looks_like_a_secret_is_hidden_though_nobody_knows_it(text: str) -> None:
    """Of another process, of a user, of a string that was never a setting."""
    secret = "Wx7_unknownSecret90"
    if "does not appear" in text:
        keep_secret([f"postgresql://u:[{secret}]@h"])
        text = text.split(" in ")[1]
    assert secret not in scrubbed(text.format(secret, secret))


@pytest.mark.parametrize(
    "text",
    [
        "Postgres does not answer at db.example:5432/x (UVIAN_DATABASE_URL).",
        "gateway on http://127.0.0.1:8787",
        "GET http://h:8787/v1/x?mail=a@b.example",
        "UVIAN_SUPABASE_KEY is a publishable key: give the secret key (sb_secret_…)",
        'password authentication failed for user "postgres"',
        "it reads postgresql://user:password@host:5432/name, or redis://[user:password@]host:port/db",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    """Hosts, users, sentences about passwords."""
    keep_secret(["postgresql://postgres:postgres@127.0.0.1:54322/postgres", "ab"])
    assert scrubbed(text) == text


def test_a_long_line_costs_little() -> None:
    """A megabyte of anything, since errors quote what they were given."""
    began = time.process_time()
    for text in ("a.b-" * 250_000, "x" * 1_000_000, "://:" * 250_000, "bearer " * 150_000):
        scrubbed(text)
    assert time.process_time() - began < 10  # a regular expression that backtracks takes minutes


def test_an_error_that_nobody_foresaw_leaves_a_trace_without_secrets(tmp_path: Path) -> None:
    """Of the command itself, before any of its own handling."""
    code = (
        "import sys, uvian_worker.cli as cli\n"
        "from uvian_common.scrubbing import keep_secret\n"
        "keep_secret(['redis://:hidden-word@h'])\n"
        "def broken(): raise ValueError('redis://:hidden-word@h and hidden-word')\n"
        "cli.app = broken\n"
        "cli.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "ValueError" in done.stderr
    assert "hidden-word" not in done.stderr.split("ValueError")[-1]


def test_urls_that_python_cannot_read_quote_what_they_hold() -> None:
    """The reason for all of it: the standard library repeats the password."""
    with pytest.raises(ValueError, match="hid") as wrong:
        print(urlsplit("postgresql://u:hid#den@h/x").port)  # noqa: T201
    keep_secret(["postgresql://u:hid#den@h/x"])
    assert "hid" in str(wrong.value)
