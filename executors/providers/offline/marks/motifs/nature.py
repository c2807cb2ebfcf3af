"""Landscapes, weather and sky, and what lies on the ground."""

from __future__ import annotations

__all__ = ["NATURE"]

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
    crescent,
    ellipse,
    flipped,
    moved,
    path,
    petal,
    polygon,
    star,
    stroke,
    wave_line,
)


def mountain(ink: Inks, chance: Random) -> list[Shape]:
    """Two peaks with snow, one side in the shade, the sun behind."""
    side = chance.choice((-1, 1))
    sun = Shape(ink.accent, circle(side * 0.42, -0.48, 0.3))
    far = polygon((side * 0.1, 0.7), (side * 0.55, -0.1), (side * 1.0, 0.7))
    peak = (-side * 0.18, -0.78)
    near = polygon((-1.0 * side, 0.7), peak, (side * 0.72, 0.7))
    shade = polygon(peak, (side * 0.72, 0.7), (-side * 0.02, 0.7), (-side * 0.26, 0.1))
    foot = -0.28
    snow = polygon(
        peak,
        (peak[0] + side * 0.305, foot),
        (peak[0] + side * 0.1, foot - 0.13),
        (peak[0] - side * 0.02, foot + 0.06),
        (peak[0] - side * 0.14, foot - 0.1),
        (peak[0] - side * 0.277, foot),
    )
    return [
        sun,
        Shape(ink.second, far),
        Shape(ink.main, near),
        Shape(ink.second, shade),
        Shape(ink.ground, snow),
    ]


def ridges(ink: Inks, chance: Random) -> list[Shape]:
    """Layers of hills within a disc, a sun above them."""
    frame = circle()
    tones = [ink.second, ink.accent, ink.main]
    shapes = [Shape(ink.second, circle(chance.uniform(-0.3, 0.3), -0.3, 0.32))]
    for layer, tone in enumerate(tones):
        base = 0.0 + 0.32 * layer
        phase = chance.random()
        line = wave_line(base, 0.16 - 0.03 * layer, 1.5 + 0.3 * layer, phase)
        hill = np.vstack([line, polygon((1.2, 1.2), (-1.2, 1.2))])
        shapes.append(Shape(tone, clipped(hill, frame)))
    return [*shapes, *(Shape(ink.main, piece) for piece in [band(0.94, 1.0)])]


def wave(ink: Inks, chance: Random) -> list[Shape]:
    """A sea in three tones under a sun, in a disc."""
    frame = circle()
    phase = chance.random()
    shapes = [Shape(ink.accent, circle()), Shape(ink.ground, circle(0, -0.34, 0.36))]
    for layer, tone in enumerate((ink.second, ink.ground, ink.main, ink.ground, ink.second)):
        y = -0.02 + (0.22, 0.0, 0.08, 0.0, 0.08)[layer] + 0.17 * layer
        line = wave_line(y, 0.085, 0.8, phase + 0.22 * layer)
        water = np.vstack([line, polygon((1.2, 1.2), (-1.2, 1.2))])
        shapes.append(Shape(tone, clipped(water, frame)))
    return shapes


def breaker(ink: Inks, chance: Random) -> list[Shape]:
    """One curling wave with a crest of foam."""
    body = path(
        "M -1 .62 C -.82 -.2 -.4 -.82 .22 -.82 C .62 -.82 .9 -.56 .96 -.2 "
        "C .78 -.42 .5 -.44 .36 -.26 C .2 -.04 .4 .34 1 .62"
    )
    inner = path(
        "M -.62 .62 C -.5 .1 -.26 -.36 .14 -.5 C -.1 -.16 .06 .36 .52 .62",
    )
    floor = polygon((-1, 0.62), (1, 0.62), (0.86, 0.84), (-0.86, 0.84))
    spray = [
        Shape(ink.accent, circle(x, y, r)) for x, y, r in ((0.72, -0.78, 0.09), (0.93, -0.6, 0.06))
    ]
    shapes = [Shape(ink.main, body), Shape(ink.second, inner), Shape(ink.accent, floor), *spray]
    return (
        shapes
        if chance.random() < 0.5
        else [s._replace(outline=flipped(s.outline)) for s in shapes]
    )


def sun(ink: Inks, chance: Random) -> list[Shape]:
    """A disc with rays in two lengths."""
    n = chance.choice((8, 10, 12))
    step = 360 / n
    long_ray = polygon((-0.11, -0.58), (0, -1), (0.11, -0.58))
    short_ray = polygon((-0.08, -0.58), (0, -0.8), (0.08, -0.58))
    rays = around([Shape(ink.main, long_ray)], n) + around(
        [Shape(ink.second, short_ray)], n, start=step / 2
    )
    half = np.vstack([arc(0, 0, 0.46, 90, 270)])
    return [*rays, Shape(ink.accent, circle(0, 0, 0.46)), Shape(ink.second, half)]


def sunset(ink: Inks, _: Random) -> list[Shape]:
    """A sun that sinks in stripes into its reflection."""
    shapes = [Shape(ink.main, circle(0, -0.06, 0.82))]
    for at, height in enumerate((0.05, 0.08, 0.11, 0.14)):
        y = 0.06 + 0.22 * at
        shapes.append(Shape(ink.ground, box(-1, y, 1, y + height)))
    horizon = [Shape(ink.second, box(-1, 0.9 - 0.0, 1, 0.98))]
    upper = clipped(circle(0, -0.06, 0.82), box(-1, -1, 1, -0.34))
    return [shapes[0], Shape(ink.second, upper), *shapes[1:], *horizon]


def moon(ink: Inks, chance: Random) -> list[Shape]:
    """A crescent that holds stars."""
    turn = chance.choice((-28, -18, 24))
    sickle = moved(crescent(0.92, 0.76, 0.38), -0.05, 0, turn=turn)
    shade = moved(crescent(0.92, 0.92, 0.14), -0.05, 0, turn=turn)
    stars = [(0.42, -0.3, 0.3), (0.66, 0.28, 0.17), (0.22, 0.24, 0.12)]
    twinkles = [Shape(ink.second, moved(star(4, 1, 0.36), x, y, scale=r)) for x, y, r in stars]
    return [Shape(ink.main, sickle), Shape(ink.accent, shade), *twinkles]


def cloud(ink: Inks, _: Random) -> list[Shape]:
    """A cloud before the sun, and rain."""
    puffs = [(-0.45, 0.12, 0.34), (0.02, -0.12, 0.46), (0.48, 0.12, 0.32)]
    shapes = [Shape(ink.accent, circle(0.36, -0.42, 0.42))]
    shapes += [Shape(ink.ground, circle(x, y, r + 0.06)) for x, y, r in puffs]
    shapes += [Shape(ink.main, circle(*puff)) for puff in puffs]
    shapes.append(Shape(ink.main, box(-0.45, 0.1, 0.48, 0.46)))
    for at, x in enumerate((-0.4, -0.05, 0.3)):
        drop = stroke([(x + 0.1, 0.62), (x, 0.88 - 0.06 * (at % 2))], 0.1)
        shapes += [Shape(ink.second, piece) for piece in drop]
    return shapes


def snowflake(ink: Inks, chance: Random) -> list[Shape]:
    """Six arms with barbs."""
    arm = stroke([(0, 0), (0, -0.95)], 0.1)
    at = chance.choice((0.42, 0.5))
    barbs = stroke([(-0.26, -at - 0.26), (0, -at), (0.26, -at - 0.26)], 0.09)
    tips = [Shape(ink.accent, circle(0, -0.95, 0.085))]
    once = [Shape(ink.main, p) for p in arm] + [Shape(ink.second, p) for p in barbs] + tips
    return [*around(once, 6), Shape(ink.main, circle(0, 0, 0.14))]


def drop(ink: Inks, chance: Random) -> list[Shape]:
    """A drop in two tones with a light on it."""
    outline = path(
        "M 0 -1 C .3 -.5 .68 -.1 .68 .32 C .68 .72 .36 1 0 1 C -.36 1 -.68 .72 -.68 .32"
        " C -.68 -.1 -.3 -.5 0 -1"
    )
    half = path("M 0 -1 C .3 -.5 .68 -.1 .68 .32 C .68 .72 .36 1 0 1 C .2 .6 -.2 .1 0 -1")
    gleam = moved(band(0.36, 0.46, 100, 190), 0, 0.36)
    shapes = [Shape(ink.main, outline), Shape(ink.second, half), Shape(ink.ground, gleam)]
    return (
        shapes
        if chance.random() < 0.7
        else [s._replace(outline=flipped(s.outline)) for s in shapes]
    )


def flame(ink: Inks, _: Random) -> list[Shape]:
    """Three tongues of fire, one in another."""
    outer = path(
        "M .08 -1 C .2 -.5 .72 -.2 .7 .38 C .68 .8 .34 1 0 1 C -.38 1 -.72 .74 -.7 .32"
        " C -.68 .02 -.48 -.14 -.4 -.42 C -.26 -.3 -.2 -.18 -.18 -.04 C 0 -.3 .1 -.6 .08 -1"
    )
    middle = path(
        "M .12 -.36 C .2 0 .5 .14 .46 .52 C .42 .84 .2 1 0 1 C -.26 1 -.46 .82 -.44 .52"
        " C -.42 .3 -.28 .22 -.22 .06 C -.1 .14 -.04 .22 -.04 .3 C .08 .12 .14 -.1 .12 -.36"
    )
    core = path(
        "M .02 .34 C .1 .5 .26 .58 .24 .76 C .22 .92 .1 1 0 1 C -.14 1 -.24 .9 -.22 .74"
        " C -.2 .6 -.04 .52 .02 .34"
    )
    return [Shape(ink.main, outer), Shape(ink.second, middle), Shape(ink.accent, core)]


def mushroom(ink: Inks, _: Random) -> list[Shape]:
    """A cap with dots."""
    cap = path(
        "M -.92 .12 C -.92 -.5 -.5 -.86 0 -.86 C .5 -.86 .92 -.5 .92 .12 C .5 .26 -.5 .26 -.92 .12"
    )
    stem = path("M -.26 .12 C -.24 .5 -.34 .7 -.36 .92 L .36 .92 C .34 .7 .24 .5 .26 .12")
    dots = [(-0.42, -0.3, 0.17), (0.1, -0.52, 0.14), (0.46, -0.18, 0.19), (-0.02, -0.04, 0.11)]
    return [
        Shape(ink.second, stem),
        Shape(ink.main, cap),
        *(Shape(ink.accent, circle(*d)) for d in dots),
    ]


def stone_stack(ink: Inks, chance: Random) -> list[Shape]:
    """Balanced stones."""
    stones: list[tuple[Outline, str]] = [
        (ellipse(0, 0.72, 0.82, 0.26), ink.main),
        (ellipse(0.06, 0.26, 0.6, 0.23), ink.second),
        (ellipse(-0.04, -0.15, 0.44, 0.2), ink.main),
        (ellipse(0.03, -0.51, 0.3, 0.17), ink.accent),
    ]
    shapes = [Shape(tone, outline) for outline, tone in stones]
    sprig = [Shape(ink.second, moved(petal(0.42, 0.2), 0.03, -0.66, turn=t)) for t in (-28, 34)]
    return shapes + (sprig if chance.random() < 0.6 else [])


NATURE: tuple[Motif, ...] = (
    Motif(
        mountain, "mountain peak summit alpine climb climbing hike hiking outdoor ski lodge trail"
    ),
    Motif(
        ridges, "hill hills valley ridge landscape vineyard wine farm meadow countryside horizon"
    ),
    Motif(
        wave, "wave sea ocean marine harbor harbour sailing swim swimming lake river coast water"
    ),
    Motif(breaker, "surf surfing surfer breaker tide beach tsunami flow"),
    Motif(sun, "sun solar sunny summer energy bright day morning light"),
    Motif(sunset, "sunset sunrise dawn dusk evening horizon retro synthwave"),
    Motif(moon, "moon night sleep dream lunar midnight nocturnal bedtime astrology"),
    Motif(cloud, "cloud weather rain storage hosting sky saas"),
    Motif(snowflake, "snow snowflake winter ice frost cold frozen freeze cooling"),
    Motif(drop, "drop water oil droplet plumbing hydration liquid blood dew juice", repeats=True),
    Motif(flame, "flame fire burn hot grill bbq barbecue spicy heating candle torch", repeats=True),
    Motif(mushroom, "mushroom fungi truffle toadstool"),
    Motif(stone_stack, "stone stones pebble balance zen rock rocks therapy calm"),
)
