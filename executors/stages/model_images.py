"""Images that a model makes: requested once, decoded safely, stored, and found again by a later run.

Each kind has a name, ``base_image`` or ``refined_image``. That is the name of its checkpoint. With
``_request`` after it, it names the checkpoint of the vendor's request, until there is an image.
"""

from __future__ import annotations

__all__ = ["PreparedImage", "fingerprint", "made_image", "store_image", "stored_image"]

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping
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


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """A decoded picture, ready to be recoloured, and how it is or will be stored."""

    artwork: Artwork
    encoded: codec.EncodedImage
    preview: str
    provider: str
    model: str
    seed: int | None
    requested: str  #: what was requested, as a fingerprint
    path: str | None = None  #: set when an earlier run has stored it
    operations: tuple[str, ...] = ()  #: what was done to an original

    @classmethod
    def of(
        cls, picture: Image.Image, made: GeneratedImage, requested: str, path: str | None = None
    ) -> PreparedImage:
        """What a provider answered, or what was stored of it, as ``picture``. Work for a thread."""
        artwork = Artwork.of(picture)
        return cls(
            artwork=artwork,
            # What is stored is what was decoded and nothing else: no metadata, no trailing bytes.
            encoded=_as_stored(picture, artwork, made.content, path),
            preview=codec.preview(picture),
            provider=made.provider,
            model=made.model,
            seed=made.seed,
            requested=requested,
            path=path,
            operations=made.operations,
        )

    @property
    def width(self) -> int:
        """Pixels."""
        return self.encoded.width

    @property
    def height(self) -> int:
        """Pixels."""
        return self.encoded.height


def fingerprint(*requested: object) -> str:
    """Of what is requested: an image for another request is neither resumed nor used again."""
    return hashlib.sha256(repr(requested).encode()).hexdigest()


async def made_image(
    job: JobContext[Any],
    stage: Stage,
    call: Callable[[VendorRequest], Awaitable[GeneratedImage]],
    *,
    name: str,
    requested: str,
) -> PreparedImage:
    """The image that ``call`` gets from the model, by the request of an earlier run if there is one.

    A picture that may not be decoded counts as the provider's failure and is requested again.
    """
    request = _request(job, stage, f"{name}_request", requested)
    made = await call(request)
    stage.progress(0.8, "Preparing the image")
    try:
        return await _prepared(job, made, requested)
    except ProviderUnavailable:
        await request.save("")  # resumed, it would answer with the same image each time
        raise


async def stored_image(job: JobContext[Any], *, name: str, requested: str) -> PreparedImage | None:
    """What an earlier run has stored; None if somebody has cleaned up, or a disk has damaged it."""
    saved = job.checkpoints.get(name)
    # A manual edit may have changed the input of a job that it set to queued again.
    if saved is None or saved["requested"] != requested:
        return None
    path = saved["path"]
    try:
        made = GeneratedImage(
            await job.services.images.get_stored(path),
            saved["provider"],
            saved["model"],
            saved["seed"],
            tuple(saved["operations"]),
        )
        return await _prepared(job, made, requested, path)
    except (NotFound, ProviderUnavailable) as error:
        log.warning("job %s: the stored %s is of no use: %s", job.job.id, name, error)
        return None


async def store_image(
    job: JobContext[Any],
    image: PreparedImage,
    *,
    name: str,
    label: str,
    facts: Mapping[str, Any] = MappingProxyType({}),
) -> StoredImage:
    """Store an image, remember it (and ``facts``) for later runs, and announce it."""
    async with job.stage(f"{name}_storage", weight=0.05, label=label):
        encoded = image.encoded
        if image.path is None:
            stored = await job.services.images.put(encoded.content, encoded.content_type)
            await job.checkpoint(**{name: {**facts, **_remembered(image, stored.path)}})
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


async def _prepared(
    job: JobContext[Any], made: GeneratedImage, requested: str, path: str | None = None
) -> PreparedImage:
    """Raises ``ProviderUnavailable`` for what may not be decoded."""
    try:
        picture = await job.services.decoders.decode(
            made.content, job.services.image_limits, user_id=job.job.user_id
        )
    except codec.UnsafeImageError as error:
        raise ProviderUnavailable(f"the provider's image cannot be used: {error}") from error
    return await asyncio.to_thread(PreparedImage.of, picture, made, requested, path)


def _remembered(image: PreparedImage, path: str) -> dict[str, Any]:
    return {
        "path": path,
        "provider": image.provider,
        "model": image.model,
        "seed": image.seed,
        "requested": image.requested,
        "operations": list(image.operations),
    }


def _request(job: JobContext[Any], stage: Stage, checkpoint: str, requested: str) -> VendorRequest:
    """The vendor's request that an earlier run has submitted, and where the id of a new one is saved."""
    saved = job.checkpoints.get(checkpoint) or {}

    async def save_id(id_: str) -> None:
        await job.checkpoint(**{checkpoint: {"id": id_, "requested": requested}})

    return VendorRequest(
        id=saved.get("id") or None if saved.get("requested") == requested else None,
        save=save_id,
        report=lambda message: stage.progress(0.0, message),
        comes_back=job.comes_back,
    )


def _as_stored(
    picture: Image.Image, artwork: Artwork, content: bytes, path: str | None
) -> codec.EncodedImage:
    if path is not None:
        return codec.EncodedImage(content, "image/png", "png", picture.width, picture.height)
    return codec.encode_png(picture, flat=artwork.flat)
