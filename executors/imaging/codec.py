"""Bytes ⇄ pictures. What a provider or a user sends is hostile until it has come through here.

``decode`` looks at the header first and refuses by format and size before a single pixel is
unpacked; only then does it decode, to the last byte. What comes out is an upright ``RGB`` or
``RGBA`` picture without metadata (EXIF, profiles and comments stay behind: a stored picture must
not carry where a phone was). A colour profile is dropped, not applied: pixels are taken as sRGB.
"""

from __future__ import annotations

__all__ = [
    "LIMITS",
    "PNG_LEVEL",
    "PNG_LEVEL_FLAT",
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

from PIL import Image, ImageOps, UnidentifiedImageError

#: zlib's level where a picture is photographic. Measured at 2048² with grain: level 1 takes 0.35 s
#: and 6.3 MB, level 4 0.70 s and 5.2 MB, level 6 2.5 s and 5.3 MB. Waiting users come first.
PNG_LEVEL: Final = 1
#: … and where it is flat: level 6 costs what level 1 costs (0.08 s) and halves the file.
PNG_LEVEL_FLAT: Final = 6

_PREVIEW_SIDE = 24  # pixels; blurred up by the page, so detail would be wasted bytes
_PREVIEW_QUALITY = 40


class UnsafeImageError(ValueError):
    """These bytes are not a picture that may be decoded here; the message says why.

    A ``ValueError`` and no ``ExecutorError``: whether a user or a provider is to blame (and thus
    ``InvalidInput`` or ``ProviderRejected``) only the caller knows. Safe to show to a user.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a picture may cost before it is decoded."""

    bytes: int = 32 * 1024 * 1024
    pixels: int = 4096 * 4096  #: of one frame; 64 MB as RGBA
    side: int = 8192  #: pixels, the longer one
    formats: tuple[str, ...] = ("PNG", "JPEG", "WEBP", "GIF")


LIMITS: Final = Limits()


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

    Of an animation the first frame is decoded and the others are not looked at. It takes as long as
    the picture is large: call it off the event loop.
    """
    if not content:
        raise UnsafeImageError("the image is empty")
    if len(content) > limits.bytes:
        raise UnsafeImageError(
            f"the image is {len(content):,} bytes large; {limits.bytes:,} are allowed"
        )
    try:
        with Image.open(io.BytesIO(content), formats=limits.formats) as image:
            _check_header(image, limits)
            image.load()
            return _upright(image)
    except UnsafeImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnsafeImageError("the image is too large to decode") from None
    except UnidentifiedImageError:
        allowed = ", ".join(limits.formats)
        raise UnsafeImageError(f"the image is in none of the formats {allowed}") from None
    except Exception as error:  # Pillow's parsers raise whatever they stumble on
        raise UnsafeImageError("the image is damaged or incomplete") from error


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


def _check_header(image: Image.Image, limits: Limits) -> None:
    """Refuse by what the header claims: nothing has been decompressed yet."""
    width, height = image.size
    if width * height > limits.pixels or max(width, height) > limits.side:
        raise UnsafeImageError(
            f"the image is {width} by {height} pixels large; "
            f"{limits.pixels:,} pixels and {limits.side} a side are allowed"
        )


def _upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF says, in RGB or RGBA, without metadata."""
    turned = ImageOps.exif_transpose(image)
    clear = turned.has_transparency_data
    if turned.mode in ("I;16", "I;16B", "I;16L", "I"):
        # Pillow clips sixteen bits to eight instead of scaling them.
        turned = turned.convert("I").point(lambda level: level / 257, "L")
    picture = turned.convert("RGBA" if clear else "RGB")
    picture.info = {}
    return picture


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
