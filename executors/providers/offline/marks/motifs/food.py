"""Food and drink."""

from __future__ import annotations

__all__ = ["FOOD"]

from random import Random

import numpy as np

from executors.providers.offline.marks.inks import Inks
from executors.providers.offline.marks.motifs.kinds import Motif
from executors.providers.offline.marks.shapes import (
    Outline,
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
    petal,
    polygon,
    rounded,
    stroke,
)


def cup(ink: Inks, _: Random) -> list[Shape]:
    """A cup on its saucer, with steam."""
    body = path("M -.68 -.18 L .5 -.18 C .5 .36 .3 .68 -.09 .68 C -.48 .68 -.68 .36 -.68 -.18")
    shade = path("M .1 -.18 L .5 -.18 C .5 .36 .3 .68 -.09 .68 C .1 .5 .16 .2 .1 -.18")
    handle = moved(band(0.17, 0.29), 0.52, 0.1)
    saucer = rounded(-0.86, 0.76, 0.7, 0.88, 0.06)
    steam = []
    for x in (-0.38, -0.09, 0.2):
        y = np.linspace(-0.36, -0.92, 24)
        steam += stroke(np.stack([x + 0.07 * np.sin((y + 0.3) * 9), y], axis=-1), 0.09)
    return [
        Shape(ink.second, handle),
        Shape(ink.main, body),
        Shape(ink.second, shade),
        Shape(ink.accent, saucer),
        *filled(ink.accent, steam),
    ]


def fork_knife(ink: Inks, _: Random) -> list[Shape]:
    """Fork and knife on a plate."""
    fork = [rounded(-0.2 + 0.15 * i, -0.58, -0.12 + 0.15 * i, -0.1, 0.04) for i in range(3)]
    fork += [
        path("M -.2 -.2 L .18 -.2 C .18 .06 .1 .1 .04 .12 L -.06 .12 C -.12 .1 -.2 .06 -.2 -.2"),
        rounded(-0.06, 0.0, 0.04, 0.62, 0.05),
    ]
    knife = [
        path("M -.06 -.6 C .2 -.5 .2 -.1 .14 .1 L -.06 .1"),
        rounded(-0.06, 0.0, 0.05, 0.62, 0.05),
    ]
    plate = [Shape(ink.main, circle()), Shape(ink.second, circle(0, 0, 0.8))]
    return [
        *plate,
        *(Shape(ink.ground, moved(o, -0.24)) for o in fork),
        *(Shape(ink.ground, moved(o, 0.28)) for o in knife),
    ]


def cherries(ink: Inks, _: Random) -> list[Shape]:
    """Two cherries on one twig with a leaf."""
    stems = stroke(path("M -.42 .4 Q -.3 -.3 .2 -.86"), 0.07) + stroke(
        path("M .46 .3 Q .44 -.3 .2 -.86"), 0.07
    )
    fruit = [(-0.46, 0.48, 0.42, ink.main), (0.46, 0.4, 0.42, ink.accent)]
    shapes = filled(ink.second, stems)
    for x, y, r, tone in fruit:
        shapes += [
            Shape(tone, circle(x, y, r)),
            Shape(ink.ground, moved(band(0.24, 0.31, 190, 260), x, y)),
        ]
    return [*shapes, Shape(ink.second, moved(petal(0.8, 0.4), 0.18, -0.84, turn=118))]


def apple(ink: Inks, _: Random) -> list[Shape]:
    """An apple in two halves with a leaf."""
    right = path("M 0 -.38 C .3 -.62 .84 -.5 .84 .08 C .84 .62 .5 .96 .26 .96 C .14 .96 .1 .9 0 .9")
    leaf = moved(petal(0.56, 0.32), 0.04, -0.46, turn=36)
    return [Shape(ink.main, flipped(right)), Shape(ink.second, right), Shape(ink.accent, leaf)]


def citrus(ink: Inks, _: Random) -> list[Shape]:
    """A slice of citrus."""
    wedge = path("M 0 -.12 L .26 -.6 C .12 -.72 -.12 -.72 -.26 -.6")
    return [
        Shape(ink.main, circle()),
        Shape(ink.ground, circle(0, 0, 0.84)),
        *around([Shape(ink.second, wedge)], 4),
        *around([Shape(ink.accent, wedge)], 4, start=45),
    ]


def ice_cream(ink: Inks, _: Random) -> list[Shape]:
    """Three scoops in a cone."""
    cone = polygon((-0.44, 0.06), (0.44, 0.06), (0, 1))
    lines = stroke([(-0.2, 0.06), (0.17, 0.62)], 0.04, cap=False) + stroke(
        [(0.2, 0.06), (-0.17, 0.62)], 0.04, cap=False
    )
    scoops = [
        (-0.3, -0.2, 0.34, ink.main),
        (0.3, -0.2, 0.34, ink.second),
        (0, -0.62, 0.34, ink.accent),
    ]
    return [
        *(Shape(t, circle(x, y, r)) for x, y, r, t in reversed(scoops)),
        Shape(ink.main, cone),
        *filled(ink.ground, lines),
    ]


def bowl(ink: Inks, _: Random) -> list[Shape]:
    """A bowl of noodles with chopsticks."""
    rim = arc(0, -0.02, 0.86, 0, 180)
    foot = rounded(-0.34, 0.78, 0.34, 0.94, 0.05)
    stripe = clipped(rim, box(-1, 0.2, 1, 0.34))
    noodles = [
        Shape(ink.second, moved(band(0.13, 0.21, 180, 360), x, -0.06)) for x in (-0.4, 0, 0.4)
    ]
    egg = [Shape(ink.accent, circle(0.3, -0.12, 0.27)), Shape(ink.ground, circle(0.3, -0.12, 0.13))]
    sticks = stroke([(-0.62, -0.05), (-0.16, -0.98)], 0.075) + stroke(
        [(-0.42, -0.05), (0.1, -0.94)], 0.075
    )
    shapes = [*filled(ink.accent, sticks), *egg, *noodles]
    return [*shapes, Shape(ink.main, foot), Shape(ink.main, rim), Shape(ink.second, stripe)]


def glass(ink: Inks, _: Random) -> list[Shape]:
    """A wine glass, half full."""
    cup_line = path("M -.52 -.95 C -.6 -.3 -.4 .12 0 .14 C .4 .12 .6 -.3 .52 -.95")
    wine = clipped(_around(cup_line, 0.86), box(-1, -0.46, 1, 1))
    stem = [box(-0.05, 0.1, 0.05, 0.86), rounded(-0.4, 0.84, 0.4, 0.95, 0.05)]
    gleam = [moved(band(0.3, 0.36, 110, 170), -0.04, -0.3)]
    return [
        *filled(ink.main, stem),
        Shape(ink.main, cup_line),
        Shape(ink.ground, _around(cup_line, 0.86)),
        Shape(ink.second, wine),
        *filled(ink.accent, gleam),
    ]


def _around(outline: Outline, scale: float) -> Outline:
    """Scaled about its middle, its top edge kept."""
    middle, top = outline.mean(axis=0), outline[:, 1].min()
    scaled = (outline - middle) * scale + middle
    return np.asarray(np.where(scaled[:, 1:] < top + 0.1, scaled * (1, 0) + (0, top), scaled))


def mug(ink: Inks, _: Random) -> list[Shape]:
    """A beer with its foam."""
    handle = moved(band(0.25, 0.38), 0.5, 0.26)
    body = rounded(-0.62, -0.42, 0.5, 0.92, 0.1)
    staves = [rounded(x, -0.12, x + 0.13, 0.7, 0.06) for x in (-0.42, -0.125, 0.17)]
    foam = [(-0.48, -0.5, 0.25), (-0.06, -0.62, 0.32), (0.36, -0.5, 0.25)]
    return [
        Shape(ink.second, handle),
        Shape(ink.main, body),
        *filled(ink.second, staves),
        *(Shape(ink.accent, circle(*bubble)) for bubble in foam),
        Shape(ink.accent, box(-0.62, -0.5, 0.5, -0.3)),
        Shape(ink.accent, circle(0.36, -0.26, 0.12)),
    ]


def pizza(ink: Inks, _: Random) -> list[Shape]:
    """A slice with three toppings."""
    slice_ = np.vstack([polygon((0, 0.95)), arc(0, 0.95, 1.7, 241, 299)])
    cheese = np.vstack([polygon((0, 0.95)), arc(0, 0.95, 1.44, 241, 299)])
    slices = [(-0.22, -0.28, 0.19), (0.28, -0.12, 0.17), (-0.02, 0.3, 0.14)]
    leaf = moved(petal(0.3, 0.16), 0.06, -0.26, turn=30)
    return [
        Shape(ink.main, slice_),
        Shape(ink.second, cheese),
        *(Shape(ink.main, circle(*s)) for s in slices),
        Shape(ink.accent, leaf),
    ]


FOOD: tuple[Motif, ...] = (
    Motif(cup, "cup coffee cafe espresso latte mug tea barista roaster roastery breakfast"),
    Motif(
        fork_knife,
        "restaurant food fork kitchen chef diner bistro catering eat dinner cooking recipe",
    ),
    Motif(cherries, "cherry fruit berry sweet dessert"),
    Motif(apple, "apple teacher nutrition health healthy diet cider"),
    Motif(citrus, "citrus lemon orange lime juice smoothie juicery fresh vitamin"),
    Motif(ice_cream, "icecream gelato cone sundae"),
    Motif(bowl, "ramen noodle bowl soup rice asian thai poke salad pho udon wok"),
    Motif(glass, "wine winery vineyard bar glass sommelier cocktail champagne cellar"),
    Motif(mug, "beer brewery pub ale lager tavern brewing taproom"),
    Motif(pizza, "pizza pizzeria italian trattoria slice"),
)
