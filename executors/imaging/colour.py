"""Colour: sRGB, linear light, OKLab and OKLCH, differences, contrast, gamut.

Arrays are ``float32`` with the three channels last, any shape before them. sRGB and linear values
lie in 0…1; OKLab is (L 0…1, a, b); OKLCH is (L, C, hue in degrees).

Two differences, and which one speaks where:

* :func:`delta_e_2000` (CIEDE2000) is the one that promises are made in ("within ΔE 5"): it is the
  industry's measure of what people see, and 1 is about a just noticeable difference.
* :func:`delta_e_ok` (Euclid in OKLab) is the cheap one for clustering; 0.02 is about noticeable.

Sources: IEC 61966-2-1 (sRGB); B. Ottosson, "A perceptual color space for image processing", 2020
(OKLab); G. Sharma, W. Wu, E. Dalal, "The CIEDE2000 color-difference formula", Color Research &
Application 30(1), 2005; W3C, WCAG 2.2 (contrast); CSS Color 4 §13 (gamut by reducing chroma).
"""

from __future__ import annotations

__all__ = [
    "Floats",
    "contrast",
    "delta_e_2000",
    "delta_e_lab_2000",
    "delta_e_ok",
    "fit_gamut",
    "format_hex",
    "hex_oklch",
    "hex_srgb",
    "linear_to_srgb",
    "luminance",
    "oklab_to_oklch",
    "oklab_to_srgb",
    "oklch_hex",
    "oklch_to_oklab",
    "parse_hex",
    "srgb_to_lab",
    "srgb_to_linear",
    "srgb_to_oklab",
]

import re
from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats: TypeAlias = NDArray[np.float32]

_HEX = re.compile(r"#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})")

#: Linear sRGB → the cone responses of OKLab, and those (after a cube root) → Lab. Ottosson 2020.
_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ],
)
_TO_OKLAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ],
)
_FROM_CONES = np.linalg.inv(_TO_CONES)
_FROM_OKLAB = np.linalg.inv(_TO_OKLAB)

#: Linear sRGB → CIE XYZ under D65, IEC 61966-2-1; the rows' sums are the white point.
_TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ],
)
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)


# --- hex -----------------------------------------------------------------------------------------


def parse_hex(text: str) -> tuple[int, int, int]:
    """``#rgb`` or ``#rrggbb`` (the ``#`` may be missing) as three bytes; raises ``ValueError``."""
    match = _HEX.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a colour; write #rrggbb, such as #1d6f8a")
    digits = match[1] if len(match[1]) == 6 else "".join(digit * 2 for digit in match[1])
    return int(digits[0:2], 16), int(digits[2:4], 16), int(digits[4:6], 16)


def format_hex(srgb: ArrayLike) -> str:
    """One sRGB colour (0…1, clipped) as lower-case ``#rrggbb``."""
    levels = np.rint(np.clip(np.asarray(srgb, np.float64), 0, 1) * 255).astype(int)
    return "#{:02x}{:02x}{:02x}".format(*levels.tolist())


def hex_srgb(colours: Iterable[str]) -> Floats:
    """Hex colours as an (n, 3) array of sRGB values."""
    levels = [parse_hex(colour) for colour in colours]
    return np.array(levels, np.float32).reshape(-1, 3) / np.float32(255)


def hex_oklch(colour: str) -> tuple[float, float, float]:
    """One hex colour as (L, C, hue in degrees)."""
    lightness, chroma, hue = oklab_to_oklch(srgb_to_oklab(hex_srgb([colour])))[0].tolist()
    return lightness, chroma, hue


# --- spaces --------------------------------------------------------------------------------------


def srgb_to_linear(srgb: ArrayLike) -> Floats:
    """Undo the transfer curve of sRGB; negative values keep their sign."""
    value = np.asarray(srgb, np.float32)
    size = np.abs(value)
    curve = np.where(size <= 0.04045, size / 12.92, ((size + 0.055) / 1.055) ** 2.4)
    return _f32(np.copysign(curve, value))


def linear_to_srgb(linear: ArrayLike) -> Floats:
    """Apply the transfer curve of sRGB; negative values keep their sign."""
    value = np.asarray(linear, np.float32)
    size = np.abs(value)
    curve = np.where(size <= 0.0031308, size * 12.92, 1.055 * size ** (1 / 2.4) - 0.055)
    return _f32(np.copysign(curve, value))


def srgb_to_oklab(srgb: ArrayLike) -> Floats:
    """SRGB (…, 3) → OKLab (…, 3)."""
    cones = srgb_to_linear(srgb) @ _f32(_TO_CONES.T)
    return _f32(np.cbrt(cones) @ _f32(_TO_OKLAB.T))


def oklab_to_srgb(oklab: ArrayLike) -> Floats:
    """OKLab (…, 3) → sRGB (…, 3), not clipped: outside 0…1 means outside the gamut."""
    cones = (np.asarray(oklab, np.float32) @ _f32(_FROM_OKLAB.T)) ** 3
    return linear_to_srgb(cones @ _f32(_FROM_CONES.T))


def oklab_to_oklch(oklab: ArrayLike) -> Floats:
    """OKLab → (L, C, hue 0…360). The hue of a grey is whatever its rounding says."""
    lab = np.asarray(oklab, np.float32)
    chroma = np.hypot(lab[..., 1], lab[..., 2])
    hue = np.degrees(np.arctan2(lab[..., 2], lab[..., 1])) % 360
    return _f32(np.stack([lab[..., 0], chroma, hue], axis=-1))


def oklch_to_oklab(oklch: ArrayLike) -> Floats:
    """(L, C, hue in degrees) → OKLab."""
    lch = np.asarray(oklch, np.float32)
    hue = np.radians(lch[..., 2])
    return _f32(np.stack([lch[..., 0], lch[..., 1] * np.cos(hue), lch[..., 1] * np.sin(hue)], -1))


def srgb_to_lab(srgb: ArrayLike) -> NDArray[np.float64]:
    """SRGB → CIE L*a*b* under D65, where CIEDE2000 is defined."""
    xyz = srgb_to_linear(srgb).astype(np.float64) @ _TO_XYZ.T / _TO_XYZ.sum(axis=1)
    delta = 6 / 29
    f = np.where(xyz > delta**3, np.cbrt(xyz), xyz / (3 * delta**2) + 4 / 29)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


# --- gamut ---------------------------------------------------------------------------------------


def fit_gamut(oklch: ArrayLike) -> Floats:
    """The same lightness and hue with as much of the chroma as sRGB can show; (…, 3) → (…, 3).

    Reducing chroma keeps hue and lightness, which clipping channels does not: that is how a vivid
    blue turns purple. Bisection to 1/4096 of the chroma.
    """
    lch = np.array(oklch, np.float32)
    lch[..., 0] = np.clip(lch[..., 0], 0, 1)
    fits = _in_gamut(lch)
    low, high = np.zeros_like(lch[..., 1]), lch[..., 1].copy()
    for _ in range(12):
        middle = (low + high) / 2
        inside = _in_gamut(np.stack([lch[..., 0], middle, lch[..., 2]], axis=-1))
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    lch[..., 1] = np.where(fits, lch[..., 1], low)
    return lch


def oklch_hex(lightness: float, chroma: float, hue: float) -> str:
    """The nearest colour of that lightness and hue that sRGB can show, as hex."""
    return format_hex(oklab_to_srgb(oklch_to_oklab(fit_gamut([lightness, chroma, hue]))))


def _in_gamut(oklch: Floats) -> NDArray[np.bool_]:
    srgb = oklab_to_srgb(oklch_to_oklab(oklch))
    inside: NDArray[np.bool_] = np.all((srgb >= -1e-4) & (srgb <= 1 + 1e-4), axis=-1)
    return inside


# --- differences and contrast --------------------------------------------------------------------


def delta_e_ok(first: ArrayLike, second: ArrayLike) -> Floats:
    """Euclidean distance in OKLab of two sRGB colours; arrays broadcast."""
    return _f32(np.linalg.norm(srgb_to_oklab(first) - srgb_to_oklab(second), axis=-1))


def delta_e_2000(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """CIEDE2000 of two sRGB colours (kL = kC = kH = 1); arrays broadcast."""
    return delta_e_lab_2000(srgb_to_lab(first), srgb_to_lab(second))


def delta_e_lab_2000(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """CIEDE2000 of two L*a*b* colours, after Sharma, Wu and Dalal 2005, equations 2 to 22."""
    lab1, lab2 = np.broadcast_arrays(np.asarray(first, float), np.asarray(second, float))
    mean_c = (np.hypot(lab1[..., 1], lab1[..., 2]) + np.hypot(lab2[..., 1], lab2[..., 2])) / 2
    g = 0.5 * (1 - _saturation(mean_c))
    l1, c1, h1 = _primed(lab1, g)
    l2, c2, h2 = _primed(lab2, g)

    grey = c1 * c2 == 0
    turn = np.where(grey, 0.0, (h2 - h1 + 180) % 360 - 180)
    d_l, d_c = l2 - l1, c2 - c1
    d_h = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2))
    l_bar, c_bar = (l1 + l2) / 2, (c1 + c2) / 2
    h_bar = np.where(grey, h1 + h2, _mean_hue(h1, h2))

    s_l = 1 + 0.015 * (l_bar - 50) ** 2 / np.sqrt(20 + (l_bar - 50) ** 2)
    s_c = 1 + 0.045 * c_bar
    s_h = 1 + 0.015 * c_bar * _hue_weight(h_bar)
    d_theta = 30 * np.exp(-(((h_bar - 275) / 25) ** 2))
    r_t = -2 * _saturation(c_bar) * np.sin(np.radians(2 * d_theta))
    x, y, z = d_l / s_l, d_c / s_c, d_h / s_h
    return _f64(np.sqrt(np.maximum(x * x + y * y + z * z + r_t * y * z, 0)))


def luminance(srgb: ArrayLike) -> Floats:
    """Relative luminance 0…1 as WCAG defines it."""
    return _f32(srgb_to_linear(srgb) @ _LUMINANCE)


def contrast(first: ArrayLike, second: ArrayLike) -> Floats:
    """WCAG contrast ratio of two sRGB colours: 1 (none) … 21 (black on white)."""
    one, two = luminance(first), luminance(second)
    return _f32((np.maximum(one, two) + 0.05) / (np.minimum(one, two) + 0.05))


def _saturation(chroma: NDArray[np.float64]) -> NDArray[np.float64]:
    """√(C⁷ / (C⁷ + 25⁷)), which CIEDE2000 uses twice."""
    return _f64(np.sqrt(chroma**7 / (chroma**7 + 25.0**7)))


def _primed(
    lab: NDArray[np.float64], g: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """L', C' and h' (degrees): a* stretched near the neutral axis."""
    a, b = lab[..., 1] * (1 + g), lab[..., 2]
    return lab[..., 0], np.hypot(a, b), np.degrees(np.arctan2(b, a)) % 360


def _mean_hue(h1: NDArray[np.float64], h2: NDArray[np.float64]) -> NDArray[np.float64]:
    """The middle of the shorter way round the circle."""
    total = h1 + h2
    near = np.abs(h1 - h2) <= 180
    return _f64(np.where(near, total, np.where(total < 360, total + 360, total - 360)) / 2)


def _hue_weight(hue: NDArray[np.float64]) -> NDArray[np.float64]:
    """T of CIEDE2000: how much a difference of hue counts at this hue."""
    return _f64(
        1
        - 0.17 * np.cos(np.radians(hue - 30))
        + 0.24 * np.cos(np.radians(2 * hue))
        + 0.32 * np.cos(np.radians(3 * hue + 6))
        - 0.20 * np.cos(np.radians(4 * hue - 63))
    )


def _f32(value: Any) -> Floats:
    return np.asarray(value, np.float32)


def _f64(value: Any) -> NDArray[np.float64]:
    return np.asarray(value, np.float64)
