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
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

from PIL import Image

from executors.imaging.decoder import Decoder, DecoderUnavailable, Ended
from executors.imaging.reading import LIMITS, Limits, UnsafeImageError, check_length

_ATTEMPTS = 2  # a process may have been ended by somebody else
_TOO_LONG: Final = (-signal.SIGPROF, -signal.SIGXCPU)


class Decoders:
    """As many processes as are needed at a time, and never more than ``size``.

    While all of them are busy, pictures wait in order. One user has half of the processes at most: hostile
    pictures delay their own user. Safe to be used by many threads and event loops.
    """

    def __init__(self, size: int | None = None) -> None:
        self.size = size or min(os.cpu_count() or 1, 4)
        self.share = max(1, self.size // 2)  #: of one user
        self._threads = ThreadPoolExecutor(self.size, thread_name_prefix="uvian-decoder")
        self._lock = threading.Lock()
        self._idle: list[Decoder] = []  # the last one used comes first: the others may go
        self._waiting: list[_Task] = []
        self._running: list[_Task] = []
        self._closed = False

    @property
    def idle(self) -> tuple[int, ...]:
        """Process ids of those that wait for a picture."""
        with self._lock:
            return tuple(decoder.pid for decoder in self._idle)

    async def decode(
        self, content: bytes, limits: Limits = LIMITS, *, user_id: str | None = None
    ) -> Image.Image:
        """The picture in ``content``: upright, ``RGB`` or ``RGBA``; raises ``UnsafeImageError``.

        A cancellation kills the process at once. ``user_id`` is the picture's user; a picture without one
        counts in no share. Raises ``DecoderUnavailable`` when no process can be started.
        """
        task = self._asked(content, limits, user_id)
        try:
            return await asyncio.wrap_future(task.future)
        except asyncio.CancelledError:
            with self._lock:
                if task in self._waiting:
                    self._waiting.remove(task)
            task.give_up()
            raise

    def decode_blocking(self, content: bytes, limits: Limits = LIMITS) -> Image.Image:
        """The same, for a thread that may wait."""
        return self._asked(content, limits, None).future.result()

    def close(self) -> None:
        """End all processes, and what they are at. Closing twice is fine."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            waiting, self._waiting = self._waiting, []
            running = tuple(self._running)
        for task in waiting:
            task.future.cancel()
        for task in running:
            task.give_up()
        for decoder in idle:
            decoder.end()
        self._threads.shutdown()

    # --- whose turn it is ------------------------------------------------------------------------

    def _asked(self, content: bytes, limits: Limits, user_id: str | None) -> _Task:
        check_length(content, limits)
        task = _Task(content, limits, user_id)
        with self._lock:
            if self._closed:
                raise DecoderUnavailable("the decoders are closed")
            self._waiting.append(task)
            self._begin_what_can()
        return task

    def _begin_what_can(self) -> None:
        """In order, except for users who have their share already. Called with the lock."""
        for task in tuple(self._waiting):
            if len(self._running) == self.size:
                return
            if task.user_id is not None and self._of(task.user_id) >= self.share:
                continue
            self._waiting.remove(task)
            if task.future.set_running_or_notify_cancel():
                self._running.append(task)
                self._threads.submit(self._run, task)

    def _of(self, user_id: str) -> int:
        return sum(task.user_id == user_id for task in self._running)

    def _run(self, task: _Task) -> None:
        try:
            picture = self._decoded(task)
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            self._end(task)
            task.future.set_exception(error)
        else:
            self._end(task)
            task.future.set_result(picture)

    def _end(self, task: _Task) -> None:
        with self._lock:
            self._running.remove(task)
            if not self._closed:
                self._begin_what_can()

    # --- one picture -----------------------------------------------------------------------------

    def _decoded(self, task: _Task) -> Image.Image:
        for _ in range(_ATTEMPTS):
            try:
                with self._borrowed(task) as decoder:
                    return decoder.decode(task.content, task.limits)
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
        decoder = self._idle_one() or Decoder()
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
                keep = usable and not (task.given_up or self._closed)
                if keep:
                    self._idle.append(decoder)
            if not keep:
                decoder.end()

    def _idle_one(self) -> Decoder | None:
        while True:
            with self._lock:
                decoder = self._idle.pop() if self._idle else None
            if decoder is None or decoder.alive:
                return decoder
            decoder.end()


class _Task:
    """A picture that waits for a process or is in one: it can be given up at any moment."""

    def __init__(self, content: bytes, limits: Limits, user_id: str | None) -> None:
        self.content = content
        self.limits = limits
        self.user_id = user_id
        self.future: Future[Image.Image] = Future()
        self.given_up = False
        self._lock = threading.Lock()
        self._decoder: Decoder | None = None

    def begin(self, decoder: Decoder) -> None:
        """This process has it now. Raises ``Ended`` when its caller has given up."""
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


#: The default. Its processes end with this one.
DECODERS: Final = Decoders()
atexit.register(DECODERS.close)
