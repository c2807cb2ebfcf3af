"""``generation``: from a description to a concept, its base image in as many palettes as asked for."""

from __future__ import annotations

__all__ = ["GenerationExecutor", "GenerationInput", "GenerationOutput"]

import asyncio
from datetime import timedelta
from typing import Annotated

from pydantic import BaseModel, Field

from executors.base import BaseExecutor, JobContext, JobInput
from executors.stages.concept_storage import Delivery, StoredVariation, store_concept
from executors.stages.image_preparation import prepare_image, store_base
from executors.stages.model_images import PreparedImage
from executors.stages.palette_generation import ChosenPalettes, generate_palettes
from executors.stages.palette_variations import create_variations

Description = Annotated[str, Field(min_length=1, max_length=2000)]


class GenerationInput(JobInput):
    """What the user asks for."""

    logo_description: Description
    theme_description: Description
    num_palettes: Annotated[int, Field(ge=1, le=12)] = 7
    size: Annotated[int, Field(ge=256, le=2048)] = 1024
    """Pixels, width and height."""
    style: Annotated[str, Field(max_length=200)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    """The same seed draws the same picture, where the provider can."""


class GenerationOutput(BaseModel):
    """What the job made."""

    concept_id: str
    image_path: str
    width: int
    height: int
    variations: list[StoredVariation]


class GenerationExecutor(BaseExecutor[GenerationInput, GenerationOutput]):
    """Base image → (store it ‖ palettes) → variations in parallel → concept."""

    type = "generation"
    Input = GenerationInput
    Output = GenerationOutput
    timeout = timedelta(minutes=5)
    max_attempts = 3

    async def execute(self, job: JobContext[GenerationInput]) -> GenerationOutput:
        """Make the concept. A later run finds the stored base image and does not request it again."""
        request = job.input
        job.services.images.require_store()
        base = await prepare_image(
            job,
            subject=request.logo_description,
            theme=request.theme_description,
            size=request.size,
            style=request.style,
            seed=request.seed,
        )
        chosen: asyncio.Future[ChosenPalettes] = asyncio.get_running_loop().create_future()
        delivery = Delivery(
            job,
            logo_description=request.logo_description,
            theme_description=request.theme_description,
            pictures=1 + request.num_palettes,
            details=lambda: _details(base, chosen.result() if chosen.done() else None),
            size=(base.width, base.height),
        )
        job.set_partial_result(delivery.partial_result)
        async with asyncio.TaskGroup() as both:
            both.create_task(_store(job, base, delivery))
            palettes = both.create_task(
                generate_palettes(
                    job, request.theme_description, request.num_palettes, request.seed
                )
            )
        chosen.set_result(palettes.result())
        variations = await create_variations(
            job, base, palettes.result().palettes, delivery.variations
        )
        concept = await store_concept(job, delivery)
        return GenerationOutput(
            concept_id=concept.id,
            image_path=concept.image_path,
            width=base.width,
            height=base.height,
            variations=variations,
        )

    def result_id(self, output: GenerationOutput) -> str:
        """The concept."""
        return output.concept_id


async def _store(job: JobContext[GenerationInput], base: PreparedImage, delivery: Delivery) -> None:
    delivery.base = await store_base(job, base)


def _details(base: PreparedImage, chosen: ChosenPalettes | None) -> dict[str, object]:
    return {
        "provider": base.provider,
        "model": base.model,
        "seed": base.seed,
        "palettes": {} if chosen is None else chosen.details(),
    }
