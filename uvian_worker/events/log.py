"""Appends to the event log, whoever writes: the engine below the publisher, and all an API needs.

Imports nothing of the work: a team's own code may have a package named ``executors``.
"""

from __future__ import annotations

__all__ = [
    "LOG_LUA",
    "Appender",
    "EventLog",
    "answer_id",
    "credits_changed",
    "ending_told",
    "job_ended",
]

import asyncio
import hashlib
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Generic, TypeVar
from uuid import UUID

import orjson
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from uvian_common.batching import Batcher, Entry, Failure, Verdict
from uvian_worker.events.envelope import Append, Cursor, Envelope, encode, time_text
from uvian_worker.redis.connection import Line, RedisAway, Script
from uvian_worker.redis.keys import conversation_topic, job_topic, user_topic

log = logging.getLogger(__name__)

#: The first part of every script that appends.
LOG_LUA = Path(__file__).with_name("log.lua")
_APPEND = Script.of(LOG_LUA, Path(__file__).with_name("append.lua"))

_BATCH_EVENTS = 75  #: in one call; Redis serves nobody else meanwhile (4 ms)
_BATCH_BYTES = 256 * 1024

#: What the script says of an event.
_ANSWERS = ("appended", "duplicate", "fenced", "sealed", "mismatch")

AnswerT = TypeVar("AnswerT", bound=str)


class EventLog(Generic[AnswerT]):
    """Appends in the order of ``submit``, many in one call.

    While Redis is away events wait, up to ``limit`` of them: then the oldest progress goes first,
    the oldest of the rest next, balances after them, and endings never. A job's progress that
    waits is replaced by newer. Answers are ``appended``, ``duplicate``, ``fenced``, ``sealed``,
    ``mismatch`` or ``lost``, as ``answer`` (an enum of these) makes them.
    """

    def __init__(
        self,
        redis: Redis,
        namespace: str,
        *,
        answer: Callable[[str], AnswerT],
        limit: int = 20_000,
    ) -> None:
        self._line = Line(redis, namespace)
        self._lost = answer("lost")
        self._answers = {word.encode(): answer(word) for word in _ANSWERS}
        self._queue: _EventQueue[AnswerT] = _EventQueue(limit, lost=self._lost)
        self._batcher = Batcher(
            self._append,
            self._queue,
            name="event log",
            policy=_policy,
            first_pause=0.02,
            repeated=self._repeated,
            fallback=lambda: self._lost,
        )

    async def close(self, patience: float = 5.0) -> None:
        """Deliver what waits for up to ``patience`` seconds; the rest is lost. Twice is fine."""
        await self._batcher.close(patience)
        await self._line.close()

    def submit(self, item: Append) -> asyncio.Future[AnswerT]:
        """Queue an event; never blocks, and the future never carries an exception."""
        return self._batcher.submit(item)

    async def flush(self) -> None:
        """Wait until everything submitted so far has its answer."""
        await self._batcher.flush()

    @property
    def waiting(self) -> int:
        """How many events have no answer yet."""
        return self._batcher.waiting

    async def _append(self, items: list[Append]) -> Sequence[AnswerT]:
        arguments = [value for item in items for value in item]
        answers = await self._line.call(_APPEND, *arguments)
        return [self._answers[word] for word in answers]

    def _repeated(self, answer: AnswerT) -> AnswerT:
        """After a reply that was lost, a duplicate is our own event."""
        return self._answers[b"appended"] if answer == "duplicate" else answer


def _policy(failure: Failure[Append]) -> Verdict:
    """Retried until Redis has carried it out: the script recognises repetitions."""
    if isinstance(failure.error, RedisAway):
        return Verdict.RETRY
    if isinstance(failure.error, ResponseError):
        if failure.is_single:
            log.error(
                "Redis refuses an event of job %s: %s", failure.batch[0].job_id, failure.error
            )
        return Verdict.HALVE
    return Verdict.GIVE_UP


class Appender(EventLog[str]):
    """An ``EventLog`` that answers in words, for an API."""

    def __init__(self, redis: Redis, namespace: str, *, limit: int = 20_000) -> None:
        super().__init__(redis, namespace, answer=str, limit=limit)


def credits_changed(account: Mapping[str, Any]) -> Append:
    """``credits.changed`` from an account as the database answers it: user_id, balance, …, version."""
    user_id, version = account["user_id"], account["version"]
    data = {name: account[name] for name in ("balance", "reserved", "version")}
    body = encode(f"{user_id}:credits:{version}", "credits.changed", ("", 0, 0), data)
    return Append("credits", "", 0, version, user_topic(user_id), "", "", "", "", "", body)


def job_ended(row: Mapping[str, Any]) -> list[Append]:
    """The ending of a job as the database tells it (``_ending`` in SQL), what became of its answer first."""
    job = (row["id"], row["run"], row["attempt"])
    key = f"{row['id']}:{row['run']}:end"
    body = encode(key, f"job.{row['status']}", job, _ending_data(row))
    topics = job_topic(row["id"]), user_topic(row["user_id"])
    end = Append("end", row["id"], row["run"], "", *topics, "keep", "status", "", "", body)
    return [end] if row["conversation_id"] is None else [_answer_ended(row), end]


def ending_told(row: Mapping[str, Any], topic: str, after: str) -> Envelope:
    """The ending of a job whose events are gone, as nobody appended it: after this place of its topic.

    ``row`` is one of ``endings_of``. Its id continues no log: who comes back with it is told the state.
    """
    place = Cursor.parse(after) or Cursor("0", 0, "0")
    document = orjson.loads(b"{" + job_ended(row)[-1].body)
    finished = row.get("finished_at")
    at = time_text(datetime.fromisoformat(finished)) if finished else document["at"]
    here = place._replace(seq=place.seq + 1, check="0")
    return Envelope(**{**document, "id": str(here), "seq": here.seq, "topic": topic, "at": at})


def _answer_ended(row: Mapping[str, Any]) -> Append:
    """What an API tells of is a chat that ended in the queue: without an answer, or with an old one."""
    job = (row["id"], row["run"], row["attempt"])
    message = row["message"]
    name = message["id"] if message else answer_id(row["id"])
    if message:
        fields = ("role", "status", "length", "sha256", "text")
        kind, effect, data = "message.completed", "done", {f: message[f] for f in fields}
    else:
        kind, effect, data = "message.reset", "drop", {"final": True}
    body = encode(
        f"{row['id']}:{row['run']}:message:{name}", kind, job, {"message_id": name, **data}
    )
    topics = conversation_topic(row["conversation_id"]), job_topic(row["id"])
    return Append("once", row["id"], row["run"], name, *topics, effect, name, "", "", body)


def answer_id(job_id: str) -> str:
    """The id of the message that a chat stores, as ``uvian._answer_id`` in SQL; a test compares them."""
    digest = bytearray(hashlib.sha256(UUID(job_id).bytes + b"answer").digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x80
    digest[8] = digest[8] & 0x3F | 0x80
    return str(UUID(bytes=bytes(digest)))


def _ending_data(row: Mapping[str, Any]) -> dict[str, Any]:
    common = {"stages": row["stages"] or [], "cost": row["cost"]}
    match row["status"]:
        case "completed":
            return {"output": row["output"], "result_id": row["result_id"], **common}
        case "failed":
            return {
                "error": row["error"] or {},
                "error_message": row["error_message"] or "",
                **common,
            }
        case _:
            return common


class _EventQueue(Generic[AnswerT]):
    """What waits to be appended, bounded; of a job's progress only the newest waits."""

    def __init__(self, limit: int, *, lost: AnswerT) -> None:
        self._limit = limit
        self._room = limit  #: more than this many are too many
        self._lost = lost
        self._entries: deque[Entry[Append, AnswerT]] = deque()
        self._progress: dict[str, Entry[Append, AnswerT]] = {}  #: of each job, the one that waits
        self._replaced: set[Entry[Append, AnswerT]] = set()

    def put(self, entry: Entry[Append, AnswerT]) -> None:
        if entry.item.field == "progress":
            self._coalesce(entry)
        self._entries.append(entry)
        if len(self._entries) > self._room:
            self._shrink()

    def take(self) -> list[Entry[Append, AnswerT]]:
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
            # Both callers learn what became of the newer one.
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
        """Make room by a tenth, so that this is paid seldom: progress first, endings never.

        Balances go before endings: the next one of the same user says all that they said. Where only
        endings are left there is no room to make; then it is tried again a tenth later.
        """
        entries = [entry for entry in self._entries if self._leave(entry)]
        surplus = len(entries) - self._limit * 9 // 10
        for droppable in (_is_progress, _is_ordinary, _is_balance):
            kept = []
            for entry in entries:
                if surplus > 0 and droppable(entry):
                    entry.resolve(self._lost)
                    surplus -= 1
                else:
                    kept.append(entry)
            entries = kept
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
