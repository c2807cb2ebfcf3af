"""One decoder process, seen from outside: started, used, killed. See ``decoder_process`` for its inside."""

from __future__ import annotations

__all__ = ["Decoder", "DecoderUnavailable", "Ended"]

import contextlib
import fcntl
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Final

import PIL
from PIL import Image

from executors.imaging.decoder_process import (
    ANSWER_BYTES,
    BAND_BYTES,
    RAW_MODES,
    READY,
    Answer,
    Request,
)
from executors.imaging.reading import Limits, UnsafeImageError

_START_SECONDS = 30.0  # on a machine that is very busy
_DEADLINE_SECONDS = 20.0  # for one picture, whatever else the machine does

#: `-I` and `-S`: nothing of the environment, the user or the working folder decides what is imported.
_PROGRAM: Final = (
    "import sys; sys.path[:0] = sys.argv[2:];"
    "from executors.imaging.decoder_process import serve; serve(*map(int, sys.argv[1].split(',')))"
)
_PATHS: Final = (str(Path(__file__).parents[2]), str(Path(PIL.__file__).parents[1]))


class DecoderUnavailable(RuntimeError):
    """No process for decoding can be started here: no picture is to blame."""


class Ended(Exception):
    """The process has ended before its answer; ``code`` is that of ``Popen.returncode``."""

    def __init__(self, code: int) -> None:
        super().__init__(f"a decoder ended with {code}")
        self.code = code


class Decoder:
    """One process, and the file in memory that it shares with us. Not to be used by two threads, except to
    kill it."""

    def __init__(self) -> None:
        self._file = _file_in_memory()
        its_end, self._lifeline = os.pipe()
        self._lock = (
            threading.Lock()
        )  # a process id that the system may have given to another is never killed
        try:
            self._process = subprocess.Popen(  # noqa: S603 - ourselves
                [sys.executable, "-I", "-S", "-c", _PROGRAM, f"{self._file},{its_end}", *_PATHS],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd="/",
                env=_environment(),
                pass_fds=(self._file, its_end),
                start_new_session=True,  # Ctrl-C is for us: a picture in the middle is finished
            )
        except OSError as error:
            self._let_go()
            raise DecoderUnavailable(f"no decoder can be started: {error.strerror}") from error
        finally:
            os.close(its_end)
        pipes = (self._process.stdin, self._process.stdout, self._process.stderr)
        self._pipes = [pipe for pipe in pipes if pipe is not None]
        self._to, self._from, self._errors = (pipe.fileno() for pipe in self._pipes)
        self._waiting = select.poll()
        self._waiting.register(self._from, select.POLLIN)
        _widen(self._from)
        self._wait_until_ready()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it can be used: it ends by itself after a minute without work."""
        with self._lock:
            return self._process.poll() is None

    def decode(self, content: bytes, limits: Limits) -> Image.Image:
        """The picture. Raises ``UnsafeImageError``, or ``Ended``: then it must be replaced."""
        deadline = time.monotonic() + _DEADLINE_SECONDS
        try:
            os.pwrite(self._file, content, 0)
            os.write(self._to, Request.of(content, limits).line())
            answer = self._answer(deadline)
            os.ftruncate(self._file, 0)
            if not answer.startswith("! "):
                return self._picture(answer, limits, deadline)
        except (OSError, EOFError, ValueError):  # gone, silent, or not doing what it was made for
            raise Ended(self.end()) from None
        raise UnsafeImageError(answer[2:])

    def kill(self) -> None:
        """End it at once, from any thread: callers that wait for its answer get ``Ended``."""
        if self._lock.acquire(blocking=False):  # else it is being ended already
            try:
                self._process.kill()
            finally:
                self._lock.release()

    def end(self) -> int:
        """Kill it and release what it had; its return code. Ending it twice is fine."""
        with self._lock:
            self._process.kill()
            code = self._process.wait()
            for pipe in self._pipes:
                pipe.close()
            self._let_go()
        return code

    def _let_go(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            os.close(self._lifeline)
            self._file = self._lifeline = -1

    def _wait_until_ready(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            if self._answer(time.monotonic() + _START_SECONDS) == READY:
                return
        self.kill()
        words = os.read(self._errors, 64 * 1024).decode(errors="replace").split("\n")
        self.end()
        reason = next((line for line in reversed(words) if line.strip()), "it does not answer")
        raise DecoderUnavailable(f"no decoder can be started: {reason}")

    def _answer(self, deadline: float) -> str:
        """The next message of the process."""
        line = bytearray(ANSWER_BYTES)
        self._fill(memoryview(line), deadline)
        return line.decode().strip()

    def _picture(self, answer: str, limits: Limits, deadline: float) -> Image.Image:
        """The pixels that follow an answer: taken in pieces, while the process makes the next ones."""
        mode, width, height = Answer.from_text(answer)
        if mode not in RAW_MODES or not 0 < width * height <= limits.pixels:
            raise ValueError(answer)
        picture = Image.new(mode, (width, height))
        rows = max(1, BAND_BYTES // (4 * width))
        band = memoryview(bytearray(4 * width * rows))
        for top in range(0, height, rows):
            size = (width, min(rows, height - top))
            pixels = band[: 4 * size[0] * size[1]]
            self._fill(pixels, deadline)
            piece = Image.frombytes(mode, size, pixels, "raw", RAW_MODES[mode], 0, 1)
            picture.paste(piece, (0, top))
        return picture

    def _fill(self, space: memoryview, deadline: float) -> None:
        """Read as much as there is space for; raises ``EOFError`` and ``TimeoutError``."""
        while space:
            left = deadline - time.monotonic()
            if left <= 0 or not self._waiting.poll(left * 1000):
                raise TimeoutError
            count = os.readv(self._from, [space])
            if not count:
                raise EOFError
            space = space[count:]


def _file_in_memory() -> int:
    if hasattr(os, "memfd_create"):
        with contextlib.suppress(OSError):  # some containers have none
            return os.memfd_create("uvian-picture")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _widen(pipe: int) -> None:
    """Let the process write ahead, where the system has room for it."""
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with contextlib.suppress(OSError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, BAND_BYTES)


def _environment() -> dict[str, str]:
    """Nothing of ours, but where a Python of this machine finds its libraries.

    Large pieces of memory may come in large pages: a third of the time for a picture of 2048² is
    otherwise the kernel's, for handing them out one by one.
    """
    name = "LD_LIBRARY_PATH"
    inherited = {name: os.environ[name]} if name in os.environ else {}
    return {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"} | inherited
