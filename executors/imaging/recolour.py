"""One picture in the colours of many palettes, through a 3D LUT each.

    artwork = Artwork.of(image)          # once: its clusters, how they share the colour cube, tiles
    variation = artwork.in_palette(palette.colours)           # per palette, from any thread

The LUT moves every colour of the cube by a mix of the moves of the clusters::

    f(c) = c + Σ wᵢ(c) · (pᵢ - cᵢ)          Σ wᵢ(c) = 1

so everything is in the weights, and they do not depend on the palette: they are found once, and a
palette costs one small matrix product. What the weights promise, and how:

* *A region gets its colour*: w is 1 for a cluster and 0 for the others at (and 4 levels around) it.
* *No seams*: an antialiased pixel between A and B lies on the straight line between them, in sRGB,
  where renderers blend. On that line w is (1 - t, t), so it becomes the same blend of A' and B'.
  Between the lines of all pairs that touch, weights are mixed by inverse distance.
* *Lightness keeps its order*, so a line that runs into a third cluster on its way (white to black
  through a flat grey) passes colours that lie between its ends there as well.
* *Gradients stay smooth*: f is piecewise linear along lines, and off them a colour keeps its
  difference to its neighbours: grain, shading and small accents survive.
"""

from __future__ import annotations

__all__ = [
    "LUT_SIZE",
    "Artwork",
    "Cube",
    "assign",
    "cube_nodes",
    "lut_of",
    "palette_lut",
    "share_cube",
    "target_lut",
]

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from executors.imaging.clusters import Clusters, find_clusters
from executors.imaging.colour import Floats, hex_srgb, oklab_to_srgb, srgb_to_oklab
from executors.imaging.tiles import Tiles

#: Nodes along each side of the cube, 8 levels apart.
LUT_SIZE: Final = 33

_SOFT = 6 / 255  # the distance to a line that still counts as being on it: most of a cell
_PLATEAU = 4 / 255  # around a cluster, where noise must not be stretched with the line's slope
_CROSSING = (8 / 255, 22 / 255)  # a third cluster this near to a line takes it over (… leaves it)
_STRANGERS = 0.02  # weight of the line between clusters that do not touch
_CORRECTIONS = 8  # rounds at most until a cluster's colour is exact
_WIDE = 0.1  # OKLab: a step between regions beyond which wider is no better
_COMBINATIONS = 924  # of palette colours to try at most: 6 out of 12


class Cube(NamedTuple):
    """How the clusters share the colour cube: all of the LUT that does not depend on a palette."""

    weights: Floats  #: (LUT_SIZE³, k): how much of each cluster's move a node makes; rows sum to 1
    rest: Floats  #: (LUT_SIZE³, 3): what a node's colour is beyond the mix of the clusters' colours


@dataclass(frozen=True, slots=True, eq=False)
class Artwork:
    """A picture that has been looked at and can be recoloured any number of times."""

    clusters: Clusters
    cube: Cube
    tiles: Tiles

    @classmethod
    def of(cls, image: Image.Image) -> Artwork:
        """Prepare an ``RGB`` or ``RGBA`` picture; about 20 ms for 2048²."""
        # The two halves of the work do not need each other, and both let go of the GIL.
        with ThreadPoolExecutor(1, thread_name_prefix="tiles") as helper:
            tiles = helper.submit(Tiles.cut, image)
            clusters = find_clusters(image)
            return cls(clusters, share_cube(clusters), tiles.result())

    @property
    def flat(self) -> bool:
        """Whether most of it is plain colour; the codec compresses such pictures harder."""
        return self.tiles.flat

    def in_palette(self, colours: Sequence[str]) -> Image.Image:
        """The picture in these hex colours; its alpha stays. Thread-safe."""
        return self.tiles.filter(palette_lut(self.clusters, self.cube, colours))

    def recoloured(self, targets: Floats) -> Image.Image:
        """The picture with the colour of ``targets`` (k, 3) for each cluster; its alpha stays."""
        return self.tiles.filter(target_lut(self.clusters, self.cube, targets))


# --- who gets which colour -----------------------------------------------------------------------


def assign(clusters: Clusters, colours: Sequence[str]) -> Floats:
    """The new colour of every cluster: (k, 3) sRGB, its lightness in the order of the clusters.

    One to one: with colours to spare, those are taken whose lightness changes the picture least;
    with too few, some clusters get mixes of their neighbours' colours, so that what was distinct
    stays distinct.
    """
    if not colours:
        raise ValueError("a palette needs at least one colour")
    if not len(clusters):
        return clusters.colours
    palette = hex_srgb(colours)
    palette = palette[np.argsort(srgb_to_oklab(palette)[:, 0], kind="stable")]
    if len(clusters) <= len(palette):
        return _nearest_in_lightness(clusters, palette)
    return _stretched(clusters, palette)


def _nearest_in_lightness(clusters: Clusters, palette: Floats) -> Floats:
    """As many of the palette's colours as there are clusters, by the least change of lightness."""
    k = len(clusters)
    before = srgb_to_oklab(clusters.colours)[:, 0]
    after = srgb_to_oklab(palette)[:, 0]
    choices = np.array(list(_choices(len(palette), k)), np.intp).reshape(-1, k)
    moved = np.sum((after[choices] - before) ** 2, axis=1)
    # A gap in lightness that closes costs as much as a move: what stood out must stand out.
    closed = np.minimum(np.diff(after[choices], axis=1) - np.diff(before), 0)
    best = choices[np.argmin(moved + np.sum(closed**2, axis=1))]
    return np.asarray(palette[best])


def _choices(n: int, k: int) -> Iterable[tuple[int, ...]]:
    """Ascending k of n indices: all of them, or evenly spaced ones where there are too many."""
    for count, choice in enumerate(combinations(range(n), k)):
        if count == _COMBINATIONS:
            break
        yield choice
    yield tuple(round(i * (n - 1) / max(1, k - 1)) for i in range(k))


def _stretched(clusters: Clusters, palette: Floats) -> Floats:
    """More clusters than colours: some get one each, those between them mixes of their colours."""
    k, n = len(clusters), len(palette)
    lab = srgb_to_oklab(palette)
    if n == 1:  # one colour for all: their own lightness has to tell them apart
        moved = srgb_to_oklab(clusters.colours)
        moved[:, 1:] = lab[0, 1:]
        return np.clip(oklab_to_srgb(moved), 0, 1)
    anchors = _anchors(clusters.shares, np.linalg.norm(np.diff(lab, axis=0), axis=1))
    mixed = np.stack([np.interp(np.arange(k), anchors, lab[:, c]) for c in range(3)], axis=-1)
    targets = np.clip(oklab_to_srgb(mixed), 0, 1)
    targets[anchors] = palette
    return targets


def _anchors(shares: Floats, gaps: Floats) -> list[int]:
    """Which of k clusters get one of n colours as it is; first and last always do.

    ``gaps`` (n - 1,) are the distances between the colours. The mixes share a gap evenly, so the
    choice is for wide steps; among equals, for large areas.
    """
    k, n = len(shares), len(gaps) + 1

    def quality(choice: tuple[int, ...]) -> float:
        anchors = [0, *choice, k - 1]
        step = float(np.min(gaps / np.diff(anchors)))
        return min(step, _WIDE) + 0.05 * float(np.sum(shares[anchors]))

    return [0, *max(combinations(range(1, k - 1), n - 2), key=quality), k - 1]


# --- the LUT -------------------------------------------------------------------------------------


def palette_lut(clusters: Clusters, cube: Cube, colours: Sequence[str]) -> ImageFilter.Color3DLUT:
    """The LUT that gives a picture with these clusters these colours; about 2 ms."""
    return target_lut(clusters, cube, assign(clusters, colours))


def target_lut(clusters: Clusters, cube: Cube, targets: Floats) -> ImageFilter.Color3DLUT:
    """The LUT that gives each cluster the colour of ``targets`` (k, 3), and what lies between."""
    if not len(clusters):
        return lut_of(cube_nodes())
    nodes = _held_inside(_mix(cube.weights, targets), cube.rest)
    _make_exact(nodes, clusters.colours, targets)
    return lut_of(nodes)


def lut_of(nodes: Floats) -> ImageFilter.Color3DLUT:
    """The LUT that moves each of ``cube_nodes()`` to the colour in ``nodes``: (LUT_SIZE³, 3)."""
    return ImageFilter.Color3DLUT((LUT_SIZE,) * 3, nodes.ravel(), _copy_table=False)


def share_cube(clusters: Clusters) -> Cube:
    """Find the weights, once per picture; about 3 ms."""
    weights = _weights(clusters)
    return Cube(weights, cube_nodes() - _mix(weights, clusters.colours))


def _weights(clusters: Clusters) -> Floats:
    """Every node between the lines of pairs of clusters, mixed by inverse distance."""
    k = len(clusters)
    nodes = cube_nodes()
    if k < 2:
        return np.ones((len(nodes), k), np.float32)
    weights = np.zeros((len(nodes), k), np.float32)
    total = np.zeros(len(nodes), np.float32)
    for first, second, importance in _lines(clusters):
        start, end = clusters.colours[first], clusters.colours[second]
        t, near = _along(nodes, start, end)
        near *= np.float32(importance)
        total += near
        weights[:, second] += near * t
        weights[:, first] += near * (1 - t)
    weights /= total[:, None]
    return weights


def _mix(weights: Floats, colours: Floats) -> Floats:
    """(n, k) weights of (k, 3) colours. Not ``@``: its threads cost more than this product."""
    return np.asarray(np.einsum("nk,kc->nc", weights, colours))


@cache
def cube_nodes() -> Floats:
    """The colours of the LUT's nodes in Pillow's order, red fastest: (LUT_SIZE³, 3)."""
    steps = np.linspace(0, 1, LUT_SIZE, dtype=np.float32)
    blue, green, red = np.meshgrid(steps, steps, steps, indexing="ij")
    nodes = np.stack([red, green, blue], axis=-1).reshape(-1, 3)
    nodes.flags.writeable = False
    return nodes


def _along(nodes: Floats, start: Floats, end: Floats) -> tuple[Floats, Floats]:
    """Where each node projects on the line (0…1, flat near both ends), and how near it is to it."""
    way = end - start
    length = float(np.linalg.norm(way))
    red, green, blue = (nodes[:, c] - start[c] for c in range(3))
    t = (red * way[0] + green * way[1] + blue * way[2]) / np.float32(length**2)
    t = np.clip(t, 0, 1)
    squared = (red - t * way[0]) ** 2 + (green - t * way[1]) ** 2 + (blue - t * way[2]) ** 2
    plateau = min(_PLATEAU / length, 0.25)
    t = np.clip((t - plateau) / (1 - 2 * plateau), 0, 1)
    return t, (squared + np.float32(_SOFT**2)) ** -2


def _lines(clusters: Clusters) -> list[tuple[int, int, float]]:
    """Pairs of clusters with the importance of the line between them, 0…1.

    Lines between strangers only fill the cube, and give way entirely where there are many clusters;
    every cluster keeps the line to its nearest, so none is left alone.
    """
    k = len(clusters)
    colours = clusters.colours
    apart = np.linalg.norm(colours[:, None] - colours[None], axis=-1)
    np.fill_diagonal(apart, np.inf)
    nearest = apart.argmin(axis=1)
    lines = []
    for first, second in combinations(range(k), 2):
        touch = clusters.touching[first, second] > 0
        close = nearest[first] == second or nearest[second] == first
        if touch or close or k <= 6:
            importance = 1.0 if touch else _STRANGERS
            importance *= _undisturbed(colours, first, second)
            lines.append((first, second, max(importance, 1e-4 if close else 1e-6)))
    return lines


def _undisturbed(colours: Floats, first: int, second: int) -> float:
    """0 where a third cluster lies on the line, 1 where all are well away from it."""
    way = colours[second] - colours[first]
    offset = np.delete(colours, [first, second], axis=0) - colours[first]
    if not len(offset):
        return 1.0
    t = np.clip(offset @ way / float(way @ way), 0, 1)
    nearest = float(np.linalg.norm(offset - t[:, None] * way, axis=1).min())
    x = (nearest - _CROSSING[0]) / (_CROSSING[1] - _CROSSING[0])
    x = min(max(x, 0.0), 1.0)
    return x * x * (3 - 2 * x)


def _make_exact(nodes: Floats, colours: Floats, targets: Floats) -> None:
    """Correct the nodes around each cluster so that what is *interpolated* there is its target.

    The smallest change that does it: with A the trilinear interpolation at the k clusters, add
    Aᵀ (A Aᵀ)⁻¹ (targets - A nodes). Repeated without the nodes that have hit 0 or 1, which cannot
    move on: so white stays #ffffff.
    """
    corners, shares = _trilinear(colours)
    same = corners[:, None, :, None] == corners[None, :, None, :]
    for channel in range(3):
        values, wanted = nodes[:, channel], targets[:, channel]
        for _ in range(_CORRECTIONS):
            missing = wanted - np.sum(shares * values[corners], axis=1)
            if np.abs(missing).max() < 1e-3:
                break
            stuck = (values[corners] <= 0) & (missing[:, None] < 0)
            stuck |= (values[corners] >= 1) & (missing[:, None] > 0)
            free = np.where(stuck, 0, shares)
            gram = np.einsum("ka,lb,klab->kl", free, free, same) + 1e-4 * np.eye(len(colours))
            change = np.linalg.solve(gram, missing)
            np.add.at(values, corners, (free * change[:, None]).astype(np.float32))
            values[corners] = np.clip(values[corners], 0, 1)


def _trilinear(points: Floats) -> tuple[NDArray[np.intp], Floats]:
    """The eight nodes around each of (k, 3) colours and their shares in the interpolation there."""
    scaled = points.astype(np.float64) * (LUT_SIZE - 1)
    low = np.clip(np.floor(scaled), 0, LUT_SIZE - 2)
    fraction = scaled - low
    steps = np.array([[r, g, b] for b in (0, 1) for g in (0, 1) for r in (0, 1)])
    at = low[:, None].astype(np.intp) + steps
    corners = at @ np.array([1, LUT_SIZE, LUT_SIZE**2])
    shares = np.where(steps == 1, fraction[:, None], 1 - fraction[:, None]).prod(axis=-1)
    return corners, shares.astype(np.float32)


def _held_inside(base: Floats, offset: Floats) -> Floats:
    """``base + offset``, approaching 0 and 1 smoothly instead of hitting them: (n, 3).

    The slope at offset 0 is 1 and the base itself is kept, so regions stay exact while a highlight
    on an almost white region is compressed and not cut.
    """
    base = np.clip(base, 0, 1)
    room = np.where(offset > 0, 1 - base, base) + np.float32(1e-6)
    moved = base + offset / (1 + np.abs(offset) / room)
    return np.asarray(np.clip(moved, 0, 1), np.float32)
