"""Palettes from a theme by harmony in OKLCH: deterministic, offline, always valid.

A palette here is a ladder of five lightnesses (ink, two or three colours, paper), so that any two
of its colours differ visibly and the ends carry text. Hues come from the words of the theme; a
theme that names no colour gets hues of its own from a hash, the same ones every time.
"""

from __future__ import annotations

__all__ = ["Palette", "harmonies", "stable_seed", "theme_colours"]

import hashlib
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, count
from typing import Final, NamedTuple

import numpy as np
from PIL import ImageColor

from executors.imaging.colour import (
    contrast,
    delta_e_2000,
    hex_oklch,
    hex_srgb,
    oklch_hex,
    parse_hex,
)
from executors.imaging.theme_words import MOOD_WORDS, THEME_WORDS

_NAME_LENGTH = 80
_MIN_CONTRAST = 3.0  # WCAG 1.4.11 for graphics, between the lightest and the darkest
_MIN_APART = 3.0  # ΔE2000 between any two colours of a palette
_DISTINCT = 6.0  # mean ΔE2000 between two palettes, step by step from dark to light


@dataclass(frozen=True, slots=True)
class Palette:
    """A named set of colours that a mark can be drawn in.

    Raises ``ValueError``, in a sentence, for a colour that is none, two that look alike, ends
    without contrast, or an empty or endless name.
    """

    name: str
    colours: tuple[str, ...]  #: two to twelve, ``#rrggbb``, lower case

    def __post_init__(self) -> None:
        if not 1 <= len(self.name.strip()) <= _NAME_LENGTH:
            raise ValueError(f"a palette's name has 1 to {_NAME_LENGTH} characters")
        if not 2 <= len(self.colours) <= 12:
            raise ValueError(f"a palette has 2 to 12 colours, not {len(self.colours)}")
        levels = [parse_hex(colour) for colour in self.colours]
        object.__setattr__(self, "colours", tuple(f"#{r:02x}{g:02x}{b:02x}" for r, g, b in levels))
        self._check_differences()

    def _check_differences(self) -> None:
        srgb = hex_srgb(self.colours)
        apart = delta_e_2000(srgb[:, None], srgb[None])
        for first, second in combinations(range(len(srgb)), 2):
            if apart[first, second] < _MIN_APART:
                one, two = self.colours[first], self.colours[second]
                raise ValueError(f"{one} and {two} look alike")
        best = float(contrast(srgb[:, None], srgb[None]).max())
        if best < _MIN_CONTRAST:
            raise ValueError(f"the best contrast of these colours is {best:.1f}, not enough to see")


class _Mood(NamedTuple):
    """How a ladder is tuned: lightness and chroma from ink to paper, and what to call it."""

    lightness: tuple[float, float, float, float, float]
    chroma: tuple[float, float, float, float, float]
    names: tuple[str, ...]


_MOODS: Final[dict[str, _Mood]] = {
    "clear": _Mood(
        (0.29, 0.52, 0.68, 0.82, 0.97), (0.06, 0.13, 0.13, 0.12, 0.012), ("Clear", "True", "Fresh")
    ),
    "deep": _Mood(
        (0.21, 0.37, 0.57, 0.76, 0.95), (0.05, 0.10, 0.13, 0.11, 0.018), ("Deep", "Dark", "Velvet")
    ),
    "vivid": _Mood(
        (0.27, 0.55, 0.66, 0.83, 0.98), (0.09, 0.22, 0.20, 0.17, 0.008), ("Vivid", "Bold", "Neon")
    ),
    "dusty": _Mood(
        (0.31, 0.48, 0.63, 0.78, 0.94), (0.03, 0.07, 0.075, 0.06, 0.022), ("Dusty", "Dry", "Worn")
    ),
    "soft": _Mood(
        (0.38, 0.62, 0.76, 0.87, 0.98), (0.07, 0.10, 0.095, 0.07, 0.010), ("Soft", "Pale", "Airy")
    ),
    "night": _Mood(
        (0.17, 0.32, 0.60, 0.80, 0.93), (0.045, 0.09, 0.15, 0.13, 0.03), ("Night", "Late", "Polar")
    ),
}

#: Turns of the colour circle for three hues of the theme. At most one leaves the theme at first:
#: two foreign hues make a palette that the theme's author does not recognise.
_SCHEMES: Final[tuple[tuple[str, tuple[float, float, float]], ...]] = (
    ("clear", (0, 0, 0)),  # the theme itself
    ("deep", (0, 0, 0)),
    ("vivid", (0, 20, -20)),  # analogous
    ("dusty", (0, 0, 180)),  # complementary
    ("soft", (0, 0, 0)),
    ("clear", (0, -35, 150)),  # analogous with a split complement
    ("night", (0, 0, 25)),
    ("vivid", (0, 120, 0)),  # triadic
    ("dusty", (30, -30, 0)),
    ("soft", (0, 90, 180)),  # tetradic
)

#: Where sRGB is most colourful: (hue, lightness). A yellow is light and a blue dark, so the hues of
#: a ladder are put in this order: the other way round they turn to mud and to pastel.
_CUSPS: Final = (
    (29, 0.63),
    (70, 0.78),
    (110, 0.97),
    (142, 0.87),
    (195, 0.9),
    (264, 0.45),
    (328, 0.7),
)

#: Upper bound of a range of hues (degrees of OKLCH) and its name.
_HUES: Final[tuple[tuple[float, str], ...]] = (
    (12, "Raspberry"),
    (25, "Rose"),
    (36, "Coral"),
    (52, "Terracotta"),
    (66, "Copper"),
    (80, "Amber"),
    (95, "Honey"),
    (112, "Citron"),
    (128, "Olive"),
    (145, "Fern"),
    (160, "Jade"),
    (178, "Mint"),
    (198, "Lagoon"),
    (215, "Teal"),
    (232, "Harbour"),
    (250, "Azure"),
    (268, "Cobalt"),
    (284, "Indigo"),
    (302, "Violet"),
    (322, "Plum"),
    (345, "Orchid"),
    (360, "Raspberry"),
)
_NEUTRAL = 0.04  # chroma below which a colour's hue is an accident


def stable_seed(*parts: str | None) -> int:
    """A 63-bit number from texts: the same on every machine and in every release."""
    text = "\x1f".join(part or "" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def theme_colours(theme: str) -> tuple[str, ...]:
    """The colours that a theme names, in its order: hex codes, colour names, words like "ocean".

    At least two: a theme that names fewer gets neighbours of its hue, or hues of its own.
    """
    tokens = re.findall(r"#[0-9a-f]{6}\b|#[0-9a-f]{3}\b|[a-z]+", theme.lower())
    meanings = [_meaning(token) for token in tokens]
    # What every word means first, then what else it brings along.
    ranked = [c for rank in range(3) for colours in meanings for c in colours[rank : rank + 1]]
    found = list(dict.fromkeys(ranked))
    if not found:
        start = float(stable_seed(theme.strip().lower()) % 360)
        return (oklch_hex(0.55, 0.14, start), oklch_hex(0.75, 0.13, start + 75))
    if len(found) == 1:
        lightness, chroma, hue = hex_oklch(found[0])
        beside = 0.78 if lightness < 0.62 else 0.45
        found.append(oklch_hex(beside, max(chroma, 0.09), hue + 38))
    return tuple(found)


def harmonies(theme: str, n: int = 7, *, seed: int | None = None) -> tuple[Palette, ...]:
    """``n`` palettes of five colours for a theme, all distinct, the closest to the theme first.

    The same theme, ``n`` and seed give the same palettes, and a larger ``n`` the same ones first.
    """
    chance = random.Random(stable_seed(theme.strip().lower(), str(seed or 0)))  # noqa: S311
    palettes: list[Palette] = []
    for candidate in _candidates(theme, chance):
        if len(palettes) == n:
            break
        if all(_apart(candidate, other) >= _DISTINCT for other in palettes):
            palettes.append(_renamed(candidate, {other.name for other in palettes}))
    return tuple(palettes)


def _meaning(token: str) -> tuple[str, ...]:
    for word in (token, token.removesuffix("s"), token.removesuffix("y"), token.removesuffix("en")):
        if word in THEME_WORDS:
            return THEME_WORDS[word]
    try:
        red, green, blue = ImageColor.getrgb(token)[:3]
    except ValueError:
        return ()
    return (f"#{red:02x}{green:02x}{blue:02x}",)


def _candidates(theme: str, chance: random.Random) -> Iterator[Palette]:
    """Palettes without end: every scheme, then every scheme turned by another angle."""
    hues, grey = _theme_hues(theme)
    words = re.findall(r"[a-z]+", theme.lower())
    asked = [MOOD_WORDS[word] for word in words if word in MOOD_WORDS]
    for lap in count():
        turn = 0.0 if lap == 0 else chance.uniform(25, 335)
        for at, (mood, turns) in enumerate(_SCHEMES):
            # A theme that asks for a mood gets it in its first palette and every third.
            chosen = asked[at % len(asked)] if asked and at % 3 == 0 else mood
            spun = [hue + by + turn for hue, by in zip(hues, turns, strict=True)]
            # Without colours in the theme: greys, and every other time one accent among them.
            colourful = (at % 2 * _ACCENT) if grey and lap == 0 else _EVERYTHING
            yield _ladder(_MOODS[chosen], spun, colourful, chance)


def _theme_hues(theme: str) -> tuple[tuple[float, float, float], bool]:
    """Three hues of the theme, different ones where it has them, and whether it has none at all."""
    seen = [hex_oklch(colour) for colour in theme_colours(theme)]
    coloured = [hue for _, chroma, hue in seen if chroma >= _NEUTRAL]
    hues: list[float] = []
    for hue in coloured:
        if all(_turn(hue, other) > 20 for other in hues):
            hues.append(hue)
    if not hues:
        hues.append(stable_seed(theme.strip().lower()) % 360)
    first, second = hues[0], hues[1] if len(hues) > 1 else hues[0] + 28
    return (first, second, hues[2] if len(hues) > 2 else first - 16), not coloured


def _turn(one: float, two: float) -> float:
    return abs((one - two + 180) % 360 - 180)


_EVERYTHING: Final = 0b111
_ACCENT: Final = 0b100


def _ladder(mood: _Mood, hues: Sequence[float], colourful: int, chance: random.Random) -> Palette:
    """Ink and paper in the theme's first two hues, its hues between them, light ones higher.

    ``colourful`` has a bit for each of the three middle steps that is not grey.
    """
    middle = sorted((hue % 360 for hue in hues), key=_natural_lightness)
    steps = (hues[0], *middle, hues[1])
    strength = [0.15, *(1.0 if colourful >> at & 1 else 0.1 for at in range(3)), 0.15]
    if colourful == _EVERYTHING:
        strength = [1.0] * 5
    rungs = zip(mood.lightness, mood.chroma, steps, strength, strict=True)
    colours = tuple(
        oklch_hex(
            lightness + chance.uniform(-0.012, 0.012),
            chroma * share * chance.uniform(0.9, 1.1),
            hue,
        )
        for lightness, chroma, hue, share in rungs
    )
    return Palette(f"{mood.names[0]} {_colour_name(colours[1:4])}", colours)


def _natural_lightness(hue: float) -> float:
    at, lightness = zip(*_CUSPS, strict=True)
    return float(np.interp(hue, at, lightness, period=360))


def _colour_name(colours: Sequence[str]) -> str:
    """The name of the most colourful of these."""
    _, chroma, hue = max((hex_oklch(colour) for colour in colours), key=lambda lch: lch[1])
    return _hue_name(hue) if chroma >= _NEUTRAL else "Graphite"


def _hue_name(hue: float) -> str:
    return next(name for bound, name in _HUES if hue % 360 <= bound)


def _apart(one: Palette, two: Palette) -> float:
    """Mean ΔE2000 of two palettes of the same length, compared step by step."""
    return float(np.mean(delta_e_2000(hex_srgb(one.colours), hex_srgb(two.colours))))


def _renamed(palette: Palette, taken: set[str]) -> Palette:
    """The palette under a name of its own: another word for its mood, then with its accent."""
    mood, hue = palette.name.split(" ", 1)
    synonyms = next(m.names for m in _MOODS.values() if m.names[0] == mood)
    accent = next(
        (n for n in map(_colour_name, ([c] for c in palette.colours[3:0:-1])) if n != hue), "Paper"
    )
    names = [f"{word} {hue}" for word in synonyms]
    names += [f"{word} {hue} & {accent}" for word in synonyms]
    names += [f"{mood} {hue} {number}" for number in range(2, len(taken) + 3)]
    return Palette(next(name for name in names if name not in taken), palette.colours)
