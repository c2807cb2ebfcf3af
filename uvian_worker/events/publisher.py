"""The executors' ``EventSink`` on Redis."""

from __future__ import annotations

__all__ = ["Publisher", "prepare"]

import asyncio
import logging

from redis.asyncio import Redis

from executors.events import (
    ENDINGS,
    Appended,
    Audience,
    CreditsChanged,
    Event,
    ImageReady,
    JobProgress,
    JobQueued,
    JobRef,
    JobRequeued,
    JobStarted,
    MessageCompleted,
    MessageDelta,
    MessageReset,
    MessageSnapshot,
    MessageStarted,
    StageFinished,
    StageStarted,
)
from uvian_worker.events.envelope import Append, encode
from uvian_worker.events.log import EventLog

log = logging.getLogger(__name__)


class Publisher:
    """Appends events in the order they are emitted; see ``EventLog`` for what happens without Redis."""

    def __init__(self, redis: Redis, namespace: str, *, limit: int = 20_000) -> None:
        self._log = EventLog(redis, namespace, answer=Appended, limit=limit)
        self._number = 0

    async def close(self, patience: float = 5.0) -> None:
        """Deliver what waits for up to ``patience`` seconds; the rest is lost. Twice is fine."""
        await self._log.close(patience)

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
        return self._log.submit(item)

    async def flush(self) -> None:
        """Wait until everything emitted so far has its answer."""
        await self._log.flush()

    @property
    def waiting(self) -> int:
        """How many events have no answer yet."""
        return self._log.waiting


def prepare(job: JobRef, event: Event, number: int) -> Append:
    """Encode an event; ``number`` grows with every event of the process.

    Raises ``TypeError`` for what JSON cannot hold.
    """
    kind, mark, suffix = _identity(job, event, number)
    effect, field, offset, text = _effect(event)
    topics = [topic for topic in event.audience.topics(job) if topic != "conversation:None"]
    key = suffix if kind == "credits" else f"{job.id}:{job.run}:{suffix}"
    body = encode(key, event.type, (job.id, job.run, job.attempt), event)
    first, second = topics if len(topics) > 1 else (topics[0], "")
    return Append(kind, job.id, job.run, mark, first, second, effect, field, offset, text, body)


def _identity(job: JobRef, event: Event, number: int) -> tuple[str, str | int, str]:
    """Kind, mark and the last part of the key: two tellings of one fact must be recognised.

    Endings and what belongs to them are told by the worker, and again by the sweeper of any
    process; only the rest comes from one process alone, in order, and is numbered.
    """
    match event:
        case MessageDelta():  # first, for there are many
            return "n", number, str(number)
        case _ if event.type in ENDINGS:
            return "end", "", "end"
        case JobQueued() | JobRequeued():
            return "queued", "", "queued"
        case MessageCompleted(message_id=message) | MessageReset(message_id=message, final=True):
            return "once", message, f"message:{message}"
        case CreditsChanged(version=version):
            return "credits", version, f"{job.user_id}:credits:{version}"
        case _:
            return "n", number, str(number)


def _effect(event: Event) -> tuple[str, str, str | int, str]:  # noqa: PLR0911 — a table
    """Effect, field, offset and text: what the state so far becomes."""
    if event.audience is Audience.CONVERSATION:
        return _effect_on_message(event)
    match event:
        case JobQueued() | JobRequeued() | JobStarted():
            return "begin", "status", "", ""
        case _ if event.type in ENDINGS:
            return "keep", "status", "", ""
        case JobProgress():
            return "keep", "progress", "", ""
        case StageStarted(stage=stage) | StageFinished(stage=stage):
            return "keep", f"stage:{stage}", "", ""
        case ImageReady(kind=kind, index=index):
            return "keep", f"image:{kind}:{index}", "", ""
        case _:
            return "", "", "", ""


def _effect_on_message(event: Event) -> tuple[str, str, str | int, str]:
    match event:
        case MessageDelta(message_id=message, offset=offset, text=text):
            return "delta", message, offset, text
        case MessageStarted(message_id=message):
            return "start", message, "", ""
        case MessageSnapshot(message_id=message, text=text):
            return "text", message, "", text
        case MessageReset(message_id=message):
            return "drop", message, "", ""
        case MessageCompleted(message_id=message):
            return "done", message, "", ""
        case _:
            return "", "", "", ""
