"""Inside a decoder process: requests on the standard input, answers and pixels on the standard output,
the foreign bytes in a file in memory that both sides have.

Before it reads the first request, the process gives up what it does not need: it can open no file and no
connection, and write only to its owner. For each picture it limits its own CPU time and memory, and the
kernel ends it beyond them. It ends with its owner, in the middle of a picture too.
"""

from __future__ import annotations

__all__ = ["ANSWER_BYTES", "BAND_BYTES", "RAW_MODES", "READY", "Answer", "Request", "serve"]

import contextlib
import fcntl
import math
import os
import resource
import select
import signal
import time
import warnings
from pathlib import Path
from typing import Final, NamedTuple, Self

from PIL import (  # noqa: F401 - what Pillow would import when it meets such a picture, too late
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from executors.imaging.reading import Limits, UnsafeImageError, read

READY: Final = "ready"
ANSWER_BYTES: Final = 256
BAND_BYTES: Final = 256 * 1024  #: of pixels that are moved at a time

_IN, _OUT, _ERRORS, _FILE, _LIFELINE = range(5)  # file descriptors: there are no others
_IDLE_SECONDS = 60.0  # then it goes; the next picture starts another
#: How Pillow keeps pixels of these modes: moved without a change.
RAW_MODES: Final = {"RGB": "RGBX", "RGBA": "RGBA"}


class Request(NamedTuple):
    """One picture to be decoded: how large its file is, and what it may be."""

    size: int
    most_bytes: int
    most_pixels: int
    longest_side: int
    seconds: float
    formats: str

    @classmethod
    def of(cls, content: bytes, limits: Limits) -> Self:
        """For a file that the process finds in the shared memory."""
        formats = ",".join(limits.formats)
        return cls(len(content), limits.bytes, limits.pixels, limits.side, limits.seconds, formats)

    def line(self) -> bytes:
        """As it is sent."""
        return " ".join(map(str, self)).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Self:
        """As it was sent."""
        *numbers, seconds, formats = line.decode().split()
        size, most_bytes, most_pixels, longest_side = map(int, numbers)
        return cls(size, most_bytes, most_pixels, longest_side, float(seconds), formats)

    def limits(self) -> Limits:
        """What the picture may be."""
        return Limits(
            bytes=self.most_bytes,
            pixels=self.most_pixels,
            side=self.longest_side,
            seconds=self.seconds,
            formats=tuple(self.formats.split(",")),
        )


class Answer(NamedTuple):
    """The picture whose pixels follow, row by row as in ``RAW_MODES``."""

    mode: str
    width: int
    height: int

    @classmethod
    def from_text(cls, text: str) -> Self:
        """As it was sent."""
        mode, width, height = text.split()
        return cls(mode, int(width), int(height))


def serve(file: int, lifeline: int) -> None:
    """Answer requests until there are none; ``file`` holds the bytes of their pictures.

    ``lifeline`` is a pipe that nobody writes to: it ends with the owner.

    An answer has ``ANSWER_BYTES``: ``<mode> <width> <height>``, then come the pixels, or ``! <why not>``.
    """
    warnings.simplefilter("ignore")
    Image.preinit()
    own = _own_memory()
    _confine(file, lifeline)
    _end_with_the_owner()
    _say(READY)
    while line := _next_request():
        request = Request.from_line(line)
        _allow_memory(own, request.limits())
        _serve(request)
        _allow_seconds(0)


def _serve(request: Request) -> None:
    limits = request.limits()
    _allow_seconds(limits.seconds_of(0))
    content = os.pread(_FILE, request.size, 0)
    try:
        picture = read(content, limits, lambda pixels: _allow_seconds(limits.seconds_of(pixels)))
    except UnsafeImageError as error:
        _say(f"! {error}")
        return
    _say(f"{picture.mode} {picture.width} {picture.height}")
    rows = max(1, BAND_BYTES // (4 * picture.width))
    for top in range(0, picture.height, rows):
        band = picture.crop((0, top, picture.width, min(top + rows, picture.height)))
        _write(band.tobytes("raw", RAW_MODES[picture.mode]))


def _say(text: str) -> None:
    _write(text.encode()[:ANSWER_BYTES].ljust(ANSWER_BYTES))


def _write(content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(_OUT, rest) :]


def _next_request() -> bytes:
    """A line; nothing when the owner is gone or has had no use for this process for long."""
    readable, _, _ = select.select([_IN], [], [], _IDLE_SECONDS)
    return os.read(_IN, select.PIPE_BUF) if readable else b""


# --- limits --------------------------------------------------------------------------------------


def _confine(file: int, lifeline: int) -> None:
    """Give up, for good, everything that decoding does not need."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, _ERRORS)
    copies = [os.dup(given) for given in (file, lifeline)]  # the numbers may be each other's
    for place, copy in zip((_FILE, _LIFELINE), copies, strict=True):
        os.dup2(copy, place)
    os.closerange(_LIFELINE + 1, max(nothing, file, lifeline, *copies) + 1)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_LIFELINE + 1, _LIFELINE + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _limit(kind: int, value: int) -> None:
    """Set a limit as far as those of the machine allow; the next picture may have another."""
    _, hard = resource.getrlimit(kind)
    soft = hard if value == resource.RLIM_INFINITY else value
    if hard != resource.RLIM_INFINITY:
        soft = min(soft, hard)
    with contextlib.suppress(ValueError, OSError):  # macOS does not limit memory
        resource.setrlimit(kind, (soft, hard))


def _own_memory() -> int:
    """Bytes of address space that the process has before it decodes anything."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return 1 << 30
    return pages * resource.getpagesize()


def _allow_memory(own: int, limits: Limits) -> None:
    Image.MAX_IMAGE_PIXELS = limits.pixels  # Pillow itself refuses twice as many
    _limit(resource.RLIMIT_AS, own + limits.memory)


def _allow_seconds(seconds: float) -> None:
    """CPU time from now on, after which the kernel ends the process; 0 stands for no limit."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    whole = math.ceil(time.process_time() + seconds) + 1  # a second lock, in whole seconds
    _limit(resource.RLIMIT_CPU, whole if seconds else resource.RLIM_INFINITY)


def _end_with_the_owner() -> None:
    """The kernel ends the process when its owner is gone, whatever it is doing.

    By a signal for what happens at a file descriptor: at this one that can only be its end.
    """
    with contextlib.suppress(OSError):  # without it: after the picture
        fcntl.fcntl(_LIFELINE, fcntl.F_SETOWN, os.getpid())
        flags = fcntl.fcntl(_LIFELINE, fcntl.F_GETFL)
        fcntl.fcntl(_LIFELINE, fcntl.F_SETFL, flags | os.O_ASYNC)
