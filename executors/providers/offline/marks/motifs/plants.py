"""Leaves, flowers and trees."""

from __future__ import annotations

__all__ = ["PLANTS"]

from random import Random

import numpy as np

from executors.providers.offline.marks.inks import Inks
from executors.providers.offline.marks.motifs.kinds import Motif
from executors.providers.offline.marks.shapes import (
    Shape,
    around,
    box,
    circle,
    ellipse,
    flipped,
    half_petal,
    moved,
    path,
    petal,
    polygon,
    stroke,
)


def _two_tone_petal(left: str, right: str, length: float, width: float) -> list[Shape]:
    half = half_petal(length, width)
    return [Shape(left, flipped(half)), Shape(right, half)]


def leaf(ink: Inks, chance: Random) -> list[Shape]:
    """One leaf, light and shade, with veins cut out."""
    shapes = [s.moved(0, 1) for s in _two_tone_petal(ink.main, ink.second, 2, 1.08)]
    for at in (0.45, 0.05, -0.35):
        reach = 0.42 - 0.12 * abs(at)
        for side in (-1.0, 1.0):
            line: list[tuple[float, float]] = [(0, at), (side * reach, at - reach * 0.85)]
            shapes += [Shape(ink.ground, piece) for piece in stroke(line, 0.045)]
    stem = stroke([(0, -0.75), (0, 1.2)], 0.06)
    shapes += [Shape(ink.ground, piece) for piece in stem]
    turn = chance.choice((-38, 38))
    return [s.moved(turn=turn) for s in shapes]


def sprout(ink: Inks, chance: Random) -> list[Shape]:
    """Two leaves of different size on one stem."""
    big, small = chance.choice(((1.25, 0.95), (1.1, 1.1)))
    stem = path("M -.06 1 C -.06 .5 -.06 .3 -.02 -.05 L .06 -.05 C .06 .3 .08 .5 .08 1")
    left = [s.moved(0, 0.2, turn=-52, scale=small) for s in _leafy(ink.second, ink.accent)]
    right = [s.moved(0, 0.05, turn=40, scale=big) for s in _leafy(ink.main, ink.second)]
    return [Shape(ink.main, stem), *left, *right]


def _leafy(left: str, right: str) -> list[Shape]:
    return _two_tone_petal(left, right, 1.0, 0.56)


def flower(ink: Inks, chance: Random) -> list[Shape]:
    """Petals in two tones around a heart."""
    n = chance.choice((5, 6, 8))
    width = {5: 0.72, 6: 0.62, 8: 0.48}[n]
    petals = around(_two_tone_petal(ink.main, ink.second, 1, width), n)
    return [*petals, Shape(ink.ground, circle(0, 0, 0.27)), Shape(ink.accent, circle(0, 0, 0.2))]


def bloom(ink: Inks, chance: Random) -> list[Shape]:
    """Two crowns of petals, the inner one between the outer ones."""
    n = chance.choice((6, 8))
    outer = around([Shape(ink.main, petal(1, 0.5))], n)
    inner = around([Shape(ink.second, petal(0.66, 0.34))], n, start=180 / n)
    heart = [Shape(ink.ground, circle(0, 0, 0.2)), Shape(ink.accent, circle(0, 0, 0.14))]
    return [*outer, *inner, *heart]


def lotus(ink: Inks, _: Random) -> list[Shape]:
    """Petals that open from one point, front ones light."""
    fan = [(78, 0.95, ink.accent), (-78, 0.95, ink.accent), (52, 1.15, ink.main)]
    fan += [(-52, 1.15, ink.main), (26, 1.35, ink.second), (-26, 1.35, ink.second)]
    fan += [(0, 1.5, ink.main)]
    shapes = []
    for turn, length, colour in fan:
        edge = moved(petal(length + 0.06, 0.62, foot=-0.03), 0, 0.72, turn=turn)
        shapes += [Shape(ink.ground, edge)]
        shapes += [Shape(colour, moved(petal(length, 0.54), 0, 0.72, turn=turn))]
    return shapes


def tulip(ink: Inks, _: Random) -> list[Shape]:
    """A cup of three petals, two leaves."""
    cup = path("M -.5 -.85 C -.6 -.2 -.5 .12 0 .12 C .5 .12 .6 -.2 .5 -.85 L .25 -.5 L 0 -.95")
    cup = np.vstack([cup, polygon((-0.25, -0.5))])
    middle = path("M 0 -.95 C .34 -.6 .34 -.1 0 .12 C -.34 -.1 -.34 -.6 0 -.95")
    leaf_right = path("M 0 1 C .15 .5 .3 .3 .62 .1 C .66 .55 .4 .9 0 1")
    stem = box(-0.04, 0.05, 0.04, 1)
    return [
        Shape(ink.second, stem),
        Shape(ink.second, leaf_right),
        Shape(ink.accent, flipped(leaf_right)),
        Shape(ink.main, cup),
        Shape(ink.accent, middle),
    ]


def pine(ink: Inks, chance: Random) -> list[Shape]:
    """Tiers of a fir, lit from one side."""
    tiers = [(-1.0, -0.25, 0.42), (-0.62, 0.25, 0.6), (-0.2, 0.75, 0.78)]
    shapes = [Shape(ink.accent, box(-0.1, 0.7, 0.1, 1.0))]
    light = chance.choice((ink.second, ink.accent))
    for top, bottom, half in reversed(tiers):
        shapes.append(Shape(ink.main, polygon((0, top), (half, bottom), (-half, bottom))))
        shapes.append(Shape(light, polygon((0, top), (0, bottom), (-half, bottom))))
    return shapes


def tree(ink: Inks, _: Random) -> list[Shape]:
    """A round crown of overlapping discs over a forked trunk."""
    spots = [(-0.42, -0.2, 0.44), (0.42, -0.2, 0.44), (0, -0.52, 0.48), (0, -0.05, 0.42)]
    tones = [ink.main, ink.main, ink.second, ink.main]
    shapes = [Shape(tone, circle(*spot)) for tone, spot in zip(tones, spots, strict=True)]
    fork: list[list[tuple[float, float]]] = [
        [(0, 0.95), (0, 0.0)],
        [(0, 0.45), (0.26, 0.1)],
        [(0, 0.3), (-0.22, 0.0)],
    ]
    pieces = [piece for line in fork for piece in stroke(line, 0.11)]
    shapes += [Shape(ink.accent, piece) for piece in pieces]
    return shapes


def palm(ink: Inks, _: Random) -> list[Shape]:
    """A leaning trunk under hanging fronds, before the sun."""
    trunk = path("M -.3 1 C -.22 .5 -.1 .1 .04 -.32 L .16 -.28 C .04 .12 -.04 .5 -.06 1")
    frond = path("M 0 0 C .14 -.34 .56 -.4 .84 .18 C .6 -.02 .4 -.06 0 0")
    fronds = [
        (frond, 0.0, 1.0),
        (frond, 38.0, 0.85),
        (flipped(frond), 0.0, 1.0),
        (flipped(frond), -38.0, 0.85),
    ]
    fronds += [(frond, -50.0, 0.8), (flipped(frond), 50.0, 0.8)]
    shapes = [Shape(ink.accent, circle(0.1, -0.1, 0.66)), Shape(ink.main, trunk)]
    for at, (outline, turn, scale) in enumerate(fronds):
        tone = ink.main if at % 2 == 0 else ink.second
        shapes.append(Shape(tone, moved(outline, 0.1, -0.3, turn=turn, scale=scale)))
    return [*shapes, Shape(ink.main, ellipse(-0.1, 0.98, 0.5, 0.07))]


def cactus(ink: Inks, _: Random) -> list[Shape]:
    """A saguaro with two arms and a low sun."""
    trunk = stroke([(0, 0.9), (0, -0.65)], 0.36)
    arms = stroke([(0, 0.3), (-0.5, 0.3), (-0.5, -0.2)], 0.24)
    arms += stroke([(0, 0.05), (0.5, 0.05), (0.5, -0.4)], 0.24)
    ribs = stroke([(-0.02, 0.7), (-0.02, -0.6)], 0.035)
    shapes = [Shape(ink.second, circle(0.05, -0.1, 0.8))]
    shapes += [Shape(ink.main, piece) for piece in (*arms, *trunk)]
    return shapes + [Shape(ink.second, piece) for piece in ribs]


def wheat(ink: Inks, _: Random) -> list[Shape]:
    """An ear: grains in pairs along a stalk."""
    shapes = [Shape(ink.second, piece) for piece in stroke([(0, 1), (0, -0.4)], 0.05)]
    for at in range(4):
        y = 0.42 - 0.36 * at
        shapes.append(Shape(ink.main, moved(petal(0.56, 0.28), 0.03, y, turn=38)))
        shapes.append(Shape(ink.second, moved(petal(0.56, 0.28), -0.03, y, turn=-38)))
    return [*shapes, Shape(ink.accent, moved(petal(0.52, 0.26), 0, -0.5))]


PLANTS: tuple[Motif, ...] = (
    Motif(
        leaf,
        "leaf leaves herb herbal tea green vegan eco sustainable organic botanical natural",
        repeats=True,
    ),
    Motif(
        sprout,
        "sprout seed seedling grow growth plant farm nursery startup agriculture soil",
    ),
    Motif(flower, "flower floral florist daisy petal spring garden wedding"),
    Motif(bloom, "bloom blossom rose dahlia bouquet perfume sakura cherry"),
    Motif(lotus, "lotus yoga spa meditation zen wellness mindfulness massage lily", repeats=True),
    Motif(tulip, "tulip holland", repeats=True),
    Motif(
        pine,
        "pine fir forest wood woods cabin camp camping christmas evergreen spruce",
    ),
    Motif(tree, "tree oak orchard arbor park family roots landscaping"),
    Motif(palm, "palm tropical island resort vacation holiday beach travel"),
    Motif(cactus, "cactus desert succulent mexican taco tequila"),
    Motif(
        wheat,
        "wheat bread bakery baker grain flour barley harvest pastry cereal",
    ),
)
