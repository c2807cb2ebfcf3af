"""The commands as a user types them, in a folder of their own."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
import pty
import subprocess
import sys
import termios
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest
from typer.testing import CliRunner, Result

from tests.adapters import Adapter
from uvian_worker.cli import app

PATIENCE = 60.0  #: seconds until a test gives up; nothing waits this long when it works


@dataclass(frozen=True, slots=True)
class Uvian:
    """Runs commands in this process."""

    user_id: str
    superuser_dsn: str

    def __call__(self, *words: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(app, list(words), input=stdin)

    def document(self, *words: str) -> Any:
        """What a command with ``--json`` prints, when it ends well."""
        result = self(*words)
        assert result.exit_code == 0, result.output
        return orjson.loads(result.stdout)

    def sql(self, statement: str, *values: Any) -> list[Any]:
        """SQL as a superuser; answers rows."""

        async def execute() -> list[Any]:
            connection = await asyncpg.connect(self.superuser_dsn)
            try:
                return list(await connection.fetch(statement, *values))
            finally:
                await connection.close()

        return asyncio.run(execute())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: nothing in it, no setting, eighty columns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


@pytest.fixture
def uvian(folder: Path, adapter: Adapter, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Uvian:
    """The commands on a migrated database with one user, and an empty Redis."""
    for name, value in adapter.settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("UVIAN_REDIS_URL", redis_url)
    monkeypatch.setenv("UVIAN_IMAGES_DIR", str(folder / "images"))
    uvian = Uvian(str(uuid.uuid4()), adapter.clean.superuser_dsn)
    uvian.sql("insert into auth.users (id) values ($1)", uuid.UUID(uvian.user_id))
    return uvian


class Program:
    """A program as a process, and its words as they come. Whatever it says goes to ``output``."""

    def __init__(self, *arguments: str, folder: Path, **environment: str) -> None:
        self.output = ""
        self._heard = threading.Condition()
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._heard:
                self.output += line
                self._heard.notify_all()
        with self._heard:
            self._heard.notify_all()

    def says(self, words: str, *, times: int = 1) -> None:
        """Wait until it has said ``words``; fails when it ends without."""
        with self._heard:
            said = self._heard.wait_for(
                lambda: self.output.count(words) >= times or self.process.poll() is not None,
                PATIENCE,
            )
        assert said, f"It did not say {words!r}:\n{self.output}"
        assert self.output.count(words) >= times, f"It ended:\n{self.output}"

    def ends(self) -> int:
        """Wait for the end; its exit code."""
        code = self.process.wait(PATIENCE)
        self._listener.join(PATIENCE)
        return code

    def close(self) -> None:
        """End it, if it runs still."""
        if self.process.poll() is None:
            self.process.kill()
        self.ends()
        assert self.process.stdout is not None
        self.process.stdout.close()


class Terminal(Program):
    """A program on a terminal of 80 columns: it is typed to, and draws what people see."""

    def __init__(self, *arguments: str, folder: Path, **environment: str) -> None:
        self.output = ""
        self._heard = threading.Condition()
        self._screen, keyboard = pty.openpty()
        termios.tcsetwinsize(keyboard, (24, 80))
        self.process = subprocess.Popen(
            [sys.executable, "-c", _TAKE_TERMINAL, "-P", "-m", *arguments],
            cwd=folder,
            env={**os.environ, "TERM": "xterm-256color", **environment},
            stdin=keyboard,
            stdout=keyboard,
            stderr=keyboard,
            start_new_session=True,
            text=True,
        )
        os.close(keyboard)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")()
        while True:
            try:
                raw = os.read(self._screen, 4096)
            except OSError:  # nobody has the terminal any more
                raw = b""
            with self._heard:
                self.output += decoder.decode(raw)
                self._heard.notify_all()
            if not raw:
                return

    def types(self, keys: str) -> None:
        """Press these keys."""
        os.write(self._screen, keys.encode())

    def is_left(self) -> int:
        """Press Ctrl-C until it ends; its exit code. CPython's ``input`` is deaf to a signal that comes
        between the drawing of its prompt and the wait for a key."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None and time.monotonic() < deadline:
            self.types("\x03")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(3)
        return self.ends()

    def writes(self, count: int) -> None:
        """Wait until it has drawn so many characters more."""
        with self._heard:
            enough = len(self.output) + count
            assert self._heard.wait_for(lambda: len(self.output) >= enough, PATIENCE), self.output

    def close(self) -> None:
        """End it, if it runs still."""
        if self.process.poll() is None:
            self.process.kill()
        self.ends()
        os.close(self._screen)


#: Becomes the program, once the terminal is its own: so Ctrl-C reaches it as a signal.
_TAKE_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)


class Programs:
    """Starts programs, and ends what a failed test leaves."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[Program] = []

    def start(self, *arguments: str, **environment: str) -> Program:
        """``python -m`` these arguments, in the test's folder."""
        program = Program(*arguments, folder=self._folder, **environment)
        self._started.append(program)
        return program

    def uvian(self, *words: str, **environment: str) -> Program:
        """The ``uvian`` command."""
        return self.start("uvian_worker.cli", *words, **environment)

    def on_terminal(self, *words: str, **environment: str) -> Terminal:
        """The ``uvian`` command, typed at a terminal."""
        terminal = Terminal("uvian_worker.cli", *words, folder=self._folder, **environment)
        self._started.append(terminal)
        return terminal

    def close(self) -> None:
        """End them all."""
        for program in self._started:
            program.close()


@pytest.fixture
def programs(folder: Path) -> Iterator[Programs]:
    """Processes that a test may start."""
    programs = Programs(folder)
    yield programs
    programs.close()
