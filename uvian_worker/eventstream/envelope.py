"""The envelope around each event, and the cursor that names its place in a topic.

``{id, key, seq, type, topic, at, job_id, run, attempt, data}``: ``id`` is the cursor, ``key`` is
the same in every topic the event is appended to, ``data`` are the fields of the event's class.
"""

from __future__ import annotations

__all__ = ["Append", "Cursor", "Envelope", "now_text", "prepare"]

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple, Self

import orjson

from executors.events import (
    ENDINGS,
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

_CURSOR = re.compile(r"([0-9a-z]{1,16})-([0-9]{1,15})-([0-9a-z]{1,16})", re.ASCII)


class Cursor(NamedTuple):
    """A place in a topic: ``<epoch>-<seq>-<check>``. Opaque to clients, who only hand it back."""

    epoch: str
    seq: int
    check: str

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The cursor in ``text``; None for anything that never was one."""
        match = _CURSOR.fullmatch(text)
        return cls(match[1], int(match[2]), match[3]) if match else None

    def __str__(self) -> str:
        return f"{self.epoch}-{self.seq}-{self.check}"


@dataclass(frozen=True, slots=True)
class Envelope:
    """One event as it stands in a topic."""

    id: str  #: the topic's cursor: hand it back to go on after this event
    seq: int  #: position in the topic, from 1, without gaps
    topic: str  #: `job:<id>`, `user:<id>` or `conversation:<id>`
    key: str  #: the same in every topic the event is in: what you have seen already
    type: str  #: one of the types below
    at: str  #: when it happened, ISO 8601, UTC
    job_id: str | None  #: null where no job caused it
    run: int  #: which run of the job; grows with every run
    attempt: int  #: how many attempts of the job have burned
    data: dict[str, Any]  #: the fields of its type

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """The envelope in a message or a log entry; fields of a newer release are left out."""
        document = orjson.loads(raw)
        return cls(*(document[name] for name in _NAMES))

    @property
    def cursor(self) -> Cursor:
        """``id``, parsed."""
        cursor = Cursor.parse(self.id)
        assert cursor is not None, f"{self.id!r} is no cursor"  # noqa: S101 — our own writing
        return cursor

    @property
    def ends_job(self) -> bool:
        """Whether nothing of this run can follow."""
        return self.type in ENDINGS


_NAMES = ("id", "seq", "topic", "key", "type", "at", "job_id", "run", "attempt", "data")


class Append(NamedTuple):
    """What ``append.lua`` needs to know of one event, in its order."""

    kind: str  #: how a repetition is recognised: n(umbered), end, once, queued, credits
    job_id: str
    run: int
    mark: str | int  #: the number, or what stands for it
    first: str  #: topic
    second: str  #: topic, or empty
    effect: str  #: what it does to the state so far
    field: str  #: on which field of the state, or which message
    offset: str | int  #: where a delta begins
    text: str  #: what a delta adds, or a snapshot sets
    body: bytes  #: the envelope from ``key`` on


def prepare(job: JobRef, event: Event, number: int, *, at: str | None = None) -> Append:
    """Encode an event; ``number`` grows with every event of the process.

    Raises ``TypeError`` for what JSON cannot hold.
    """
    kind, mark, suffix = _identity(job, event, number)
    effect, field, offset, text = _effect(event)
    topics = [topic for topic in event.audience.topics(job) if topic != "conversation:None"]
    document = {
        "key": suffix if kind == "credits" else f"{job.id}:{job.run}:{suffix}",
        "type": event.type,
        "at": at or now_text(),
        "job_id": job.id or None,
        "run": job.run,
        "attempt": job.attempt,
        "data": event,
    }
    body = orjson.dumps(document, default=str, option=orjson.OPT_NON_STR_KEYS)[1:]
    return Append(
        kind,
        job.id,
        job.run,
        mark,
        topics[0],
        topics[1] if len(topics) > 1 else "",
        effect,
        field,
        offset,
        text,
        body,
    )


def now_text() -> str:
    """Now, as envelopes write it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def _identity(job: JobRef, event: Event, number: int) -> tuple[str, str | int, str]:
    """Kind, mark and the last part of the key: two tellings of one fact must be recognised.

    Endings and what belongs to them are told by the worker, and again by the sweeper of any
    process; only the rest comes from one process alone, in order, and is numbered.
    """
    match event:
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
        case MessageStarted(message_id=message):
            return "start", message, "", ""
        case MessageDelta(message_id=message, offset=offset, text=text):
            return "delta", message, offset, text
        case MessageSnapshot(message_id=message, text=text):
            return "text", message, "", text
        case MessageReset(message_id=message) | MessageCompleted(message_id=message):
            return "drop", message, "", ""
        case _:
            return "", "", "", ""
