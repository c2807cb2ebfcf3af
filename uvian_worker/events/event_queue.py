"""The events that wait for Redis: bounded; of a job's progress only the newest waits."""

from __future__ import annotations

__all__ = ["EventQueue"]

import asyncio
from collections import deque
from collections.abc import Iterator
from typing import Any, Final, Generic, TypeVar

from uvian_common.batching import Entry
from uvian_worker.events.append import Append

AnswerT = TypeVar("AnswerT")

#: Of one call; Redis serves nobody else meanwhile (4 ms).
_BATCH_EVENTS: Final = 75
_BATCH_BYTES: Final = 256 * 1024


class EventQueue(Generic[AnswerT]):
    """The queue of the event log's batcher.

    With more than ``limit`` events the oldest progress is dropped first, the oldest of the rest next,
    balances after them, and terminal events never.
    """

    gather = False  #: Redis works while the answers of the last batch are seen

    def __init__(self, limit: int, *, lost: AnswerT) -> None:
        self._limit = limit
        self._room = limit  #: with more than this many there is something to drop
        self._lost = lost
        self._entries: deque[Entry[Append, AnswerT]] = deque()
        self._progress: dict[str, Entry[Append, AnswerT]] = {}  #: of each job, the one that waits
        self._replaced: set[Entry[Append, AnswerT]] = set()

    def put(self, entry: Entry[Append, AnswerT]) -> None:
        """Add an event; it replaces older progress of its job."""
        if entry.item.field == "progress":
            self._coalesce(entry)
        self._entries.append(entry)
        if len(self._entries) > self._room:
            self._shrink()

    def take(self) -> list[Entry[Append, AnswerT]]:
        """The first events, as many as one call carries."""
        batch: list[Entry[Append, AnswerT]] = []
        size = 0
        while self._entries and len(batch) < _BATCH_EVENTS and size < _BATCH_BYTES:
            entry = self._entries.popleft()
            if self._leave(entry):
                batch.append(entry)
                size += len(entry.item.body)
        self._room = max(self._limit, min(self._room, len(self._entries) + self._limit // 10))
        return batch

    def __iter__(self) -> Iterator[Entry[Append, AnswerT]]:
        return iter(self._entries)

    def _coalesce(self, entry: Entry[Append, AnswerT]) -> None:
        older = self._progress.get(entry.item.job_id)
        if older is not None and older.item.run == entry.item.run:
            self._replaced.add(older)
            # Both callers get what became of the newer one.
            entry.answer.add_done_callback(lambda newer: older.resolve(self._answer_of(newer)))
        self._progress[entry.item.job_id] = entry

    def _leave(self, entry: Entry[Append, AnswerT]) -> bool:
        """Whether an entry that left the queue is still worth sending."""
        if entry in self._replaced:
            self._replaced.remove(entry)
            return False
        if self._progress.get(entry.item.job_id) is entry:
            del self._progress[entry.item.job_id]
        return True

    def _shrink(self) -> None:
        """Drop a tenth, so that this is done seldom.

        Balances go before terminal events: the next one of the same user repeats all of them. Where only
        terminal events are left nothing can be dropped; then it is tried again a tenth later.
        """
        entries = [entry for entry in self._entries if self._leave(entry)]
        surplus = len(entries) - self._limit * 9 // 10
        for droppable in (_is_progress, _is_ordinary, _is_balance):
            remaining = []
            for entry in entries:
                if surplus > 0 and droppable(entry):
                    entry.resolve(self._lost)
                    surplus -= 1
                else:
                    remaining.append(entry)
            entries = remaining
        self._entries = deque(entries)
        self._progress = {e.item.job_id: e for e in entries if _is_progress(e)}
        self._room = max(self._limit, len(entries) + self._limit // 10)

    def _answer_of(self, future: asyncio.Future[AnswerT]) -> AnswerT:
        return self._lost if future.cancelled() else future.result()


def _is_progress(entry: Entry[Append, Any]) -> bool:
    return entry.item.field == "progress"


def _is_ordinary(entry: Entry[Append, Any]) -> bool:
    return entry.item.kind not in {"end", "once", "credits"}


def _is_balance(entry: Entry[Append, Any]) -> bool:
    return entry.item.kind == "credits"
