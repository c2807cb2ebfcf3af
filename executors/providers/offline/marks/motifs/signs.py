"""Abstract signs, for subjects no motif knows: pure geometry, chosen by the seed."""

from __future__ import annotations

__all__ = ["SIGNS"]

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
    moved,
    petal,
    polygon,
    regular,
    star,
    stroke,
)


def venn(ink: Inks, chance: Random) -> list[Shape]:
    """Discs that overlap, their common parts in other tones."""
    n = chance.choice((2, 3))
    r, off = (0.62, 0.38) if n == 2 else (0.56, 0.42)
    angles = np.radians(np.arange(n) * 360 / n + (180 if n == 2 else -90))
    discs = [circle(off * np.cos(a), off * np.sin(a), r) for a in angles]
    shapes = [Shape((ink.main, ink.second, ink.accent)[i], disc) for i, disc in enumerate(discs)]
    lenses = [clipped(discs[i], discs[j]) for i in range(n) for j in range(i)]
    tones = (ink.accent,) if n == 2 else (ink.accent, ink.main, ink.second)
    shapes += [Shape(tones[i], lens) for i, lens in enumerate(lenses)]
    if n == 3:
        shapes.append(Shape(ink.ground, clipped(lenses[0], discs[2])))
    return shapes


def rings(ink: Inks, chance: Random) -> list[Shape]:
    """Concentric bands, each open at another place."""
    shapes = []
    for at, tone in enumerate((ink.main, ink.second, ink.accent)):
        outer = 1 - 0.29 * at
        start = chance.choice((0, 45, 90, 135, 180, 225, 270)) + 40 * at
        shapes.append(Shape(tone, band(outer - 0.2, outer, start, start + 270 - 30 * at)))
    return [*shapes, Shape(ink.main, circle(0, 0, 0.13))]


def pinwheel(ink: Inks, chance: Random) -> list[Shape]:
    """Folded blades around the centre."""
    n = chance.choice((4, 5, 6, 8))
    reach = np.radians(360 / n)
    far = (np.sin(reach), -np.cos(reach))
    blade = [
        Shape(ink.main, polygon((0, 0), (0, -1), (far[0] * 0.62, far[1] * 0.62))),
        Shape(ink.second, polygon((0, 0), (0, -0.55), (far[0] * 0.62, far[1] * 0.62))),
    ]
    return [*around(blade, n), Shape(ink.accent, circle(0, 0, 0.13))]


def swirl(ink: Inks, chance: Random) -> list[Shape]:
    """Half discs that chase each other around a circle."""
    n = chance.choice((3, 4, 5, 6))
    tones = [ink.main, ink.second, ink.accent]
    shapes = []
    for at in range(n):
        half = np.vstack([arc(0, -0.5, 0.5, -90, 90)])
        tone = tones[at % (3 if n % 3 == 0 else 2)]
        shapes.append(Shape(tone, moved(half, turn=360 * at / n)))
    return shapes


def quarters(ink: Inks, chance: Random) -> list[Shape]:
    """A grid of quarter circles, after the Bauhaus."""
    n = chance.choice((2, 3))
    side = 1.72 / n
    tones = [ink.main, ink.second, ink.accent]
    shapes = []
    for row in range(n):
        for column in range(n):
            x, y = -0.86 + side * column, -0.86 + side * row
            front, back = chance.sample(tones, 2)
            shapes.append(Shape(back, box(x, y, x + side, y + side)))
            turn = chance.choice((0, 90, 180, 270))
            quarter = np.vstack([polygon((-0.5, -0.5)), arc(-0.5, -0.5, 1, 0, 90)])
            piece = chance.choice(
                (quarter, quarter, quarter, circle(0, 0, 0.36), petal(1.41, 0.82, foot=-0.705))
            )
            turned = turn if piece is quarter else 45 + turn
            shapes.append(
                Shape(front, moved(piece, x + side / 2, y + side / 2, scale=side, turn=turned))
            )
    return shapes


def honeycomb(ink: Inks, chance: Random) -> list[Shape]:
    """Seven hexagons, some of them filled with another."""
    tones = [ink.main, ink.second, ink.accent]
    cells = [(0.0, 0.0)] + [
        (0.64 * np.cos(a), 0.64 * np.sin(a)) for a in np.radians(np.arange(6) * 60)
    ]
    shift = chance.randrange(3)
    shapes = []
    for at, (x, y) in enumerate(cells):
        tone = ink.accent if at == 0 else tones[(at + shift) % 2]
        shapes.append(Shape(tone, moved(regular(6, 0.35), x, y)))
        if at and (at + shift) % 3 == 0:
            shapes.append(Shape(ink.ground, moved(regular(6, 0.18), x, y)))
    return shapes


def layers(ink: Inks, chance: Random) -> list[Shape]:
    """Sheets above each other, seen from the side."""
    n = chance.choice((3, 4))
    tones = (
        (ink.second, ink.accent, ink.main)
        if n == 3
        else (ink.main, ink.second, ink.accent, ink.main)
    )
    sheet = polygon((0, -0.46), (0.92, 0), (0, 0.46), (-0.92, 0))
    step = 0.84 / (n - 1)
    shapes = []
    for at, tone in enumerate(tones):
        y = 0.42 - step * at
        shapes += [Shape(ink.ground, moved(sheet, 0, y + 0.09)), Shape(tone, moved(sheet, 0, y))]
    return shapes


def bars(ink: Inks, chance: Random) -> list[Shape]:
    """Rounded bars that rise, cut to a disc."""
    heights = chance.choice(((0.3, 0.55, 0.8, 1.0), (0.5, 1.0, 0.7, 0.35), (0.8, 0.45, 0.95, 0.6)))
    tones = (ink.second, ink.main, ink.accent, ink.main)
    shapes = []
    for at, (height, tone) in enumerate(zip(heights, tones, strict=True)):
        x = -0.66 + 0.44 * at
        pieces = stroke([(x, 0.75), (x, 0.75 - 1.5 * height)], 0.32)
        shapes += [Shape(tone, piece) for piece in pieces]
    return shapes


def facets(ink: Inks, chance: Random) -> list[Shape]:
    """A polygon cut into triangles in turn light, middle and dark."""
    n = chance.choice((5, 6, 7, 8))
    corners = regular(n, 1.0)
    heart = np.array([chance.uniform(-0.2, 0.2), chance.uniform(-0.2, 0.2)])
    tones = [ink.main, ink.second, ink.accent]
    shapes = []
    for at in range(n):
        a, b = corners[at], corners[(at + 1) % n]
        tone = tones[at % 3] if n % 3 != 1 or at else tones[1]
        shapes.append(Shape(tone, np.array([a, b, heart])))
    return shapes


def orbit(ink: Inks, chance: Random) -> list[Shape]:
    """Ellipses around a core, a dot on each."""
    n = chance.choice((2, 3))
    shapes = []
    for at in range(n):
        turn = 180 / n * at + 30
        ring = np.vstack([circle() * (1, 0.4), (circle() * (0.88, 0.29))[::-1]])
        shapes.append(Shape((ink.main, ink.second, ink.main)[at], moved(ring, turn=turn)))
        dot = moved(circle(0.86, 0.16, 0.11), turn=turn)
        shapes.append(Shape(ink.accent, dot))
    return [*shapes, Shape(ink.accent, circle(0, 0, 0.22))]


def faceted_star(ink: Inks, chance: Random) -> list[Shape]:
    """A star, every point folded."""
    n = chance.choice((5, 6, 8))
    inner = {5: 0.42, 6: 0.5, 8: 0.55}[n]
    outline = star(n, 1, inner)
    tones = (ink.main, ink.second)
    shapes = [
        Shape(tones[at % 2], np.array([(0, 0), outline[at], outline[(at + 1) % (2 * n)]]))
        for at in range(2 * n)
    ]
    return [*shapes, Shape(ink.accent, star(n, 0.4, 0.4 * inner))]


def arches(ink: Inks, _: Random) -> list[Shape]:
    """Nested arches, side by side."""
    shapes = []
    tones = [ink.main, ink.second, ink.accent, ink.ground]
    for side in (-1, 1):
        order = tones if side < 0 else [ink.second, ink.main, ink.ground, ink.accent]
        for at, tone in enumerate(order):
            r = 0.46 - 0.12 * at
            arch = np.vstack(
                [
                    arc(side * 0.48, -0.1, r, 180, 360),
                    polygon((side * 0.48 + r, 0.8), (side * 0.48 - r, 0.8)),
                ]
            )
            shapes.append(Shape(tone, arch))
    return shapes


def waves_grid(ink: Inks, chance: Random) -> list[Shape]:
    """Leaf shapes woven into a square."""
    tones = chance.sample([ink.main, ink.second, ink.accent], 3)
    shapes = []
    for row in range(3):
        for column in range(3):
            turn = 45 if (row + column) % 2 else -45
            tone = tones[(row * 2 + column) % 3]
            shape = petal(0.82, 0.4, foot=-0.41)
            shapes.append(
                Shape(tone, moved(shape, -0.58 + 0.58 * column, -0.58 + 0.58 * row, turn=turn))
            )
    return shapes


SIGNS: tuple[Motif, ...] = (
    Motif(venn, "overlap partnership together union merge collaboration team"),
    Motif(rings, "ring circle loop circular signal radar"),
    Motif(pinwheel, "wind turbine fan mill renewable"),
    Motif(swirl, "swirl spin vortex spiral cycle recycle recycling"),
    Motif(quarters, "design studio modern art gallery museum bauhaus mosaic tile pattern textile"),
    Motif(
        honeycomb,
        "hexagon network cell molecule chemistry bio biotech pharma lab science",
    ),
    Motif(layers, "layer layers stack platform fabric fashion cloth print paper"),
    Motif(
        bars,
        "bar chart growth finance bank invest investment trading analytics sales statistics accounting",
    ),
    Motif(facets, "facet polygon prism geometric"),
    Motif(orbit, "orbit atom physics planet quantum satellite galaxy cosmic astronomy"),
    Motif(faceted_star, "star award best rating sparkle magic celebrity winner champion"),
    Motif(arches, "arch gate door rainbow"),
    Motif(waves_grid, "weave basket market grocery"),
)
