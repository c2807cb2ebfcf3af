"""The base image: the one an earlier run has stored, else a new one from the provider."""

from __future__ import annotations

__all__ = ["prepare_image", "store_base"]

from typing import Any

from executors.base import JobContext
from executors.stages.model_images import (
    PreparedImage,
    fingerprint,
    made_image,
    store_image,
    stored_image,
)
from repositories.images import StoredImage

NAME = "base_image"


async def prepare_image(
    job: JobContext[Any],
    *,
    subject: str,
    theme: str,
    size: int,
    style: str | None,
    seed: int | None,
) -> PreparedImage:
    """The base image, decoded. Raises ``StageError``."""
    async with job.stage(NAME, weight=0.4, label="Base concept generation") as stage:
        requested = fingerprint(subject, theme, size, style, seed)
        stored = await stored_image(job, name=NAME, requested=requested)
        if stored is not None:
            return stored
        return await made_image(
            job,
            stage,
            lambda request: job.services.image_model.generate(
                subject=subject, theme=theme, size=size, style=style, seed=seed, request=request
            ),
            name=NAME,
            requested=requested,
        )


async def store_base(job: JobContext[Any], image: PreparedImage) -> StoredImage:
    """Store the base image, remember it for later runs, and announce it."""
    return await store_image(job, image, name=NAME, label="Storing base image")
