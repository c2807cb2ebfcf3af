"""The concept and its variations as rows, written once, only by the run that holds the job."""

from __future__ import annotations

__all__ = ["StoredVariation", "concept_id_of", "store_concept"]

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID, uuid5

from pydantic import BaseModel

from executors.base import JobContext
from executors.errors import LeaseLost
from repositories.concepts import Concept, Variation
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
    variations: Sequence[StoredVariation],
    details: Mapping[str, Any],
) -> str:
    """Write the rows and answer the concept's id; raises ``LeaseLost`` when the job is another's."""
    async with job.stage("concept_storage", weight=0.05, label="Storing concept"):
        concept_id = concept_id_of(job.job.id)
        width, height = variations[0].width, variations[0].height
        stored = await job.services.concepts.store(
            Concept(
                id=concept_id,
                job_id=job.job.id,
                logo_description=logo_description,
                theme_description=theme_description,
                image_path=image.path,
                width=width,
                height=height,
                details=dict(details),
            ),
            [_row(concept_id, variation) for variation in variations],
            run=job.job.run,
        )
        if not stored:
            raise LeaseLost
        return concept_id


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
