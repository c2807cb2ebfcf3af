"""A worker as a child process, under the ``arq`` command that operators use."""

from __future__ import annotations

from uvian_common.tasks import cancel_until_done

__all__ = ["WorkerEnded", "WorkerProcess"]

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

_COMMAND = ("-P", "-m", "arq", "uvian_worker.WorkerSettings")
_READY_SECONDS = 30.0
_STOP_SECONDS = 10.0

#: Ends the worker when we cannot: `read` returns when our end of the pipe closes.
_GUARDIAN = 'read -r _; kill -TERM "$0" 2>/dev/null; sleep 10; kill -KILL "$0" 2>/dev/null'


class WorkerEnded(RuntimeError):
    """The worker has ended though nobody stopped it; the message says where its words are."""


class WorkerProcess:
    """Starts, watches and stops one worker. It does not outlive us, however we end.

    ``environment`` is all it gets, besides what a ``.env`` file in ``folder`` says. With ``log``
    its words go to that file, else where ours go.
    """

    def __init__(
        self, environment: Mapping[str, str], *, folder: Path, log: Path | None = None
    ) -> None:
        self._port = _free_port()
        self._environment = dict(environment, UVIAN_HEALTH_PORT=str(self._port))
        self._folder = folder
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self._guardian: subprocess.Popen[bytes] | None = None

    @property
    def health_url(self) -> str:
        """Where it says whether it is ready; the same after a restart."""
        return f"http://127.0.0.1:{self._port}/health/ready"

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start it; it need not be ready yet."""
        with contextlib.ExitStack() as files:
            out = None if self._log is None else files.enter_context(self._log.open("wb"))
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *_COMMAND,
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=None if out is None else subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us, who end it in order
            )
        self._guardian = subprocess.Popen(  # noqa: S603, ASYNC220 - a constant script, a fork
            ["/bin/sh", "-c", _GUARDIAN, str(self._process.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    async def ready(self) -> None:
        """Wait until it takes jobs; raises ``WorkerEnded`` when it ends instead."""
        ended = asyncio.ensure_future(self.ended())
        answers = asyncio.ensure_future(self._answers())
        try:
            await asyncio.wait(
                {ended, answers}, timeout=_READY_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            if ended.done():
                raise WorkerEnded(self.last_words("The worker does not start."))
            if not answers.done():
                raise WorkerEnded(self.last_words("The worker does not become ready."))
        finally:
            await cancel_until_done(ended, answers)

    async def ended(self) -> int:
        """Wait until it ends; its exit code."""
        assert self._process is not None  # noqa: S101 - a mistake of the caller
        return await self._process.wait()

    async def stop(self) -> None:
        """End it in good order, by force if it takes too long. Stopping twice is fine."""
        process, self._process = self._process, None
        try:
            if process is not None and process.returncode is None:
                await asyncio.shield(_end(process))
        finally:
            self._dismiss_guardian(ended=process is None or process.returncode is not None)

    def _dismiss_guardian(self, *, ended: bool) -> None:
        """It goes last: should we be interrupted before the worker has ended, it finishes the work."""
        guardian, self._guardian = self._guardian, None
        if guardian is None or guardian.stdin is None:
            return
        if ended:
            guardian.kill()
        guardian.stdin.close()
        if ended:
            guardian.wait()

    def last_words(self, sentence: str) -> str:
        """``sentence``, and what the end of the log says about it."""
        if self._log is None:
            return sentence
        lines = self._log.read_text(errors="replace").splitlines()[-6:]
        return "\n".join([sentence, *lines, f"Its whole log: {self._log}"])

    async def _answers(self) -> None:
        while not await self._is_ready():  # noqa: ASYNC110 - another process, no event of ours
            await asyncio.sleep(0.02)

    async def _is_ready(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            return False
        try:
            writer.write(b"GET /health/ready HTTP/1.0\r\n\r\n")
            return b" 200 " in await reader.readline()
        except OSError:
            return False
        finally:
            writer.close()


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), _STOP_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()


def _free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
