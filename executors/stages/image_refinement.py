"""The refined image: its original loaded and checked, changed by the provider once."""

from __future__ import annotations

__all__ = ["About", "OriginalPalette", "Refinement", "Source", "refine_image", "store_refined"]

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from PIL import Image

from executors.base import JobContext
from executors.errors import InvalidInput
from executors.imaging import codec
from executors.stages.model_images import (
    PreparedImage,
    fingerprint,
    made_image,
    store_image,
    stored_image,
)
from repositories.concepts import Concept
from repositories.images import StoredImage

NAME = "refined_image"

SMALLEST: Final = 16  #: pixels a side of an original
LARGEST: Final = 2048  #: … beyond which it is made smaller, as large as a generation can be


@dataclass(frozen=True, slots=True)
class Source:
    """Where the original is: exactly one of these."""

    concept_id: str | None = None
    image_path: str | None = None
    url: str | None = None


@dataclass(frozen=True, slots=True)
class OriginalPalette:
    """A palette of the original, as it was stored."""

    name: str
    colours: list[str]


@dataclass(frozen=True, slots=True)
class About:
    """What the refined concept takes over from its original."""

    logo_description: str
    theme_description: str
    parent_id: str | None = None
    palettes: list[OriginalPalette] = field(default_factory=list)

    @classmethod
    def of(cls, concept: Concept) -> About:
        """Of a concept, which may have no variations but those it has taken over itself."""
        palettes = [OriginalPalette(v.name, v.palette) for v in concept.variations]
        return cls(
            concept.logo_description,
            concept.theme_description,
            concept.id,
            palettes or _palettes_in(concept.details),
        )

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any]) -> About:
        """From a checkpoint."""
        palettes = [OriginalPalette(**palette) for palette in facts["palettes"]]
        return cls(**{**facts, "palettes": palettes})


@dataclass(frozen=True, slots=True)
class Refinement:
    """A refined image, ready to be stored and recoloured."""

    image: PreparedImage
    about: About


async def refine_image(
    job: JobContext[Any],
    source: Source,
    *,
    prompt: str,
    strength: float | None,
    seed: int | None,
    about: About,
    weight: float,
) -> Refinement:
    """The image that an earlier run has stored, else the original changed by the provider.

    ``about`` speaks for an original that is no concept; ``weight`` is the refining's share of the
    job. Raises ``StageError``.
    """
    requested = fingerprint(source, prompt, strength, seed)
    async with job.stage("original_image", weight=0.1, label="Loading the original"):
        original = await _stored(job, source, requested, about) or await _load(job, source, about)
    async with job.stage("image_refinement", weight=weight, label="Refining the image") as stage:
        if isinstance(original, Refinement):
            return original  # an earlier run's
        image = await made_image(
            job,
            stage,
            lambda request: job.services.image_model.refine(
                original=original.content,
                prompt=prompt,
                width=original.width,
                height=original.height,
                strength=strength,
                seed=seed,
                request=request,
            ),
            name=NAME,
            requested=requested,
        )
        return Refinement(image, original.about)


async def store_refined(job: JobContext[Any], refinement: Refinement) -> StoredImage:
    """Store the refined image, remember it for later runs, and announce it."""
    return await store_image(
        job,
        refinement.image,
        name=NAME,
        label="Storing refined image",
        facts={"about": asdict(refinement.about)},
    )


# --- the original --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Original:
    content: bytes  #: PNG
    width: int
    height: int
    about: About


async def _load(job: JobContext[Any], source: Source, about: About) -> _Original:
    services = job.services
    if source.concept_id is not None:
        concept = await services.concepts.get(source.concept_id)
        about = About.of(concept)
        content = await services.images.get(concept.image_path)
    elif source.image_path is not None:
        content = await services.images.get(source.image_path)
    else:
        limit = services.image_limits.bytes
        content = await services.fetcher.fetch(source.url or "", max_bytes=limit)
    try:
        picture = await services.decoders.decode(
            content, services.image_limits, user_id=job.job.user_id
        )
    except codec.UnsafeImageError as error:
        raise InvalidInput(f"the original cannot be used: {error}") from error
    return await asyncio.to_thread(_encoded, picture, about)


def _encoded(picture: Image.Image, about: About) -> _Original:
    """Encoded again: no metadata goes to a vendor, and no trailing bytes."""
    if min(picture.size) < SMALLEST:
        raise InvalidInput(f"the original is smaller than {SMALLEST} pixels a side")
    if max(picture.size) > LARGEST:
        scale = LARGEST / max(picture.size)
        size = (
            max(SMALLEST, round(picture.width * scale)),
            max(SMALLEST, round(picture.height * scale)),
        )
        picture = picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    encoded = codec.encode_png(picture)
    return _Original(encoded.content, encoded.width, encoded.height, about)


def _palettes_in(details: Mapping[str, Any]) -> list[OriginalPalette]:
    """Those that a refined concept without variations has taken over from its own original."""
    palettes = details.get("palettes")
    preserved = palettes.get("preserved") if isinstance(palettes, dict) else None
    return [OriginalPalette(**palette) for palette in preserved or ()]


# --- earlier runs --------------------------------------------------------------------------------


async def _stored(
    job: JobContext[Any], source: Source, requested: str, about: About
) -> Refinement | None:
    """What an earlier run has stored, if it is still of use."""
    image = await stored_image(job, name=NAME, requested=requested)
    if image is None:
        return None
    # The concept may be gone, or its job may be: the checkpoint has what is needed of it.
    saved = job.checkpoints[NAME]
    return Refinement(image, about if source.concept_id is None else About.of_facts(saved["about"]))
