"""Operations on what is behind the subject."""

from __future__ import annotations

__all__ = [
    "blended",
    "dark_of",
    "framed",
    "light_of",
    "main_of",
    "on_ground",
    "rounded_mask",
    "samples",
]

import numpy as np
from PIL import Image, ImageDraw

from executors.imaging.clusters import find_clusters
from executors.imaging.colour import (
    contrast,
    format_hex,
    hex_oklch,
    oklab_to_oklch,
    oklab_to_srgb,
    oklch_hex,
    srgb_to_oklab,
)
from executors.imaging.recolour import cube_nodes, lut_of
from executors.providers.offline.refining.layers import Ground, Layers

_VISIBLE = 1.5  # contrast with the ground that a region needs to be seen
_SEEN = 0.3  # share of the subject that has to be


def on_ground(layers: Layers, ground: Ground) -> Layers:
    """The subject on another ground, lighter or darker where it would be lost there.

    Where no ground was found, the whole picture becomes a plate on it.
    """
    if not layers.found:
        return framed(layers, ground)
    seen = layers.over(ground)
    for share in (0.2, 0.4, 0.6, 0.8):
        if _visible(seen) >= _SEEN:
            break
        seen = seen.with_subject(_lifted(layers.subject, ground, share))
    return seen


def framed(layers: Layers, ground: Ground | None, scale: float = 0.8) -> Layers:
    """The whole picture as a plate with round corners on a ground."""
    width, height = layers.size
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    plate = layers.flat().convert("RGBA").resize(size, Image.Resampling.LANCZOS)
    plate.putalpha(rounded_mask(size, 0.09))
    subject = Image.new("RGBA", layers.size)
    subject.paste(plate, ((width - size[0]) // 2, (height - size[1]) // 2))
    return Layers(subject, ground, found=True)


def rounded_mask(size: tuple[int, int], radius: float) -> Image.Image:
    """A rectangle with round corners, smooth at its edge; ``radius`` is a share of the shorter side."""
    scale = samples(size)
    large = (size[0] * scale, size[1] * scale)
    mask = Image.new("L", large)
    box = (0, 0, large[0] - 1, large[1] - 1)
    ImageDraw.Draw(mask).rounded_rectangle(box, radius * min(large), fill=255)
    return mask.reduce(scale)


def samples(size: tuple[int, int]) -> int:
    """How often a mask of this size is sampled along each side of a pixel: large ones need less."""
    return 4 if max(size) <= 1024 else 2


def blended(colours: tuple[str, ...], layers: Layers, shade: str = "") -> Ground:
    """A gradient of these colours; of the subject's own hue when there are none.

    ``shade`` is dark or light; by default whatever shows the subject.
    """
    if not colours:
        hue = hex_oklch(main_of(layers))[2]
        dark = shade == "dark" or (not shade and _lightness_of(layers) > 0.66)
        first = oklch_hex(0.3, 0.09, hue - 25) if dark else oklch_hex(0.96, 0.025, hue - 20)
        last = oklch_hex(0.2, 0.06, hue + 30) if dark else oklch_hex(0.84, 0.075, hue + 30)
    elif len(colours) == 1:
        lightness, chroma, hue = hex_oklch(colours[0])
        first = colours[0]
        further = lightness - 0.2 if lightness > 0.5 else lightness + 0.2
        # Darker oranges and yellows turn to red and not to mud.
        last = oklch_hex(further, max(chroma, 0.05), hue - 32 if 35 < hue < 130 else hue + 40)
    else:
        first, last = colours[0], colours[-1]
    if len(colours) > 2:
        return Ground((first, colours[1], colours[1], last))
    middle = format_hex(oklab_to_srgb(_between(first, last)))
    return Ground((first, middle, middle, last))


def dark_of(colour: str) -> str:
    """An almost black in the hue of a colour."""
    _, chroma, hue = hex_oklch(colour)
    return oklch_hex(0.2, min(chroma, 0.05), hue)


def light_of(colour: str) -> str:
    """An almost white in the hue of a colour."""
    _, chroma, hue = hex_oklch(colour)
    return oklch_hex(0.975, min(chroma, 0.012), hue)


def main_of(layers: Layers) -> str:
    """The colour that the subject is remembered by: much of it, and colourful."""
    clusters = find_clusters(layers.subject)
    if not len(clusters):
        return "#3a6ea5"
    chroma = oklab_to_oklch(srgb_to_oklab(clusters.colours))[:, 1]
    best = int(np.argmax(np.sqrt(clusters.shares) * (chroma + 0.01)))
    return format_hex(clusters.colours[best])


def _between(one: str, other: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    lab = srgb_to_oklab(np.array([_srgb(one), _srgb(other)], np.float32))
    return np.asarray(lab.mean(axis=0))


def _srgb(colour: str) -> list[float]:
    return [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]


def _lightness_of(layers: Layers) -> float:
    """The mean lightness of what can be seen of the subject."""
    pixels = np.asarray(layers.subject.resize((64, 64), Image.Resampling.BOX), np.float32) / 255
    weight = pixels[..., 3].sum()
    lightness = srgb_to_oklab(pixels[..., :3])[..., 0]
    return float((lightness * pixels[..., 3]).sum() / weight) if weight else 0.5


def _visible(layers: Layers) -> float:
    """The share of the subject that stands out from the ground."""
    assert layers.ground is not None  # noqa: S101 - the caller has put one there
    side = (96, 96)
    pixels = np.asarray(layers.subject.resize(side, Image.Resampling.BOX), np.float32) / 255
    ground = np.asarray(layers.ground.painted(side), np.float32) / 255
    weight = pixels[..., 3]
    stands_out = contrast(pixels[..., :3], ground) >= _VISIBLE
    return float((stands_out * weight).sum() / weight.sum()) if weight.any() else 1.0


def _lifted(subject: Image.Image, ground: Ground, share: float) -> Image.Image:
    """The subject further away from the ground's lightness, its dark and light still in order."""
    lightness = hex_oklch(ground.colour)[0]
    lab = srgb_to_oklab(cube_nodes())
    away = 1.0 if lightness < 0.6 else 0.12
    lab[..., 0] += share * (away - lab[..., 0])
    lab[..., 1:] *= 1 + share / 2
    nodes = np.clip(oklab_to_srgb(lab), 0, 1)
    return subject.filter(lut_of(np.asarray(nodes, np.float32)))
