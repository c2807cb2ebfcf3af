"""Appends events to the log: the executors' EventSink, on Redis."""

from __future__ import annotations

__all__ = ["LOG_LUA", "Publisher"]

import asyncio
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from executors.events import Appended, Event, JobProgress, JobRef
from uvian_worker.eventstream.connection import Line, RedisAway, Script, backoff
from uvian_worker.eventstream.envelope import Append, prepare
from uvian_worker.eventstream.lane import Entry, Lane

log = logging.getLogger(__name__)

LOG_LUA = Path(__file__).with_name("log.lua")
_APPEND = Script.of(LOG_LUA, Path(__file__).with_name("append.lua"))

_BATCH_EVENTS = 100  #: in one call; Redis serves nobody else meanwhile (3 ms)
_BATCH_BYTES = 256 * 1024
_PROGRESS = JobProgress.type


class Publisher:
    """Appends events in the order they are emitted, many in one call.

    While Redis is away events wait, up to ``limit`` of them: then the oldest progress goes first,
    the oldest of the rest next, and endings never. A job's progress that waits is replaced by
    newer.
    """

    def __init__(self, redis: Redis, namespace: str, *, limit: int = 20_000) -> None:
        self._line = Line(redis, namespace)
        self._lane = Lane(
            self._append, _EventBuffer(limit), lost=Appended.LOST, name="event publisher"
        )
        self._number = 0
        self._away = False

    async def start(self) -> None:
        """Nothing needs to be started; here for symmetry with ``close``."""

    async def close(self, patience: float = 5.0) -> None:
        """Deliver what waits for up to ``patience`` seconds; the rest is lost. Twice is fine."""
        await self._lane.close(patience)
        await self._line.close()

    def emit(self, job: JobRef, event: Event) -> asyncio.Future[Appended]:
        """Queue an event; never blocks, and the future never carries an exception.

        The future stays open while Redis is away: do not let a job wait for it.
        """
        self._number += 1
        try:
            item = prepare(job, event, self._number)
        except TypeError:
            # A fact that JSON cannot hold must not end the job it is told of.
            log.exception("%s of job %s cannot be encoded", event.type, job.id)
            lost: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
            lost.set_result(Appended.LOST)
            return lost
        return self._lane.submit(item)

    async def flush(self) -> None:
        """Wait until everything emitted so far has its answer."""
        await self._lane.flush()

    @property
    def waiting(self) -> int:
        """How many events have no answer yet."""
        return self._lane.waiting

    async def _append(self, items: list[Append]) -> Sequence[Appended]:
        """One call, repeated until Redis has carried it out: the script recognises repetitions."""
        arguments = [value for item in items for value in item]
        pause = 0.02
        repeated = False
        while True:
            try:
                answers = await self._line.call(_APPEND, *arguments)
            except RedisAway as error:
                self._note_away(str(error))
                repeated = True
                pause = await backoff(pause)
            except ResponseError as error:
                return await self._append_halves(items, error)
            else:
                self._note_back()
                return [_settle(answer, repeated=repeated) for answer in answers]

    async def _append_halves(self, items: list[Append], error: ResponseError) -> Sequence[Appended]:
        """Redis refuses something in this batch: find it, so that its neighbours are delivered."""
        if len(items) == 1:
            log.error("Redis refuses an event of job %s: %s", items[0].job_id, error)
            return [Appended.LOST]
        middle = len(items) // 2
        answers = [*await self._append(items[:middle]), *await self._append(items[middle:])]
        return [_settle(answer, repeated=True) for answer in answers]

    def _note_away(self, error: str) -> None:
        if not self._away:
            log.warning("Redis is away (%s); events wait", error)
        self._away = True

    def _note_back(self) -> None:
        if self._away:
            log.info("Redis is back; events go on")
        self._away = False


def _settle(raw: bytes | str, *, repeated: bool) -> Appended:
    answer = Appended(raw.decode() if isinstance(raw, bytes) else raw)
    # After a reply that was lost, a duplicate is our own.
    if repeated and answer is Appended.DUPLICATE:
        return Appended.APPENDED
    return answer


_EventEntry = Entry[Append, Appended]


class _EventBuffer:
    """What waits to be appended, bounded."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: deque[_EventEntry] = deque()
        self._progress: dict[str, _EventEntry] = {}  #: of each job, the one that waits
        self._replaced: set[_EventEntry] = set()

    def put(self, entry: _EventEntry) -> None:
        if entry.item.field == "progress":
            self._coalesce(entry)
        self._entries.append(entry)
        if len(self._entries) > self._limit:
            self._shrink()

    def take(self) -> list[_EventEntry]:
        batch: list[_EventEntry] = []
        size = 0
        while self._entries and len(batch) < _BATCH_EVENTS and size < _BATCH_BYTES:
            entry = self._entries.popleft()
            if self._leave(entry):
                batch.append(entry)
                size += len(entry.item.body)
        return batch

    def __iter__(self) -> Iterator[_EventEntry]:
        return iter(self._entries)

    def _coalesce(self, entry: _EventEntry) -> None:
        older = self._progress.get(entry.item.job_id)
        if older is not None and older.item.run == entry.item.run:
            self._replaced.add(older)
            # Both callers learn what became of the newer one.
            entry.answer.add_done_callback(lambda newer: older.resolve(_answer_of(newer)))
        self._progress[entry.item.job_id] = entry

    def _leave(self, entry: _EventEntry) -> bool:
        """Whether an entry that left the queue is still worth sending."""
        if entry in self._replaced:
            self._replaced.remove(entry)
            return False
        if self._progress.get(entry.item.job_id) is entry:
            del self._progress[entry.item.job_id]
        return True

    def _shrink(self) -> None:
        """Make room by a tenth, so that this is paid seldom: progress first, endings never."""
        entries = [entry for entry in self._entries if self._leave(entry)]
        surplus = len(entries) - self._limit * 9 // 10
        for droppable in (_is_progress, _is_no_ending):
            kept = []
            for entry in entries:
                if surplus > 0 and droppable(entry):
                    entry.resolve(Appended.LOST)
                    surplus -= 1
                else:
                    kept.append(entry)
            entries = kept
        self._entries = deque(entries)
        self._progress = {e.item.job_id: e for e in entries if _is_progress(e)}


def _answer_of(future: asyncio.Future[Appended]) -> Appended:
    return Appended.LOST if future.cancelled() else future.result()


def _is_progress(entry: _EventEntry) -> bool:
    return entry.item.field == "progress"


def _is_no_ending(entry: _EventEntry) -> bool:
    return entry.item.kind not in {"end", "once", "credits"}
