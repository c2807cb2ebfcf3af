"""Pictures that cost far more than they weigh, and valid ones with a lot of metadata."""

from __future__ import annotations

__all__ = ["BOMBS", "LADEN", "chunk", "comments", "png", "progressive", "saved"]

import io
import struct
import zlib
from collections.abc import Callable
from functools import cache, partial

from PIL import Image, PngImagePlugin

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: No two rows alike, and nothing that compresses to nothing.
_NOISE = bytes(at * 7919 % 251 for at in range(1 << 16))


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    """The picture as a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@cache
def zeros(count: int) -> bytes:
    """So many zero bytes, compressed a thousand times over."""
    compressor, block = zlib.compressobj(9), bytes(1 << 20)
    parts = [compressor.compress(block) for _ in range(count >> 20)]
    return b"".join([*parts, compressor.compress(bytes(count & 0xFFFFF)), compressor.flush()])


def png(
    width: int,
    height: int,
    extra: bytes = b"",
    *,
    colour: int = 2,
    depth: int = 8,
    interlaced: bool = False,
    data: bytes | None = None,
) -> bytes:
    """A black PNG; ``colour`` 0 is grey, 2 RGB, 6 RGBA. ``extra`` are chunks before the pixels."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    if data is None:
        row = width * {0: 1, 2: 3, 6: 4}[colour] * depth // 8 + 1
        data = zeros(row * height * (2 if interlaced else 1))
    return _SIGNATURE + chunk(b"IHDR", header) + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def progressive(width: int, height: int, scans: int, mode: str = "L") -> bytes:
    """A progressive JPEG whose last scan is repeated: each goes over all pixels for a few bytes."""
    raw = saved(Image.new(mode, (width, height), 128), "JPEG", progressive=True, quality=50)
    last = raw.rindex(b"\xff\xda")
    return raw[:-2] + raw[last:-2] * scans + b"\xff\xd9"


def comments(count: int) -> bytes:
    """A JPEG with so many empty comments."""
    raw = saved(Image.new("RGB", (64, 64)), "JPEG")
    return raw[:2] + b"\xff\xfe\x00\x02" * count + raw[2:]


def tables(count: int) -> bytes:
    """A JPEG that says so often how it is quantised."""
    raw = saved(Image.new("RGB", (64, 64)), "JPEG")
    return raw[:2] + (b"\xff\xdb\x00\x43\x00" + b"\1" * 64) * count + raw[2:]


def segments(kind: int, label: bytes, data: bytes, *, count: int = 1) -> bytes:
    """A JPEG with so many application segments."""
    raw = saved(Image.new("RGB", (64, 64)), "JPEG")
    body = label + data
    segment = b"\xff" + bytes([0xE0 + kind]) + struct.pack(">H", len(body) + 2) + body
    return raw[:2] + segment * count + raw[2:]


def animated(kind: str, frames: int, side: int) -> bytes:
    """An animation of flat frames."""
    pictures = [Image.new("RGB", (side, side), (at % 250, 0, at % 7)) for at in range(frames)]
    return saved(pictures[0], kind, save_all=True, append_images=pictures[1:])


def _apng(frames: int) -> bytes:
    control = b"".join(
        chunk(b"fcTL", struct.pack(">IIIIIHHBB", at, 64, 64, 0, 0, 1, 1, 0, 0))
        for at in range(frames)
    )
    return png(64, 64, chunk(b"acTL", struct.pack(">II", frames, 0)) + control)


def _gif(screen: tuple[int, int], frame: tuple[int, int, int, int]) -> bytes:
    head = b"GIF89a" + struct.pack("<HHBBB", *screen, 0xF7, 0, 0) + bytes(768)
    return head + b"," + struct.pack("<HHHHB", *frame, 0) + b"\x08\x02\x4c\x01\x00;"


def _webp_header(side: int) -> bytes:
    size = struct.pack("<I", side - 1)[:3]
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x12\0\0\0" + size * 2
    body += b"ANIM" + struct.pack("<IIH", 6, 0, 0)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _many_webp_chunks(count: int) -> bytes:
    raw = saved(Image.new("RGB", (64, 64)), "WEBP", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0")
    body = raw[8:] + b"ABCD\0\0\0\0" * count
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _exif(entries: int, *, claimed: int | None = None) -> bytes:
    entry = struct.pack(">HHII", 0x9999, 2, 0x7FFFFFFF, 8)
    return b"MM\0*\0\0\0\x08" + struct.pack(">H", claimed or entries) + entry * entries


_LOOP = b"MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\x08"

#: What is refused, or decoded, within the limits: no matter which.
BOMBS: dict[str, Callable[[], bytes]] = {
    "PNG, 30,000 pixels a side": lambda: png(30_000, 30_000, data=zeros(1 << 20)),
    "PNG, 16 bits": partial(png, 2048, 2048, colour=6, depth=16),
    "PNG, interlaced": partial(png, 8192, 512, interlaced=True),
    "PNG, 64 MB of text": lambda: png(64, 64, chunk(b"iTXt", b"k\0\1\0\0\0" + zeros(1 << 26))),
    "PNG, 500 texts of 1 MB": lambda: png(64, 64, chunk(b"zTXt", b"k\0\0" + zeros(1 << 20)) * 500),
    "PNG, a profile of 64 MB": lambda: png(64, 64, chunk(b"iCCP", b"k\0\0" + zeros(1 << 26))),
    "PNG, an old EXIF of 64 MB": lambda: png(
        64, 64, chunk(b"zTXt", b"Raw profile type exif\0\0" + zeros(1 << 26))
    ),
    "PNG, 64 MB for 64 pixels a side": lambda: png(64, 64, data=zeros(1 << 26)),
    "PNG, 300,000 texts": lambda: png(64, 64, chunk(b"tEXt", b"k\0v") * 300_000),
    "PNG, 400,000 pieces of pixels": lambda: png(64, 64, chunk(b"IDAT", b"") * 400_000),
    "PNG, an EXIF of 60,000 entries": lambda: png(64, 64, chunk(b"eXIf", _exif(60_000))),
    "APNG, 150,000 frames": partial(_apng, 150_000),
    "GIF, 60 frames": partial(animated, "GIF", 60, 200),
    "GIF, a frame beyond its screen": partial(_gif, (10, 10), (60_000, 60_000, 5000, 3000)),
    "GIF, 65,535 pixels a side": partial(_gif, (65_535, 65_535), (0, 0, 1, 1)),
    "GIF, 30 MB of comments": lambda: _laden_gif(30 << 20),
    "WebP, 20 frames": partial(animated, "WEBP", 20, 300),
    "WebP, 16,383 pixels a side": partial(_webp_header, 16_383),
    "WebP, 500,000 parts": partial(_many_webp_chunks, 500_000),
    "JPEG, 90 scans in colour": partial(progressive, 2048, 2048, 80, "RGB"),
    "JPEG, 500 scans": partial(progressive, 2048, 2048, 500),
    "JPEG, 100,000 scans": partial(progressive, 8192, 512, 100_000),
    "JPEG, two million comments": partial(comments, 2_000_000),
    "JPEG, 30 MB of nothing": lambda: b"\xff\xd8" + b"\xff" * (30 << 20),
    "JPEG, 400,000 tables": lambda: tables(400_000),
    "JPEG, 90,000 tables": lambda: tables(90_000),
    "JPEG, 100,000 EXIFs": lambda: segments(1, b"Exif\0\0", bytes(60), count=100_000),
    "JPEG, a million profiles": lambda: segments(2, b"ICC_PROFILE\0\1\1", b"", count=1_000_000),
    "JPEG, an EXIF that claims 60,000 entries": lambda: segments(
        1, b"Exif\0\0", _exif(4, claimed=60_000)
    ),
    "JPEG, an EXIF that leads to itself": lambda: segments(1, b"Exif\0\0", _LOOP),
    "JPEG, an XMP 20,000 deep": lambda: segments(
        1, b"http://ns.adobe.com/xap/1.0/\0", b"<a>" * 20_000
    ),
    "JPEG, 300 MB of Photoshop": lambda: segments(
        13, b"Photoshop 3.0\0", b"8BIM\x04\x04\0\0\0\0\0\0" * 5000, count=300
    ),
}


# --- metadata without malice -----------------------------------------------------------------------

_PICTURE = Image.new("RGB", (40, 20), "#d7263d")


def _turned(size: int = 0) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "x" * size
    return exif


def _noise(count: int) -> bytes:
    return (_NOISE * (count // len(_NOISE) + 1))[:count]


def _laden_png() -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", "<x/>" * 500_000, zip=True)
    info.add_itxt("Comment", "é" * 3_000_000, zip=True)
    info.add_text("Workflow", "{}" * 2_000_000)
    info.add_text("Prompt", "a fox" * 2_000_000, zip=True)
    return saved(
        _PICTURE, "PNG", pnginfo=info, icc_profile=_noise(3_000_000), exif=_turned(2_000_000)
    )


def _old_exif_png() -> bytes:
    exif = b"Exif\0\0" + _turned(1000).tobytes().removeprefix(b"Exif\0\0")
    text = f"\nexif\n{len(exif):8}\n{exif.hex()}\n"
    info = PngImagePlugin.PngInfo()
    info.add_text("Raw profile type exif", text, zip=True)
    return saved(_PICTURE, "PNG", pnginfo=info)


def _laden_jpeg() -> bytes:
    return saved(
        _PICTURE,
        "JPEG",
        icc_profile=_noise(3_000_000),
        exif=_turned(60_000),
        comment=b"c" * 60_000,
        xmp=b"<x/>" * 16_000,
    )


def _photoshop_jpeg() -> bytes:
    """What several editors have left behind: each with its thumbnails, profile and history."""
    raw = _laden_jpeg()
    blocks = (b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0\0\0\0\0" * 5000)[:65_533]
    parts = [(0xED, blocks)] * 200 + [(0xE1, b"Exif\0\0" + _exif(5000))] * 50
    parts += [(0xFE, b"layer")] * 20_000
    laden = b"".join(
        b"\xff" + bytes([kind]) + struct.pack(">H", len(body) + 2) + body for kind, body in parts
    )
    start = raw.index(b"\xff\xdb")  # behind the EXIF that counts
    return raw[:start] + laden + raw[start:]


def _old_exif_too_large() -> bytes:
    raw = saved(_PICTURE, "PNG")
    text = chunk(b"zTXt", b"Raw profile type exif\0\0" + zeros(1 << 22))
    return raw[:33] + text * 3 + raw[33:]


def _laden_webp() -> bytes:
    return saved(
        _PICTURE,
        "WEBP",
        icc_profile=_noise(3_000_000),
        exif=_turned(2_000_000),
        xmp=b"<x/>" * 500_000,
    )


def _laden_gif(size: int = 4_000_000) -> bytes:
    raw = saved(_PICTURE, "GIF")
    blocks = (b"\xff" + b"c" * 255) * (size // 255)
    start = 13 + (3 << (raw[10] & 7) + 1)
    return raw[:start] + b"!\xfe" + blocks + b"\0" + raw[start:]


#: Valid pictures of 40 × 20, red, with megabytes of metadata; and whether they say that they lie on
#: their side.
LADEN: dict[str, tuple[Callable[[], bytes], bool]] = {
    "PNG": (_laden_png, True),
    "PNG with EXIF as it was written before": (_old_exif_png, True),
    "PNG with an old EXIF that is too large": (_old_exif_too_large, False),
    "JPEG": (_laden_jpeg, True),
    "JPEG with what editors leave behind": (_photoshop_jpeg, True),
    "WebP": (_laden_webp, True),
    "GIF": (_laden_gif, False),
}
