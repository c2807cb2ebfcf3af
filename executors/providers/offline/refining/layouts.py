"""Operations on shape and place: turned, mirrored, with room around, rounded, outlined, with a shadow."""

from __future__ import annotations

__all__ = [
    "in_circle",
    "mirrored",
    "outlined",
    "rounded",
    "scaled",
    "shadowed",
    "spread",
    "turned",
]

import math
from typing import Final

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from executors.imaging.colour import hex_oklch
from executors.providers.offline.refining.grounds import (
    dark_of,
    framed,
    light_of,
    main_of,
    rounded_mask,
    samples,
)
from executors.providers.offline.refining.layers import Ground, Layers, enclosed

_FIT: Final = 0.92  # of the picture's side is what a subject may take at most
_QUARTERS: Final = {
    90: Image.Transpose.ROTATE_270,
    180: Image.Transpose.ROTATE_180,
    270: Image.Transpose.ROTATE_90,
}


def turned(layers: Layers, degrees: float) -> Layers:
    """Clockwise. A picture without a ground is enlarged so that its corners stay filled."""
    subject = layers.subject
    width, height = subject.size
    quarter = _QUARTERS.get(round(degrees) % 360) if degrees == round(degrees) else None
    if quarter is not None and (width == height or round(degrees) % 180 == 0):
        return layers.with_subject(subject.transpose(quarter))
    if not layers.found:
        angle = math.radians(degrees)
        longer, shorter = max(subject.size), min(subject.size)
        reach = abs(math.cos(angle)) + abs(math.sin(angle)) * longer / shorter
        subject = _zoomed(subject, reach)
    return layers.with_subject(subject.rotate(-degrees, Image.Resampling.BICUBIC))


def mirrored(layers: Layers, *, upside_down: bool) -> Layers:
    """Left and right change places, or above and below."""
    way = Image.Transpose.FLIP_TOP_BOTTOM if upside_down else Image.Transpose.FLIP_LEFT_RIGHT
    return layers.with_subject(layers.subject.transpose(way))


def scaled(layers: Layers, factor: float) -> Layers:
    """The subject larger or smaller, in the middle; never cut off by the border."""
    if not layers.found:
        if factor < 1:
            return in_frame(layers, factor)
        return layers.with_subject(_zoomed(layers.subject, factor))
    left, top, right, bottom = layers.box()
    width, height = layers.size
    largest = min(_FIT * width / (right - left), _FIT * height / (bottom - top))
    return placed(layers, min(factor, max(largest, 1.0) if factor > 1 else factor), (0.5, 0.5))


def in_frame(layers: Layers, factor: float) -> Layers:
    """The whole picture smaller, on a ground in its own hue."""
    return framed(layers, Ground.plain(light_of(main_of(layers))), factor)


def placed(layers: Layers, factor: float, centre: tuple[float, float]) -> Layers:
    """The subject scaled, with the middle of what can be seen at ``centre`` (shares of the sides)."""
    left, top, right, bottom = layers.box()
    width, height = layers.size
    cut = layers.subject.crop((left, top, right, bottom))
    size = (max(1, round(cut.width * factor)), max(1, round(cut.height * factor)))
    cut = cut.resize(size, Image.Resampling.BICUBIC)
    subject = Image.new("RGBA", layers.size)
    place = (round(centre[0] * width - size[0] / 2), round(centre[1] * height - size[1] / 2))
    subject.paste(cut, place)
    return layers.with_subject(subject)


def rounded(image: Image.Image, radius: float) -> Image.Image:
    """A flat picture with its corners cut off round; transparent there."""
    return _masked(image, rounded_mask(image.size, radius))


def in_circle(layers: Layers) -> Image.Image:
    """A disc of the ground with the subject inside of it; transparent around."""
    width, height = layers.size
    if layers.found:
        left, top, right, bottom = layers.box()
        reach = ((right - left) ** 2 + (bottom - top) ** 2) ** 0.5 / 2
        # A round subject reaches less far than the corners of its box.
        reach = (reach + max(right - left, bottom - top) / 2) / 2
        layers = placed(layers, min(1.0, 0.86 * min(width, height) / 2 / reach), (0.5, 0.5))
        if layers.ground is None:
            layers = layers.over(Ground.plain(_contrasting(main_of(layers))))
    side = min(width, height)
    scale = samples(layers.size)
    mask = Image.new("L", (width * scale, height * scale))
    x, y = (width - side) * scale / 2, (height - side) * scale / 2
    ImageDraw.Draw(mask).ellipse((x, y, x + side * scale - 1, y + side * scale - 1), fill=255)
    return _masked(layers.flat(), mask.reduce(scale))


def outlined(layers: Layers, colour: str, width: float, *, filled: bool = False) -> Layers:
    """A line of this colour around the subject; ``width`` is a share of the shorter side.

    ``filled``: what the line encloses has its colour as well, as on a sticker.
    """
    side = min(layers.size)
    if not layers.found:
        return layers.with_subject(_edged(layers.subject, colour, max(1, round(width * side))))
    # Room for the line.
    left, top, right, bottom = layers.box()
    room = min(layers.size[0] / (right - left), layers.size[1] / (bottom - top))
    layers = placed(layers, min(1.0, (1 - 2.6 * width) * room), _centre(layers))
    around = spread(layers.alpha, width * side)
    if filled:
        around = ImageChops.lighter(around, enclosed(around))
    line = Image.new("RGBA", layers.size, colour)
    line.putalpha(around)
    return layers.with_subject(Image.alpha_composite(line, layers.subject))


def shadowed(layers: Layers, amount: float) -> Layers:
    """A soft shadow below the subject, in the dark of the ground's hue."""
    if not layers.found:
        layers = in_frame(layers, 0.82)
    side = min(layers.size)
    small = layers.alpha.reduce(4) if side >= 64 else layers.alpha
    scale = 4 if side >= 64 else 1
    soft = small.filter(ImageFilter.GaussianBlur(0.022 * side / scale))
    soft = ImageChops.offset(soft, 0, round(0.022 * side / scale))
    soft.paste(0, (0, 0, soft.width, round(0.022 * side / scale)))
    strength = 0.25 + 0.4 * amount
    if layers.ground is None or hex_oklch(layers.ground.colour)[0] < 0.5:
        strength = min(1.0, strength + 0.3)
    soft = soft.point(lambda level: round(level * strength))
    shade = Image.new("RGBA", layers.size, dark_of(_behind(layers)))
    shade.putalpha(soft.resize(layers.size, Image.Resampling.BILINEAR))
    return layers.with_subject(Image.alpha_composite(shade, layers.subject))


def spread(alpha: Image.Image, pixels: float) -> Image.Image:
    """A mask that reaches so much further in every direction, with smooth edges."""
    scale = 2 if min(alpha.size) >= 512 else 1
    small = alpha.reduce(scale) if scale > 1 else alpha
    # A blurred edge passes this level that far outside of it.
    blurred = small.filter(ImageFilter.GaussianBlur(pixels / scale / 1.28))
    edge = max(2.0, 60 * scale / max(pixels, 1))
    wide = blurred.point(lambda level: min(255, max(0, round((level - 25.5) * 255 / edge + 128))))
    wide = wide.resize(alpha.size, Image.Resampling.BILINEAR) if scale > 1 else wide
    return ImageChops.lighter(wide, alpha)


def _zoomed(subject: Image.Image, factor: float) -> Image.Image:
    width, height = subject.size
    w, h = width / factor, height / factor
    box = ((width - w) / 2, (height - h) / 2, (width + w) / 2, (height + h) / 2)
    return subject.resize(subject.size, Image.Resampling.BICUBIC, box=box)


def _masked(image: Image.Image, mask: Image.Image) -> Image.Image:
    cut = image.convert("RGBA")
    cut.putalpha(ImageChops.multiply(cut.getchannel("A"), mask))
    return cut


def _edged(subject: Image.Image, colour: str, width: int) -> Image.Image:
    """A line along the border of the picture."""
    framed = subject.copy()
    box = (0, 0, subject.width - 1, subject.height - 1)
    ImageDraw.Draw(framed).rectangle(box, outline=colour, width=width)
    return framed


def _centre(layers: Layers) -> tuple[float, float]:
    left, top, right, bottom = layers.box()
    return ((left + right) / 2 / layers.size[0], (top + bottom) / 2 / layers.size[1])


def _behind(layers: Layers) -> str:
    return layers.ground.colour if layers.ground else main_of(layers)


def _contrasting(colour: str) -> str:
    return light_of(colour) if hex_oklch(colour)[0] < 0.7 else dark_of(colour)
