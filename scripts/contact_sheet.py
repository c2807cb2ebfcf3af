#!/usr/bin/env python3
"""Draws docs/images/contact-sheet.webp: what ``generation`` makes of a few prompts, offline.

Each row is one concept: the base image and its palette variations, all by the code that a worker
runs (``LocalImageModel``, ``harmonies``, ``Artwork``).

    .venv/bin/python scripts/contact_sheet.py [output file]
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from executors.imaging.codec import decode, encode_webp
from executors.imaging.palettes import Palette, harmonies
from executors.imaging.recolour import Artwork
from executors.providers.local import LocalImageModel

OUTPUT = Path(__file__).parent.parent / "docs" / "images" / "contact-sheet.webp"


class Concept(NamedTuple):
    """A prompt, as a user would write it."""

    subject: str
    theme: str
    seed: int | None = None


CONCEPTS = (
    Concept("mountain lodge", "alpine lake and larch"),
    Concept("coffee roaster", "ocean teal and sand"),
    Concept("surf school", "tropical"),
    Concept("fox trail running", "rust and pine"),
    Concept("yoga studio, lotus", "lavender and mint"),
    Concept("rocket courier", "sunset"),
    Concept("Zenith Analytics", "indigo and coral"),
)
VARIATIONS = 7

# Measures in pixels of the sheet.
SIDE, GAP, MARGIN = 208, 20, 48
HEAD, CAPTION, SWATCH, ROW_GAP = 132, 56, 12, 34
PAGE, TEXT, MUTED = "#fbfaf8", "#1d1f24", "#8b8f98"


def main(output: Path) -> None:
    """Draw the sheet, and say how large it is."""
    sheet = asyncio.run(_sheet())
    content = encode_webp(sheet, quality=88).content
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(content)
    print(f"{output}: {sheet.width} by {sheet.height}, {len(content) / 1024:.0f} kB")


async def _sheet() -> Image.Image:
    columns = 1 + VARIATIONS
    width = 2 * MARGIN + columns * SIDE + (columns - 1) * GAP
    height = HEAD + len(CONCEPTS) * (SIDE + CAPTION + ROW_GAP) + MARGIN - ROW_GAP
    sheet = Image.new("RGB", (width, height), PAGE)
    _heading(sheet)
    for at, concept in enumerate(CONCEPTS):
        await _row(sheet, concept, HEAD + at * (SIDE + CAPTION + ROW_GAP))
    return sheet


def _heading(sheet: Image.Image) -> None:
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, 40), "From a sentence to a concept", TEXT, _font(34))
    column = MARGIN + SIDE + GAP
    draw.text((MARGIN, 96), "Base image", MUTED, _font(16))
    draw.text((column, 96), "Palette variations", MUTED, _font(16))


async def _row(sheet: Image.Image, concept: Concept, top: int) -> None:
    made = await LocalImageModel().generate(
        subject=concept.subject, theme=concept.theme, size=1024, seed=concept.seed
    )
    base = decode(made.content)
    artwork = Artwork.of(base)
    _picture(sheet, base, MARGIN, top)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, top + SIDE + 10), concept.subject, TEXT, _font(17))
    draw.text((MARGIN, top + SIDE + 33), concept.theme, MUTED, _font(14))
    for at, palette in enumerate(harmonies(concept.theme, VARIATIONS)):
        left = MARGIN + (at + 1) * (SIDE + GAP)
        _picture(sheet, artwork.in_palette(palette.colours), left, top)
        _legend(draw, palette, left, top + SIDE + 10)


def _picture(sheet: Image.Image, image: Image.Image, left: int, top: int) -> None:
    """A thumbnail with round corners."""
    small = image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    mask = Image.new("L", (SIDE * 4, SIDE * 4), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, SIDE * 4 - 1, SIDE * 4 - 1), 14 * 4, fill=255)
    sheet.paste(small, (left, top), mask.reduce(4))


def _legend(draw: ImageDraw.ImageDraw, palette: Palette, left: int, top: int) -> None:
    """The palette's colours, and its name."""
    each = SIDE / len(palette.colours)
    for at, colour in enumerate(palette.colours):
        x = left + at * each
        draw.rectangle((x, top, x + each - 3, top + SWATCH), fill=colour, outline="#e4e2dd")
    draw.text((left, top + SWATCH + 8), palette.name, MUTED, _font(14))


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """The font that comes with Pillow: the sheet looks the same everywhere."""
    return ImageFont.load_default(size)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else OUTPUT)
