"""All that the author of an executor needs: ``BaseExecutor``, ``JobContext`` and the ports behind it."""

from __future__ import annotations

__all__ = [
    "BaseExecutor",
    "EventSink",
    "Job",
    "JobContext",
    "JobInput",
    "JobServices",
    "PartialResult",
    "Stage",
    "complaint",
]

import asyncio
import builtins
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar, Final, Generic, Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from executors.errors import LeaseLost, StageError
from executors.events import Appended, Event, JobProgress, JobRef, StageFinished, StageStarted
from executors.fetching import Fetcher
from executors.imaging.codec import DECODERS, LIMITS, Decoders, Limits
from executors.partial_result import PartialResult
from executors.providers.base import ChatModel, ImageModel
from repositories.concepts import UserConcepts
from repositories.conversations import UserConversations
from repositories.images import UserImages
from repositories.messages import UserMessages
from uvian_common.text import storable

log = logging.getLogger("uvian.executors")


class EventSink(Protocol):
    """Where facts go."""

    def emit(self, job: JobRef, event: Event) -> asyncio.Future[Appended]:
        """Queue one fact, in order, without blocking; the future may be ignored."""
        ...


class JobInput(BaseModel):
    """Base of input models: what is not declared is refused."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True, frozen=True)


def complaint(error: ValidationError) -> str:
    """The first complaint, in plain words, with the field's name and without the value."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    kind, said = str(first["type"]), str(first["msg"]).removeprefix("Value error, ")
    if kind.endswith("_parsing"):
        said = said.partition(", ")[0].partition(": ")[
            0
        ]  # the position at which a parser stopped is of no use
    if kind == "json_invalid":
        return f"Invalid input: {field or 'it'} cannot be read."
    if not field:
        return f"Invalid input: {said.removesuffix('.')}."
    if kind in _PLAIN:
        return f"Invalid input: {_PLAIN[kind].format(field)}."
    if said.startswith(("Input should", "String should", "Value should", "List should")):
        return f"Invalid input: {field} {said.partition(' ')[2].removesuffix('.')}."
    return f"Invalid input: {field}: {said.removesuffix('.')}."


#: Pydantic writes these for programmers.
_PLAIN: Final = {
    "extra_forbidden": "{} is no field of this type",
    "missing": "{} is missing",
    "string_pattern_mismatch": "{} is not of the form that it has to be",
    "string_unicode": "{} has characters that are none",
}


InputT = TypeVar("InputT", bound=BaseModel)
OutputT = TypeVar("OutputT", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class JobServices:
    """What an executor may use. Rows and files are those of the job's user, and no others."""

    concepts: UserConcepts
    images: UserImages
    image_model: ImageModel
    conversations: UserConversations
    messages: UserMessages
    chat_model: ChatModel
    fetcher: Fetcher  #: for what is at a URL; there is no other way to it
    image_limits: Limits = LIMITS  #: what a picture from outside may be, and may cost
    decoders: Decoders = DECODERS  #: for what is in its bytes; there is no other way to it
    history_tokens: int = 8_000  #: of a conversation, sent along with a question


@dataclass(frozen=True, slots=True)
class Job:
    """The job's identity and standing."""

    id: str
    user_id: str
    type: str
    run: int
    attempt: int  #: attempts burned before this run
    max_attempts: int
    created_at: str  #: ISO 8601
    parent_id: str | None = None

    def ref(self, conversation_id: str | None = None) -> JobRef:
        """How events name it."""
        return JobRef(self.id, self.user_id, self.run, self.attempt, conversation_id)


@dataclass(slots=True)
class Track:
    """What has happened in this run so far: the mutable part of a context, read by lease renewals."""

    began: float = field(
        default_factory=time.perf_counter
    )  #: what the offsets of stages count from
    progress: float = 0.0
    message: str | None = None
    stage: str | None = None
    stages: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[dict[str, Any]] = field(default_factory=list)
    done: float = 0.0  #: weights of the stages that have finished
    open: dict[str, float] = field(default_factory=dict)  #: weighted fraction of those that run
    conversation_id: str | None = None  #: where message events go
    partial_result: Callable[[], PartialResult] = PartialResult  #: if the run ended now


@dataclass(frozen=True, slots=True)
class Stage:
    """A named part of a job, while it runs."""

    name: str
    label: str
    weight: float
    _report: Callable[[str, float, str | None], None]

    def progress(self, fraction: float, message: str | None = None) -> None:
        """How far this stage is, 0 to 1; the job's own progress follows by the stage's weight."""
        self._report(self.name, min(max(fraction, 0.0), 1.0) * self.weight, message)


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class JobContext(Generic[InputT]):
    """One run of one job, as its executor sees it."""

    job: Job
    input: InputT
    services: JobServices
    checkpoints: Mapping[str, Any]  #: what earlier runs saved
    _emit: Callable[[Event], asyncio.Future[Appended]]
    _save: Callable[[dict[str, Any]], Awaitable[bool]]
    track: Track = field(default_factory=Track)
    #: Whether another run follows although this one is stopped: nobody has given the job up.
    comes_back: Callable[[], bool] = _never

    def emit(self, event: Event) -> asyncio.Future[Appended]:
        """Publish an event."""
        return self._emit(event)

    def progress(self, fraction: float, message: str | None = None) -> None:
        """How far the job is, 0 to 1. It never falls within a run."""
        self.track.progress = max(self.track.progress, min(max(fraction, 0.0), 1.0))
        self.track.message = storable(message) if message else self.track.message
        self.emit(
            JobProgress(
                fraction=round(self.track.progress, 4),
                message=self.track.message,
                stage=self.track.stage,
            )
        )

    def enter(self, conversation_id: str) -> None:
        """From now on message events go to this conversation: first make sure it is the user's."""
        self.track.conversation_id = conversation_id

    def set_partial_result(self, partial_result: Callable[[], PartialResult]) -> None:
        """What the run leaves behind if it completes or is cancelled; it is called at that moment.

        After every other outcome nothing is left behind, because another run begins anew.
        """
        self.track.partial_result = partial_result

    def warn(self, code: str, message: str, **details: Any) -> None:
        """Something went wrong that the job survives; it is listed in the output's ``warnings``."""
        log.warning("job %s run %s: %s: %s", self.job.id, self.job.run, code, message)
        self.track.warnings.append({"code": code, "message": storable(message), **details})

    async def checkpoint(self, **values: Any) -> None:
        """Save JSON values that a later run finds in ``checkpoints``.

        Raises ``LeaseLost`` when another worker has the job: nothing more may be paid for.
        """
        if not await self._save(values):
            raise LeaseLost

    @asynccontextmanager
    async def stage(
        self, name: str, *, weight: float, label: str | None = None
    ) -> AsyncIterator[Stage]:
        """Time a part of the job, publish its events, and name it in an error that escapes (``StageError``).

        ``weight`` is its share of the whole, 0 to 1; stages may overlap.
        """
        stage = Stage(name, label or name.replace("_", " ").capitalize(), weight, self._advance)
        began = time.perf_counter()
        self.track.stage = name
        self.track.open[name] = 0.0
        self.emit(StageStarted(stage=name, label=stage.label))
        try:
            yield stage
        except asyncio.CancelledError:
            self._finish(stage, began, "cancelled")
            raise
        except LeaseLost:
            self._finish(stage, began, "cancelled")
            raise
        except Exception as error:
            self._finish(stage, began, "failed")
            if isinstance(error, StageError):
                raise
            raise StageError(name, error, label=stage.label) from error
        else:
            self._finish(stage, began, "completed")

    def _advance(self, stage: str, weighted: float, message: str | None) -> None:
        self.track.open[stage] = max(self.track.open.get(stage, 0.0), weighted)
        self.track.stage = stage
        self.progress(self.track.done + sum(self.track.open.values()), message)

    def _finish(
        self, stage: Stage, began: float, status: Literal["completed", "failed", "cancelled"]
    ) -> None:
        ms = round((time.perf_counter() - began) * 1000, 1)
        offset = round((began - self.track.began) * 1000, 1)
        self.track.open.pop(stage.name, None)
        self.track.stages.append(
            {
                "name": stage.name,
                "label": stage.label,
                "status": status,
                "offset_ms": offset,
                "ms": ms,
            }
        )
        self.emit(StageFinished(stage=stage.name, label=stage.label, status=status, ms=ms))
        if status == "completed":
            self.track.done += stage.weight
            self.progress(self.track.done + sum(self.track.open.values()))


class BaseExecutor(ABC, Generic[InputT, OutputT]):
    """One type of job. An instance serves all jobs of the process: keep no job's state in it.

    ``execute`` returns the output, or raises one of ``executors.errors`` (anything else counts as
    a bug and is retried up to ``max_attempts``). It may be cancelled at any ``await``; it may run
    again after a crash, so what is expensive goes into a checkpoint, and what it writes carries an
    id derived from the job.
    """

    type: ClassVar[str]
    Input: ClassVar[builtins.type[BaseModel]]
    Output: ClassVar[builtins.type[BaseModel]]
    timeout: ClassVar[timedelta] = timedelta(minutes=5)
    max_attempts: ClassVar[int] = 3

    @abstractmethod
    async def execute(self, job: JobContext[InputT]) -> OutputT:
        """Do the job."""

    async def open(self) -> None:
        """Called once per process before the first job."""

    async def close(self) -> None:
        """Called once per process after the last job."""

    def result_id(self, output: OutputT) -> str | None:
        """The id of the row the job made, for ``jobs.result_id``."""
        value = getattr(output, "result_id", None)
        return None if value is None else str(value)
