"""What the page looks like, kept for people to look at: small enough for a repository."""

from __future__ import annotations

__all__ = ["FOLDER", "keep", "side_by_side"]

import io
import os
from pathlib import Path
from typing import Final

from PIL import Image

#: `make screenshots` writes those of the documentation.
FOLDER: Final = Path(os.environ.get("PICTURES", ".uvian/e2e"))

_MOST: Final = 200_000  #: bytes of one


def keep(name: str, *shots: bytes) -> None:
    """Store a screenshot, or several as one; fails when it is too large for a page of documentation."""
    picture = side_by_side([Image.open(io.BytesIO(shot)).convert("RGB") for shot in shots])
    FOLDER.mkdir(parents=True, exist_ok=True)
    file = FOLDER / f"{name}.png"
    picture.save(file, optimize=True)
    if file.stat().st_size > _MOST:
        picture.quantize(256, dither=Image.Dither.NONE).save(file, optimize=True)
    assert file.stat().st_size < _MOST, f"{file} has {file.stat().st_size} bytes"


def side_by_side(pictures: list[Image.Image], gap: int = 32) -> Image.Image:
    """In one row, on the grey between day and night."""
    if len(pictures) == 1:
        return pictures[0]
    width = sum(picture.width + gap for picture in pictures) + gap
    row = Image.new(
        "RGB", (width, max(picture.height for picture in pictures) + 2 * gap), "#9a9aa2"
    )
    at = gap
    for picture in pictures:
        row.paste(picture, (at, gap))
        at += picture.width + gap
    return row
