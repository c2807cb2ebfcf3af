"""What the operator has opened, and what it takes: the rows of ``job_types``, read now and then."""

from __future__ import annotations

__all__ = ["JobType", "JobTypes"]

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import orjson

from repositories.database import Database
from uvian_worker.client.schemas import mistakes_of
from uvian_worker.gateway.http.auth import User
from uvian_worker.gateway.http.problems import Problem

_COLUMNS: Final = (
    "type", "input_schema", "timeout_seconds", "max_attempts", "enabled", "browser", "anonymous",
    "max_input_bytes", "models", "max_tokens",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class JobType:
    """A type of job, and its price in credits."""

    type: str
    input_schema: Mapping[str, Any]
    timeout_seconds: float
    max_attempts: int
    enabled: bool
    browser: bool
    anonymous: bool
    max_input_bytes: int
    models: list[str] | None
    max_tokens: int | None
    price: Decimal

    def is_open_to(self, user: User) -> bool:
        """Whether this user may submit it, as ``submit_job`` decides in SQL."""
        return self.browser and (self.anonymous or not user.is_anonymous)

    def require_valid(self, document: Mapping[str, Any], where: str) -> None:
        """Raise ``Problem`` unless the input fits; ``where`` is the field of the body that it is in."""
        if len(orjson.dumps(document)) > self.max_input_bytes:
            detail = f"The input of such a job has at most {self.max_input_bytes} bytes."
            raise Problem("input_too_large", detail, limit=self.max_input_bytes)
        if mistakes := mistakes_of(self.input_schema, document, where):
            raise Problem("invalid_input", errors=[mistake._asdict() for mistake in mistakes])


class JobTypes:
    """All types. What the operator changes is seen ``lifetime`` seconds later; prices and limits are
    the database's to apply, at once.
    """

    def __init__(
        self,
        database: Database,
        *,
        lifetime: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._lifetime = lifetime
        self._clock = clock
        self._types: dict[str, JobType] = {}
        self._read_at: float | None = None
        self._reading: asyncio.Task[None] | None = None

    async def all(self) -> list[JobType]:
        """Every type, by name. Raises ``RepositoryError``."""
        if self._read_at is None or self._clock() - self._read_at > self._lifetime:
            # One question for all who wait, and one answer: also when there is none.
            if self._reading is None or self._reading.done():
                self._reading = asyncio.create_task(self._read(), name="read job types")
            await asyncio.shield(self._reading)
        return list(self._types.values())

    async def require_open(self, user: User, name: str) -> JobType:
        """The type, if this user may submit it; raises ``Problem``."""
        await self.all()
        found = self._types.get(name)
        if found is None:
            raise Problem("unknown_type")
        if not found.is_open_to(user):
            raise Problem("type_not_open", "The operator opens it: uvian types open.")
        if not found.enabled:
            raise Problem("type_disabled")
        return found

    async def _read(self) -> None:
        types, prices = await asyncio.gather(
            self._database.select("job_types", columns=_COLUMNS),
            self._database.select("job_prices", columns=("type", "amount::text")),
        )
        by_type = {row["type"]: Decimal(row["amount"]) for row in prices}
        self._types = {
            row["type"]: JobType(**row, price=by_type.get(row["type"], Decimal(0)))
            for row in sorted(types, key=lambda row: str(row["type"]))
        }
        self._read_at = self._clock()
