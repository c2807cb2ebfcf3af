"""The facts that happen to a job: a closed set, each named in the past tense.

One class per event type; its fields are the ``data`` of the envelope on the wire. This module is
the only place that names an event type, and ``docs/contracts/events.md`` is generated from it.
"""

from __future__ import annotations

__all__ = [
    "EVENT_TYPES",
    "TERMINAL_TYPES",
    "Appended",
    "Audience",
    "CreditsChanged",
    "Event",
    "ImageReady",
    "JobCancelled",
    "JobCompleted",
    "JobFailed",
    "JobProgress",
    "JobQueued",
    "JobRef",
    "JobRequeued",
    "JobStarted",
    "MessageCompleted",
    "MessageDelta",
    "MessageReset",
    "MessageSnapshot",
    "MessageStarted",
    "StageFinished",
    "StageStarted",
    "requeued",
]

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any, ClassVar, Literal, NamedTuple

from uvian_common.terminal_events import TERMINAL_TYPES


class JobRef(NamedTuple):
    """Whose event it is: enough to address and fence it."""

    id: str
    user_id: str
    run: int
    attempt: int
    conversation_id: str | None = None


class Appended(StrEnum):
    """What became of an event. Never an error: no job fails because nobody could be told."""

    APPENDED = "appended"  #: it is in the log
    DUPLICATE = "duplicate"  #: it was in the log already
    FENCED = "fenced"  #: a later run of the job has written: this one is over
    SEALED = "sealed"  #: the job has ended in this run
    MISMATCH = "mismatch"  #: the delta does not continue the text: send a snapshot first
    LOST = "lost"  #: not delivered; nobody knows


class Audience(Enum):
    """Which topics an event is appended to."""

    JOB = "job:<job id> and user:<user id>"
    USER = "user:<user id>"
    CONVERSATION = "conversation:<conversation id> and job:<job id>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A fact. Subclasses say which."""

    type: ClassVar[str]
    audience: ClassVar[Audience] = Audience.JOB


@dataclass(frozen=True, slots=True, kw_only=True)
class JobQueued(Event):
    """The job waits for a worker (its first run)."""

    type = "job.queued"
    job_type: str  #: `generation`, `chat`, …
    priority: int = 0  #: seconds of head start
    run_at: str | None = None  #: ISO 8601, UTC; null is now


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequeued(Event):
    """The job waits again, for another run."""

    type = "job.requeued"
    job_type: str
    priority: int = 0
    run_at: str | None = None  #: when the next run may start, ISO 8601, UTC; null is now
    #: How the last run ended: `{outcome, attempt, error}`; null where no run did (a claim was refused).
    #: `outcome` is `retry`, `interrupted`, `not_mine`, `worker_lost`, `retried` (by a user) or `manual_edit`.
    reason: dict[str, Any] | None = None


def requeued(row: Mapping[str, Any]) -> tuple[JobRef, JobRequeued]:
    """The event of a run that waits, and of which job, from what the database says to dispatch it.

    Published at once when a run has ended; the dispatch, which may come later, publishes the same.
    """
    return JobRef(row["id"], row["user_id"], row["run"], row["attempt"]), JobRequeued(
        job_type=row["type"],
        priority=row["priority"],
        run_at=row["run_at"] if row["delayed"] else None,
        reason=row["reason"],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStarted(Event):
    """A worker has claimed the job and begins."""

    type = "job.started"
    job_type: str
    worker: str  #: name of the worker process


@dataclass(frozen=True, slots=True, kw_only=True)
class JobProgress(Event):
    """How far the job is."""

    type = "job.progress"
    fraction: float  #: 0 to 1, never falls within a run
    message: str | None = None  #: a short sentence for the user
    stage: str | None = None  #: the stage it speaks of


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCompleted(Event):
    """The job is done; its output is stored. Nothing follows."""

    type = "job.completed"
    output: Any  #: the executor's output; with `warnings` when parts of it went wrong
    result_id: str | None = None  #: id of the row that was made (a concept, a message, …)
    stages: list[dict[str, Any]] = field(default_factory=list)  #: `{name, status, ms}`, in order
    cost: str = "0"  #: credits charged, a decimal number as text


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFailed(Event):
    """The job ended with an error. Nothing follows."""

    type = "job.failed"
    error: dict[str, Any]  #: `{code, stage, message, retryable, attempt}`
    error_message: str  #: one sentence for the user
    stages: list[dict[str, Any]] = field(default_factory=list)
    cost: str = "0"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCancelled(Event):
    """The job was cancelled by its user or an operator. Nothing follows."""

    type = "job.cancelled"
    stages: list[dict[str, Any]] = field(default_factory=list)
    cost: str = "0"  #: what partial results that were kept cost


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStarted(Event):
    """A stage of the job has begun; stages may overlap."""

    type = "stage.started"
    stage: str
    label: str  #: its name for people


@dataclass(frozen=True, slots=True, kw_only=True)
class StageFinished(Event):
    """A stage of the job has ended."""

    type = "stage.finished"
    stage: str
    label: str
    status: Literal["completed", "failed", "cancelled"]
    ms: float  #: how long it took, milliseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageReady(Event):
    """A picture is stored and may be shown, before the job has ended."""

    type = "image.ready"
    kind: Literal["base", "variation"]
    index: int  #: 0 for the base image, the palette's position for a variation
    path: str  #: where the image store keeps it: `<user id>/…`
    width: int  #: pixels
    height: int  #: pixels
    preview: str  #: a `data:` URL of a few hundred bytes to show at once
    palette: list[str] | None = None  #: `#rrggbb` of a variation
    name: str | None = None  #: the palette's name


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageStarted(Event):
    """The assistant begins to answer."""

    type = "message.started"
    audience = Audience.CONVERSATION
    message_id: str  #: of the answer: the same in every run of its job
    conversation_id: str
    role: Literal["assistant"] = "assistant"
    reply_to: str | None = None  #: the question's id


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageDelta(Event):
    """The next piece of the answer."""

    type = "message.delta"
    audience = Audience.CONVERSATION
    message_id: str
    offset: int  #: where the piece begins, in UTF-8 bytes of the message
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageSnapshot(Event):
    """The whole answer so far; replaces what was shown."""

    type = "message.snapshot"
    audience = Audience.CONVERSATION
    message_id: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageReset(Event):
    """The answer so far is void: another run begins it again, or (`final`) there is none."""

    type = "message.reset"
    audience = Audience.CONVERSATION
    message_id: str
    final: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageCompleted(Event):
    """The answer is stored."""

    type = "message.completed"
    audience = Audience.CONVERSATION
    message_id: str
    role: Literal["assistant"]
    status: Literal["completed", "cancelled"]  #: `cancelled`: as far as it was written
    length: int  #: UTF-8 bytes
    sha256: str  #: of those bytes, hexadecimal
    text: str | None = None  #: the text itself up to 64 kB; beyond that, read the row


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditsChanged(Event):
    """The user's account has a new balance."""

    type = "credits.changed"
    audience = Audience.USER
    balance: str  #: what may still be spent, a decimal number as text
    reserved: str  #: what open jobs hold
    version: int  #: grows with every change: show the highest


#: Every event type, by its name on the wire.
EVENT_TYPES: dict[str, type[Event]] = {
    cls.type: cls
    for cls in (
        JobQueued,
        JobRequeued,
        JobStarted,
        JobProgress,
        JobCompleted,
        JobFailed,
        JobCancelled,
        StageStarted,
        StageFinished,
        ImageReady,
        MessageStarted,
        MessageDelta,
        MessageSnapshot,
        MessageReset,
        MessageCompleted,
        CreditsChanged,
    )
}
