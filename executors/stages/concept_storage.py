"""The concept and its variations as rows, written once, only by the run that holds the job."""

from __future__ import annotations

__all__ = ["Delivery", "StoredVariation", "concept_id_of", "store_concept"]

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID, uuid5

from pydantic import BaseModel

from executors.base import JobContext
from executors.errors import LeaseLost
from executors.partial_result import PartialResult
from repositories.concepts import Concept, Variation, concept_rows
from repositories.errors import Refused
from repositories.images import StoredImage


class StoredVariation(BaseModel):
    """One variation of a concept."""

    index: int
    """Position of its palette among those requested."""
    name: str
    palette: list[str]
    image_path: str
    width: int
    height: int


def concept_id_of(job_id: str) -> str:
    """The id of the concept a job makes: the same for every run, so that none makes a second."""
    return str(uuid5(UUID(job_id), "concept"))


@dataclass(slots=True)
class Delivery:
    """The pictures of a concept that were announced to its user: they are stored and charged.

    This holds for every outcome of the job: a picture is announced when it is stored, and costs its share
    of the price.
    """

    job: JobContext[Any]
    logo_description: str
    theme_description: str
    pictures: int  #: how many were requested
    details: Callable[[], Mapping[str, Any]]
    parent_id: str | None = None
    base: StoredImage | None = None
    size: tuple[int, int] = (0, 0)
    variations: list[StoredVariation] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Of the price, for what was delivered."""
        return 0.0 if self.base is None else (1 + len(self.variations)) / self.pictures

    def concept(self) -> Concept:
        """The row, as far as there are pictures of it."""
        assert self.base is not None  # noqa: S101 - there is no concept without its picture
        return Concept(
            id=concept_id_of(self.job.job.id),
            job_id=self.job.job.id,
            parent_id=self.parent_id,
            logo_description=self.logo_description,
            theme_description=self.theme_description,
            image_path=self.base.path,
            width=self.size[0],
            height=self.size[1],
            details=dict(self.details()),
        )

    def rows(self, concept: Concept) -> list[Variation]:
        """Its variations, in the order of their palettes."""
        return [_row(concept.id, each) for each in sorted(self.variations, key=lambda v: v.index)]

    def partial_result(self) -> PartialResult:
        """What the job leaves behind wherever it is stopped."""
        if self.base is None:
            return PartialResult(delivered=0.0)
        concept = self.concept()
        return PartialResult(
            charge=self.share,
            delivered=self.share,
            rows=concept_rows(concept, self.rows(concept)),
            result_id=concept.id,
        )


async def store_concept(job: JobContext[Any], delivery: Delivery) -> Concept:
    """Write the rows and answer the concept; raises ``LeaseLost`` when the job is another's.

    A parent that was deleted meanwhile leaves its child without one, as if that had happened later.
    """
    async with job.stage("concept_storage", weight=0.05, label="Storing concept"):
        concept = delivery.concept()
        rows = delivery.rows(concept)
        try:
            stored = await job.services.concepts.store(concept, rows, run=job.job.run)
        except Refused as refusal:
            if refusal.code != "not_found" or concept.parent_id is None:
                raise
            job.warn("parent_missing", "The original concept was deleted while it was refined.")
            delivery.parent_id = None
            concept = replace(concept, parent_id=None)
            stored = await job.services.concepts.store(concept, rows, run=job.job.run)
        if not stored:
            raise LeaseLost
        return concept


def _row(concept_id: str, variation: StoredVariation) -> Variation:
    return Variation(
        id=str(uuid5(UUID(concept_id), str(variation.index))),
        position=variation.index,
        name=variation.name,
        palette=variation.palette,
        image_path=variation.image_path,
        width=variation.width,
        height=variation.height,
    )
