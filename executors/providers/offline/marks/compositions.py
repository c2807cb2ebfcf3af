"""Where a motif sits: on which ground, in which frame, with what around it."""

from __future__ import annotations

__all__ = ["FRAMES", "Mark", "compose"]

from collections.abc import Callable, Sequence
from random import Random
from typing import Final, NamedTuple, TypeAlias

import numpy as np

from executors.imaging.colour import contrast, hex_oklch, hex_srgb, oklch_hex
from executors.providers.offline.marks.inks import Colours, Inks, inks_on
from executors.providers.offline.marks.motifs.kinds import Motif
from executors.providers.offline.marks.shapes import (
    Outline,
    Shape,
    arc,
    area,
    around,
    band,
    blob,
    box,
    circle,
    flipped,
    moved,
    path,
    petal,
    polygon,
    regular,
    rounded,
)


class Mark(NamedTuple):
    """A finished drawing: shapes in the square -1…1, over a ground."""

    ground: str
    shapes: list[Shape]


class _Place(NamedTuple):
    """What a frame needs to know."""

    motif: Motif
    colours: Colours
    ink: Inks  #: on the ground of the whole
    chance: Random

    def drawn(self, ink: Inks, radius: float, y: float = 0) -> list[Shape]:
        """The motif in these inks, centred on (0, y), just touching a circle of that radius."""
        return _fitted(self.motif.draw(ink, self.chance), radius, y)


_Frame: TypeAlias = Callable[[_Place], list[Shape]]


def compose(motif: Motif, colours: Colours, chance: Random, *, style: str = "") -> Mark:
    """A mark around this motif; the chances pick ground and frame, a style narrows them.

    Drawn again until two hues of the theme take part in it, where the theme has two.
    """
    mark = _attempt(motif, colours, chance, style)
    for _ in range(_ATTEMPTS):
        if _speaks_for(mark, colours):
            break
        mark = _attempt(motif, colours, chance, style)
    return mark


def _attempt(motif: Motif, colours: Colours, chance: Random, style: str) -> Mark:
    ground = _ground(colours, chance)
    frame = FRAMES[chance.choice(_frames_for(motif, style))]
    place = _Place(motif, colours, inks_on(ground, colours), chance)
    size = chance.choice(_SIZES)
    shapes = [shape.moved(scale=size) for shape in frame(place)]
    return Mark(ground, [*_backdrop(ground, chance), *shapes])


def _speaks_for(mark: Mark, colours: Colours) -> bool:
    """Whether two hues of the theme cover some area each, or as many as it has."""
    areas = {mark.ground: 4.0}
    for ink, outline in mark.shapes:
        areas[ink] = areas.get(ink, 0) + area(outline)
    every = _hues(colours.brand)
    return len(_hues([c for c in colours.brand if areas.get(c, 0) > 0.03])) >= min(2, len(every))


def _hues(colours: Sequence[str]) -> list[float]:
    """The hues among these that differ at a glance."""
    found: list[float] = []
    for colour in colours:
        _, chroma, hue = hex_oklch(colour)
        if chroma >= 0.04 and all(abs((hue - other + 180) % 360 - 180) > 18 for other in found):
            found.append(hue)
    return found


def _backdrop(ground: str, chance: Random) -> list[Shape]:
    """The ground in two tones, a little apart: three in five marks have one."""
    lightness, chroma, hue = hex_oklch(ground)
    tone = oklch_hex(lightness + (0.055 if lightness < 0.5 else -0.055), chroma * 1.1, hue)
    return [Shape(tone, outline) for outline in chance.choice(_BACKDROPS)(chance)]


def _plain(_: Random) -> list[Outline]:
    return []


def _diagonal(chance: Random) -> list[Outline]:
    """One half, cut from corner to corner."""
    return [moved(polygon((-1, -1), (1, 1), (-1, 1)), turn=chance.choice((0, 90, 180, 270)))]


def _horizon(chance: Random) -> list[Outline]:
    """The lower part, at the golden section or the middle."""
    top = chance.choice((0.0, 0.24, 0.4))
    return [box(-1, top, 1, 1)]


def _corner(chance: Random) -> list[Outline]:
    """A large disc that looks in from a corner."""
    x, y = chance.choice(((-1, -1), (1, -1), (1, 1), (-1, 1)))
    return [circle(x, y, chance.choice((1.1, 1.35)))]


def _sunburst(chance: Random) -> list[Outline]:
    """Wedges from the middle to beyond the edges."""
    n = chance.choice((6, 8, 12))
    far = 1.6 * np.tan(np.pi / n / 2)
    wedge = polygon((0, 0), (-far, -1.6), (far, -1.6))
    return [moved(wedge, turn=360 / n * (at + 0.5)) for at in range(n)]


def _steps(chance: Random) -> list[Outline]:
    """Columns that rise towards one side."""
    n = chance.choice((4, 5))
    wide = 2 / n
    columns = [
        box(-1 + wide * at, 1 - wide * (at + 0.5), -1 + wide * (at + 1), 1) for at in range(n)
    ]
    return columns if chance.random() < 0.5 else [flipped(outline) for outline in columns]


def _stripe(chance: Random) -> list[Outline]:
    """A broad band through the middle."""
    band_ = box(-1.5, -0.42, 1.5, 0.42)
    return [moved(band_, turn=chance.choice((0, 90, 45, -45)))]


def _ground(colours: Colours, chance: Random) -> str:
    """Paper, ink or the theme's own: whatever at least two brand colours can be seen on."""
    options = [colours.paper] * 5 + [colours.ink] * 3 + list(colours.brand[:2])
    fitting = [option for option in options if _seen_on(option, colours) >= 2]
    return chance.choice(fitting or [colours.paper])


def _seen_on(ground: str, colours: Colours) -> int:
    others = [colour for colour in colours.brand if colour != ground]
    ratios = contrast(hex_srgb(others), hex_srgb([ground]))
    return int(np.sum(ratios > 1.5))


def _frames_for(motif: Motif, style: str) -> list[str]:
    for words, names in _STYLES:
        if any(word in style.lower() for word in words):
            return [*names]
    return [*FRAMES] if motif.repeats else [name for name in FRAMES if name != "wreath"]


def _fitted(shapes: Sequence[Shape], radius: float, y: float = 0) -> list[Shape]:
    """Centred by its box, scaled until the farthest point lies on the circle."""
    points = np.vstack([shape.outline for shape in shapes])
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    reach = float(np.hypot(*(points - middle).T).max())
    scale = radius / reach
    return [Shape(ink, (outline - middle) * scale + (0, y)) for ink, outline in shapes]


# --- frames --------------------------------------------------------------------------------------


def _bare(place: _Place) -> list[Shape]:
    """Nothing but the motif and air."""
    return place.drawn(place.ink, 0.68)


def _disc(place: _Place) -> list[Shape]:
    """In a disc of the main colour."""
    tone = place.ink.main
    return [Shape(tone, circle(0, 0, 0.74)), *place.drawn(inks_on(tone, place.colours), 0.56)]


def _ring(place: _Place) -> list[Shape]:
    """In a ring, open for a dot."""
    gap = place.chance.choice((45, 90, 270, 315))
    line = band(0.73, 0.79, gap + 9, gap + 351)
    dot = moved(circle(0.76, 0, 0.06), turn=gap)
    return [
        Shape(place.ink.main, line),
        Shape(place.ink.second, dot),
        *place.drawn(place.ink, 0.6),
    ]


def _tile(place: _Place) -> list[Shape]:
    """On a rounded square, as an app shows itself."""
    tone = place.ink.main
    square = rounded(-0.68, -0.68, 0.68, 0.68, 0.3)
    return [Shape(tone, square), *place.drawn(inks_on(tone, place.colours), 0.57)]


def _seal(place: _Place) -> list[Shape]:
    """In a scalloped seal with an inner line."""
    tone = place.ink.main
    inner = inks_on(tone, place.colours)
    lobes = place.chance.choice((12, 16, 20, 24))
    shapes = [Shape(tone, blob(lobes, 0.78, 0.035)), Shape(inner.second, band(0.645, 0.67))]
    return [*shapes, *place.drawn(inner, 0.55)]


def _hexagon(place: _Place) -> list[Shape]:
    """In a hexagon within a hexagon."""
    tone = place.ink.main
    outer, inner = regular(6, 0.86), regular(6, 0.8)
    line = np.vstack([outer, outer[:1], inner[:1], inner[::-1]])
    shapes = [Shape(place.ink.second, line), Shape(tone, regular(6, 0.74))]
    return [*shapes, *place.drawn(inks_on(tone, place.colours), 0.54)]


def _crest(place: _Place) -> list[Shape]:
    """On a shield with a border."""
    outline = path(
        "M -.66 -.72 Q 0 -.86 .66 -.72 L .66 -.02 C .66 .46 .3 .7 0 .84 C -.3 .7 -.66 .46 -.66 -.02"
    )
    tone = place.ink.main
    inner = inks_on(tone, place.colours)
    rim = [
        Shape(tone, outline),
        Shape(inner.second, _shrunk(outline, 0.93)),
        Shape(tone, _shrunk(outline, 0.89)),
    ]
    return [*rim, *place.drawn(inner, 0.54, -0.05)]


def _window(place: _Place) -> list[Shape]:
    """In an arched window."""
    tone = place.ink.main
    outline = np.vstack([arc(0, -0.2, 0.58, 180, 360), polygon((0.58, 0.78), (-0.58, 0.78))])
    frame = [Shape(place.ink.second, outline), Shape(tone, moved(_shrunk(outline, 0.92), 0, 0.003))]
    return [*frame, *place.drawn(inks_on(tone, place.colours), 0.51, 0.03)]


def _halo(place: _Place) -> list[Shape]:
    """Before a large disc that it reaches out of."""
    tone = place.ink.accent if place.ink.accent in place.colours.brand else place.ink.second
    x = place.chance.choice((-0.16, 0.16))
    # What stands before the disc must differ from it, and from the ground it reaches into.
    main = place.ink.main if place.ink.main != tone else place.ink.second
    rest = next(
        c
        for c in (*place.colours.brand, place.colours.ink)
        if c not in (main, tone, place.ink.ground)
    )
    ink = Inks(main, rest, _either(place.colours, tone), place.ink.ground)
    return [Shape(tone, circle(x, -0.1, 0.6)), *place.drawn(ink, 0.66)]


def _rays(place: _Place) -> list[Shape]:
    """In a disc that shines."""
    n = place.chance.choice((12, 16, 24))
    ray = [Shape(place.ink.second, polygon((-0.05, -0.645), (0, -0.9), (0.05, -0.645)))]
    tone = place.ink.main
    inner = place.drawn(inks_on(tone, place.colours), 0.49)
    return [*around(ray, n), Shape(tone, circle(0, 0, 0.6)), *inner]


def _satellites(place: _Place) -> list[Shape]:
    """With dots on a circle around it, which is open for them."""
    n = place.chance.choice((3, 5, 8, 12))
    start = place.chance.choice((0, 15, 30))
    line = band(0.793, 0.807, 6 - 90, 360 / n - 6 - 90)
    beads = [Shape(place.ink.accent, line), Shape(place.ink.second, circle(0, -0.8, 0.045))]
    return [*around(beads, n, start=start), *place.drawn(place.ink, 0.62)]


def _laurel(place: _Place) -> list[Shape]:
    """Between two branches with leaves on either side of each."""
    stem = moved(band(0.735, 0.75, 22, 142), turn=90)
    shapes = [Shape(place.ink.main, outline) for outline in (stem, flipped(stem))]
    for at in range(6):
        for tilt, tone in ((-58, place.ink.second), (-118, place.ink.main)):
            leaf = moved(petal(0.2, 0.085), 0, 0.742, turn=tilt)
            right = moved(leaf, turn=-(26 + 22 * at))
            shapes += [Shape(tone, right), Shape(tone, flipped(right))]
    return [*shapes, *place.drawn(place.ink, 0.5, -0.04)]


def _wreath(place: _Place) -> list[Shape]:
    """Repeated around the centre."""
    n = place.chance.choice((3, 4, 5, 6))
    size = {3: 0.4, 4: 0.35, 5: 0.3, 6: 0.26}[n]
    one = _fitted(place.motif.draw(place.ink, place.chance), size, -0.46)
    return [*around(one, n), Shape(place.ink.accent, circle(0, 0, 0.09))]


def _shrunk(outline: Outline, scale: float) -> Outline:
    middle = (outline.min(axis=0) + outline.max(axis=0)) / 2
    return np.asarray((outline - middle) * scale + middle)


def _either(colours: Colours, ground: str) -> str:
    """Paper or ink, whichever stands out more."""
    paper, ink = contrast(hex_srgb([colours.paper, colours.ink]), hex_srgb([ground])).tolist()
    return colours.paper if paper >= ink else colours.ink


FRAMES: Final[dict[str, _Frame]] = {
    "bare": _bare,
    "disc": _disc,
    "ring": _ring,
    "tile": _tile,
    "seal": _seal,
    "hexagon": _hexagon,
    "crest": _crest,
    "window": _window,
    "halo": _halo,
    "rays": _rays,
    "satellites": _satellites,
    "laurel": _laurel,
    "wreath": _wreath,
}

_ATTEMPTS = 24
_SIZES: Final = (0.86, 0.93, 1.0, 1.06)  # of the whole mark: some breathe, some fill

_BACKDROPS: Final[tuple[Callable[[Random], list[Outline]], ...]] = (
    *(_plain,) * 4,
    _diagonal,
    _horizon,
    _corner,
    _sunburst,
    _stripe,
    _steps,
)

#: Words of a style → the frames they leave to choose from.
_STYLES: Final[tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]] = (
    (("minimal", "simple", "clean"), ("bare", "disc", "ring")),
    (("badge", "emblem", "vintage", "retro"), ("seal", "ring", "crest", "laurel", "rays")),
    (("app", "icon"), ("tile", "disc")),
    (("heraldic", "crest", "classic", "traditional"), ("crest", "laurel", "seal")),
    (("geometric", "tech", "modern"), ("hexagon", "tile", "bare", "satellites")),
)
