"""Shapes → pixels, with sixteen samples a pixel and never more than 32 MB at once."""

from __future__ import annotations

__all__ = ["paint"]

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from executors.providers.offline.marks.shapes import Shape

_SAMPLES = 4  # along each side of a pixel
_ROWS = 256  # pixels painted at once: 4096² samples need 64 MB, a band of them 16


def paint(shapes: Sequence[Shape], *, ground: str, size: int) -> Image.Image:
    """The unit square, -1…1 both ways, as ``size`` × ``size`` pixels in flat colours."""
    scale = size * _SAMPLES / 2
    # Whole samples: Pillow would cut fractions off towards zero, differently above a band's top.
    outlines = [(shape.ink, np.rint((shape.outline + 1) * scale).astype(int)) for shape in shapes]
    picture = Image.new("RGB", (size, size), ground)
    for top in range(0, size, _ROWS):
        height = min(_ROWS, size - top)
        picture.paste(_band(outlines, ground, size, top, height), (0, top))
    return picture


def _band(
    outlines: Sequence[tuple[str, NDArray[np.int_]]], ground: str, size: int, top: int, height: int
) -> Image.Image:
    """Rows ``top`` to ``top + height`` of the picture."""
    first, last = top * _SAMPLES, (top + height) * _SAMPLES
    band = Image.new("RGB", (size * _SAMPLES, height * _SAMPLES), ground)
    draw = ImageDraw.Draw(band)
    for ink, outline in outlines:
        if len(outline) > 2 and outline[:, 1].min() < last and outline[:, 1].max() >= first:
            draw.polygon([(x, y - first) for x, y in outline.tolist()], fill=ink)
    return band.reduce(_SAMPLES)
