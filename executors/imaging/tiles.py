"""A picture cut into tiles, so that what is one colour is painted and not computed.

A 3D LUT costs the same for every pixel, but a logo is mostly flat: nine in ten of its 16 by 16
tiles hold a single colour. ``Tiles`` finds them once; applying a LUT then touches one pixel of each
of those, and every pixel of the others only, packed side by side into one strip. The result is the
same, bit for bit, as filtering the whole picture.
"""

from __future__ import annotations

__all__ = ["Tiles"]

from dataclasses import dataclass
from itertools import accumulate
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

_SIDE = 16  # pixels: of 16, 32 and 64 the fastest on logos of 1024² and 2048²
_WORTH_IT = 0.5  # share of mixed tiles above which filtering everything is quicker

_Box: TypeAlias = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Tiles:
    """A picture that waits for LUTs; build it with :meth:`cut`."""

    image: Image.Image
    corners: Image.Image | None  #: a pixel of every whole tile; None: filter everything
    strip: Image.Image | None  #: the mixed tiles side by side, neighbours in one piece
    pieces: tuple[tuple[int, _Box], ...]  #: where in the strip each begins, and where it belongs

    @property
    def flat(self) -> bool:
        """Whether most of the picture is plain colour (which also compresses differently)."""
        return self.corners is not None

    @classmethod
    def cut(cls, image: Image.Image) -> Tiles:
        """Look at every pixel of an ``RGB`` or ``RGBA`` picture once; about 8 ms for 2048²."""
        mixed = _mixed(image)
        if not mixed.size or mixed.mean() > _WORTH_IT:
            return cls(image, None, None, ())
        rows, columns = mixed.shape
        covered = (0, 0, columns * _SIDE, rows * _SIDE)
        corners = image.resize((columns, rows), Image.Resampling.NEAREST, box=covered)
        boxes = _runs(mixed) + _margins(image.size)
        starts = [0, *accumulate(right - left for left, _, right, _ in boxes)]
        strip = Image.new(image.mode, (max(1, starts[-1]), _SIDE))
        for start, box in zip(starts, boxes, strict=False):  # starts ends with the total
            strip.paste(image.crop(box), (start, 0))
        return cls(image, corners, strip, tuple(zip(starts, boxes, strict=False)))

    def filter(self, lut: ImageFilter.Color3DLUT) -> Image.Image:
        """The picture through ``lut``; alpha is kept as it is."""
        if self.corners is None or self.strip is None:
            return self.image.filter(lut)
        plain = self.corners.filter(lut)
        size = (plain.width * _SIDE, plain.height * _SIDE)
        painted = plain.resize(size, Image.Resampling.NEAREST)
        if size != self.image.size:
            painted = painted.crop((0, 0, *self.image.size))
        strip = self.strip.filter(lut)
        for start, (left, top, right, bottom) in self.pieces:
            piece = strip.crop((start, 0, start + right - left, bottom - top))
            painted.paste(piece, (left, top))
        return painted


def _mixed(image: Image.Image) -> NDArray[np.bool_]:
    """Which whole tiles hold more than one colour: (rows, columns)."""
    width, height = image.size
    columns, rows = width // _SIDE, height // _SIDE
    raw = image.tobytes("raw", "RGBA" if image.mode == "RGBA" else "RGBX")
    words = np.frombuffer(raw, np.uint32).reshape(height, width)
    tiles = words[: rows * _SIDE, : columns * _SIDE].reshape(rows, _SIDE, columns * _SIDE)
    if not tiles.size:
        return np.zeros((rows, columns), bool)
    # The least and the greatest pixel, as numbers: three times as fast as comparing with the first.
    shape = (rows, columns, _SIDE)
    least = np.minimum.reduce(tiles, axis=1).reshape(shape).min(axis=2)
    greatest = np.maximum.reduce(tiles, axis=1).reshape(shape).max(axis=2)
    return np.asarray(least != greatest)


def _runs(mixed: NDArray[np.bool_]) -> list[_Box]:
    """Mixed tiles with their mixed neighbours to the right, in pixels."""
    rows, columns = mixed.shape
    edged = np.zeros((rows, columns + 2), np.int8)
    edged[:, 1:-1] = mixed
    change = np.diff(edged, axis=1)
    starts, ends = np.argwhere(change == 1).tolist(), np.argwhere(change == -1).tolist()
    return [
        (left * _SIDE, row * _SIDE, right * _SIDE, (row + 1) * _SIDE)
        for (row, left), (_, right) in zip(starts, ends, strict=True)
    ]


def _margins(size: tuple[int, int]) -> list[_Box]:
    """What is cut off of whole tiles at the right and at the bottom."""
    width, height = size
    right, bottom = width - width % _SIDE, height - height % _SIDE
    boxes = [(right, top, width, top + _SIDE) for top in range(0, bottom, _SIDE)]
    return (boxes if right < width else []) + (
        [(0, bottom, width, height)] if bottom < height else []
    )
