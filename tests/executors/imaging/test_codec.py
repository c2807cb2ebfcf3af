"""Untrusted bytes become pictures safely, or are refused before they cost anything."""

from __future__ import annotations

import base64
import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from executors.imaging.codec import (
    Limits,
    UnsafeImageError,
    decode,
    encode_png,
    encode_webp,
    preview,
)
from tests.executors.imaging.pictures import LOGOS, logo


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """The picture as a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few kilobytes that claims to be huge."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(1_000_000), 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


PICTURE = logo(LOGOS["five colours"], side=64)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_lossless_formats_come_out_as_they_went_in(kind: str) -> None:
    """Every pixel of a PNG and a lossless WebP survives."""
    content = encoded(PICTURE, kind, lossless=True)
    assert decode(content).tobytes() == PICTURE.tobytes()


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("L", "RGB"), ("1", "RGB"), ("P", "RGB"), ("LA", "RGBA"), ("RGBA", "RGBA"), ("I;16", "RGB")],
)
def test_every_mode_becomes_rgb_or_rgba(mode: str, expected: str) -> None:
    """Grey, bilevel, indexed and sixteen-bit pictures are no special case downstream."""
    source = (
        Image.new("I", (8, 8), 32896).convert("I;16") if mode == "I;16" else PICTURE.convert(mode)
    )
    picture = decode(encoded(source, "PNG"))
    assert picture.mode == expected
    if mode == "I;16":
        assert picture.getpixel((0, 0)) == (128, 128, 128)


def test_transparency_of_a_palette_becomes_alpha() -> None:
    """A GIF's transparent colour is transparent."""
    image = Image.new("P", (4, 4), 1)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((0, 0), 0)
    picture = decode(encoded(image, "GIF", transparency=0))
    assert picture.mode == "RGBA"
    assert picture.getchannel("A").getextrema() == (0, 255)


def test_only_the_first_frame_of_an_animation_is_taken() -> None:
    """A long animation costs one frame."""
    frames = [Image.new("RGB", (8, 8), (level, 0, 0)) for level in range(0, 250, 5)]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(content).getpixel((0, 0)) == (0, 0, 0)


def test_a_photo_is_turned_upright() -> None:
    """EXIF orientation 6 (camera held upright) is applied."""
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = Image.new("RGB", (40, 20), "red")
    picture = decode(encoded(wide, "JPEG", exif=exif))
    assert picture.size == (20, 40)


def test_metadata_stays_behind() -> None:
    """Neither where a photo was taken nor a comment is in what would be stored."""
    exif = Image.Exif()
    exif[0x010E] = "a secret place"
    picture = decode(encoded(PICTURE, "JPEG", exif=exif, comment=b"another secret"))
    stored = encode_png(picture).content + encode_webp(picture).content
    assert picture.info == {}
    assert b"secret" not in stored


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"not a picture at all", "none of the formats"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "none of the formats"),
        (encoded(PICTURE, "BMP"), "none of the formats"),
        (encoded(PICTURE, "TIFF"), "none of the formats"),
        (encoded(PICTURE, "PNG")[:-200], "damaged"),
        (encoded(PICTURE, "JPEG")[:-200], "damaged"),
        (encoded(PICTURE, "WEBP")[:-200], "damaged|none of the formats"),
        (bomb(5000, 5000), "5000 by 5000"),
        (bomb(9000, 1), "9000 by 1"),
        (bomb(12000, 12000), "too large|12000 by 12000"),
        (bomb(60000, 60000), "too large"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{len(value)} bytes",
)
def test_what_is_unsafe_is_refused_with_a_reason(content: bytes, reason: str) -> None:
    """Foreign formats, damage and bombs end as one error whose message a user may read."""
    with pytest.raises(UnsafeImageError, match=reason):
        decode(content)


def test_a_bomb_is_refused_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The header alone decides: no pixel of a picture that is too large is decoded."""
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _: pytest.fail("decoded"))
    with pytest.raises(UnsafeImageError):
        decode(bomb(5000, 5000))


def test_limits_are_the_callers() -> None:
    """Bytes, pixels, sides and formats can be narrowed."""
    content = encoded(PICTURE, "PNG")
    for limits in (
        Limits(bytes=len(content) - 1),
        Limits(pixels=64 * 64 - 1),
        Limits(side=63),
        Limits(formats=("JPEG",)),
    ):
        with pytest.raises(UnsafeImageError):
            decode(content, limits)
    assert decode(content, Limits(bytes=len(content), pixels=64 * 64, side=64)).size == (64, 64)


@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=4))
def test_damaged_bytes_never_raise_anything_else(at: int, noise: bytes) -> None:
    """Whatever is overwritten in a PNG, it decodes or is refused by the one documented error."""
    content = bytearray(encoded(PICTURE, "PNG"))
    at %= len(content)
    content[at : at + len(noise)] = noise
    with contextlib.suppress(UnsafeImageError):
        assert decode(bytes(content)).mode in ("RGB", "RGBA")


def test_encoding_says_what_it_made() -> None:
    """Content type, extension and size come with the bytes, and flat pictures get smaller."""
    picture = logo(LOGOS["five colours"], side=256)
    png, flat, webp = encode_png(picture), encode_png(picture, flat=True), encode_webp(picture)
    assert (png.content_type, png.extension, png.width, png.height) == (
        "image/png",
        "png",
        256,
        256,
    )
    assert (webp.content_type, webp.extension) == ("image/webp", "webp")
    assert Image.open(io.BytesIO(webp.content)).format == "WEBP"
    assert len(flat.content) < len(png.content)
    assert decode(flat.content).tobytes() == decode(png.content).tobytes() == picture.tobytes()


def test_a_preview_is_a_few_hundred_bytes_and_looks_alike() -> None:
    """A data URL under 700 bytes whose mean colour is that of the picture."""
    picture = logo(LOGOS["eight colours"], side=512)
    url = preview(picture)
    assert url.startswith("data:image/webp;base64,")
    assert len(url) < 700
    small = decode(base64.b64decode(url.partition(",")[2]))
    assert max(small.size) == 24
    means = [np.asarray(image).reshape(-1, 3).mean(axis=0) for image in (small, picture)]
    assert np.abs(means[0] - means[1]).max() < 8


def test_a_preview_of_transparency_has_no_dark_fringe() -> None:
    """Transparent black beside opaque white averages to transparent white."""
    picture = Image.new("RGBA", (480, 240), (0, 0, 0, 0))
    picture.paste((255, 255, 255, 255), (0, 0, 250, 240))
    small = np.asarray(decode(base64.b64decode(preview(picture).partition(",")[2])))
    seen = small[small[..., 3] > 40]
    assert small.shape == (12, 24, 4)
    assert seen[:, :3].min() > 200
