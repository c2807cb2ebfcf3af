"""``/v1/executors`` and ``/v1/cost``: which types of jobs there are, what they take and cost."""

from __future__ import annotations

__all__ = ["executor_operations"]

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from pydantic import Field

from repositories.database import Database
from uvian_worker.gateway.endpoints.jobs import TypeName
from uvian_worker.gateway.http.operations import Answer, Operation, Parameters, Request, Shown
from uvian_worker.gateway.job_types import JobTypes


class Executor(Shown):
    """A type of job that is open to you."""

    type: str
    input_schema: dict[str, Any]
    """JSON Schema of a job's `input`."""
    max_input_bytes: int
    models: list[str] | None
    """Models that may be asked for, the first by default; null: as the provider has them."""
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


def executor_operations(database: Database, types: JobTypes) -> Sequence[Operation]:
    """The endpoints of types."""

    async def list_open(request: Request[Any, Any, Any]) -> Answer:
        found = [t for t in await types.all() if t.enabled and t.is_open_to(request.user)]
        return Answer(Executors(items=[Executor.model_validate(each) for each in found]))

    async def cost(request: Request[Any, Any, CostQuestion]) -> Answer:
        of_type = await types.require_open(request.user, request.body.type)
        of_type.require_valid(request.body.input, "input")
        amount = await database.call(
            "calculate_cost", type=request.body.type, input=request.body.input
        )
        return Answer(Cost(cost=Decimal(str(amount))))

    return (
        Operation(
            id="listExecutors",
            method="GET",
            route="/v1/executors",
            summary="The job types that are open to you, with the JSON Schema of their inputs",
            tag="executors",
            handle=list_open,
            answers={200: Executors},
        ),
        Operation(
            id="calculateCost",
            method="POST",
            route="/v1/cost",
            summary="What a job would cost; creates nothing",
            tag="executors",
            handle=cost,
            body=CostQuestion,
            reads=True,
            answers={200: Cost},
            problems=("type_not_open", "unknown_type", "type_disabled"),
        ),
    )
