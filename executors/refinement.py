"""``refinement``: from a picture and a prompt to a new concept that remembers its original."""

from __future__ import annotations

__all__ = ["RefinementExecutor", "RefinementInput", "RefinementOutput"]

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from executors.base import BaseExecutor, JobContext, JobInput
from executors.imaging.palettes import Palette
from executors.stages.concept_storage import Delivery, StoredVariation, store_concept
from executors.stages.image_refinement import (
    About,
    OriginalPalette,
    Refinement,
    Source,
    refine_image,
    store_refined,
)
from executors.stages.palette_generation import ChosenPalettes, generate_palettes
from executors.stages.palette_variations import create_variations

Description = Annotated[str, Field(min_length=1, max_length=2000)]

_SOURCES = ("concept_id", "image_path", "original_image_url")


def _one_source(schema: dict[str, Any]) -> None:
    """The rules of ``_is_clear``, for those who check an input by its schema."""
    schema["oneOf"] = [
        {"required": [name], "properties": {name: {"type": "string"}}} for name in _SOURCES
    ]
    own = {name: {"type": "null"} for name in ("logo_description", "theme_description")}
    schema["anyOf"] = [{"properties": own}, {"properties": {"concept_id": {"type": "null"}}}]


class RefinementInput(JobInput):
    """What the user asks for: exactly one of `concept_id`, `image_path` and `original_image_url`."""

    model_config = ConfigDict(json_schema_extra=_one_source)

    concept_id: Annotated[str, Field(max_length=64)] | None = None
    """A concept of the user's: its base image is refined."""
    image_path: Annotated[str, Field(max_length=256)] | None = None
    """A stored picture of the user's, such as a variation."""
    original_image_url: Annotated[str, Field(max_length=2048)] | None = None
    """A picture on the internet."""
    refinement_prompt: Description
    """What shall be different."""
    strength: Annotated[float, Field(ge=0, le=1)] | None = None
    """How far the result may be from the original."""
    num_palettes: Annotated[int, Field(ge=0, le=12)] = 0
    """Variations of the refined image: in the original's palettes first, then in new ones."""
    logo_description: Description | None = None
    """What the picture shows; a concept keeps its own."""
    theme_description: Description | None = None
    """Its colours and mood; a concept keeps its own."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    """The same seed refines in the same way, where the provider can."""

    @model_validator(mode="after")
    def _is_clear(self) -> Self:
        if sum(getattr(self, name) is not None for name in _SOURCES) != 1:
            raise ValueError(f"give exactly one of {', '.join(_SOURCES)}")
        if self.concept_id is not None and (self.logo_description or self.theme_description):
            raise ValueError("a concept keeps its own descriptions: leave them out")
        return self


class RefinementOutput(BaseModel):
    """What the job made."""

    concept_id: str
    parent_id: str | None
    image_path: str
    width: int
    height: int
    operations: list[str]
    """What was done to the original, where the provider can say."""
    variations: list[StoredVariation]


class RefinementExecutor(BaseExecutor[RefinementInput, RefinementOutput]):
    """Original → refined image → store it → variations, if asked for → concept."""

    type = "refinement"
    Input = RefinementInput
    Output = RefinementOutput
    timeout = timedelta(minutes=5)
    max_attempts = 3

    async def execute(self, job: JobContext[RefinementInput]) -> RefinementOutput:
        """Make the concept. A later run finds the refined image and does not request it again."""
        request = job.input
        job.services.images.require_store()
        refined = await refine_image(
            job,
            Source(request.concept_id, request.image_path, request.original_image_url),
            prompt=request.refinement_prompt,
            strength=request.strength,
            seed=request.seed,
            about=About(
                request.logo_description or request.refinement_prompt,
                request.theme_description or request.refinement_prompt,
            ),
            weight=0.3 if request.num_palettes else 0.8,
        )
        about, image = refined.about, refined.image
        chosen: list[ChosenPalettes] = []
        delivery = Delivery(
            job,
            logo_description=about.logo_description,
            theme_description=about.theme_description,
            pictures=1 + request.num_palettes,
            details=lambda: _details(request, refined, chosen[0] if chosen else None),
            parent_id=about.parent_id,
            size=(image.width, image.height),
        )
        job.set_partial_result(delivery.partial_result)
        delivery.base = await store_refined(job, refined)
        variations: list[StoredVariation] = []
        if request.num_palettes:
            palettes, added = await _palettes(job, about, request.num_palettes, request.seed)
            chosen += [added] if added else []
            variations = await create_variations(job, image, palettes, delivery.variations)
        concept = await store_concept(job, delivery)
        return RefinementOutput(
            concept_id=concept.id,
            parent_id=concept.parent_id,
            image_path=concept.image_path,
            width=image.width,
            height=image.height,
            operations=list(image.operations),
            variations=variations,
        )

    def result_id(self, output: RefinementOutput) -> str:
        """The concept."""
        return output.concept_id


async def _palettes(
    job: JobContext[Any], about: About, count: int, seed: int | None
) -> tuple[list[Palette], ChosenPalettes | None]:
    """The original's palettes, completed by new ones for its theme."""
    preserved = _usable(about.palettes)[:count]
    if len(preserved) == count:
        return preserved, None
    chosen = await generate_palettes(job, about.theme_description, count, seed)
    known = {palette.colours for palette in preserved}
    names = {palette.name for palette in preserved}
    new = [palette for palette in chosen.palettes if palette.colours not in known]
    new.sort(key=lambda palette: palette.name in names)
    return preserved + new[: count - len(preserved)], chosen


def _usable(palettes: Sequence[OriginalPalette]) -> list[Palette]:
    """Those that today's rules allow: they may be older than the rules."""
    usable = []
    for palette in palettes:
        try:
            usable.append(Palette(palette.name, tuple(palette.colours)))
        except ValueError:
            continue
    return usable


def _details(
    request: RefinementInput, refined: Refinement, chosen: ChosenPalettes | None
) -> dict[str, Any]:
    image, about = refined.image, refined.about
    palettes: dict[str, Any] = {} if chosen is None else chosen.details()
    if about.palettes:
        preserved = [{"name": p.name, "colours": p.colours} for p in about.palettes]
        palettes = {"source": "original", "preserved": preserved} | (
            {"added": palettes} if palettes else {}
        )
    return {
        "provider": image.provider,
        "model": image.model,
        "seed": image.seed,
        "palettes": palettes,
        "refinement": {
            "prompt": request.refinement_prompt,
            "strength": request.strength,
            "provider": image.provider,
            "model": image.model,
            "operations": list(image.operations),
        },
    }
