"""Pictures in the cells of a terminal: each cell has four quarters and two colours."""

from __future__ import annotations

__all__ = ["draw"]

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.color import Color
from rich.style import Style
from rich.text import Text

#: By which quarters have the foreground: 1 upper left, 2 upper right, 4 lower left, 8 lower right.
_BLOCKS: Final = " ▘▝▀▖▌▞▛▗▚▐▜▄▙▟█"

#: One of each pair of opposites is enough: the colours change sides.
_SPLITS: Final = np.array([[at >> quarter & 1 for quarter in range(4)] for at in range(8)], bool)


def draw(picture: Image.Image, columns: int) -> Text:
    """A square picture, ``columns`` wide and half as many lines high.

    A quarter of a cell is twice as high as wide, so the picture is squeezed first. Of the eight
    ways to split four quarters into two colours each cell gets the one that changes them least.
    """
    size = (2 * columns, columns)
    small = picture.convert("RGB").resize(size, Image.Resampling.BOX, reducing_gap=2.0)
    lines, quarters = columns // 2, np.asarray(small, np.float32)
    cells = quarters.reshape(lines, 2, columns, 2, 3).transpose(0, 2, 1, 3, 4)
    shapes, fronts, backs = _split(cells.reshape(lines, columns, 4, 3))
    text = Text(no_wrap=True)
    for line in range(lines):
        text.append("\n" if line else "")
        for column in range(columns):
            style = Style(color=_color(fronts[line, column]), bgcolor=_color(backs[line, column]))
            text.append(_BLOCKS[shapes[line, column]], style)
    return text


def _split(
    cells: NDArray[np.float32],
) -> tuple[NDArray[np.intp], NDArray[np.float32], NDArray[np.float32]]:
    """The best split of each cell, and the mean colours of its two sides."""
    one, other = _means(cells, _SPLITS), _means(cells, ~_SPLITS)
    shown = np.where(_SPLITS[:, :, None], one[..., None, :], other[..., None, :])
    errors = ((cells[..., None, :, :] - shown) ** 2).sum((-1, -2))
    best = errors.argmin(-1)
    chosen = best[..., None, None]
    return (
        best,
        np.take_along_axis(one, chosen, -2)[..., 0, :],
        np.take_along_axis(other, chosen, -2)[..., 0, :],
    )


def _means(cells: NDArray[np.float32], masks: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Mean colour of the quarters in each mask: by line, column and mask."""
    weights = masks / np.maximum(masks.sum(1, keepdims=True), 1)
    means: NDArray[np.float32] = np.einsum("lcqk,mq->lcmk", cells, weights.astype(np.float32))
    return means


def _color(rgb: NDArray[np.float32]) -> Color:
    red, green, blue = (round(float(level)) for level in rgb)
    return Color.from_rgb(red, green, blue)
