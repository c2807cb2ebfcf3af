"""Operations on every colour alike: warmer, darker, muted, monochrome, … as one look-up table.

Each is a function of (n, 3) OKLCH colours and an amount 0 to 1, so any number of them in a row costs
one pass over the picture.
"""

from __future__ import annotations

__all__ = ["TONES", "toned"]

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from executors.imaging.colour import (
    Floats,
    fit_gamut,
    oklab_to_oklch,
    oklab_to_srgb,
    oklch_to_oklab,
    srgb_to_oklab,
)
from executors.imaging.recolour import cube_nodes, lut_of
from executors.imaging.tiles import Tiles

Tone = Callable[[Floats, float], Floats]


def toned(image: Image.Image, tones: Sequence[tuple[str, float]]) -> Image.Image:
    """The picture after these tones (name, amount), in order; its alpha stays."""
    colours = oklab_to_oklch(srgb_to_oklab(cube_nodes()))
    for name, amount in tones:
        colours = TONES[name](colours, amount)
    return Tiles.cut(image).filter(lut_of(_shown(colours)))


def _shown(lch: Floats) -> Floats:
    """SRGB of these colours, with less chroma where there is no such one."""
    srgb = oklab_to_srgb(oklch_to_oklab(lch))
    outside = np.any((srgb < 0) | (srgb > 1), axis=-1)
    srgb[outside] = oklab_to_srgb(oklch_to_oklab(fit_gamut(lch[outside])))
    return np.asarray(np.clip(srgb, 0, 1), np.float32)


def _warmer(lch: Floats, amount: float) -> Floats:
    return _shifted(lch, amount * 0.018, amount * 0.06)


def _cooler(lch: Floats, amount: float) -> Floats:
    # There is no blue as light as white: to be seen on a page, it needs a little less light.
    page = 0.05 * amount * np.clip((lch[..., 0] - 0.75) / 0.25, 0, 1)
    return _shifted(_lightness(lch, lch[..., 0] - page), amount * -0.03, amount * -0.06)


def _shifted(lch: Floats, a: float, b: float) -> Floats:
    """Every colour moved in the same direction, black the least: it would turn to mud."""
    lab = oklch_to_oklab(lch)
    weight = np.clip(lch[..., 0] * 1.6, 0.15, 1)
    return oklab_to_oklch(lab + np.stack([0 * weight, a * weight, b * weight], axis=-1))


def _brighter(lch: Floats, amount: float) -> Floats:
    return _lightness(lch, 1 - (1 - lch[..., 0]) ** (1 + 1.1 * amount))


def _darker(lch: Floats, amount: float) -> Floats:
    # Paper stays paper: grey instead of white looks dirty, not dark.
    shade = 1 - 0.3 * amount * np.clip((0.98 - lch[..., 0]) / 0.16, 0, 1)
    return _lightness(lch, lch[..., 0] ** (1 + 0.5 * amount) * shade)


def _saturated(lch: Floats, amount: float) -> Floats:
    # What is almost grey stays so: a white page must not turn pink.
    gain = 1 + 1.1 * amount * np.clip((lch[..., 1] - 0.01) / 0.04, 0, 1)
    return _chroma(lch, lch[..., 1] * gain)


def _muted(lch: Floats, amount: float) -> Floats:
    calm = _chroma(lch, lch[..., 1] * (1 - 0.75 * amount))
    return _lightness(calm, calm[..., 0] + 0.12 * amount * (0.62 - calm[..., 0]))


def _monochrome(lch: Floats, amount: float) -> Floats:
    return _chroma(lch, lch[..., 1] * max(0.0, 1 - 1.6 * amount))


def _sepia(lch: Floats, amount: float) -> Floats:
    grey = _chroma(lch, 0.085 * (1 - np.abs(2 * lch[..., 0] - 1) ** 2.5) + 0.012)
    grey[..., 2] = 68
    return _mixed(lch, grey, 0.35 + 0.65 * amount)


def _pastel(lch: Floats, amount: float) -> Floats:
    soft = lch.copy()
    soft[..., 0] = 0.52 + 0.47 * lch[..., 0] ** 0.8
    soft[..., 1] = 0.1 * np.tanh(lch[..., 1] / 0.1)
    return _mixed(lch, soft, 0.3 + 0.7 * amount)


def _contrast(lch: Floats, amount: float) -> Floats:
    """Steeper around the middle; the ends stay where they are."""
    x = np.clip(lch[..., 0], 0, 1)
    middle, power = 0.6, 1 + 1.4 * amount
    low = middle * (x / middle) ** power
    high = 1 - (1 - middle) * (np.maximum(1 - x, 0) / (1 - middle)) ** power
    stronger = _lightness(lch, np.where(x < middle, low, high))
    return _chroma(stronger, stronger[..., 1] * (1 + 0.2 * amount))


def _flatter(lch: Floats, amount: float) -> Floats:
    return _lightness(lch, 0.62 + (lch[..., 0] - 0.62) * (1 - 0.55 * amount))


def _inverted(lch: Floats, amount: float) -> Floats:
    """Light and dark change places and hues stay: a page at night, not a negative."""
    return _mixed(lch, _lightness(lch, 1.06 - 0.9 * lch[..., 0]), min(1.0, 0.7 + amount))


def _turned(lch: Floats, amount: float) -> Floats:
    """Other hues, as far round the circle as ``amount`` says."""
    turned = lch.copy()
    turned[..., 2] = (lch[..., 2] + 360 * amount) % 360
    return turned


def _faded(lch: Floats, amount: float) -> Floats:
    """As a print that has seen the sun: no black, no white, little colour."""
    calm = _chroma(lch, lch[..., 1] * (1 - 0.3 * amount))
    faded = _lightness(calm, 0.22 * amount + calm[..., 0] * (1 - 0.29 * amount))
    return _shifted(faded, 0.008 * amount, 0.034 * amount)


def _lightness(lch: Floats, value: ArrayLike) -> Floats:
    changed = lch.copy()
    changed[..., 0] = np.clip(value, 0, 1)
    return changed


def _chroma(lch: Floats, value: ArrayLike) -> Floats:
    changed = lch.copy()
    changed[..., 1] = np.maximum(value, 0)
    return changed


def _mixed(one: Floats, other: Floats, share: float) -> Floats:
    """Between two colours on the straight way through OKLab."""
    first, second = oklch_to_oklab(one), oklch_to_oklab(other)
    return oklab_to_oklch(first + np.float32(share) * (second - first))


#: Every tone, by the name that is recorded.
TONES: Final[dict[str, Tone]] = {
    "warmer": _warmer,
    "cooler": _cooler,
    "brighter": _brighter,
    "darker": _darker,
    "more saturated": _saturated,
    "muted": _muted,
    "monochrome": _monochrome,
    "sepia": _sepia,
    "pastel": _pastel,
    "more contrast": _contrast,
    "less contrast": _flatter,
    "light and dark swapped": _inverted,
    "other hues": _turned,
    "faded": _faded,
}
