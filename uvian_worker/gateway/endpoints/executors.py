"""``/v1/executors`` and ``/v1/cost``: which types of jobs there are, what they take and cost."""

from __future__ import annotations

__all__ = ["ExecutorEndpoints"]

from decimal import Decimal
from typing import Any

from pydantic import Field

from repositories.database import Database
from uvian_worker.gateway.endpoints.jobs import TypeName
from uvian_worker.gateway.http.operations import (
    Answer,
    Endpoints,
    Operation,
    Parameters,
    Request,
    Shown,
)
from uvian_worker.gateway.job_types import JobTypes


class Executor(Shown):
    """A type of job that is open to you."""

    type: str
    input_schema: dict[str, Any]
    """JSON Schema of a job's `input`."""
    max_input_bytes: int
    models: list[str] | None
    """Models that may be requested, the first by default; null: as the provider has them."""
    max_tokens: int | None
    """Of an answer, at most; null: as the provider has it."""
    price: Decimal
    """Credits, at most; 0 is free."""
    timeout_seconds: float
    max_attempts: int


class Executors(Shown):
    """The types that are open to you, by name."""

    items: list[Executor]


class CostQuestion(Parameters):
    """A job that might be made."""

    type: TypeName
    input: dict[str, Any] = Field(default_factory=dict)


class Cost(Shown):
    """Credits that would be reserved."""

    cost: Decimal


class ExecutorEndpoints(Endpoints, tag="executors"):
    """The handlers. A type that is not open to the user is not shown."""

    def __init__(self, database: Database, types: JobTypes) -> None:
        self._database = database
        self._types = types

    @Operation("listExecutors", "GET", "/v1/executors", answers={200: Executors})
    async def list(self, request: Request[Any, Any, Any]) -> Answer:
        """The job types that are open to you, with the JSON Schema of their inputs."""
        found = [t for t in await self._types.all() if t.enabled and t.is_open_to(request.user)]
        return Answer(Executors(items=[Executor.model_validate(each) for each in found]))

    @Operation(
        "calculateCost",
        "POST",
        "/v1/cost",
        body=CostQuestion,
        reads=True,
        answers={200: Cost},
        problems=("type_not_open", "unknown_type", "type_disabled"),
    )
    async def cost(self, request: Request[Any, Any, CostQuestion]) -> Answer:
        """What a job would cost; creates nothing."""
        of_type = await self._types.require_open(request.user, request.body.type)
        of_type.require_valid(request.body.input, "input")
        amount = await self._database.call(
            "calculate_cost", type=request.body.type, input=request.body.input
        )
        return Answer(Cost(cost=Decimal(str(amount))))
