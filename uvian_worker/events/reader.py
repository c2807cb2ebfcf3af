"""Reads topics: once, from a cursor, or as long as something happens.

Never a silent gap: what cannot be continued is answered by the state so far, or by ``Expired``.
"""

from __future__ import annotations

__all__ = ["READ_SCRIPT", "EndedJobs", "Expired", "Merge", "Reader", "Resume", "Snapshot"]

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
from redis.asyncio import Redis

from uvian_common.backoff import pause_before
from uvian_worker.events.envelope import Cursor, Envelope, now_text
from uvian_worker.events.subscriptions import STALE, Subscriptions
from uvian_worker.events.terminal_events import terminal_envelope
from uvian_worker.redis.connection import FAULTS, Script, run_script
from uvian_worker.redis.keys import Keys

log = logging.getLogger(__name__)

READ_SCRIPT = Script.of(Path(__file__).with_name("read.lua"))
_PAGE = 1_000
_TOO_FAR = "-"  #: a cursor that nobody issued: it is answered with the state so far
_RUN_SCOPED = ("progress", "stage:")
_DOUBT_SECONDS = 60.0  #: of a silent job, until its row is read: it may have ended

#: Returns the rows of those of these jobs that have ended, as ``terminal_events_of`` in SQL.
EndedJobs = Callable[[list[str]], Awaitable[Sequence[Mapping[str, Any]]]]


@dataclass(frozen=True, slots=True)
class Resume:
    """All events after the cursor: nothing is missing."""

    topic: str
    events: tuple[Envelope, ...]
    cursor: str  #: follow from here
    ended: bool  #: the job has ended: in this run nothing will follow


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The cursor cannot be continued; ``state`` replaces what was known.

    Its envelopes are applied like events, in order: of a job the latest status, progress, each
    stage and each image; of a message in flight its start (if known) and a ``message.snapshot``
    with the text so far. Messages that are complete are rows.
    """

    topic: str
    state: tuple[Envelope, ...]
    cursor: str
    ended: bool


@dataclass(frozen=True, slots=True)
class Expired:
    """The log does not reach back far enough: read the row, and follow from ``cursor``.

    ``state`` is what no row has, of messages in flight: as in a snapshot, if it is known. Of a job
    that has ended, and whose row was read, the last one is its terminal event.
    """

    topic: str
    cursor: str
    ended: bool
    state: tuple[Envelope, ...] = ()


class Merge:
    """Joins what was read with what is received, by seq."""

    def __init__(self) -> None:
        self._epoch = ""
        self._seq = 0

    def jump(self, cursor: str) -> None:
        """Everything up to ``cursor`` is known."""
        position = Cursor.parse(cursor)
        if position is not None:
            self._epoch, self._seq = position.epoch, position.seq

    def knows(self, position: Cursor) -> bool:
        """Whether the event of this position was seen already."""
        return position.epoch == self._epoch and position.seq <= self._seq

    def continues(self, position: Cursor) -> bool:
        """Whether this is the position of the very next event; if so it is known from now on."""
        if position.epoch != self._epoch or position.seq != self._seq + 1:
            return False
        self._seq = position.seq
        return True


class Reader:
    """Reads and follows topics. Any number of followers share one pub/sub connection.

    With ``ended_jobs`` the terminal event of a job comes from its row where the log has lost it.
    A reader that is behind by more than ``most`` bytes gets the state so far instead.
    """

    def __init__(
        self,
        redis: Redis,
        namespace: str,
        *,
        subscriptions: Subscriptions | None = None,
        silence: float = 15.0,
        ended_jobs: EndedJobs | None = None,
        doubt: float = _DOUBT_SECONDS,
        most: int | None = None,
    ) -> None:
        self._redis = redis
        self._ended_jobs = ended_jobs
        self._doubt = doubt
        self._most = most
        self._keys = Keys(namespace)
        self._subscriptions = subscriptions or Subscriptions(redis)
        self._silence = silence
        # After a restart of Redis every follower reads at once, each on a connection of the pool.
        self._reads = asyncio.Semaphore(8)

    async def close(self) -> None:
        """End the shared connection. Closing twice is fine."""
        await self._subscriptions.close()

    async def read(self, topic: str, cursor: str | None = None) -> Resume | Snapshot | Expired:
        """What happened in a topic after ``cursor``; without one, everything or the state so far.

        A cursor nobody issued is treated like one that cannot be continued.
        """
        events: list[Envelope] = []
        size = 0
        while True:
            answer, more, read = await self._page(topic, cursor)
            if not isinstance(answer, Resume):
                return answer
            size += read
            if self._most is not None and size > self._most:
                return (await self._page(topic, _TOO_FAR))[0]
            events.extend(answer.events)
            if not more:
                return Resume(topic, tuple(events), answer.cursor, answer.ended)
            cursor = events[-1].id

    async def follow(
        self, topic: str, cursor: str | None = None
    ) -> AsyncIterator[Envelope | Snapshot | Expired]:
        """Every event after ``cursor``, as it happens; ends after the terminal event of a job's topic.

        After a ``Snapshot`` forget what you knew; after ``Expired`` read the row. Waits while
        Redis is away and goes on where it was.
        """
        merge = Merge()
        known = cursor or ""
        doubted = time.monotonic()
        async with self._subscriptions.listen(self._keys.channel(topic)) as inbox:
            while True:
                received = await inbox.get(self._silence)
                if received is not STALE:
                    envelope = Envelope.parse(received)
                    position = envelope.cursor
                    if merge.knows(position):
                        continue
                    if merge.continues(position):
                        known = envelope.id
                        yield envelope
                        if envelope.ends_job and topic.startswith("job:"):
                            return
                        continue
                doubt = time.monotonic() - doubted >= self._doubt
                answer = await self.read_patiently(topic, known, doubt=doubt)
                doubted = time.monotonic() if doubt else doubted
                for event in answer.events if isinstance(answer, Resume) else (answer,):
                    yield event
                known = answer.cursor
                merge.jump(known)
                if answer.ended:
                    return

    async def read_patiently(
        self, topic: str, cursor: str, *, doubt: bool = False
    ) -> Resume | Snapshot | Expired:
        """Like ``read``, but waits while Redis is away; an empty cursor is none.

        A job whose log lacks a terminal event is looked up where the log begins in the middle, or
        in ``doubt``.
        """
        answer = await self._read_patiently(topic, cursor)
        kind, _, job_id = topic.partition(":")
        if answer.ended or kind != "job" or self._ended_jobs is None:
            return answer
        if not (doubt or isinstance(answer, Expired)):
            return answer
        try:
            rows = await self._ended_jobs([job_id])
        except Exception as error:  # noqa: BLE001 - it is tried again after some silence
            log.debug("Cannot look up job %s (%s)", job_id, error)
            return answer
        return _ended(answer, rows[0]) if rows else answer

    async def _read_patiently(self, topic: str, cursor: str) -> Resume | Snapshot | Expired:
        tries = 0
        while True:
            try:
                async with self._reads:
                    return await self.read(topic, cursor or None)
            except FAULTS as error:
                log.debug("Cannot read %s (%s); trying again", topic, error)
                await asyncio.sleep(pause_before(tries))
                tries += 1

    async def _page(
        self, topic: str, cursor: str | None
    ) -> tuple[Resume | Snapshot | Expired, bool, int]:
        """An answer, whether there is more of it, and how many bytes it has."""
        arguments = (self._keys.namespace, topic, cursor or "", _PAGE, secrets.token_hex(8))
        kind, last, ended, more, run, entries = await run_script(
            self._redis, READ_SCRIPT, *arguments
        )
        position = _text(last)
        match _text(kind):
            case "resume":
                events = tuple(Envelope.parse(entry) for entry in entries)
                size = sum(len(entry) for entry in entries)
                return Resume(topic, events, position, bool(ended)), bool(more), size
            case "snapshot":
                state = _state(topic, position, int(run), entries)
                return Snapshot(topic, state, position, bool(ended)), False, 0
            case _:
                state = _state(topic, position, int(run), entries)
                return Expired(topic, position, bool(ended), state), False, 0


def _ended(
    answer: Resume | Snapshot | Expired, row: Mapping[str, Any]
) -> Resume | Snapshot | Expired:
    """The answer, with a terminal event that its log lacks."""
    terminal = terminal_envelope(row, answer.topic, answer.cursor)
    if isinstance(answer, Resume):
        return replace(answer, events=(*answer.events, terminal), cursor=terminal.id, ended=True)
    return replace(answer, state=(*answer.state, terminal), cursor=terminal.id, ended=True)


def _state(topic: str, cursor: str, run: int, entries: list[bytes]) -> tuple[Envelope, ...]:
    """The envelopes of a snapshot, in the order they were appended."""
    fields = {_text(key): value for key, value in zip(entries[::2], entries[1::2], strict=True)}
    state: list[Envelope] = []
    for field, raw in fields.items():
        if field.startswith("text:"):
            continue
        envelope = Envelope.parse(raw) if raw else None
        # Progress of an earlier run is void; its images are still there.
        if envelope and not (field.startswith(_RUN_SCOPED) and envelope.run < run):
            state.append(envelope)
    state.sort(key=lambda envelope: envelope.seq)
    for field, raw in fields.items():
        if field.startswith("text:"):
            start = fields.get(f"message:{field[5:]}")
            state.append(_text_so_far(topic, cursor, field[5:], raw, start))
    return tuple(state)


def _text_so_far(
    topic: str, cursor: str, message_id: str, text: bytes, start: bytes | None
) -> Envelope:
    """A ``message.snapshot`` that nobody appended: what a newcomer would have put together."""
    started: dict[str, Any] = orjson.loads(start) if start else {}
    position = Cursor.parse(cursor)
    return Envelope(
        id=cursor,
        seq=position.seq if position else 0,
        topic=topic,
        key=f"{message_id}:text:{cursor}",
        type="message.snapshot",
        at=now_text(),
        job_id=started.get("job_id"),
        run=started.get("run", 0),
        attempt=started.get("attempt", 0),
        data={"message_id": message_id, "text": text.decode()},
    )


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
