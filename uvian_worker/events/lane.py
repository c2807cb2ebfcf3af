"""A lane: while one call is in flight the next one collects.

At rest an item leaves at once; under load many share one round trip. What is sent is decided by the
buffer, how it is sent by the owner.
"""

from __future__ import annotations

__all__ = ["Buffer", "Entry", "Fifo", "Lane"]

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Generic, Protocol, TypeVar

from uvian_common.tasks import cancel_until_done

log = logging.getLogger(__name__)

ItemT = TypeVar("ItemT")
AnswerT = TypeVar("AnswerT")


class Entry(Generic[ItemT, AnswerT]):
    """An item that waits, and the future of its answer."""

    __slots__ = ("answer", "item")

    def __init__(self, item: ItemT, answer: asyncio.Future[AnswerT]) -> None:
        self.item = item
        self.answer = answer

    def resolve(self, answer: AnswerT) -> None:
        """Answer, unless whoever asked has stopped waiting."""
        if not self.answer.done():
            self.answer.set_result(answer)


class Buffer(Protocol[ItemT, AnswerT]):
    """What waits for the next call."""

    def put(self, entry: Entry[ItemT, AnswerT]) -> None:
        """Add an entry."""
        ...

    def take(self) -> list[Entry[ItemT, AnswerT]]:
        """Remove and answer what goes into the next call; empty when nothing waits."""
        ...

    def __iter__(self) -> Iterator[Entry[ItemT, AnswerT]]: ...


class Fifo(Generic[ItemT, AnswerT]):
    """The plain buffer: first in, first out, at most ``limit`` in one call."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: deque[Entry[ItemT, AnswerT]] = deque()

    def put(self, entry: Entry[ItemT, AnswerT]) -> None:
        """Add an entry at the end."""
        self._entries.append(entry)

    def take(self) -> list[Entry[ItemT, AnswerT]]:
        """The first entries."""
        count = min(self._limit, len(self._entries))
        return [self._entries.popleft() for _ in range(count)]

    def __iter__(self) -> Iterator[Entry[ItemT, AnswerT]]:
        return iter(self._entries)


class Lane(Generic[ItemT, AnswerT]):
    """Calls ``send`` with batches from the buffer, one at a time.

    Futures carry answers, never exceptions: where ``send`` raises, the answer is ``lost``. The task
    that sends lives only as long as something waits, so there is nothing to start.
    """

    def __init__(
        self,
        send: Callable[[list[ItemT]], Awaitable[Sequence[AnswerT]]],
        buffer: Buffer[ItemT, AnswerT],
        *,
        lost: AnswerT,
        name: str,
    ) -> None:
        self._send = send
        self._buffer = buffer
        self._lost = lost
        self._name = name
        self._in_flight: list[Entry[ItemT, AnswerT]] = []
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def submit(self, item: ItemT) -> asyncio.Future[AnswerT]:
        """Queue an item and answer at once with the future of its answer; after ``close``: lost."""
        answer: asyncio.Future[AnswerT] = asyncio.get_running_loop().create_future()
        if self._closed:
            answer.set_result(self._lost)
            return answer
        self._buffer.put(Entry(item, answer))
        self.wake()
        return answer

    def wake(self) -> None:
        """Make sure that what is in the buffer will be sent."""
        if not self._closed and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._run(), name=self._name)

    @property
    def waiting(self) -> int:
        """How many items have no answer yet."""
        return len(self._open())

    async def flush(self) -> None:
        """Wait until everything submitted so far has been answered."""
        if answers := self._open():
            await asyncio.wait(answers)

    async def close(self, patience: float = 0.0) -> None:
        """Send what waits for up to ``patience`` seconds; the rest is lost. Twice is fine."""
        if self._task is not None and patience > 0:
            await asyncio.wait([self._task], timeout=patience)
        self._closed = True
        if self._task is not None:
            await cancel_until_done(self._task)
        self._lose(self._in_flight)
        while rest := self._buffer.take():
            self._lose(rest)

    async def _run(self) -> None:
        while entries := self._buffer.take():
            self._in_flight = entries
            try:
                answers = await self._send([entry.item for entry in entries])
                for entry, answer in zip(entries, answers, strict=True):
                    entry.resolve(answer)
            except Exception:
                log.exception("%s: %d items are lost", self._name, len(entries))
                self._lose(entries)
            self._in_flight = []

    def _open(self) -> list[asyncio.Future[AnswerT]]:
        return [entry.answer for entry in (*self._in_flight, *self._buffer)]

    def _lose(self, entries: list[Entry[ItemT, AnswerT]]) -> None:
        for entry in entries:
            entry.resolve(self._lost)
