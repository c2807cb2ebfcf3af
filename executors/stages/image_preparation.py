"""The base image: asked of the provider once, decoded safely, stored, told of."""

from __future__ import annotations

__all__ = ["PreparedImage", "prepare_image", "store_image"]

import asyncio
import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from PIL import Image

from executors.base import JobContext, Stage
from executors.errors import ProviderUnavailable
from executors.events import ImageReady
from executors.imaging import codec
from executors.imaging.recolour import Artwork
from executors.providers.base import GeneratedImage, VendorRequest
from repositories.errors import NotFound
from repositories.images import StoredImage

log = logging.getLogger("uvian.executors")

CHECKPOINT = "base_image"
REQUEST = "base_image_request"  #: what a vendor was asked, until there is an image


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """A decoded picture, ready to be recoloured, and how it is or will be stored."""

    artwork: Artwork
    encoded: codec.EncodedImage
    preview: str
    provider: str
    model: str
    seed: int | None
    asked: str  #: what it was asked for, as a fingerprint
    path: str | None = None  #: set when an earlier run has stored it
    operations: tuple[str, ...] = ()  #: what was done to an original

    @classmethod
    def of(
        cls, made: GeneratedImage, asked: str, limits: codec.Limits, path: str | None = None
    ) -> PreparedImage:
        """Decode what a provider answered, or what was stored of it. Work for a thread.

        Raises ``ProviderUnavailable`` for what may not be decoded.
        """
        return _prepared(made, asked, path, limits)

    @property
    def width(self) -> int:
        """Pixels."""
        return self.encoded.width

    @property
    def height(self) -> int:
        """Pixels."""
        return self.encoded.height


async def prepare_image(
    job: JobContext[Any],
    *,
    subject: str,
    theme: str,
    size: int,
    style: str | None,
    seed: int | None,
) -> PreparedImage:
    """The base image: the one an earlier run has stored, else a new one from the provider.

    Raises ``StageError``; a picture that may not be decoded counts as the provider's fault and is
    asked for again.
    """
    async with job.stage("base_image", weight=0.4, label="Base concept generation") as stage:
        limits = job.services.image_limits
        asked = _fingerprint(subject, theme, size, style, seed)
        saved = job.checkpoints.get(CHECKPOINT)
        # A hand may have changed the input of a job that it set to queued again.
        if saved is not None and saved["asked"] == asked:
            stored = await _stored(job, saved, limits)
            if stored is not None:
                return stored
        request = _request(job, stage, asked)
        made = await job.services.image_model.generate(
            subject=subject, theme=theme, size=size, style=style, seed=seed, request=request
        )
        stage.progress(0.8, "Preparing the image")
        try:
            return await asyncio.to_thread(_prepared, made, asked, None, limits)
        except ProviderUnavailable:
            await request.keep("")  # resumed, it would answer with the same image for ever
            raise


async def store_image(
    job: JobContext[Any],
    image: PreparedImage,
    *,
    stage: str = "base_image_storage",
    label: str = "Storing base image",
    checkpoint: str = CHECKPOINT,
    facts: Mapping[str, Any] = MappingProxyType({}),
) -> StoredImage:
    """Store the base image, remember it (and ``facts``) for later runs, and announce it."""
    async with job.stage(stage, weight=0.05, label=label):
        encoded = image.encoded
        if image.path is None:
            stored = await job.services.images.put(encoded.content, encoded.content_type)
            await job.checkpoint(
                **{
                    checkpoint: {
                        **facts,
                        "path": stored.path,
                        "provider": image.provider,
                        "model": image.model,
                        "seed": image.seed,
                        "asked": image.asked,
                        "operations": list(image.operations),
                    }
                }
            )
        else:
            stored = StoredImage(image.path, encoded.content_type, len(encoded.content))
        job.emit(
            ImageReady(
                kind="base",
                index=0,
                path=stored.path,
                width=encoded.width,
                height=encoded.height,
                preview=image.preview,
            )
        )
        return stored


def _request(job: JobContext[Any], stage: Stage, asked: str) -> VendorRequest:
    """The vendor's request that an earlier run has sent for this image, and where a new one is kept."""
    kept = job.checkpoints.get(REQUEST) or {}

    async def keep(id_: str) -> None:
        await job.checkpoint(**{REQUEST: {"id": id_, "asked": asked}})

    return VendorRequest(
        id=kept.get("id") or None if kept.get("asked") == asked else None,
        keep=keep,
        report=lambda message: stage.progress(0.0, message),
        comes_back=job.comes_back,
    )


async def _stored(
    job: JobContext[Any], saved: dict[str, Any], limits: codec.Limits
) -> PreparedImage | None:
    """What an earlier run has stored; None if somebody has cleaned up, or a disk has damaged it."""
    path = saved["path"]
    try:
        content = await job.services.images.get(path)
        made = GeneratedImage(content, saved["provider"], saved["model"], saved["seed"])
        return await asyncio.to_thread(_prepared, made, saved["asked"], path, limits)
    except (NotFound, ProviderUnavailable) as error:
        log.warning("job %s: the stored base image is of no use: %s", job.job.id, error)
        return None


def _fingerprint(*asked: object) -> str:
    return hashlib.sha256(repr(asked).encode()).hexdigest()


def _prepared(
    made: GeneratedImage, asked: str, path: str | None, limits: codec.Limits
) -> PreparedImage:
    try:
        picture = codec.decode(made.content, limits)
    except codec.UnsafeImageError as error:
        raise ProviderUnavailable(f"the provider's image cannot be used: {error}") from error
    artwork = Artwork.of(picture)
    return PreparedImage(
        artwork=artwork,
        # What is stored is what was decoded and nothing else: no metadata, no trailing bytes.
        encoded=_as_stored(picture, artwork, made.content, path),
        preview=codec.preview(picture),
        provider=made.provider,
        model=made.model,
        seed=made.seed,
        asked=asked,
        path=path,
        operations=made.operations,
    )


def _as_stored(
    picture: Image.Image, artwork: Artwork, content: bytes, path: str | None
) -> codec.EncodedImage:
    if path is not None:
        return codec.EncodedImage(content, "image/png", "png", picture.width, picture.height)
    return codec.encode_png(picture, flat=artwork.flat)
