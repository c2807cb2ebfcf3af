"""Polygons: built, moved, cut. Units: the mark lives in a circle of radius 1 around (0, 0), y down.

An outline is an (n, 2) array of points, closed by itself; curves are sampled finely enough that at
4096 pixels no corner shows.
"""

from __future__ import annotations

__all__ = [
    "Outline",
    "Shape",
    "arc",
    "area",
    "around",
    "band",
    "blob",
    "box",
    "circle",
    "clipped",
    "crescent",
    "ellipse",
    "filled",
    "flipped",
    "half_petal",
    "moved",
    "path",
    "petal",
    "polygon",
    "regular",
    "rounded",
    "star",
    "stroke",
    "wave_line",
]

import math
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Outline: TypeAlias = NDArray[np.float64]

_STEPS = 48  # points per curve


class Shape(NamedTuple):
    """A filled outline; later shapes cover earlier ones."""

    ink: str  #: ``#rrggbb``
    outline: Outline

    def moved(self, x: float = 0, y: float = 0, *, scale: float = 1, turn: float = 0) -> Shape:
        """See :func:`moved`."""
        return Shape(self.ink, moved(self.outline, x, y, scale=scale, turn=turn))


def filled(ink: str, outlines: Iterable[Outline]) -> list[Shape]:
    """Outlines in one ink."""
    return [Shape(ink, outline) for outline in outlines]


def polygon(*points: tuple[float, float]) -> Outline:
    """Straight lines between points."""
    return np.array(points, float)


def path(commands: str) -> Outline:
    """The ``M``, ``L``, ``Q`` and ``C`` of SVG, absolute: "M 0 -1 C .8 -.3 .8 .9 0 .9"."""
    points: list[NDArray[np.float64]] = []
    for letter, numbers in re.findall(r"([MLQC])([^MLQC]*)", commands):
        to = np.array([float(n) for n in re.findall(r"-?\d*\.?\d+", numbers)]).reshape(-1, 2)
        if letter in "ML":
            points.extend(to)
            continue
        degree = 2 if letter == "Q" else 3
        for start in range(0, len(to), degree):
            points.extend(_bezier(np.vstack([points[-1], to[start : start + degree]])))
    return np.array(points)


def _bezier(controls: Outline) -> Outline:
    """De Casteljau over all steps at once, without the first point."""
    t = np.linspace(0, 1, _STEPS + 1)[1:, None]
    level = [np.repeat(control[None], _STEPS, axis=0) for control in controls]
    while len(level) > 1:
        level = [(1 - t) * a + t * b for a, b in pairwise(level)]
    return level[0]


def arc(x: float, y: float, radius: float, start: float, end: float) -> Outline:
    """Points along a circle, degrees, clockwise on the screen from 3 o'clock."""
    steps = max(8, int(abs(end - start) * 0.6))
    angles = np.radians(np.linspace(start, end, steps))
    return np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], axis=-1)


def circle(x: float = 0, y: float = 0, radius: float = 1) -> Outline:
    """A disc."""
    return arc(x, y, radius, 0, 360)


def ellipse(x: float, y: float, width: float, height: float, turn: float = 0) -> Outline:
    """An ellipse by its half axes, turned by degrees."""
    return moved(circle() * (width, height), x, y, turn=turn)


def box(left: float, top: float, right: float, bottom: float) -> Outline:
    """A rectangle."""
    return polygon((left, top), (right, top), (right, bottom), (left, bottom))


def rounded(left: float, top: float, right: float, bottom: float, radius: float) -> Outline:
    """A rectangle with round corners."""
    r = min(radius, (right - left) / 2, (bottom - top) / 2)
    corners = [(right - r, top + r, -90), (right - r, bottom - r, 0)]
    corners += [(left + r, bottom - r, 90), (left + r, top + r, 180)]
    return np.vstack([arc(x, y, r, start, start + 90) for x, y, start in corners])


def regular(sides: int, radius: float = 1, turn: float = 0) -> Outline:
    """A regular polygon with a corner at the top."""
    angles = np.radians(np.arange(sides) * 360 / sides - 90 + turn)
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def star(points: int, outer: float = 1, inner: float = 0.45, turn: float = 0) -> Outline:
    """A star with a point at the top."""
    tips, dents = regular(points, outer, turn), regular(points, inner, turn + 180 / points)
    return np.stack([tips, dents], axis=1).reshape(-1, 2)


def blob(lobes: int, radius: float, depth: float) -> Outline:
    """A circle with a wavy edge: a seal, a scalloped flower."""
    angles = np.linspace(0, 2 * np.pi, 16 * lobes + 1)
    wavy = radius * (1 + depth * np.cos(lobes * angles))
    return np.stack([wavy * np.sin(angles), -wavy * np.cos(angles)], axis=-1)


def petal(length: float, width: float, *, foot: float = 0) -> Outline:
    """Two arcs that meet in points: from (0, -foot) up by ``length``, ``width`` at its middle."""
    right = half_petal(length, width, foot=foot)
    return np.vstack([right, right[::-1] * (-1, 1)])


def half_petal(length: float, width: float, *, foot: float = 0) -> Outline:
    """The right half of a petal."""
    half, side = length / 2, width / 2
    radius = (half**2 + side**2) / (2 * side)
    angle = math.degrees(math.asin(min(1.0, half / radius)))
    if side > half:
        angle = 180 - angle
    return arc(side - radius, -foot - half, radius, angle, -angle)


def band(inner: float, outer: float, start: float = 0, end: float = 360) -> Outline:
    """A piece of a ring around the centre, degrees."""
    return np.vstack([arc(0, 0, outer, start, end), arc(0, 0, inner, end, start)])


def crescent(radius: float, bite: float, offset: float) -> Outline:
    """A disc without the disc of radius ``bite`` that lies ``offset`` to its right."""
    x = (radius**2 - bite**2 + offset**2) / (2 * offset)
    y = math.sqrt(max(radius**2 - x**2, 0))
    outer, inner = math.degrees(math.atan2(y, x)), math.degrees(math.atan2(y, x - offset))
    back = arc(offset, 0, bite, 360 - inner, inner)
    return np.vstack([arc(0, 0, radius, outer, 360 - outer), back])


def stroke(line: ArrayLike, width: float, *, cap: bool = True) -> list[Outline]:
    """A line of some width, as pieces that overlap at round joints."""
    points = np.asarray(line, float)
    pieces = []
    for start, end in pairwise(points):
        way = end - start
        length = float(np.hypot(*way))
        if length > 1e-9:
            side = np.array([-way[1], way[0]]) / length * width / 2
            pieces.append(np.array([start + side, end + side, end - side, start - side]))
    joints = points if cap else points[1:-1]
    return pieces + [circle(x, y, width / 2) for x, y in joints]


def wave_line(y: float, height: float, length: float, phase: float = 0) -> Outline:
    """A sine from x = -1.2 to 1.2 around ``y``."""
    x = np.linspace(-1.2, 1.2, 160)
    return np.stack([x, y + height * np.sin(2 * np.pi * (x / length + phase))], axis=-1)


def moved(
    outline: Outline, x: float = 0, y: float = 0, *, scale: float = 1, turn: float = 0
) -> Outline:
    """Scaled, then turned clockwise by degrees, then shifted."""
    angle = math.radians(turn)
    matrix = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return np.asarray(outline * scale @ matrix + (x, y))


def flipped(outline: Outline) -> Outline:
    """Mirrored left to right."""
    return np.asarray(outline * (-1, 1))


def around(shapes: Iterable[Shape], copies: int, *, start: float = 0) -> list[Shape]:
    """The shapes turned about the centre, ``copies`` times."""
    once = list(shapes)
    return [
        shape.moved(turn=start + 360 * copy / copies) for copy in range(copies) for shape in once
    ]


def clipped(outline: Outline, frame: Outline) -> Outline:
    """What of an outline lies within a convex frame (Sutherland and Hodgman, 1974)."""
    inside = frame if _clockwise(frame) else frame[::-1]
    result: Sequence[NDArray[np.float64]] = list(outline)
    for start, end in zip(inside, np.roll(inside, -1, axis=0), strict=True):
        result = _cut(result, start, end)
    return np.array(result).reshape(-1, 2)


def _clockwise(outline: Outline) -> bool:
    return _signed_area(outline) > 0


def area(outline: Outline) -> float:
    """What an outline encloses (the shoelace formula); the whole square is 4."""
    return abs(_signed_area(outline))


def _signed_area(outline: Outline) -> float:
    x, y = outline.T
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2


def _cut(
    points: Sequence[NDArray[np.float64]], start: NDArray[np.float64], end: NDArray[np.float64]
) -> list[NDArray[np.float64]]:
    """The part of a polygon on the right of one edge."""
    if not len(points):
        return []
    way = end - start
    sides = [way[0] * (p[1] - start[1]) - way[1] * (p[0] - start[0]) for p in points]
    inside = []
    for at, (point, side) in enumerate(zip(points, sides, strict=True)):
        before, side_before = points[at - 1], sides[at - 1]
        if (side >= 0) != (side_before >= 0):
            inside.append(before + (point - before) * (side_before / (side_before - side)))
        if side >= 0:
            inside.append(point)
    return inside
