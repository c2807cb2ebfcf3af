"""A picture taken apart: what it shows, and the ground it shows it on.

The ground is found by flooding from the borders; whatever of its colour is enclosed belongs to the
subject. Where the ground is one colour, the edge is unmixed: a pixel that is one third ground becomes
two thirds opaque, in the subject's own colour, so no fringe of the old ground is left on a new one.
"""

from __future__ import annotations

__all__ = ["Ground", "Layers", "enclosed", "take_apart"]

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFilter

from executors.imaging.colour import Floats, format_hex, hex_srgb, oklab_to_srgb, srgb_to_oklab
from executors.imaging.recolour import LUT_SIZE, Artwork, lut_of

_SIDE: Final = 512  # pixels of the small copy that is flooded
_CLOSE = 0.035  # OKLab: as much as the noise of a JPEG around a colour
_STEP = 0.012  # OKLab between neighbours on the small copy: more is an edge
_MOST_OF_BORDER = 0.5
_PART_OF_BORDER = 0.1
_MOSTLY = 216  # share of the ground, of 255, that still is ground to the flood
_CLEAR = 16  # alpha of 255 below which a pixel counts as transparent

NEAREST = Image.Resampling.NEAREST
#: What is nearly all ground, or nearly none, is noise.
_CLEANED = [min(max(round((level - 6) * 255 / 243), 0), 255) for level in range(256)]

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Ground:
    """What is behind the subject: the colours of the four corners, smoothly between them."""

    corners: tuple[str, str, str, str]  #: top left, top right, bottom left, bottom right

    @classmethod
    def plain(cls, colour: str) -> Ground:
        """One colour all over."""
        return cls((colour,) * 4)

    @property
    def colour(self) -> str:
        """The one that stands for all."""
        return self.corners[0]

    def painted(self, size: tuple[int, int]) -> Image.Image:
        """As pixels. Between the corners colours go the way that eyes expect (OKLab)."""
        if len(set(self.corners)) == 1:
            return Image.new("RGB", size, self.corners[0])
        corners = srgb_to_oklab(hex_srgb(self.corners)).reshape(2, 2, 3)
        t = np.linspace(0, 1, 65, dtype=np.float32)[:, None, None]
        sides = corners[0] + t * (corners[1] - corners[0])[None]  # (65, 2, 3), left and right
        across = t.reshape(1, -1, 1)
        grid = sides[:, :1] + across * (sides[:, 1:] - sides[:, :1])
        levels = np.rint(np.clip(oklab_to_srgb(grid), 0, 1) * 255).astype(np.uint8)
        return Image.fromarray(levels).resize(
            size, Image.Resampling.BILINEAR, box=(0.5, 0.5, 64.5, 64.5)
        )


@dataclass(frozen=True, slots=True)
class Layers:
    """A subject on its ground."""

    subject: Image.Image  #: RGBA; all of the picture where no ground was found
    ground: Ground | None  #: None: transparent
    found: bool  #: whether the subject could be told from the ground

    @property
    def size(self) -> tuple[int, int]:
        """Pixels."""
        return self.subject.size

    @property
    def alpha(self) -> Image.Image:
        """Where the subject is."""
        return self.subject.getchannel("A")

    def box(self) -> tuple[int, int, int, int]:
        """Around what can be seen of the subject; around everything when that is nothing."""
        seen = self.alpha.point(lambda level: 255 if level >= 40 else 0)
        return seen.getbbox() or (0, 0, *self.size)

    def with_subject(self, subject: Image.Image) -> Layers:
        """The same ground behind another subject."""
        return replace(self, subject=subject)

    def over(self, ground: Ground | None) -> Layers:
        """The same subject on another ground."""
        return replace(self, ground=ground)

    def flat(self) -> Image.Image:
        """One picture again: RGB on a ground, else RGBA."""
        if self.ground is None:
            return self.subject
        painted = self.ground.painted(self.size)
        painted.paste(self.subject, (0, 0), self.alpha)
        return painted


def take_apart(image: Image.Image) -> Layers:
    """Subject and ground of an ``RGB`` or ``RGBA`` picture."""
    if _is_cut_out(image):
        return Layers(image, None, found=True)
    whole = image.convert("RGBA")
    small = image.convert("RGB").resize(_small(image.size), Image.Resampling.BOX)
    lab = srgb_to_oklab(np.asarray(small, np.float32) / 255)
    artwork = Artwork.of(image)
    clusters = _ground_clusters(artwork, _border(lab))
    if clusters:
        main = artwork.clusters.colours[clusters[0]]
        subject = _unmixed(whole, artwork, clusters, small.size)
        return Layers(subject, Ground.plain(format_hex(main)), found=True)
    flooded = _flooded(_smooth(lab))
    if not 0.12 < flooded.mean() < 0.97:
        return Layers(whole, None, found=False)
    soft = _mask(~flooded).filter(ImageFilter.MinFilter(3)).filter(ImageFilter.GaussianBlur(1))
    alpha = soft.resize(image.size, Image.Resampling.BILINEAR)
    whole.putalpha(ImageChops.darker(alpha, whole.getchannel("A")))
    return Layers(whole, Ground(_corners(small)), found=True)


def enclosed(mask: Image.Image) -> Image.Image:
    """What cannot be reached from the border without crossing ``mask``."""
    small = np.asarray(mask.resize(_small(mask.size), Image.Resampling.BOX))
    # Drawn in a little, to end below the soft edge of the mask.
    inner = _mask(~_flooded(small < 128)).filter(ImageFilter.MinFilter(3))
    return inner.resize(mask.size, Image.Resampling.BILINEAR)


def _is_cut_out(image: Image.Image) -> bool:
    if image.mode != "RGBA":
        return False
    border = _border(np.asarray(image.getchannel("A").resize(_small(image.size))))
    return bool((border < _CLEAR).mean() > _MOST_OF_BORDER)


def _small(size: tuple[int, int]) -> tuple[int, int]:
    scale = min(1.0, _SIDE / max(size))
    return (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))


def _border(pixels: NDArray[Any]) -> NDArray[Any]:
    """The outermost pixels, (n, …)."""
    return np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])


def _ground_clusters(artwork: Artwork, border: Floats) -> list[int]:
    """The clusters that the border has the colours of, the most present first.

    More than one where the ground has a pattern; none where most of the border is something else.
    """
    if not len(artwork.clusters):
        return []
    centres = srgb_to_oklab(artwork.clusters.colours)
    apart = np.linalg.norm(border[:, None] - centres[None], axis=-1)
    nearest = np.where(apart.min(axis=1) < _CLOSE, apart.argmin(axis=1), len(centres))
    shares = np.bincount(nearest, minlength=len(centres) + 1)[:-1] / len(border)
    chosen = [int(at) for at in np.argsort(-shares) if shares[at] > _PART_OF_BORDER]
    return chosen if shares[chosen].sum() > _MOST_OF_BORDER else []


def _smooth(lab: Floats) -> Mask:
    """Where a pixel differs little from its neighbours: a gradient, a sky."""
    smooth = np.ones(lab.shape[:2], bool)
    smooth[1:] &= np.linalg.norm(np.diff(lab, axis=0), axis=-1) < _STEP
    smooth[:, 1:] &= np.linalg.norm(np.diff(lab, axis=1), axis=-1) < _STEP
    return smooth


def _flooded(passable: Mask) -> Mask:
    """What is reached from the border through ``passable``, row by row and column by column."""
    wet = np.zeros_like(passable)
    wet[0], wet[-1], wet[:, 0], wet[:, -1] = True, True, True, True
    wet &= passable
    count = -1
    for _ in range(200):  # turns of the most crooked way
        if (now := int(wet.sum())) == count:
            break
        count = now
        wet = _along_rows(wet, passable)
        wet = _along_rows(wet.T, passable.T).T
    return wet


def _along_rows(wet: Mask, passable: Mask) -> Mask:
    """Every stretch of passable pixels in a row that is wet somewhere becomes wet."""
    starts = passable.copy()
    starts[:, 1:] &= ~passable[:, :-1]
    stretch = np.cumsum(starts.ravel()).reshape(passable.shape)
    touched = np.bincount(stretch[wet], minlength=int(stretch[-1, -1]) + 1) > 0
    return np.asarray(touched[stretch] & passable)


def _unmixed(
    whole: Image.Image, artwork: Artwork, clusters: list[int], small: tuple[int, int]
) -> Image.Image:
    """The picture with as much opacity as is not the ground's, near to where it was flooded."""
    weights = artwork.cube.weights[:, clusters]
    share = np.repeat(weights.sum(axis=1, keepdims=True), 3, axis=1)
    shares = artwork.tiles.filter(lut_of(share)).getchannel(0)
    flooded = _flooded(np.asarray(shares.resize(small, Image.Resampling.BOX)) > _MOSTLY)
    reach = _mask(flooded).filter(ImageFilter.MaxFilter(5)).resize(whole.size, NEAREST)
    ground = ImageChops.darker(shares.point(_CLEANED), reach)
    pixels = np.array(whole)
    levels = np.asarray(ground)
    rows, columns = np.nonzero((levels > 0) & (levels < 255))
    mixed = pixels[rows, columns, :3].astype(np.float32) / 255
    weight = levels[rows, columns, None].astype(np.float32) / 255
    behind = artwork.clusters.colours[clusters][weights[_node(mixed)].argmax(axis=1)]
    pure = (mixed - weight * behind) / (1 - weight)
    pixels[rows, columns, :3] = np.rint(np.clip(pure, 0, 1) * 255).astype(np.uint8)
    pixels[..., 3] = np.minimum(pixels[..., 3], 255 - levels)
    return Image.fromarray(pixels)


def _node(srgb: NDArray[Any]) -> NDArray[np.intp]:
    """The nearest node of the colour cube, for (n, 3) colours."""
    steps = np.rint(srgb * (LUT_SIZE - 1)).astype(np.intp)
    return np.asarray(steps @ np.array([1, LUT_SIZE, LUT_SIZE**2]))


def _mask(chosen: Mask) -> Image.Image:
    return Image.fromarray(np.where(chosen, 255, 0).astype(np.uint8))


def _corners(small: Image.Image) -> tuple[str, str, str, str]:
    """The mean colours of the four corners, an eighth of each side."""
    width, height = small.size
    w, h = max(1, width // 8), max(1, height // 8)
    pixels = np.asarray(small, np.float32) / 255
    parts = (pixels[:h, :w], pixels[:h, -w:], pixels[-h:, :w], pixels[-h:, -w:])
    first, second, third, fourth = (format_hex(part.reshape(-1, 3).mean(axis=0)) for part in parts)
    return first, second, third, fourth
