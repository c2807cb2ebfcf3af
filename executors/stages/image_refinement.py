"""The refined image: its original loaded and checked, changed by the provider once."""

from __future__ import annotations

__all__ = ["About", "OriginalPalette", "Refinement", "Source", "refine_image", "store_refined"]

import asyncio
import hashlib
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from PIL import Image

from executors.base import JobContext, Stage
from executors.errors import InvalidInput, ProviderUnavailable
from executors.imaging import codec
from executors.providers.base import GeneratedImage, VendorRequest
from executors.stages.image_preparation import PreparedImage, store_image
from repositories.concepts import Concept
from repositories.errors import NotFound
from repositories.images import StoredImage

log = logging.getLogger("uvian.executors")

CHECKPOINT = "refined_image"
REQUEST = "refined_image_request"  #: what a vendor was asked, until there is an image

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
    asked = _fingerprint(source, prompt, strength, seed)
    async with job.stage("original_image", weight=0.1, label="Loading the original"):
        original = await _stored(job, source, asked, about) or await _load(job, source, about)
    async with job.stage("image_refinement", weight=weight, label="Refining the image") as stage:
        if isinstance(original, Refinement):
            return original  # an earlier run's
        request = _request(job, stage, asked)
        made = await job.services.image_model.refine(
            original=original.content,
            prompt=prompt,
            width=original.width,
            height=original.height,
            strength=strength,
            seed=seed,
            request=request,
        )
        stage.progress(0.8, "Preparing the image")
        try:
            image = await asyncio.to_thread(
                PreparedImage.of, made, asked, job.services.image_limits
            )
        except ProviderUnavailable:
            await request.keep("")  # resumed, it would answer with the same image for ever
            raise
        return Refinement(image, original.about)


async def store_refined(job: JobContext[Any], refinement: Refinement) -> StoredImage:
    """Store the refined image, remember it for later runs, and announce it."""
    return await store_image(
        job,
        refinement.image,
        stage="refined_image_storage",
        label="Storing refined image",
        checkpoint=CHECKPOINT,
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
    return await asyncio.to_thread(_decoded, content, services.image_limits, about)


def _decoded(content: bytes, limits: codec.Limits, about: About) -> _Original:
    """Decoded and encoded again: no metadata goes to a vendor, and no trailing bytes."""
    try:
        picture = codec.decode(content, limits)
    except codec.UnsafeImageError as error:
        raise InvalidInput(f"the original cannot be used: {error}") from error
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
    job: JobContext[Any], source: Source, asked: str, about: About
) -> Refinement | None:
    """What an earlier run has stored; None if somebody has cleaned up, or a disk has damaged it."""
    saved = job.checkpoints.get(CHECKPOINT)
    # A hand may have changed the input of a job that it set to queued again.
    if saved is None or saved["asked"] != asked:
        return None
    try:
        content = await job.services.images.get(saved["path"])
        made = GeneratedImage(
            content, saved["provider"], saved["model"], saved["seed"], tuple(saved["operations"])
        )
        image = await asyncio.to_thread(
            PreparedImage.of, made, asked, job.services.image_limits, saved["path"]
        )
    except (NotFound, ProviderUnavailable) as error:
        log.warning("job %s: the stored refined image is of no use: %s", job.job.id, error)
        return None
    # The concept may be gone, or its job may be: what was kept of it is enough.
    return Refinement(image, about if source.concept_id is None else About.of_facts(saved["about"]))


def _request(job: JobContext[Any], stage: Stage, asked: str) -> VendorRequest:
    """The vendor's request that an earlier run has sent, and where a new one is kept."""
    kept = job.checkpoints.get(REQUEST) or {}

    async def keep(id_: str) -> None:
        await job.checkpoint(**{REQUEST: {"id": id_, "asked": asked}})

    return VendorRequest(
        id=kept.get("id") or None if kept.get("asked") == asked else None,
        keep=keep,
        report=lambda message: stage.progress(0.0, message),
    )


def _fingerprint(*asked: object) -> str:
    return hashlib.sha256(repr(asked).encode()).hexdigest()
