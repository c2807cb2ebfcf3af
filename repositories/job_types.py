"""Types of jobs, as the operator sets them."""

from __future__ import annotations

__all__ = ["JobTypeRepository", "JobTypeSettings"]

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from repositories.database import Database, Row


@dataclass(frozen=True, slots=True)
class JobTypeSettings:
    """What the operator has set for a type. None means: no limit, or no choice."""

    type: str
    enabled: bool  #: False: nobody may request it, not even the team's own API
    browser: bool  #: signed-in users may request it
    anonymous: bool  #: … and anonymous sign-ins
    max_input_bytes: int
    max_queued_per_user: int | None
    max_running_per_user: int | None
    models: list[str] | None  #: the first is used where a job names none
    max_tokens: int | None
    system_prompt: str | None
    price: Decimal | None  #: credits; None: there is no price, and it is free


@dataclass(frozen=True, slots=True)
class JobTypeRepository:
    """All types that a migration or a worker has made known."""

    database: Database

    async def list(self) -> list[JobTypeSettings]:
        """By name."""
        answer = await self.database.call("list_types", request={})
        return [_settings(row) for row in answer["types"]]

    async def configure(self, type_: str, changes: Mapping[str, Any]) -> JobTypeSettings:
        """Set what ``changes`` name, None for no limit; the rest stays.

        Raises ``Refused`` (``unknown_type``).
        """
        item = {
            name: str(value) if isinstance(value, Decimal) else value
            for name, value in changes.items()
        }
        answer = await self.database.call(
            "configure_types", request={"types": [{**item, "type": type_}]}
        )
        return _settings(answer["types"][0])


def _settings(row: Row) -> JobTypeSettings:
    price = row["price"]
    return JobTypeSettings(**{**row, "price": None if price is None else Decimal(price)})
