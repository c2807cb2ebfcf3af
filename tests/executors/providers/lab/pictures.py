"""Pictures as models answer them, and as they should not."""

from __future__ import annotations

__all__ = ["broken", "painted"]

import functools
import io
import struct
import zlib
from typing import Literal

from PIL import Image


@functools.cache
def painted(width: int, height: int) -> bytes:
    """A PNG of that size."""
    content = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert("RGB").save(content, "PNG")
    return content.getvalue()


def broken(kind: Literal["truncated", "bomb", "text"]) -> bytes:
    """What came in place of a picture."""
    match kind:
        case "truncated":
            whole = painted(256, 256)
            return whole[: len(whole) // 2]
        case "bomb":
            return _bomb(60_000)
        case "text":
            return b"the model was too busy to draw"


def _bomb(side: int) -> bytes:
    """A PNG of a few hundred bytes whose header promises ``side`` × ``side`` pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(side))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
