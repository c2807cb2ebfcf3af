"""Finishes: what happens to the whole picture at the end, as to a print."""

from __future__ import annotations

__all__ = ["FINISHES"]

from collections.abc import Callable
from random import Random
from typing import Final

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from executors.imaging.clusters import find_clusters

Finish = Callable[[Image.Image, float, Random], Image.Image]


def _aged(image: Image.Image, amount: float, chance: Random) -> Image.Image:
    """Grain, and corners that the light has not reached."""
    random = np.random.default_rng(chance.getrandbits(32))
    size = (max(1, image.width // 2), max(1, image.height // 2))
    spread = 9 + 15 * amount
    grain = 128 + random.normal(0, spread, (size[1], size[0]))
    blotches = 128 + random.normal(0, 7 + 9 * amount, (12, 12))
    paper = Image.fromarray(np.clip(grain, 0, 255).astype(np.uint8)).resize(image.size)
    large = Image.fromarray(np.clip(blotches, 0, 255).astype(np.uint8)).resize(image.size, _SMOOTH)
    aged = image.convert("RGB")
    for texture in (paper, large):
        aged = ImageChops.overlay(aged, Image.merge("RGB", [texture] * 3))
    light = Image.radial_gradient("L").resize(image.size, Image.Resampling.BICUBIC)
    darkest = 0.35 + 0.3 * amount
    light = light.point(lambda v: round(255 * (1 - darkest * max(0.0, v / 255 - 0.42) ** 1.6)))
    return _same_alpha(ImageChops.multiply(aged, Image.merge("RGB", [light] * 3)), image)


def _painted(image: Image.Image, amount: float, chance: Random) -> Image.Image:
    """Watercolour: edges wander, pigment gathers at them, paper shows through."""
    scale = min(1.0, 1024 / max(image.size))
    size = (max(2, round(image.width * scale)), max(2, round(image.height * scale)))
    small = np.asarray(image.convert("RGBA").resize(size, Image.Resampling.BOX))
    random = np.random.default_rng(chance.getrandbits(32))
    height, width = small.shape[:2]
    wander = (0.004 + 0.008 * amount) * width
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    rows += _waves(random, size) * wander
    columns += _waves(random, size) * wander
    rows = np.clip(np.rint(rows), 0, height - 1).astype(np.intp)
    columns = np.clip(np.rint(columns), 0, width - 1).astype(np.intp)
    moved = Image.fromarray(small[rows, columns]).filter(ImageFilter.GaussianBlur(1.1))
    colour = moved.convert("RGB")
    soft = colour.filter(ImageFilter.GaussianBlur(width * 0.012))
    rim = ImageChops.subtract(soft, colour).point(lambda v: min(255, v * 2))
    colour = ImageChops.subtract(colour, rim.point(lambda v: round(v * (0.25 + 0.4 * amount))))
    wash = 0.5 + 0.5 * _waves(random, size, cells=7) + 0.3 * _waves(random, size, cells=40)
    lift = np.clip(255 * (0.06 + (0.12 + 0.2 * amount) * wash), 0, 255).astype(np.uint8)
    white = Image.new("RGB", size, "#fffdf8")
    colour = Image.composite(white, colour, Image.fromarray(lift))
    grain = np.clip(random.normal(128, 10, (height, width)), 0, 255).astype(np.uint8)
    colour = ImageChops.soft_light(colour, Image.merge("RGB", [Image.fromarray(grain)] * 3))
    painted = colour.convert("RGBA")
    painted.putalpha(moved.getchannel("A"))
    return _as(painted.resize(image.size, Image.Resampling.BICUBIC), image)


def _pixelated(image: Image.Image, amount: float, _: Random) -> Image.Image:
    """Large square pixels in the picture's own few colours; most of what is below one speaks."""
    across = round(72 - 36 * amount)
    scale = min(1.0, across / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    pixels = np.array(image.resize(size, Image.Resampling.BOX).convert("RGBA"))
    clusters = find_clusters(image).colours
    if len(clusters):
        fine = image.resize((size[0] * _VOTES, size[1] * _VOTES), Image.Resampling.NEAREST)
        samples = np.asarray(fine.convert("RGB"), np.float32) / 255
        apart = np.linalg.norm(samples[..., None, :] - clusters, axis=-1)
        votes = (apart.argmin(axis=-1)[..., None] == np.arange(len(clusters))) & (apart < _NEAR)
        blocks = votes.reshape(size[1], _VOTES, size[0], _VOTES, -1).sum(axis=(1, 3))
        elected = np.rint(clusters[blocks.argmax(axis=-1)] * 255)
        # A gradient has no colours to elect: its pixels are means.
        known = blocks.sum(axis=-1) * 2 > _VOTES**2
        pixels[known, :3] = elected[known]
    pixels[..., 3] = np.where(pixels[..., 3] >= 128, 255, 0)
    return _as(Image.fromarray(pixels).resize(image.size, Image.Resampling.NEAREST), image)


def _blurred(image: Image.Image, amount: float, _: Random) -> Image.Image:
    """Out of focus."""
    radius = (0.004 + 0.016 * amount) * min(image.size)
    soft = image.convert("RGBa") if image.mode == "RGBA" else image
    return soft.filter(ImageFilter.GaussianBlur(radius)).convert(image.mode)


def _sharpened(image: Image.Image, amount: float, _: Random) -> Image.Image:
    """Crisp edges, and the fine contrast that makes a picture look sharp."""
    sharp = image.convert("RGB")
    fine, wide = round(110 + 130 * amount), round(12 + 20 * amount)
    sharp = sharp.filter(ImageFilter.UnsharpMask(min(image.size) / 40, wide, 0))
    return _same_alpha(sharp.filter(ImageFilter.UnsharpMask(1.6, fine, 2)), image)


#: Every finish, by the name that is recorded.
FINISHES: Final[dict[str, Finish]] = {
    "aged print": _aged,
    "watercolour": _painted,
    "pixels": _pixelated,
    "blur": _blurred,
    "sharpness": _sharpened,
}

_SMOOTH = Image.Resampling.BICUBIC
_VOTES = 5  # samples a side for each large pixel
_NEAR = 0.12  # sRGB, how near to a colour of the picture a pixel is that colour


def _waves(
    random: np.random.Generator, size: tuple[int, int], cells: int = 13
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Smooth noise from -1 to 1, (height, width), so many cells across."""
    grid = Image.fromarray(random.uniform(0, 255, (cells, cells)).astype(np.uint8))
    return np.asarray(grid.resize(size, _SMOOTH), np.float32) / 127.5 - 1


def _same_alpha(changed: Image.Image, image: Image.Image) -> Image.Image:
    if image.mode == "RGBA":
        changed = changed.convert("RGBA")
        changed.putalpha(image.getchannel("A"))
    return changed


def _as(changed: Image.Image, image: Image.Image) -> Image.Image:
    """In the mode of the picture it was made of."""
    return changed if image.mode == "RGBA" else changed.convert(image.mode)
