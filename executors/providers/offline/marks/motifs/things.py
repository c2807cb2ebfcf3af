"""Tools and objects."""

from __future__ import annotations

__all__ = ["THINGS"]

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
    ellipse,
    filled,
    flipped,
    moved,
    path,
    polygon,
    regular,
    rounded,
    star,
    stroke,
)


def book(ink: Inks, _: Random) -> list[Shape]:
    """An open book with a ribbon."""
    page = path("M 0 -.48 C .3 -.72 .64 -.72 .96 -.6 L .96 .56 C .64 .44 .3 .46 0 .7")
    cover = path("M 0 -.36 C .3 -.6 .7 -.6 1.06 -.46 L 1.06 .7 C .7 .58 .3 .6 0 .84")
    shapes = [Shape(ink.accent, cover), Shape(ink.accent, flipped(cover))]
    shapes += [Shape(ink.main, flipped(page)), Shape(ink.second, page)]
    for y in (-0.3, -0.04, 0.22):
        line = path(f"M .16 {y + 0.02} C .36 {y - 0.12} .6 {y - 0.13} .8 {y - 0.08}")
        shapes += filled(ink.ground, stroke(line, 0.05))
        shapes += filled(ink.ground, stroke(flipped(line), 0.05))
    return shapes


def cube(ink: Inks, chance: Random) -> list[Shape]:
    """A box in three tones, one corner cut out of it."""
    a, b, c, d, e, f = regular(6, 1.0)
    faces = [
        (ink.second, (a, b, (0, 0), f)),
        (ink.main, (b, c, d, (0, 0))),
        (ink.accent, (d, e, f, (0, 0))),
    ]
    shapes = [Shape(tone, np.array(corners, float)) for tone, corners in faces]
    if chance.random() < 0.6:
        shapes += [Shape(ink.ground, np.array(regular(6, 0.5)))]
        tones = (ink.accent, ink.second, ink.main)
        shapes += [
            Shape(tone, np.array(corners, float) * 0.5)
            for tone, (_, corners) in zip(tones, faces, strict=True)
        ]
    return shapes


def gem(ink: Inks, _: Random) -> list[Shape]:
    """A cut diamond."""
    top, girdle, tip = -0.62, -0.18, 0.86
    return [
        Shape(ink.main, polygon((-0.56, top), (0, top), (-0.38, girdle))),
        Shape(ink.accent, polygon((0, top), (0.38, girdle), (-0.38, girdle))),
        Shape(ink.second, polygon((0, top), (0.56, top), (0.38, girdle))),
        Shape(ink.second, polygon((-0.56, top), (-0.38, girdle), (-0.98, girdle))),
        Shape(ink.main, polygon((0.56, top), (0.98, girdle), (0.38, girdle))),
        Shape(ink.main, polygon((-0.98, girdle), (-0.38, girdle), (0, tip))),
        Shape(ink.second, polygon((-0.38, girdle), (0.38, girdle), (0, tip))),
        Shape(ink.accent, polygon((0.38, girdle), (0.98, girdle), (0, tip))),
    ]


def crown(ink: Inks, _: Random) -> list[Shape]:
    """Five points, each with a jewel."""
    crest = polygon(
        (-0.85, 0.42),
        (-0.95, -0.42),
        (-0.46, -0.02),
        (0, -0.72),
        (0.46, -0.02),
        (0.95, -0.42),
        (0.85, 0.42),
    )
    right = polygon((0, 0.42), (0, -0.72), (0.46, -0.02), (0.95, -0.42), (0.85, 0.42))
    jewels = [(-0.95, -0.5, 0.11), (0, -0.82, 0.13), (0.95, -0.5, 0.11)]
    return [
        Shape(ink.main, crest),
        Shape(ink.second, right),
        Shape(ink.accent, rounded(-0.85, 0.54, 0.85, 0.74, 0.05)),
        *(Shape(ink.accent, circle(*jewel)) for jewel in jewels),
    ]


def key(ink: Inks, _: Random) -> list[Shape]:
    """A key with a flower for a bow."""
    bow = around([Shape(ink.main, circle(0, -0.28, 0.27))], 3)
    bow = [s.moved(0, -0.45) for s in bow]
    hole = [Shape(ink.ground, circle(0, -0.45, 0.13))]
    shaft = [
        Shape(ink.main, box(-0.08, -0.2, 0.08, 0.95)),
        Shape(ink.second, box(0.08, 0.5, 0.36, 0.64)),
        Shape(ink.second, box(0.08, 0.76, 0.28, 0.9)),
    ]
    collar = [Shape(ink.accent, rounded(-0.18, -0.02, 0.18, 0.1, 0.04))]
    return [s.moved(turn=38) for s in (*shaft, *bow, *hole, *collar)]


def gear(ink: Inks, chance: Random) -> list[Shape]:
    """A cog with a second tone within."""
    teeth = chance.choice((8, 10))
    tooth = polygon((-0.15, -0.7), (-0.11, -1), (0.11, -1), (0.15, -0.7))
    shapes = around([Shape(ink.main, tooth)], teeth)
    shapes += [
        Shape(ink.main, circle(0, 0, 0.78)),
        Shape(ink.ground, circle(0, 0, 0.52)),
        Shape(ink.second, circle(0, 0, 0.42)),
    ]
    return [*shapes, Shape(ink.accent, regular(6, 0.2))]


def bulb(ink: Inks, _: Random) -> list[Shape]:
    """A light bulb with an idea in it."""
    glass = path(
        "M 0 -.95 C .42 -.95 .7 -.64 .7 -.28 C .7 .06 .36 .22 .3 .5 L -.3 .5"
        " C -.36 .22 -.7 .06 -.7 -.28 C -.7 -.64 -.42 -.95 0 -.95"
    )
    half = clipped(glass, box(0, -1, 1, 1))
    base = [rounded(-0.28, 0.58, 0.28, 0.7, 0.06), rounded(-0.22, 0.76, 0.22, 0.88, 0.06)]
    bolt = polygon(
        (0.08, -0.62), (-0.3, -0.08), (-0.04, -0.08), (-0.1, 0.3), (0.28, -0.26), (0.02, -0.26)
    )
    return [
        Shape(ink.main, glass),
        Shape(ink.second, half),
        *filled(ink.accent, base),
        Shape(ink.ground, bolt),
    ]


def camera(ink: Inks, _: Random) -> list[Shape]:
    """A camera, its lens in rings."""
    return [
        Shape(ink.second, rounded(-0.4, -0.68, 0.4, 0.2, 0.12)),
        Shape(ink.main, rounded(-0.95, -0.46, 0.95, 0.66, 0.16)),
        Shape(ink.ground, circle(0, 0.1, 0.46)),
        Shape(ink.second, circle(0, 0.1, 0.38)),
        Shape(ink.accent, circle(0, 0.1, 0.2)),
        Shape(ink.ground, circle(0.68, -0.24, 0.09)),
    ]


def note(ink: Inks, _: Random) -> list[Shape]:
    """Two quavers under one beam."""
    stems = [box(-0.44, -0.7, -0.3, 0.6), box(0.56, -0.9, 0.7, 0.4)]
    beam = polygon((-0.44, -0.72), (0.7, -0.96), (0.7, -0.62), (-0.44, -0.38))
    heads = [ellipse(-0.56, 0.62, 0.3, 0.22, -18), ellipse(0.44, 0.42, 0.3, 0.22, -18)]
    return [
        *filled(ink.main, stems),
        Shape(ink.main, beam),
        Shape(ink.second, heads[0]),
        Shape(ink.accent, heads[1]),
    ]


def bubble(ink: Inks, chance: Random) -> list[Shape]:
    """Two speech bubbles that overlap."""
    back = [rounded(-0.25, -0.8, 0.98, 0.2, 0.28), polygon((0.5, 0.1), (0.8, 0.55), (0.82, 0.1))]
    front = [
        rounded(-0.98, -0.38, 0.45, 0.6, 0.28),
        polygon((-0.66, 0.5), (-0.7, 0.98), (-0.24, 0.5)),
    ]
    dots = [circle(x, 0.11, 0.1) for x in (-0.6, -0.26, 0.08)]
    rim = rounded(-1.06, -0.46, 0.53, 0.68, 0.34)
    tone = ink.ground if chance.random() < 0.5 else ink.accent
    return [
        *filled(ink.second, back),
        Shape(ink.ground, rim),
        *filled(ink.main, front),
        *filled(tone, dots),
    ]


def code(ink: Inks, _: Random) -> list[Shape]:
    """Angle brackets and a stroke."""
    left = stroke([(-0.42, -0.55), (-0.92, 0), (-0.42, 0.55)], 0.22)
    right = stroke([(0.42, -0.55), (0.92, 0), (0.42, 0.55)], 0.22)
    slash = stroke([(0.2, -0.78), (-0.2, 0.78)], 0.2)
    return [*filled(ink.main, left), *filled(ink.second, right), *filled(ink.accent, slash)]


def bolt(ink: Inks, _: Random) -> list[Shape]:
    """Lightning, folded in two tones."""
    return [
        Shape(ink.main, polygon((0.3, -1), (-0.62, 0.12), (-0.06, 0.12), (0.1, -0.16))),
        Shape(ink.second, polygon((-0.3, 1), (0.62, -0.16), (0.1, -0.16), (-0.06, 0.12))),
        Shape(ink.accent, polygon((-0.06, 0.12), (0.1, -0.16), (0.3, -1), (0.06, -0.16))),
    ]


def shield(ink: Inks, _: Random) -> list[Shape]:
    """A quartered shield with a star."""
    outline = path("M -.8 -.86 L .8 -.86 L .8 -.1 C .8 .46 .4 .8 0 1 C -.4 .8 -.8 .46 -.8 -.1")
    quarters = [box(0, -1, 1, 0), box(-1, 0, 0, 1.1)]
    return [
        Shape(ink.main, outline),
        *(Shape(ink.second, clipped(outline, q)) for q in quarters),
        Shape(ink.ground, circle(0, -0.04, 0.42)),
        Shape(ink.accent, moved(star(5, 0.34, 0.15), 0, -0.03)),
    ]


def play(ink: Inks, _: Random) -> list[Shape]:
    """A play button in layers."""
    triangle = polygon((-0.3, -0.52), (0.6, 0), (-0.3, 0.52))
    return [
        Shape(ink.second, circle()),
        Shape(ink.main, clipped(circle(), box(-1, 0, 1, 1))),
        Shape(ink.ground, triangle),
        Shape(ink.accent, clipped(triangle, box(-1, 0, 1, 1))),
    ]


def target(ink: Inks, _: Random) -> list[Shape]:
    """Rings, and an arrow in the middle."""
    rings = [
        (1, ink.main),
        (0.76, ink.ground),
        (0.56, ink.second),
        (0.34, ink.ground),
        (0.18, ink.accent),
    ]
    arrow = [
        *stroke([(0, 0), (0.74, -0.74)], 0.09),
        polygon((0.58, -0.78), (0.62, -1.06), (1.06, -0.62), (0.78, -0.58)),
    ]
    return [
        *(Shape(tone, circle(-0.08, 0.08, 0.9 * r)) for r, tone in rings),
        *filled(ink.accent, [moved(o, -0.08, 0.08) for o in arrow]),
    ]


def dumbbell(ink: Inks, _: Random) -> list[Shape]:
    """A dumbbell on the slant."""
    bar = Shape(ink.accent, box(-0.5, -0.09, 0.5, 0.09))
    plates = [
        Shape(tone, rounded(x - 0.1, -h, x + 0.1, h, 0.07))
        for x, h, tone in (
            (-0.48, 0.6, ink.main),
            (0.48, 0.6, ink.main),
            (-0.74, 0.42, ink.second),
            (0.74, 0.42, ink.second),
        )
    ]
    ends = [
        Shape(ink.accent, rounded(x - 0.08, -0.12, x + 0.08, 0.12, 0.05)) for x in (-0.94, 0.94)
    ]
    return [s.moved(turn=-35) for s in (bar, *ends, *plates)]


def scissors(ink: Inks, _: Random) -> list[Shape]:
    """Open scissors over a comb's worth of air."""
    blade = polygon((-0.09, 0.2), (0.05, -1), (0.12, 0.2))
    grip = band(0.17, 0.29)
    right = [Shape(ink.main, blade), Shape(ink.second, moved(grip, 0.04, 0.44))]
    left = [s._replace(outline=flipped(s.outline)) for s in right]
    opened = [s.moved(turn=24) for s in right] + [s.moved(turn=-24) for s in left]
    return [*opened, Shape(ink.accent, circle(0, 0.1, 0.09))]


def tooth(ink: Inks, _: Random) -> list[Shape]:
    """A tooth that shines."""
    right = path(
        "M 0 -.66 C .3 -.92 .86 -.8 .8 -.22 C .76 .1 .62 .3 .56 .64"
        " C .5 1 .26 1 .22 .64 C .18 .36 .14 .26 0 .26"
    )
    gleam = moved(star(4, 0.3, 0.1), 0.34, -0.34)
    return [
        Shape(ink.main, flipped(right)),
        Shape(ink.second, right),
        Shape(ink.ground, gleam),
        Shape(ink.accent, moved(star(4, 0.26, 0.09), 0.92, -0.78)),
    ]


def brush(ink: Inks, _: Random) -> list[Shape]:
    """A brush that has just painted."""
    handle = path("M -.08 -.1 L .08 -.1 C .12 -.5 .1 -.84 0 -1 C -.1 -.84 -.12 -.5 -.08 -.1")
    hair = path("M -.14 .1 L .14 .1 C .26 .44 .2 .64 0 .94 C -.2 .64 -.26 .44 -.14 .1")
    tool = [
        Shape(ink.main, handle),
        Shape(ink.accent, box(-0.13, -0.12, 0.13, 0.12)),
        Shape(ink.second, hair),
    ]
    trail = path("M -.95 .72 C -.5 .4 -.2 1 .3 .78 C .3 .9 -.2 1.1 -.95 .72")
    return [Shape(ink.accent, trail), *(s.moved(0.12, 0.02, turn=36) for s in tool)]


def scales(ink: Inks, _: Random) -> list[Shape]:
    """The scales of justice."""
    beam = stroke([(-0.72, -0.5), (0.72, -0.5)], 0.1)
    post = [
        box(-0.06, -0.72, 0.06, 0.74),
        rounded(-0.42, 0.74, 0.42, 0.88, 0.06),
        circle(0, -0.76, 0.12),
    ]
    shapes = [*filled(ink.main, [*beam, *post])]
    for x in (-0.68, 0.68):
        cords = stroke([(x - 0.28, 0.16), (x, -0.5), (x + 0.28, 0.16)], 0.045)
        shapes += [
            *filled(ink.accent, cords),
            Shape(ink.second, moved(arc(0, 0, 0.34, 0, 180), x, 0.14)),
        ]
    return shapes


THINGS: tuple[Motif, ...] = (
    Motif(
        book,
        "book read reading library literature study school education learning academy story "
        "publisher novel bookshop",
    ),
    Motif(
        cube,
        "cube box block package crypto blockchain logistics container storage data warehouse 3d",
    ),
    Motif(gem, "gem diamond jewel jewelry jewellery jeweler crystal luxury precious"),
    Motif(crown, "crown king queen royal premium empire prince princess"),
    Motif(key, "key unlock access locksmith password"),
    Motif(
        gear,
        "gear machine mechanic engineering industrial factory repair automation tool tools settings",
    ),
    Motif(
        bulb,
        "bulb idea lamp light creative innovation invention smart electric lighting",
    ),
    Motif(camera, "camera photo photography photographer picture film studio lens video"),
    Motif(
        note,
        "music note song melody audio sound band choir concert piano podcast radio jazz",
    ),
    Motif(
        bubble,
        "chat talk bubble conversation message social community support forum language translation",
    ),
    Motif(
        code, "code developer software programming hacker api web app engineer computer terminal"
    ),
    Motif(
        bolt,
        "bolt lightning electric power energy fast charge charging volt thunder speed",
        repeats=True,
    ),
    Motif(
        shield, "shield security secure protect protection insurance guard defense safe legal law"
    ),
    Motif(play, "play stream streaming media movie cinema game gaming tv channel"),
    Motif(target, "target goal aim focus archery marketing strategy"),
    Motif(dumbbell, "gym fitness dumbbell workout training strength muscle crossfit"),
    Motif(scissors, "barber hair hairdresser scissors salon cut haircut tailor sewing"),
    Motif(tooth, "dentist dental tooth teeth orthodontist smile"),
    Motif(brush, "paint painter brush art artist craft illustration makeup canvas"),
    Motif(scales, "law lawyer legal justice attorney court notary firm balance"),
)
