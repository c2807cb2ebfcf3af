"""Filtering by tiles is filtering, only faster."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter

from executors.imaging.tiles import Tiles
from tests.executors.imaging.pictures import LOGOS, logo

SWAP = ImageFilter.Color3DLUT.generate(5, lambda r, g, b: (b, 1 - g, r * 0.7))


@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.sampled_from(["RGB", "RGBA"]),
    st.lists(st.tuples(*[st.integers(0, 90)] * 4), max_size=3),
)
def test_tiles_give_the_same_picture_bit_for_bit(
    width: int, height: int, mode: str, ellipses: list[tuple[int, int, int, int]]
) -> None:
    """Whatever the size, the mode and the content, the result equals filtering the whole."""
    image = Image.new(mode, (width, height), "#80a0c0")
    draw = ImageDraw.Draw(image)
    for at, (x0, y0, x1, y1) in enumerate(ellipses):
        box = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
        draw.ellipse(box, fill=(at * 60, 200, 30, 90 * at)[: len(mode)])
    filtered = Tiles.cut(image).filter(SWAP)
    assert filtered.mode == mode
    assert filtered.size == image.size
    assert filtered.tobytes() == image.filter(SWAP).tobytes()


@pytest.mark.parametrize("side", [256, 250, 257])
def test_a_logo_is_mostly_painted(side: int) -> None:
    """Of a flat logo most pixels are never put through the LUT, and it says that it is flat."""
    tiles = Tiles.cut(logo(LOGOS["two colours"], side=side))
    assert tiles.flat
    assert tiles.strip is not None
    assert tiles.strip.width * tiles.strip.height < 0.5 * side * side


def test_a_photo_is_filtered_whole() -> None:
    """Where hardly a tile is plain, nothing is cut."""
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    tiles = Tiles.cut(Image.fromarray(noise))
    assert not tiles.flat
    assert tiles.pieces == ()
