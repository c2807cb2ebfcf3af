"""``/v1/jobs``: submit a job, look at it, cancel it, run it again."""

from __future__ import annotations

__all__ = [
    "IdempotencyKey",
    "JobEndpoints",
    "MaxCost",
    "Submitted",
    "TypeName",
    "idempotency_key_of",
]

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, Self
from uuid import UUID

from pydantic import ConfigDict, Field, WithJsonSchema

from repositories.database import Database, Filter, Order, Row
from uvian_worker.client import Client, JobHandle
from uvian_worker.gateway.http.operations import (
    STORABLE,
    Answer,
    Endpoints,
    Operation,
    Parameters,
    Request,
    Shown,
)
from uvian_worker.gateway.http.pagination import Page, PageQuery, page_of
from uvian_worker.gateway.http.problems import Problem
from uvian_worker.gateway.job_types import JobTypes

Status = Literal["queued", "processing", "completed", "failed", "cancelled"]

IdempotencyKey = Annotated[str, Field(min_length=1, max_length=255, pattern=STORABLE)]
TypeName = Annotated[str, Field(min_length=1, max_length=80, pattern=STORABLE)]
MaxCost = Annotated[
    Decimal,
    Field(ge=0, le=10**12, max_digits=20, decimal_places=6),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0, "maximum": 10**12},
                {"type": "string", "pattern": r"^[0-9]{1,14}(\.[0-9]{1,6})?$"},
            ]
        }
    ),
]

_LISTED: Final = (
    "id", "type", "status", "run", "attempt", "stage", "progress", "progress_message", "cost::text",
    "error", "error_message", "result_id", "stages", "created_at", "queued_at", "run_at", "started_at",
    "finished_at", "input",
)  # fmt: skip
_SHOWN: Final = (*_LISTED, "output")
_TEXT_LENGTH: Final = 200  #: characters of a text in a list


class StageTiming(Shown):
    """One stage of the latest run."""

    name: str
    label: str
    status: str
    offset_ms: float | None = None
    """From the claim of the run to the stage's beginning."""
    ms: float


class JobError(Shown):
    """Why a job failed."""

    code: str
    stage: str | None = None
    message: str
    retryable: bool = False
    attempt: int = 0


Plain = str | int | float | bool


class JobSummary(Shown):
    """A job in a list. ``asked`` has the plain fields of its input, with long texts cut."""

    id: UUID
    type: str
    status: Status
    run: int
    attempt: int
    stage: str | None
    progress: float
    progress_message: str | None
    cost: Decimal
    error: JobError | None
    error_message: str | None
    result_id: UUID | None
    stages: list[StageTiming]
    created_at: datetime
    queued_at: datetime
    """When its latest run began to wait."""
    run_at: datetime
    """When its next run may start, while it is queued."""
    started_at: datetime | None
    finished_at: datetime | None
    asked: dict[str, Plain]

    @classmethod
    def of(cls, row: Row) -> Self:
        """A row of ``jobs``."""
        return cls(**row, asked=_plain_fields(row["input"]))


class JobRun(Shown):
    """How one run waited, ran and ended."""

    run: int
    queued_at: datetime
    run_at: datetime
    """Until then it waited on purpose."""
    claimed_at: datetime | None
    """Null: no worker had it."""
    ended_at: datetime
    outcome: str
    status: Status
    """What the job became."""
    attempt: int
    error: JobError | None
    stages: list[StageTiming]
    retried_at: datetime | None


class Job(JobSummary):
    """A job with its input, its output, and its runs that have ended, the oldest first."""

    input: dict[str, Any]
    output: dict[str, Any] | None
    runs: list[JobRun]


class JobPage(Page):
    """Some jobs, the newest first."""

    items: list[JobSummary]


class Submitted(Shown):
    """What became of a request to make, cancel or retry a job."""

    id: UUID
    status: Status
    run: int
    created: bool
    cost: Decimal

    @classmethod
    def of(cls, handle: JobHandle) -> Submitted:
        """As the client answered."""
        return cls(
            id=UUID(handle.id),
            status=handle.status,
            run=handle.run,
            created=handle.created,
            cost=handle.cost,
        )


_EXAMPLE: Final[dict[str, Any]] = {
    "type": "generation",
    "input": {"logo_description": "A fox", "theme_description": "autumn woods", "size": 256},
}


class NewJob(Parameters):
    """A job to be made. The same ``idempotency_key`` of a user makes one job."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    type: TypeName
    input: dict[str, Any] = Field(default_factory=dict)
    idempotency_key: IdempotencyKey | None = None
    max_cost: MaxCost | None = None


class JobPath(Parameters):
    """Which job."""

    job_id: UUID


class JobQuery(PageQuery):
    """Which jobs."""

    status: Status | None = None
    type: TypeName | None = None


class Retry(Parameters):
    """The run that the caller saw: a job that has run since is not run once more."""

    expected_run: Annotated[int, Field(ge=1, lt=2**63)]


_CREATE_PROBLEMS: Final = (
    "type_not_open", "unknown_type", "type_disabled", "not_allowed", "not_found",
    "insufficient_credits", "too_many_queued", "cost_exceeds_max", "idempotency_conflict",
)  # fmt: skip
_RETRY_PROBLEMS: Final = (
    "not_found", "not_retryable", "type_not_open", "unknown_type", "type_disabled", "not_allowed",
    "input_too_large", "insufficient_credits", "too_many_queued",
)  # fmt: skip


class JobEndpoints(Endpoints, tag="jobs"):
    """The handlers. Whatever a path names is looked for among the user's own rows."""

    def __init__(self, database: Database, client: Client, types: JobTypes) -> None:
        self._database = database
        self._client = client
        self._types = types

    @Operation(
        "createJob",
        "POST",
        "/v1/jobs",
        body=NewJob,
        answers={201: Submitted, 200: Submitted},
        names="job_id",
        problems=_CREATE_PROBLEMS,
    )
    async def create(self, request: Request[Any, Any, NewJob]) -> Answer:
        """Submit a job; 200 and the existing job if the idempotency key was used before."""
        key = idempotency_key_of(request)
        of_type = await self._types.require_open(request.user, request.body.type)
        of_type.require_valid(request.body.input, "input")
        made = await self._client.submit(
            request.user.id,
            request.body.type,
            request.body.input,
            idempotency_key=key,
            max_cost=request.body.max_cost,
            door=request.user.door,
        )
        return Answer(
            Submitted.of(made),
            status=201 if made.created else 200,
            headers={"Location": f"/v1/jobs/{made.id}"},
        )

    @Operation("listJobs", "GET", "/v1/jobs", query=JobQuery, answers={200: JobPage})
    async def list(self, request: Request[Any, JobQuery, Any]) -> Answer:
        """Your jobs, the newest first."""
        wanted = {
            "user_id": request.user.id,
            "status": request.query.status,
            "type": request.query.type,
        }
        where = [Filter(name, "eq", value) for name, value in wanted.items() if value is not None]
        rows, cursor = await page_of(
            self._database, "jobs", columns=_LISTED, where=where, query=request.query
        )
        return Answer(JobPage(items=[JobSummary.of(row) for row in rows], next_cursor=cursor))

    @Operation(
        "getJob",
        "GET",
        "/v1/jobs/{job_id}",
        path=JobPath,
        answers={200: Job},
        problems=("not_found",),
    )
    async def get(self, request: Request[JobPath, Any, Any]) -> Answer:
        """One job, with stages and timings."""
        row = await self._find(request)
        runs = await self._database.select(
            "job_runs",
            columns=tuple(JobRun.model_fields),
            where=[Filter("job_id", "eq", row["id"])],
            order=[Order("run")],
        )
        return Answer(Job.of({**row, "runs": runs}))

    @Operation(
        "cancelJob",
        "POST",
        "/v1/jobs/{job_id}/cancel",
        path=JobPath,
        answers={200: Submitted},
        problems=("not_found",),
    )
    async def cancel(self, request: Request[JobPath, Any, Any]) -> Answer:
        """Cancel a job: at once while it waits, within a second while it runs."""
        job_id = str(request.path.job_id)
        return Answer(Submitted.of(await self._client.cancel(job_id, user_id=request.user.id)))

    @Operation(
        "retryJob",
        "POST",
        "/v1/jobs/{job_id}/retry",
        path=JobPath,
        body=Retry,
        answers={200: Submitted},
        problems=_RETRY_PROBLEMS,
    )
    async def retry(self, request: Request[JobPath, Any, Retry]) -> Answer:
        """Run a failed or cancelled job again."""
        job_id, run = str(request.path.job_id), request.body.expected_run
        again = await self._client.retry(
            job_id, expected_run=run, user_id=request.user.id, door=request.user.door
        )
        return Answer(Submitted.of(again))

    async def _find(self, request: Request[JobPath, Any, Any]) -> Row:
        rows = await self._database.select(
            "jobs",
            columns=_SHOWN,
            where=[
                Filter("id", "eq", str(request.path.job_id)),
                Filter("user_id", "eq", request.user.id),
            ],
        )
        if not rows:
            raise Problem("not_found", "There is no such job.")
        return rows[0]


def idempotency_key_of(request: Request[Any, Any, Any]) -> str | None:
    """Of the header ``Idempotency-Key`` or the body; raises ``Problem`` when they differ."""
    header, body = request.headers.get("Idempotency-Key"), request.body.idempotency_key
    if header is not None and body is not None and header != body:
        raise Problem("bad_request", "The Idempotency-Key header and the body's key differ.")
    key = body or header
    if key is not None and (len(key) > 255 or not key.isprintable()):
        raise Problem("bad_request", "An idempotency key has at most 255 printable characters.")
    return key or None


def _plain_fields(job_input: Mapping[str, Any]) -> dict[str, Plain]:
    return {
        name: value[:_TEXT_LENGTH] if isinstance(value, str) else value
        for name, value in job_input.items()
        if isinstance(value, Plain)
    }
