"""The base image in every palette: in parallel, each stored and announced when it is ready."""

from __future__ import annotations

__all__ = ["create_variations"]

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from executors import failure_log
from executors.base import JobContext, Stage
from executors.errors import LeaseLost, as_executor_error
from executors.events import ImageReady
from executors.imaging import codec
from executors.imaging.palettes import Palette
from executors.imaging.recolour import Artwork
from executors.stages.concept_storage import StoredVariation
from executors.stages.model_images import PreparedImage

log = logging.getLogger("uvian.executors")


async def create_variations(
    job: JobContext[Any],
    base: PreparedImage,
    palettes: Sequence[Palette],
    announced: list[StoredVariation],
) -> list[StoredVariation]:
    """Those that succeeded, in the order of the palettes; the others become warnings.

    ``announced`` gets each of them at the moment when its event is published.

    Raises ``StageError`` when none succeeded.
    """
    async with job.stage(
        "palette_variations", weight=0.45, label="Creating/storing variations"
    ) as stage:
        counter = _Counter(stage, len(palettes))
        results = await asyncio.gather(
            *(
                _variation(job, base, i, each, counter, announced)
                for i, each in enumerate(palettes)
            ),
            return_exceptions=True,
        )
        made = [result for result in results if isinstance(result, StoredVariation)]
        errors = [
            (i, result) for i, result in enumerate(results) if isinstance(result, BaseException)
        ]
        for _, error in errors:
            if isinstance(error, LeaseLost) or not isinstance(error, Exception):
                raise error
        if not made:
            raise errors[0][1]
        for i, error in errors:
            _warn_of_missing(job, i, palettes[i], error)
        return made


def _warn_of_missing(
    job: JobContext[Any], index: int, palette: Palette, error: BaseException
) -> None:
    line, trace = failure_log.line_of(error)
    log.warning("job %s: variation %d failed: %s", job.job.id, index, line, exc_info=trace)
    known = as_executor_error(error)
    reason = known.message if known else "it could not be drawn."
    job.warn(
        "variation_failed",
        f"The variation {palette.name!r} is missing and not charged: {reason}",
        index=index,
        palette=list(palette.colours),
    )


class _Counter:
    """Progress by variations that are done."""

    def __init__(self, stage: Stage, total: int) -> None:
        self._stage = stage
        self._total = total
        self._done = 0

    def one_more(self) -> None:
        self._done += 1
        self._stage.progress(
            self._done / self._total, f"{self._done} of {self._total} variations ready"
        )


async def _variation(
    job: JobContext[Any],
    base: PreparedImage,
    index: int,
    palette: Palette,
    counter: _Counter,
    announced: list[StoredVariation],
) -> StoredVariation:
    encoded, preview = await asyncio.to_thread(_drawn, base.artwork, palette)
    stored = await job.services.images.put(encoded.content, encoded.content_type)
    variation = StoredVariation(
        index=index,
        name=palette.name,
        palette=list(palette.colours),
        image_path=stored.path,
        width=encoded.width,
        height=encoded.height,
    )
    announced.append(variation)
    job.emit(
        ImageReady(
            kind="variation",
            index=index,
            path=stored.path,
            width=encoded.width,
            height=encoded.height,
            preview=preview,
            palette=list(palette.colours),
            name=palette.name,
        )
    )
    counter.one_more()
    return variation


def _drawn(artwork: Artwork, palette: Palette) -> tuple[codec.EncodedImage, str]:
    picture = artwork.in_palette(palette.colours)
    return codec.encode_png(picture, flat=artwork.flat), codec.preview(picture)
