"""Micro-batching: while one call is in flight, the next one collects.

At rest an item is sent at once; under load many share one round trip. The batcher sends batches, one
at a time, and gives each item its answer. A queue decides what goes into the next batch. A policy decides
what happens when a call fails.
"""

from __future__ import annotations

__all__ = ["Batcher", "BatcherClosed", "Entry", "Failure", "Fifo", "Policy", "Queue", "Verdict"]

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from enum import Enum
from itertools import count
from typing import Generic, NamedTuple, Protocol, TypeVar

from uvian_common.backoff import pause_before
from uvian_common.tasks import cancel_until_done

log = logging.getLogger("uvian.batching")

ItemT = TypeVar("ItemT")
AnswerT = TypeVar("AnswerT")


class BatcherClosed(Exception):
    """The batcher was closed before the item was sent, or before its call was answered."""


class Verdict(Enum):
    """What is done about a call that failed."""

    RETRY = "the same batch again, after a pause"
    HALVE = "each half on its own, until the item that is at fault stands alone"
    GIVE_UP = "every item of the batch gets the error"


class Failure(NamedTuple, Generic[ItemT]):
    """A call that failed."""

    error: Exception
    batch: Sequence[ItemT]  #: its items
    tries: int  #: earlier calls with this batch
    closing: bool  #: the batcher is being closed: whoever closes it waits

    @property
    def is_single(self) -> bool:
        """Whether the batch was one item, which cannot be halved."""
        return len(self.batch) == 1


#: Decides what is done about a failure. ``HALVE`` for a single item is ``GIVE_UP``.
Policy = Callable[[Failure[ItemT]], Verdict]


class Entry(Generic[ItemT, AnswerT]):
    """An item that waits, its size in bytes, and the future of its answer."""

    __slots__ = ("answer", "item", "size")

    def __init__(self, item: ItemT, answer: asyncio.Future[AnswerT]) -> None:
        self.item = item
        self.answer = answer
        self.size = 0

    def resolve(self, answer: AnswerT) -> None:
        """Set the answer, unless the caller has stopped waiting."""
        if not self.answer.done():
            self.answer.set_result(answer)


class Queue(Protocol[ItemT, AnswerT]):
    """What waits for the next call."""

    #: Whether a batch waits for one turn of the loop, so that items that become ready at the same moment
    #: share it. Without, the next batch is sent before anybody has seen the answers of the last.
    gather: bool

    def put(self, entry: Entry[ItemT, AnswerT]) -> None:
        """Add an entry. An error raised here reaches the caller of ``submit``."""
        ...

    def take(self) -> list[Entry[ItemT, AnswerT]]:
        """Remove and return the next batch; it is empty only when nothing waits."""
        ...

    def __iter__(self) -> Iterator[Entry[ItemT, AnswerT]]: ...


class Fifo(Generic[ItemT, AnswerT]):
    """First in, first out; a batch has at most ``max_items`` items and ``max_bytes`` bytes.

    A single item that is larger goes alone. With ``skip_cancelled`` an item whose caller has stopped
    waiting is not sent. ``gather``: see ``Queue``.
    """

    def __init__(
        self,
        max_items: int,
        *,
        max_bytes: int = 0,
        size: Callable[[ItemT], int] | None = None,
        skip_cancelled: bool = False,
        gather: bool = False,
    ) -> None:
        self.gather = gather
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._size = size
        self._skip_cancelled = skip_cancelled
        self._entries: deque[Entry[ItemT, AnswerT]] = deque()

    def put(self, entry: Entry[ItemT, AnswerT]) -> None:
        """Add an entry at the end."""
        if self._size is not None:
            entry.size = self._size(entry.item)
        self._entries.append(entry)

    def take(self) -> list[Entry[ItemT, AnswerT]]:
        """The first entries, as many as the limits allow."""
        batch: list[Entry[ItemT, AnswerT]] = []
        size = 0
        entries = self._entries
        while entries and len(batch) < self._max_items:
            entry = entries[0]
            if self._skip_cancelled and entry.answer.cancelled():
                entries.popleft()
                continue
            size += entry.size
            if batch and size > self._max_bytes > 0:
                break
            batch.append(entries.popleft())
        return batch

    def __iter__(self) -> Iterator[Entry[ItemT, AnswerT]]:
        return iter(self._entries)


def give_up(failure: Failure[ItemT]) -> Verdict:
    """The policy of whoever handles the errors in the call itself."""
    del failure
    return Verdict.GIVE_UP


class Batcher(Generic[ItemT, AnswerT]):
    """Sends batches from a queue, one call at a time; each item gets its own answer.

    ``send`` returns one answer per item, in order. An answer that may be the second for the same item
    passes through ``repeated``: an earlier call was carried out, perhaps, and its reply was lost. With
    ``fallback`` futures carry its value in place of an error. The task that sends lives only as long as
    something waits, so there is nothing to start.
    """

    def __init__(
        self,
        send: Callable[[list[ItemT]], Awaitable[Sequence[AnswerT]]],
        queue: Queue[ItemT, AnswerT],
        *,
        name: str,
        policy: Policy[ItemT] = give_up,
        first_pause: float = 0.05,
        repeated: Callable[[AnswerT], AnswerT] | None = None,
        fallback: Callable[[], AnswerT] | None = None,
        closed: Callable[[str], Exception] = BatcherClosed,
    ) -> None:
        self.name = name
        self._send = send
        self._queue = queue
        self._policy = policy
        self._first_pause = first_pause  #: seconds before the second try; later ones wait longer
        self._repeated = repeated
        self._fallback = fallback
        self._closed = closed
        self._in_flight: Sequence[Entry[ItemT, AnswerT]] = ()
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    def submit(self, item: ItemT) -> asyncio.Future[AnswerT]:
        """Queue an item; the future carries its answer, or its error. Raises what the queue raises."""
        answer: asyncio.Future[AnswerT] = asyncio.get_running_loop().create_future()
        entry = Entry(item, answer)
        if self._closing:
            self._fail([entry], self._closed(f"{self.name}: closed"))
            return answer
        self._queue.put(entry)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(), name=self.name)
        return answer

    @property
    def waiting(self) -> int:
        """How many items have no answer yet."""
        return len(self._unanswered())

    async def flush(self) -> None:
        """Wait until everything submitted so far has its answer."""
        if answers := self._unanswered():
            await asyncio.wait(answers)

    async def close(self, patience: float | None = None) -> None:
        """Take nothing more in, and send what waits for up to ``patience`` seconds; the rest fails.

        Without ``patience`` it waits until the policy gives up what cannot be sent. Closing twice is fine.
        """
        self._closing = True
        if self._task is not None:
            await asyncio.wait([self._task], timeout=patience)
            await cancel_until_done(self._task)
        error = self._closed(f"{self.name}: closed")
        self._fail(self._in_flight, error)
        while rest := self._queue.take():
            self._fail(rest, error)

    async def _run(self) -> None:
        while True:
            if self._queue.gather:
                await asyncio.sleep(0)
            batch = self._queue.take()
            if not batch:
                return
            self._in_flight = batch
            await self._deliver(batch, repeated=False)
            self._in_flight = ()

    async def _deliver(self, batch: Sequence[Entry[ItemT, AnswerT]], *, repeated: bool) -> None:
        items = [entry.item for entry in batch]
        for tries in count():
            try:
                answers = await self._send(items)
                # All or nothing: with an answer missing nobody knows whose the others are.
                pairs = list(zip(batch, answers, strict=True))
            except Exception as error:
                verdict = self._policy(Failure(error, items, tries, self._closing))
                if verdict is Verdict.RETRY:
                    await asyncio.sleep(pause_before(tries, first=self._first_pause))
                    continue
                if verdict is Verdict.HALVE and len(batch) > 1:
                    middle = len(batch) // 2
                    await self._deliver(batch[:middle], repeated=True)
                    await self._deliver(batch[middle:], repeated=True)
                    return
                if self._fallback is not None:
                    log.exception("%s: %d items are lost", self.name, len(batch))
                self._fail(batch, error)
                return
            else:
                self._answer(pairs, repeated=repeated or tries > 0)
                return

    def _answer(
        self, pairs: Sequence[tuple[Entry[ItemT, AnswerT], AnswerT]], *, repeated: bool
    ) -> None:
        for entry, answer in pairs:
            entry.resolve(self._repeated(answer) if repeated and self._repeated else answer)

    def _fail(self, batch: Sequence[Entry[ItemT, AnswerT]], error: Exception) -> None:
        for entry in batch:
            if entry.answer.done():
                continue
            if self._fallback is None:
                entry.answer.set_exception(error)
            else:
                entry.answer.set_result(self._fallback())

    def _unanswered(self) -> list[asyncio.Future[AnswerT]]:
        entries = (*self._in_flight, *self._queue)
        return [entry.answer for entry in entries if not entry.answer.done()]
