"""Operations on the colours that a picture is made of: another palette, one colour for another."""

from __future__ import annotations

__all__ = ["accented", "in_colours", "replaced", "simplified"]

from collections.abc import Sequence

import numpy as np
from PIL import Image

from executors.imaging.clusters import Clusters
from executors.imaging.colour import (
    hex_oklch,
    hex_srgb,
    oklab_to_oklch,
    oklab_to_srgb,
    srgb_to_oklab,
)
from executors.imaging.palettes import Palette, harmonies
from executors.imaging.recolour import Artwork

_NEUTRAL = 0.045  # chroma below which a colour is taken for a grey
_SAME = 0.24  # OKLab with lightness halved: that far apart two colours have different names


def in_colours(image: Image.Image, colours: Sequence[str], theme: str) -> Image.Image:
    """The picture in these colours, as they are, completed by a harmony of ``theme``."""
    return Artwork.of(image).in_palette(_ladder(colours, theme))


def replaced(image: Image.Image, old: str, new: str) -> Image.Image | None:
    """The picture with ``new`` where ``old`` was, shades included; None if it has nothing like it."""
    artwork = Artwork.of(image)
    lab = srgb_to_oklab(artwork.clusters.colours)
    chosen = _like(artwork.clusters, old)
    if not chosen.any():
        return None
    # The largest of them becomes the new colour, the others keep their difference to it.
    reference = lab[np.argmax(np.where(chosen, artwork.clusters.shares, -1))]
    target = srgb_to_oklab(hex_srgb([new]))[0]
    moved = lab.copy()
    moved[chosen, 0] = target[0] + 0.8 * (lab[chosen, 0] - reference[0])
    moved[chosen, 1:] = target[1:]
    return artwork.recoloured(np.clip(oklab_to_srgb(moved), 0, 1))


def accented(image: Image.Image, colour: str) -> Image.Image:
    """The picture with its smallest colourful region in ``colour``; with none, the smallest."""
    artwork = Artwork.of(image)
    chroma = oklab_to_oklch(srgb_to_oklab(artwork.clusters.colours))[:, 1]
    shares = artwork.clusters.shares
    if len(shares) < 2:
        return in_colours(image, [colour], colour)
    colourful = (chroma >= _NEUTRAL) & (shares < shares.max())
    smallest = np.argmin(np.where(colourful, shares, shares + 1))
    targets = artwork.clusters.colours.copy()
    targets[smallest] = hex_srgb([colour])[0]
    return artwork.recoloured(targets)


def simplified(image: Image.Image, count: int) -> Image.Image:
    """The picture in the ``count`` of its own colours that matter most, the lightest among them."""
    artwork = Artwork.of(image)
    clusters = artwork.clusters
    if len(clusters) <= count:
        return image
    lab = srgb_to_oklab(clusters.colours)
    largest = int(np.argmax(clusters.shares))
    opposite = int(np.argmax(np.abs(lab[:, 0] - lab[largest, 0]) + 0.2 * clusters.shares))
    vivid = np.hypot(lab[:, 1], lab[:, 2]) * np.sqrt(clusters.shares)
    chosen = list(dict.fromkeys([largest, opposite, *np.argsort(-vivid).tolist()]))[:count]
    apart = np.linalg.norm(lab[:, None] - lab[chosen][None], axis=-1)
    return artwork.recoloured(clusters.colours[chosen][apart.argmin(axis=1)])


def _like(clusters: Clusters, colour: str) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which clusters people would call by the name of ``colour``."""
    lightness, chroma, hue = hex_oklch(colour)
    lch = oklab_to_oklch(srgb_to_oklab(clusters.colours))
    if chroma < _NEUTRAL:
        grey = (lch[:, 1] < 2 * _NEUTRAL) & (np.abs(lch[:, 0] - lightness) < _SAME)
        return np.asarray(grey)
    turn = np.abs((lch[:, 2] - hue + 180) % 360 - 180)
    near = (turn < 38) & (lch[:, 1] >= _NEUTRAL) & (np.abs(lch[:, 0] - lightness) < 2 * _SAME)
    return np.asarray(near)


def _ladder(colours: Sequence[str], theme: str) -> tuple[str, ...]:
    """Five colours from dark to light with the asked ones among them, exactly."""
    try:
        if len(colours) >= 3:
            return Palette("asked", tuple(colours)).colours
    except ValueError:
        pass  # they look alike: better with a harmony between them
    ladder = list(harmonies(" ".join(colours) or theme, 1)[0].colours)
    for colour in colours[:3]:
        lightness = hex_oklch(colour)[0]
        rungs = sorted(range(5), key=lambda at: abs(hex_oklch(ladder[at])[0] - lightness))
        ladder[next(at for at in rungs if ladder[at] not in colours)] = colour
    return tuple(ladder)
