"""One server process in one folder: what the embedded Redis and Postgres have in common.

* A folder has one owner at a time (a file lock that the kernel releases with its holder).
* A server does not outlive its owner: a guardian process stops it when the owner is gone, and a
  start finds and stops what an earlier owner left behind (``kill -9`` of both included).
* Stopping twice, or without a start, is fine; a start that fails half way leaves nothing running.
"""

from __future__ import annotations

__all__ = ["EmbeddedError", "FolderInUse", "ServerProcess", "end_process"]

import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

if TYPE_CHECKING:
    import psutil

T = TypeVar("T")

_START_SECONDS = 60.0  # crash recovery of a large folder takes a while
_STOP_SECONDS = 20.0
_POLL_SECONDS = 0.005

#: Servers see nothing of ours: PGPORT or TZ of the shell would change what they do.
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}

#: Ends with the owner, however that ends: `read` returns when the owner's end of the pipe closes.
_GUARDIAN = 'read -r _; pid=$(head -n 1 "$0" 2>/dev/null) && kill -s INT "$pid" 2>/dev/null'


class EmbeddedError(RuntimeError):
    """An embedded server is not installed or does not start; the message says what to do."""


class FolderInUse(EmbeddedError):
    """Another process has the folder; ``owner`` is its id, empty where it has not written it yet."""

    def __init__(self, name: str, folder: Path, owner: str) -> None:
        self.owner = owner
        super().__init__(
            f"{name} in {folder} is in use by process {owner or 'unknown'}: "
            "stop that process or choose another folder."
        )


class ServerProcess(ABC):
    """One server process in one folder: what Redis and Postgres have in common."""

    name: str

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder).absolute()
        self.log = self.folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._guardian: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None

    @property
    def pid(self) -> int:
        """The process id of the running server; ``EmbeddedError`` when there is none."""
        if self._process is None or self._process.poll() is not None:
            raise EmbeddedError(f"{self.name} in {self.folder} is not running.")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process this object started is alive."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start the server and wait until it answers; nothing happens when it runs already.

        Raises ``EmbeddedError`` when the extra is not installed, the folder belongs to another live
        process, or the server refuses to start (with the end of its log).
        """
        if self.running:
            return self
        self._end(signal.SIGKILL)  # it may have ended by itself: its guardian has not
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._own_folder()
            _stop_leftover(self._pid_file, self._work_folder)
            self._prepare()
            self._launch()
            self._guard()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop the server in order, and give up the folder; stopping again is fine."""
        self._end(signal.SIGINT)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def kill(self) -> None:
        """SIGKILL, as an out-of-memory killer would; ``start`` brings it back at its address."""
        self._end(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        try:
            return await _to_the_end(self.start)
        except asyncio.CancelledError:
            await _to_the_end(self.stop)
            raise

    async def __aexit__(self, *_: object) -> None:
        await _to_the_end(self.stop)

    @property
    @abstractmethod
    def _pid_file(self) -> Path: ...

    @property
    @abstractmethod
    def _work_folder(self) -> Path:
        """The working directory of the server: how a leftover of this folder is recognised."""

    @abstractmethod
    def _prepare(self) -> None:
        """Write what the server needs before its first start."""

    @abstractmethod
    def _launch(self) -> None:
        """Start the process and wait until it answers."""

    def _own_folder(self) -> None:
        if self._lock is not None:
            return
        lock = os.open(self.folder / "owner.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.read(lock, 20).decode()
            os.close(lock)
            raise FolderInUse(self.name, self.folder, owner) from error
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        self._lock = lock

    def _spawn(self, command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        self.log.touch(mode=0o600)
        with self.log.open("ab") as log:
            return subprocess.Popen(  # noqa: S603 — binaries of the wheels or the machine
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_ENVIRONMENT,
                cwd="/",  # ours may be closed to the server's account
                start_new_session=True,  # Ctrl-C is for the owner, which stops us in order
                **options,
            )

    def _wait_until(self, answers: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not answers():
            if not self.running:
                raise EmbeddedError(f"{self.name} does not start. {self._last_words()}")
            if time.monotonic() > deadline:
                raise EmbeddedError(f"{self.name} does not answer. {self._last_words()}")
            time.sleep(_POLL_SECONDS)

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            lines = self.log.read_text(errors="replace").splitlines()[-8:]
            return "The end of {}:\n{}".format(self.log, "\n".join(lines))
        return f"It wrote no log to {self.log}."

    def _guard(self) -> None:
        self._guardian = subprocess.Popen(  # noqa: S603 — a constant script
            ["/bin/sh", "-c", _GUARDIAN, str(self._pid_file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _end(self, how: signal.Signals) -> None:
        # The guardian goes last: should we be killed in between, it finishes the work.
        if self._process is not None:
            end_process(self._process, how)
        if self._guardian is not None:
            end_process(self._guardian, signal.SIGKILL)
        self._process = self._guardian = None


def end_process(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    """Signal, wait, and reap; SIGKILL when it does not end in time."""
    process.send_signal(how)  # does nothing when it has ended
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdin is not None:
        process.stdin.close()


async def _to_the_end(work: Callable[[], T]) -> T:
    """Run ``work`` in a thread and wait for its end, also when cancelled meanwhile.

    A thread cannot be cancelled: what it starts would belong to nobody, what it stops would run on.
    """
    task = asyncio.ensure_future(asyncio.to_thread(work))
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        task.exception()  # looked at, or asyncio would report it
        raise asyncio.CancelledError
    return task.result()


def _stop_leftover(pid_file: Path, work_folder: Path) -> None:
    """Stop the server that an owner which was killed left in this folder.

    A process id alone proves nothing (they are reused): it is ours when it works in our folder.
    """
    if not pid_file.exists():
        return
    try:
        import psutil  # noqa: PLC0415 — part of the extra, and only a leftover needs it
    except ImportError as error:
        raise EmbeddedError(
            f"Another server may be running in {work_folder}. Install what finds it: "
            "pip install 'uvian-worker[embedded]'"
        ) from error

    with contextlib.suppress(psutil.NoSuchProcess, ValueError, IndexError, OverflowError):
        process = psutil.Process(int(pid_file.read_text().split(maxsplit=1)[0]))
        if Path(process.cwd()) == work_folder.resolve():
            process.send_signal(signal.SIGINT)
            _await_end(process, time.monotonic() + _STOP_SECONDS)
    # Postgres takes a stranger or a zombie with this id for its predecessor, and does not start.
    pid_file.unlink(missing_ok=True)


def _await_end(process: psutil.Process, deadline: float) -> None:
    # Not process.wait(): where nobody reaps orphans (containers), what ended stays as a zombie.
    while process.status() != "zombie":
        if time.monotonic() > deadline:
            process.kill()
        time.sleep(_POLL_SECONDS)
