"""Buildings, vehicles, and what finds the way."""

from __future__ import annotations

__all__ = ["PLACES"]

from random import Random

import numpy as np

from executors.providers.offline.marks.inks import Inks
from executors.providers.offline.marks.motifs.kinds import Motif
from executors.providers.offline.marks.shapes import (
    Shape,
    arc,
    around,
    band,
    box,
    circle,
    clipped,
    filled,
    flipped,
    moved,
    path,
    polygon,
    regular,
    rounded,
    stroke,
)


def house(ink: Inks, chance: Random) -> list[Shape]:
    """A gable with a lit window."""
    body = box(-0.62, -0.1, 0.62, 0.85)
    roof = polygon((-0.95, 0), (0, -0.9), (0.95, 0), (0.78, 0.14), (0, -0.6), (-0.78, 0.14))
    gable = polygon((-0.62, -0.02), (0, -0.6), (0.62, -0.02))
    chimney = box(0.38, -0.86, 0.58, -0.3)
    shapes = [Shape(ink.second, o) for o in (chimney, body, gable)]
    shapes.append(Shape(ink.main, roof))
    if chance.random() < 0.5:
        door = np.vstack([arc(0, 0.44, 0.19, 180, 360), polygon((0.19, 0.85), (-0.19, 0.85))])
        return [*shapes, Shape(ink.ground, door)]
    panes = [(-0.26, 0.12), (0.02, 0.12), (-0.26, 0.4), (0.02, 0.4)]
    return shapes + [Shape(ink.accent, box(x, y, x + 0.24, y + 0.24)) for x, y in panes]


def city(ink: Inks, chance: Random) -> list[Shape]:
    """Towers of different height."""
    tops = chance.choice(((-0.15, -0.9, -0.45, 0.1), (0.05, -0.5, -0.95, -0.2)))
    shapes = []
    for at, (top, tone) in enumerate(
        zip(tops, (ink.second, ink.main, ink.accent, ink.main), strict=True)
    ):
        left = -0.86 + 0.44 * at
        shapes.append(Shape(tone, box(left, top, left + 0.4, 0.85)))
        rows = np.arange(top + 0.14, 0.7, 0.24)
        shapes += [
            Shape(ink.ground, box(left + x, y, left + x + 0.08, y + 0.11))
            for y in rows.tolist()
            for x in (0.09, 0.23)
        ]
    return shapes


def bridge(ink: Inks, _: Random) -> list[Shape]:
    """A suspension bridge over water."""
    cable = path("M -1 -.1 Q -.72 -.2 -.5 -.72 Q 0 .34 .5 -.72 Q .72 -.2 1 -.1")
    shapes = filled(ink.second, stroke(cable, 0.06))
    for x in (-0.3, -0.15, 0, 0.15, 0.3):
        top = -0.19 - 1.98 * x * x
        shapes += filled(ink.second, stroke([(x, top), (x, 0.2)], 0.035, cap=False))
    shapes += [Shape(ink.main, box(x - 0.08, -0.8, x + 0.08, 0.72)) for x in (-0.5, 0.5)]
    shapes.append(Shape(ink.main, box(-1, 0.16, 1, 0.28)))
    water = [box(-0.95, 0.58, 0.95, 0.68), box(-0.62, 0.78, 0.62, 0.88)]
    return shapes + [Shape(ink.accent, o) for o in water]


def rocket(ink: Inks, chance: Random) -> list[Shape]:
    """A rocket on its way, with a porthole and a flame."""
    body = path("M 0 -1 C .36 -.7 .42 -.1 .3 .42 L -.3 .42 C -.42 -.1 -.36 -.7 0 -1")
    nose = clipped(body, box(-1, -1.1, 1, -0.52))
    shade = clipped(body, box(0.0, -0.52, 1, 1))
    fin = path("M .32 .0 C .6 .18 .66 .4 .62 .72 L .28 .44")
    flame = path("M -.2 .5 L .2 .5 C .22 .72 .1 .86 0 1.04 C -.1 .86 -.22 .72 -.2 .5")
    parts = [
        Shape(ink.accent, flame),
        Shape(ink.second, fin),
        Shape(ink.second, flipped(fin)),
        Shape(ink.main, body),
        Shape(ink.second, shade),
        Shape(ink.accent, nose),
        Shape(ink.ground, circle(0, -0.22, 0.19)),
        Shape(ink.accent, circle(0, -0.22, 0.12)),
    ]
    turn = chance.choice((0, 38))
    return [part.moved(turn=turn) for part in parts]


def plane(ink: Inks, _: Random) -> list[Shape]:
    """A folded paper plane."""
    tip = (0.98, -0.72)
    return [
        Shape(ink.accent, polygon((-0.22, 0.16), (-0.16, 0.86), (0.12, 0.36))),
        Shape(ink.main, polygon(tip, (-1, -0.1), (-0.38, 0.14))),
        Shape(ink.second, polygon(tip, (-0.38, 0.14), (-0.16, 0.86), (-0.1, 0.26))),
        Shape(ink.main, polygon(tip, (-0.1, 0.26), (0.5, 0.62))),
    ]


def balloon(ink: Inks, _: Random) -> list[Shape]:
    """A hot-air balloon in stripes."""
    skin = path(
        "M 0 -1 C .5 -1 .8 -.64 .8 -.26 C .8 .12 .42 .34 .2 .56 L -.2 .56"
        " C -.42 .34 -.8 .12 -.8 -.26 C -.8 -.64 -.5 -1 0 -1"
    )
    wide = path(
        "M 0 -1 C .3 -1 .46 -.64 .46 -.26 C .46 .1 .24 .34 .12 .56 L -.12 .56"
        " C -.24 .34 -.46 .1 -.46 -.26 C -.46 -.64 -.3 -1 0 -1"
    )
    slim = path(
        "M 0 -1 C .1 -1 .16 -.64 .16 -.26 C .16 .1 .08 .34 .05 .56 L -.05 .56"
        " C -.08 .34 -.16 .1 -.16 -.26 C -.16 -.64 -.1 -1 0 -1"
    )
    ropes = stroke([(-0.16, 0.54), (-0.12, 0.78)], 0.04) + stroke(
        [(0.16, 0.54), (0.12, 0.78)], 0.04
    )
    basket = rounded(-0.18, 0.74, 0.18, 1.0, 0.06)
    return [
        *filled(ink.main, ropes),
        Shape(ink.main, skin),
        Shape(ink.second, wide),
        Shape(ink.accent, slim),
        Shape(ink.main, basket),
    ]


def boat(ink: Inks, _: Random) -> list[Shape]:
    """A yacht with two sails on a wave."""
    sail = path("M .04 -.95 C .5 -.5 .72 .0 .8 .34 L .04 .34")
    jib = path("M -.06 -.7 C -.34 -.3 -.6 .1 -.66 .34 L -.06 .34")
    hull = path(
        "M -.86 .46 L .9 .46 C .74 .72 .56 .82 .3 .82 L -.4 .82 C -.62 .8 -.76 .66 -.86 .46"
    )
    return [
        Shape(ink.main, sail),
        Shape(ink.second, jib),
        Shape(ink.main, hull),
        Shape(ink.accent, rounded(-0.7, 0.9, 0.7, 0.98, 0.04)),
    ]


def anchor(ink: Inks, _: Random) -> list[Shape]:
    """An anchor, its ring and stock in another tone."""
    bow = stroke(arc(0, 0.12, 0.7, 12, 168), 0.18)
    shaft = stroke([(0, -0.5), (0, 0.8)], 0.18)
    flukes = [moved(regular(3, 0.24), x, 0.2, turn=t) for x, t in ((-0.7, -18), (0.7, 18))]
    ring = moved(band(0.13, 0.25), 0, -0.72)
    stock = stroke([(-0.38, -0.3), (0.38, -0.3)], 0.15)
    return [
        *filled(ink.main, [*bow, *shaft, *flukes]),
        *filled(ink.second, [ring, *stock]),
        Shape(ink.accent, circle(0, 0.82, 0.15)),
    ]


def compass(ink: Inks, _: Random) -> list[Shape]:
    """A rose of the winds."""
    long_point = [
        Shape(ink.main, polygon((0, -1), (0, 0), (-0.2, -0.2))),
        Shape(ink.second, polygon((0, -1), (0, 0), (0.2, -0.2))),
    ]
    short_point = [Shape(ink.accent, polygon((0, -0.62), (0.13, -0.13), (-0.13, -0.13)))]
    ring = Shape(ink.second, band(0.66, 0.71))
    return [
        ring,
        *around(short_point, 4, start=45),
        *around(long_point, 4),
        Shape(ink.ground, circle(0, 0, 0.09)),
    ]


def bicycle(ink: Inks, _: Random) -> list[Shape]:
    """Two wheels and a frame."""
    wheels = [moved(band(0.34, 0.44), x, 0.3) for x in (-0.56, 0.56)]
    frame = [
        [(-0.56, 0.3), (-0.22, -0.3), (0.36, -0.3), (0.0, 0.3), (-0.56, 0.3)],
        [(-0.28, -0.42), (0, 0.3)],
        [(0.32, -0.48), (0.56, 0.3)],
    ]
    pieces = [piece for line in frame for piece in stroke(line, 0.09)]
    saddle = [
        rounded(-0.46, -0.52, -0.12, -0.42, 0.05),
        *stroke([(0.32, -0.5), (0.52, -0.56)], 0.09),
    ]
    return [
        *filled(ink.main, wheels),
        *filled(ink.second, pieces),
        *filled(ink.accent, [*saddle, circle(0, 0.3, 0.12)]),
    ]


def car(ink: Inks, _: Random) -> list[Shape]:
    """A small car from the side."""
    cabin = path("M -.52 -.1 C -.4 -.5 -.3 -.56 0 -.56 C .3 -.56 .36 -.46 .56 -.1")
    window = path("M -.38 -.14 C -.3 -.4 -.22 -.44 -.04 -.44 L -.04 -.14")
    window_right = path("M .06 -.14 L .06 -.44 C .22 -.44 .3 -.36 .4 -.14")
    body = rounded(-0.98, -0.14, 0.98, 0.38, 0.2)
    shapes = [
        Shape(ink.main, cabin),
        Shape(ink.main, body),
        Shape(ink.ground, window),
        Shape(ink.ground, window_right),
    ]
    for x in (-0.52, 0.52):
        shapes += [
            Shape(ink.ground, circle(x, 0.36, 0.3)),
            Shape(ink.second, circle(x, 0.36, 0.24)),
            Shape(ink.accent, circle(x, 0.36, 0.1)),
        ]
    return [*shapes, Shape(ink.accent, rounded(0.78, 0.0, 0.98, 0.12, 0.05))]


PLACES: tuple[Motif, ...] = (
    Motif(
        house,
        "house home real estate realty property rent roof roofing mortgage architect interior cottage",
    ),
    Motif(city, "city building urban skyline construction tower office corporate downtown hotel"),
    Motif(bridge, "bridge connect connection consulting infrastructure"),
    Motif(rocket, "rocket launch startup space spaceship accelerate boost mars"),
    Motif(plane, "plane fly flight send mail email message newsletter delivery airline aviation"),
    Motif(balloon, "balloon adventure float fair"),
    Motif(boat, "boat sail yacht ship sailing marina regatta ferry"),
    Motif(anchor, "anchor navy nautical port maritime harbor harbour sailor dock"),
    Motif(
        compass,
        "compass navigate navigation explore explorer travel journey guide map north expedition tour",
    ),
    Motif(bicycle, "bicycle bike cycling cycle velo courier ride"),
    Motif(car, "car auto automobile garage taxi driving vehicle motor dealership carwash"),
)
