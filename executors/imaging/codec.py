"""Bytes ⇄ pictures. What a provider or a user sends is hostile until it has come through here.

Decoding is done in a process of its own, within limits on CPU time and memory (``decoders``), by rules
that refuse most of what is dangerous before a single pixel is unpacked (``reading``). What is encoded
here is ours, and encoded in place.
"""

from __future__ import annotations

__all__ = [
    "DECODERS",
    "LIMITS",
    "PNG_LEVEL",
    "PNG_LEVEL_FLAT",
    "Decoders",
    "EncodedImage",
    "Limits",
    "UnsafeImageError",
    "decode",
    "encode_png",
    "encode_webp",
    "preview",
]

import base64
import io
from dataclasses import dataclass
from typing import Final

from PIL import Image

from executors.imaging.decoders import DECODERS, Decoders
from executors.imaging.reading import LIMITS, Limits, UnsafeImageError

#: zlib's level where a picture is photographic. Measured at 2048² with grain: level 1 takes 0.35 s
#: and 6.3 MB, level 4 0.70 s and 5.2 MB, level 6 2.5 s and 5.3 MB. Waiting users come first.
PNG_LEVEL: Final = 1
#: … and where it is flat: level 6 costs what level 1 costs (0.08 s) and halves the file.
PNG_LEVEL_FLAT: Final = 6

_PREVIEW_SIDE = 24  # pixels; the page shows it blurred, so detail would be wasted bytes
_PREVIEW_QUALITY = 40


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """A picture as bytes, with all that storing and showing it needs."""

    content: bytes
    content_type: str
    extension: str  #: without the dot
    width: int  #: pixels
    height: int  #: pixels


def decode(content: bytes, limits: Limits = LIMITS) -> Image.Image:
    """The picture in ``content``: upright, ``RGB`` or ``RGBA``; raises :class:`UnsafeImageError`.

    For a thread that may wait; a job awaits ``job.services.decoders.decode``, which ends with the job.
    """
    return DECODERS.decode_blocking(content, limits)


def encode_png(image: Image.Image, *, flat: bool = False) -> EncodedImage:
    """A PNG, compressed for speed; ``flat`` chooses the level for flat colours (see above)."""
    level = PNG_LEVEL_FLAT if flat else PNG_LEVEL
    return _encoded(image, "PNG", "image/png", "png", compress_level=level)


def encode_webp(image: Image.Image, *, quality: int = 85, lossless: bool = False) -> EncodedImage:
    """A WebP; ``quality`` is 0 to 100. Lossless is smaller than PNG and several times slower."""
    return _encoded(
        image, "WEBP", "image/webp", "webp", quality=quality, lossless=lossless, method=2
    )


def preview(image: Image.Image) -> str:
    """A ``data:`` URL of a few hundred bytes: the picture at 24 pixels, to show at once."""
    small = image.copy() if max(image.size) <= _PREVIEW_SIDE else _shrunk(image)
    content = _encoded(
        small, "WEBP", "image/webp", "webp", quality=_PREVIEW_QUALITY, method=4
    ).content
    return "data:image/webp;base64," + base64.b64encode(content).decode("ascii")


def _shrunk(image: Image.Image) -> Image.Image:
    """A thumbnail; transparency is averaged with its colour, so no dark fringe appears."""
    scale = _PREVIEW_SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BOX, reducing_gap=2.0)


def _encoded(
    image: Image.Image, format_name: str, content_type: str, extension: str, **options: object
) -> EncodedImage:
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return EncodedImage(buffer.getvalue(), content_type, extension, image.width, image.height)
