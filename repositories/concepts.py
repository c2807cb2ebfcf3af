"""Concepts and their palette variations."""

from __future__ import annotations

__all__ = ["Concept", "UserConcepts", "Variation", "concept_rows"]

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from repositories.database import Database, Filter, Order, is_id
from repositories.errors import WAITED_FOR, NotFound
from uvian_common.backoff import retry


@dataclass(frozen=True, slots=True)
class Variation:
    """The base image in another palette."""

    id: str
    position: int
    name: str
    palette: list[str]  #: ``#rrggbb``
    image_path: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Concept:
    """A logo concept: a base image and its variations, in the order of their positions."""

    id: str
    logo_description: str
    theme_description: str
    image_path: str
    width: int
    height: int
    parent_id: str | None = None
    job_id: str | None = None
    details: dict[str, Any] = field(default_factory=dict)
    created_at: str | None = None
    variations: list[Variation] = field(default_factory=list)


def concept_rows(concept: Concept, variations: Sequence[Variation]) -> dict[str, Any]:
    """A concept and its variations as ``store_concept`` and ``settle_jobs`` take them."""
    return {
        "concept": {
            name: value
            for name, value in asdict(concept).items()
            if name not in ("variations", "created_at", "job_id")
        },
        "variations": [asdict(variation) for variation in variations],
    }


_CONCEPT = tuple(name for name in Concept.__slots__ if name != "variations")
_VARIATION = Variation.__slots__


@dataclass(frozen=True, slots=True)
class UserConcepts:
    """The concepts of one user; another user's do not exist here."""

    database: Database
    user_id: str
    worker: str = ""  #: who writes, where a run is the fence

    async def get(self, concept_id: str) -> Concept:
        """One concept with its variations; raises ``NotFound``, also for what is no id at all."""
        if not is_id(concept_id):
            raise NotFound("There is no such concept.")
        mine = Filter("user_id", "eq", self.user_id)
        rows = await self.database.select(
            "concepts", columns=_CONCEPT, where=[Filter("id", "eq", concept_id), mine]
        )
        if not rows:
            raise NotFound("There is no such concept.")
        variations = await self.database.select(
            "concept_variations",
            columns=_VARIATION,
            where=[Filter("concept_id", "eq", concept_id), mine],
            order=[Order("position")],
        )
        return Concept(**rows[0], variations=[Variation(**row) for row in variations])

    async def list(self, *, limit: int = 20) -> list[Concept]:
        """The newest first, without their variations."""
        rows = await self.database.select(
            "concepts",
            columns=_CONCEPT,
            where=[Filter("user_id", "eq", self.user_id)],
            order=[Order("created_at", descending=True), Order("id")],
            limit=limit,
        )
        return [Concept(**row) for row in rows]

    async def store(self, concept: Concept, variations: Sequence[Variation], *, run: int) -> bool:
        """Write a concept with its variations, if ``run`` still holds the job.

        Storing the same id again replaces it. Waits for a database that is away, like the batchers,
        because all the work is done. Raises ``Refused`` when the id is another job's.
        """
        request = {
            "worker": self.worker,
            "job_id": concept.job_id,
            "run": run,
            **concept_rows(concept, variations),
        }
        answer = await retry(
            lambda: self.database.call("store_concept", request=request), WAITED_FOR
        )
        return bool(answer["stored"])
