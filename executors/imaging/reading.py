"""Foreign bytes → a picture. It runs inside a decoder process (see ``decoder_process``), nowhere else.

Only the formats of an allow-list are read. By its header a picture is refused before a pixel is unpacked;
then it is decoded to the last byte. What comes out is upright, ``RGB`` or ``RGBA``, without metadata
(EXIF, profiles and comments stay behind: a stored picture must not carry where a phone was). A colour
profile is dropped, not applied: pixels are taken as sRGB.

Metadata is cut out before Pillow sees it, except for what turns a picture upright: it may be as large as
it likes, and costs nothing.
"""

from __future__ import annotations

__all__ = ["LIMITS", "Limits", "UnsafeImageError", "check_length", "read"]

import io
import math
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from PIL import ExifTags, Image, UnidentifiedImageError

_LEAST_SECONDS = 0.25  # of CPU time, for the smallest picture
_MOST_CHUNKS = 100_000  # of a PNG or JPEG: one of 4096² in rows of its own has 4,096
_MOST_SCANS = 100  # of a JPEG: encoders write 10, those that try hard 30


class UnsafeImageError(ValueError):
    """These bytes are not a picture that may be decoded here; the message says why.

    A ``ValueError`` and no ``ExecutorError``: whether a user or a provider is to blame (and thus
    ``InvalidInput`` or ``ProviderRejected``) only the caller knows. Safe to show to a user.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a picture may be, and what decoding it may cost."""

    bytes: int = 32 * 1024 * 1024
    pixels: int = 4096 * 4096  #: of one frame; 64 MB as RGBA
    side: int = 8192  #: pixels, the longer one
    formats: tuple[str, ...] = ("PNG", "JPEG", "WEBP", "GIF")
    seconds: float = 1.5  #: of CPU time, for the largest picture; smaller ones have less

    def seconds_of(self, pixels: int) -> float:
        """CPU time that decoding a picture of this size may take."""
        share = math.sqrt(min(1.0, pixels / self.pixels))  # small ones are seldom photos
        return _LEAST_SECONDS + max(0.0, self.seconds - _LEAST_SECONDS) * share

    @property
    def memory(self) -> int:
        """Bytes that a decoder may have besides what it needs to be there."""
        # Measured: up to 20 bytes a pixel (WebP), and the file twice.
        return 24 * self.pixels + 3 * self.bytes + 64 * 1024 * 1024


LIMITS: Final = Limits()


def check_length(content: bytes, limits: Limits) -> None:
    """Raises :class:`UnsafeImageError`: nothing has been looked at yet."""
    if not content:
        raise UnsafeImageError("the image is empty")
    if len(content) > limits.bytes:
        raise UnsafeImageError(
            f"the image is {len(content):,} bytes large; {limits.bytes:,} are allowed"
        )


def read(
    content: bytes, limits: Limits, on_header: Callable[[int], None] = lambda _: None
) -> Image.Image:
    """The picture in ``content``: upright, ``RGB`` or ``RGBA``; raises :class:`UnsafeImageError`.

    Of an animation the first frame is decoded and the others are not looked at. ``on_header`` gets the
    number of pixels before they are decoded.
    """
    check_length(content, limits)
    try:
        file = io.BytesIO(_essence(content))
        with Image.open(file, formats=limits.formats) as image:  # noqa: TID251 - here
            _check_size(image, limits)
            on_header(image.width * image.height)
            image.load()
            _check_size(image, limits)
            return _upright(image)
    except UnsafeImageError:
        raise
    except MemoryError:
        raise UnsafeImageError("decoding the image takes more memory than is allowed") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnsafeImageError("the image is too large to decode") from None
    except UnidentifiedImageError:
        allowed = ", ".join(limits.formats)
        raise UnsafeImageError(f"the image is in none of the formats {allowed}") from None
    except Exception as error:  # Pillow's parsers raise whatever they stumble on
        raise UnsafeImageError("the image is damaged or incomplete") from error


def _check_size(image: Image.Image, limits: Limits) -> None:
    width, height = image.size
    if width * height > limits.pixels or max(width, height) > limits.side:
        raise UnsafeImageError(
            f"the image is {width} by {height} pixels large; "
            f"{limits.pixels:,} pixels and {limits.side} a side are allowed"
        )


# --- upright, in RGB or RGBA ---------------------------------------------------------------------

_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _upright(image: Image.Image) -> Image.Image:
    turn = _TURNS.get(_orientation(image))
    turned: Image.Image = image if turn is None else image.transpose(turn)
    clear = turned.has_transparency_data
    if turned.mode in ("I;16", "I;16B", "I;16L", "I"):
        # Pillow clips sixteen bits to eight instead of scaling them.
        turned = turned.convert("I").point(lambda level: level / 257, "L")
    mode = "RGBA" if clear else "RGB"
    picture = turned if turned.mode == mode else turned.convert(mode)
    picture.info = {}
    return picture


def _orientation(image: Image.Image) -> int:
    """What its EXIF says; 1 (upright) where that says nothing or makes no sense."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - a picture is not worse for its metadata
        return 1


# --- without metadata ----------------------------------------------------------------------------


def _essence(content: bytes) -> bytes:
    """The same picture without the metadata that would cost something to read."""
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return b"".join((content[:8], *_png_chunks(content)))
    if content.startswith((b"GIF87a", b"GIF89a")):
        return _gif_frame(content)
    if content.startswith(b"\xff\xd8\xff"):
        return _jpeg_picture(content)
    return content


_PIXELS_OF_PNG = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf")
_OLD_EXIF = b"Raw profile type exif\0"  # where it stood before eXIf
_OLD_EXIF_BYTES = 256 * 1024
_TEXT_BYTES = 1024 * 1024  # of a text, unpacked: Pillow refuses a picture for a longer one


def _png_chunks(content: bytes) -> Iterator[bytes]:
    """What the pixels of the first frame are made of, chunk by chunk."""
    at, seen, old_exif = 8, 0, False
    while at + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        end = at + length + 12
        if kind in _PIXELS_OF_PNG:
            yield content[at:end]
        elif not old_exif and content.startswith(_OLD_EXIF, at + 8):
            old_exif = True  # the first: thousands cost time
            if length <= _OLD_EXIF_BYTES and _is_short(kind, content[at + 8 : end - 4]):
                yield content[at:end]
        at, seen = end, seen + 1
        if kind == b"IEND":
            return
        if seen > _MOST_CHUNKS:
            raise UnsafeImageError(f"the PNG has more than {_MOST_CHUNKS:,} parts")


def _is_short(kind: bytes, text: bytes) -> bool:
    """Whether a text stays within what Pillow takes once it is unpacked."""
    if kind != b"zTXt":
        return kind == b"tEXt"  # nobody has written it as iTXt
    try:
        packed = text[len(_OLD_EXIF) + 1 :]
        return len(zlib.decompressobj().decompress(packed, _TEXT_BYTES + 1)) <= _TEXT_BYTES
    except zlib.error:
        return False


def _gif_frame(content: bytes) -> bytes:
    """Header and first frame, without comments and what applications have added."""
    colours = content[10] if len(content) > 10 else 0
    start = at = 13 + (3 << (colours & 7) + 1 if colours & 0x80 else 0)
    control = b""
    while content[at : at + 1] == b"!":
        began, label = at, content[at + 1 : at + 2]
        at += 2
        while at < len(content) and content[at]:
            at += content[at] + 1
        at += 1
        if label == b"\xf9":  # transparency
            control = content[began:at]
    return content[:start] + control + content[at:]


#: A marker is no stuffed byte (00) and no restart (D0 to D7); any number of FF may precede it.
_JPEG_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)


_JPEG_END, _JPEG_SCAN, _JPEG_ALONE = b"\xd9", b"\xda", b"\x01\xd8"  # those alone have no length
_JPEG_EXIF = b"Exif\0\0"
#: COM, and what applications add; but JFIF (E0) and Adobe (EE), which say what the colours are.
_JPEG_METADATA = b"\xfe\xe1\xe2\xe3\xe4\xe5\xe6\xe7\xe8\xe9\xea\xeb\xec\xed\xef"


def _jpeg_picture(content: bytes) -> bytes:
    """The picture without metadata, but for its first EXIF.

    A progressive one may go over all its pixels as often as it likes, for a few bytes each time.
    """
    parts, copied_to, at = [], 0, 2
    seen, scans, exif = 0, 0, False
    while found := _JPEG_MARKER.search(content, at):
        at, marker, seen = found.end(), found[1], seen + 1
        if marker == _JPEG_END:
            break
        if marker in _JPEG_ALONE:
            continue
        scans += marker == _JPEG_SCAN
        if scans > _MOST_SCANS or seen > _MOST_CHUNKS:
            what = f"{_MOST_SCANS} scans" if scans > _MOST_SCANS else f"{_MOST_CHUNKS:,} parts"
            raise UnsafeImageError(f"the JPEG has more than {what}")
        if marker in _JPEG_METADATA:
            if not exif and content.startswith(_JPEG_EXIF, at + 2):
                exif = True
            else:
                parts.append(content[copied_to : found.start()])
                copied_to = at + int.from_bytes(content[at : at + 2])
        at += int.from_bytes(content[at : at + 2])
    return b"".join((*parts, content[copied_to:]))
