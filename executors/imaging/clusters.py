"""Which colours a picture is made of, and which of them touch: found once, on a few samples.

A colour counts where it is *flat*: where a pixel equals its four neighbours. Antialiased pixels
never do, so they cannot become clusters. Among flat pixels, a cluster is a peak of density in OKLab
that a valley separates from every other peak; a gradient has no valleys and gets a few widely
spaced clusters along its way instead of many.
"""

from __future__ import annotations

__all__ = ["MAX_CLUSTERS", "Clusters", "find_clusters"]

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from executors.imaging.colour import Floats, srgb_to_oklab

#: What lies beyond follows the colours around it (and stays distinct by its difference to them).
MAX_CLUSTERS: Final = 12

_SAMPLES = 384  # a side: a region of 0.02 % of the picture still has 30 samples
_FLAT = 6  # levels of 255 that neighbours may differ by: the noise of a good JPEG
_LEAST = 0.0002  # share of the samples below which a colour is dust
_BINS = 768  # most frequent colours to look at: each costs a row of distances
_KERNEL = 0.008  # OKLab, the width of a colour: at 0.03 (ΔE2000 3) there is a valley
_SUMMITS = 64  # peaks to consider
_NEAR = 0.02  # OKLab, closer than that two peaks are one
_FAR = 0.15  # OKLab, the spacing of clusters along a gradient
_SPREAD = 0.01  # share of the samples that a stretch of gradient needs to get a cluster
_BLEND = 0.03  # sRGB, how near to the line between two clusters a colour is a blend of them


@dataclass(frozen=True, slots=True, eq=False)
class Clusters:
    """The k colours of a picture, from dark to light."""

    colours: Floats  #: (k, 3) sRGB
    shares: Floats  #: (k,) of the flat pixels, sums to 1
    touching: NDArray[np.int64]  #: (k, k) how often two of them meet among the samples; symmetric

    def __len__(self) -> int:
        return len(self.colours)


class _Bins(NamedTuple):
    """Colours that occur, most frequent first."""

    keys: NDArray[np.intp]  # (n,) six bits of each channel
    srgb: Floats  # (n, 3), the mean of what fell into the bin
    oklab: Floats  # (n, 3)
    counts: Floats  # (n,)

    def first(self, n: int) -> _Bins:
        return _Bins(self.keys[:n], self.srgb[:n], self.oklab[:n], self.counts[:n])


def find_clusters(image: Image.Image) -> Clusters:
    """The clusters of an ``RGB`` or ``RGBA`` picture; none where nothing is opaque.

    Fully transparent pixels have no colour and are not looked at. About 10 ms, whatever the size.
    """
    levels, flat, opaque = _sample(image)
    chosen = flat & opaque
    if not chosen.any():  # grain everywhere: better a rough idea than none
        chosen = opaque
    keys = _keys(levels)
    bins = _count(levels, keys, chosen)
    centres = _refined(bins, _peaks(bins))
    if not len(centres):
        return Clusters(centres, np.zeros(0, np.float32), np.zeros((0, 0), np.int64))
    centres = centres[np.argsort(srgb_to_oklab(centres)[:, 0], kind="stable")]
    labels = np.where(chosen, _names(bins, centres)[keys], -1)
    shares = np.bincount(labels[chosen], minlength=len(centres)).astype(np.float32)
    return Clusters(centres, shares / shares.sum(), _touching(labels, len(centres)))


# --- samples -------------------------------------------------------------------------------------


def _sample(
    image: Image.Image,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.bool_]]:
    """Levels (h, w, 3) of single pixels on a grid, where they are flat and where they are opaque.

    Pixels are picked, never averaged: averaging would invent colours.
    """
    if min(image.size) < 3:
        pixels = np.asarray(image)
        everywhere = np.ones(pixels.shape[:2], bool)
        return pixels[..., :3], everywhere, _opaque(pixels)
    pixels = _picked(image, 0, 0)
    flat = np.ones(pixels.shape[:2], bool)
    for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        other = _picked(image, dx, dy)
        close = np.maximum(pixels, other) - np.minimum(pixels, other) <= _FLAT
        for channel in range(pixels.shape[-1]):  # ten times as fast as all(axis=-1) over three
            flat &= close[..., channel]
    return pixels[..., :3], flat, _opaque(pixels)


def _picked(image: Image.Image, dx: int, dy: int) -> NDArray[np.uint8]:
    """The grid of samples, moved by (dx, dy) pixels."""
    width, height = image.size
    size = (min(_SAMPLES, width - 2), min(_SAMPLES, height - 2))
    box = (1 + dx, 1 + dy, width - 1 + dx, height - 1 + dy)
    return np.asarray(image.resize(size, Image.Resampling.NEAREST, box=box))


def _opaque(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    if pixels.shape[-1] == 3:
        return np.ones(pixels.shape[:2], bool)
    return np.asarray(pixels[..., 3] > 8)


def _keys(levels: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Six bits of each channel as one number, for every sample: (h, w)."""
    red, green, blue = (levels[..., c].astype(np.intp) >> 2 for c in range(3))
    return red << 12 | green << 6 | blue


def _count(levels: NDArray[np.uint8], keys: NDArray[np.intp], chosen: NDArray[np.bool_]) -> _Bins:
    """The bins that the chosen samples fall into."""
    picked = keys[chosen]
    counts = np.bincount(picked, minlength=1)
    top = np.flatnonzero(counts)
    top = top[np.argsort(-counts[top], kind="stable")]
    sums = [np.bincount(picked, levels[..., c][chosen], minlength=1)[top] for c in range(3)]
    srgb = (np.stack(sums, axis=-1) / counts[top, None] / 255).astype(np.float32)
    return _Bins(top, srgb, srgb_to_oklab(srgb), counts[top].astype(np.float32))


# --- peaks ---------------------------------------------------------------------------------------


def _peaks(bins: _Bins) -> list[int]:
    """Indices of the bins that are clusters, densest first."""
    bins = bins.first(_BINS)
    if not len(bins.counts):
        return []
    apart = _squared(bins.oklab, bins.oklab)
    density = np.exp(apart * np.float32(-0.5 / _KERNEL**2)) @ bins.counts
    stretch = (apart < (_FAR / 2) ** 2) @ bins.counts
    total = float(bins.counts.sum())
    found: list[int] = []
    for index in _summits(apart, density, least=min(max(3.0, _LEAST * total), total / 4)):
        if len(found) == MAX_CLUSTERS:
            break
        lonely = bool(np.all(apart[index, found] > _FAR**2)) and stretch[index] >= _SPREAD * total
        if _is_separate(bins, density, index, found) or (
            lonely and not _is_blend(bins, index, found)
        ):
            found.append(index)
    return found


def _squared(first: Floats, second: Floats) -> Floats:
    """Squared distances of (n, 3) and (m, 3) points: (n, m).

    By einsum: a threaded matrix product of such thin arrays mostly waits for its threads.
    """
    lengths = np.sum(first**2, axis=1)[:, None] + np.sum(second**2, axis=1)
    products = np.einsum("ic,jc->ij", first, second)
    return np.asarray(np.maximum(lengths - 2 * products, 0), np.float32)


def _summits(apart: Floats, density: Floats, *, least: float) -> list[int]:
    """Bins that nothing nearby is denser than, densest first."""
    around = np.where(apart < _NEAR**2, density, 0).max(axis=1)
    summits = np.flatnonzero((density >= around) & (density >= least))
    order: list[int] = summits[np.argsort(-density[summits], kind="stable")].tolist()
    return order[:_SUMMITS]


def _is_separate(bins: _Bins, density: Floats, index: int, found: list[int]) -> bool:
    """Whether there is a valley, less than half as dense, on the way to every other peak."""
    if not found:
        return True
    steps = np.array([0.25, 0.4, 0.5, 0.6, 0.75], np.float32)[:, None, None]
    ways = bins.oklab[index] + steps * (bins.oklab[found] - bins.oklab[index])
    kernel = np.exp(_squared(ways.reshape(-1, 3), bins.oklab) * np.float32(-0.5 / _KERNEL**2))
    valley = (kernel @ bins.counts).reshape(len(steps), -1).min(axis=0)
    return bool(np.all(valley < 0.5 * np.minimum(density[index], density[found])))


def _is_blend(bins: _Bins, index: int, found: list[int]) -> bool:
    """Whether the colour lies on the line between two clusters, as a soft shadow's does."""
    point = bins.srgb[index]
    for at, first in enumerate(found):
        for second in found[at + 1 :]:
            start, way = bins.srgb[first], bins.srgb[second] - bins.srgb[first]
            t = float(np.clip((point - start) @ way / max(float(way @ way), 1e-9), 0, 1))
            if float(np.linalg.norm(point - start - t * way)) < _BLEND:
                return True
    return False


def _refined(bins: _Bins, peaks: list[int]) -> Floats:
    """Each peak moved to the mean of what lies within a kernel's width: (k, 3) sRGB."""
    if not peaks:
        return np.zeros((0, 3), np.float32)
    squared = _squared(bins.oklab[peaks], bins.oklab)
    weights = np.exp(squared * np.float32(-2 / _KERNEL**2)) * bins.counts
    return np.asarray(weights @ bins.srgb / weights.sum(axis=1, keepdims=True), np.float32)


# --- neighbours ----------------------------------------------------------------------------------


def _names(bins: _Bins, centres: Floats) -> NDArray[np.int8]:
    """The nearest cluster of every key."""
    names = np.zeros(1 << 18, np.int8)
    names[bins.keys] = _squared(bins.srgb, centres).argmin(axis=1)
    return names


def _touching(labels: NDArray[np.int8], k: int) -> NDArray[np.int64]:
    """How often one cluster follows another along rows and columns, across unflat pixels."""
    counts = np.zeros(k * k, np.int64)
    for lines in (labels, labels.T):
        known = lines.ravel()
        line = np.repeat(np.arange(len(lines)), lines.shape[1])[known >= 0]
        known = known[known >= 0]
        meets = (known[1:] != known[:-1]) & (line[1:] == line[:-1])
        pairs = known[:-1][meets].astype(np.intp) * k + known[1:][meets]
        counts += np.bincount(pairs, minlength=k * k)
    square = counts.reshape(k, k)
    return square + square.T
