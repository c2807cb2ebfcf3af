"""Foreign bytes are decoded in processes of their own, which may be killed.

A picture can be made to cost minutes, gigabytes, or a crash inside a library. Here it costs a process
that has limits on CPU time and memory, and holds nothing of ours: no settings, no keys, no files, no
connections. Other jobs do not notice. The processes are started when there is something to decode, serve
many pictures, and go when they have had nothing to do for a minute.
"""

from __future__ import annotations

__all__ = ["DECODERS", "Decoders"]

import asyncio
import atexit
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

from PIL import Image

from executors.imaging.decoder import Decoder, DecoderUnavailable, Ended
from executors.imaging.reading import LIMITS, Limits, UnsafeImageError, check_length

_ATTEMPTS = 2  # a process may have been ended by somebody else
_TOO_LONG: Final = (-signal.SIGPROF, -signal.SIGXCPU)


class Decoders:
    """As many processes as are needed at a time, and never more than ``size``.

    What comes while all of them are busy waits its turn. Safe to be used by many threads and event loops.
    """

    def __init__(self, size: int | None = None) -> None:
        self.size = size or min(os.cpu_count() or 1, 4)
        self._slots = threading.BoundedSemaphore(self.size)
        self._threads = ThreadPoolExecutor(self.size, thread_name_prefix="uvian-decoder")
        self._lock = threading.Lock()
        self._idle: list[Decoder] = []  # the last one used comes first: the others may go
        self._tasks: set[_Task] = set()
        self._closed = False

    @property
    def idle(self) -> tuple[int, ...]:
        """Process ids of those that wait for a picture."""
        with self._lock:
            return tuple(decoder.pid for decoder in self._idle)

    async def decode(self, content: bytes, limits: Limits = LIMITS) -> Image.Image:
        """The picture in ``content``: upright, ``RGB`` or ``RGBA``; raises ``UnsafeImageError``.

        Cancelled, it kills the process at once. Raises ``DecoderUnavailable`` when none can be started.
        """
        check_length(content, limits)
        task = _Task()
        future = self._threads.submit(self._decoded, content, limits, task)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            task.give_up()
            raise

    def decode_blocking(self, content: bytes, limits: Limits = LIMITS) -> Image.Image:
        """The same, for a thread that may wait."""
        check_length(content, limits)
        return self._decoded(content, limits, _Task())

    def close(self) -> None:
        """End all processes, and what they are at. Closing twice is fine."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            tasks = tuple(self._tasks)
        for task in tasks:
            task.give_up()
        for decoder in idle:
            decoder.end()
        self._threads.shutdown(cancel_futures=True)

    def _decoded(self, content: bytes, limits: Limits, task: _Task) -> Image.Image:
        with self._slots:
            for _ in range(_ATTEMPTS):
                try:
                    with self._borrowed(task) as decoder:
                        return decoder.decode(content, limits)
                except Ended as ended:
                    if ended.code in _TOO_LONG:
                        raise UnsafeImageError(
                            "decoding the image takes more time than is allowed"
                        ) from None
                    if task.given_up:
                        raise
        raise UnsafeImageError("the image cannot be decoded within the limits")

    @contextmanager
    def _borrowed(self, task: _Task) -> Iterator[Decoder]:
        """A process for one picture: kept for others unless it has ended, or its picture was given up."""
        decoder = self._take(task)
        usable = False
        try:
            task.begin(decoder)
            yield decoder
            usable = True
        except UnsafeImageError:
            usable = True
            raise
        finally:
            task.finish()
            with self._lock:
                self._tasks.discard(task)
                keep = usable and not (task.given_up or self._closed)
                if keep:
                    self._idle.append(decoder)
            if not keep:
                decoder.end()

    def _take(self, task: _Task) -> Decoder:
        found: Decoder | None = None
        gone = []
        with self._lock:
            if self._closed:
                raise DecoderUnavailable("the decoders are closed")
            self._tasks.add(task)
            while self._idle and found is None:
                decoder = self._idle.pop()
                if decoder.alive:
                    found = decoder
                else:
                    gone.append(decoder)
        for decoder in gone:
            decoder.end()
        return found or self._started(task)

    def _started(self, task: _Task) -> Decoder:
        try:
            return Decoder()
        except BaseException:
            with self._lock:
                self._tasks.discard(task)
            raise


class _Task:
    """A picture that waits for a process or is in one: it can be given up at any moment."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._decoder: Decoder | None = None
        self.given_up = False

    def begin(self, decoder: Decoder) -> None:
        """This process has it now. Raises ``Ended`` when nobody wants it any more."""
        with self._lock:
            if self.given_up:
                raise Ended(0)
            self._decoder = decoder

    def finish(self) -> None:
        """From now on the process has others."""
        with self._lock:
            self._decoder = None

    def give_up(self) -> None:
        """Kill the process that has it."""
        with self._lock:
            self.given_up = True
            if self._decoder is not None:
                self._decoder.kill()


#: Where nobody has brought others. Its processes end with this one.
DECODERS: Final = Decoders()
atexit.register(DECODERS.close)
