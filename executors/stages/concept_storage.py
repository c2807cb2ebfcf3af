"""The concept and its variations as rows, written once, only by the run that holds the job."""

from __future__ import annotations

__all__ = ["StoredVariation", "concept_id_of", "store_concept"]

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid5

from pydantic import BaseModel

from executors.base import JobContext
from executors.errors import LeaseLost
from repositories.concepts import Concept, Variation
from repositories.errors import Refused
from repositories.images import StoredImage


class StoredVariation(BaseModel):
    """One variation of a concept."""

    index: int
    """Position of its palette among those asked for."""
    name: str
    palette: list[str]
    image_path: str
    width: int
    height: int


def concept_id_of(job_id: str) -> str:
    """The id of the concept a job makes: the same for every run, so that none makes a second."""
    return str(uuid5(UUID(job_id), "concept"))


async def store_concept(
    job: JobContext[Any],
    *,
    logo_description: str,
    theme_description: str,
    image: StoredImage,
    size: tuple[int, int],
    variations: Sequence[StoredVariation],
    details: Mapping[str, Any],
    parent_id: str | None = None,
) -> Concept:
    """Write the rows and answer the concept; raises ``LeaseLost`` when the job is another's.

    A parent that was deleted meanwhile leaves its child without one, as if that had happened later.
    """
    async with job.stage("concept_storage", weight=0.05, label="Storing concept"):
        concept = Concept(
            id=concept_id_of(job.job.id),
            job_id=job.job.id,
            parent_id=parent_id,
            logo_description=logo_description,
            theme_description=theme_description,
            image_path=image.path,
            width=size[0],
            height=size[1],
            details=dict(details),
        )
        try:
            stored = await _store(job, concept, variations)
        except Refused as refusal:
            if refusal.code != "not_found" or parent_id is None:
                raise
            job.warn("parent_missing", "The original concept was deleted while it was refined.")
            concept = replace(concept, parent_id=None)
            stored = await _store(job, concept, variations)
        if not stored:
            raise LeaseLost
        return concept


async def _store(
    job: JobContext[Any], concept: Concept, variations: Sequence[StoredVariation]
) -> bool:
    rows = [_row(concept.id, variation) for variation in variations]
    return await job.services.concepts.store(concept, rows, run=job.job.run)


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
