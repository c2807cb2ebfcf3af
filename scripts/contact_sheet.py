#!/usr/bin/env python3
"""Draws docs/images/contact-sheet.webp and refinements.webp: what is made of a few prompts, offline.

On the first each row is one concept: the base image and its palette variations. On the second each
row is one concept, refined by a few prompts. All by the code that a worker runs (``LocalImageModel``,
``harmonies``, ``Artwork``).

    .venv/bin/python scripts/contact_sheet.py [output folder]
"""

from __future__ import annotations

import asyncio
import sys
import textwrap
import unicodedata
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from executors.imaging.codec import decode, encode_webp
from executors.imaging.palettes import Palette, harmonies
from executors.imaging.recolour import Artwork
from executors.providers.base import GeneratedImage
from executors.providers.offline.images import LocalImageModel

OUTPUT = Path(__file__).parent.parent / "docs" / "images"


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

#: A concept, and the prompts that it is refined by.
REFINEMENTS = (
    (
        Concept("fox trail running", "rust and pine"),
        "change the red to navy blue",
        "white background",
        "sticker, on a teal background",
        "neon",
        "gold metal",
        "pencil sketch",
        "vintage, with the text “Since 1984”",
    ),
    (
        Concept("coffee roaster", "ocean teal and sand"),
        "in the colours of autumn",
        "Hintergrund transparent, Schatten",
        "modern, rounded corners",
        "glass",
        "comic",
        "blueprint",
        "text “Café Azul”",
    ),
    (
        Concept("rocket courier", "sunset"),
        "pastel",
        "fond bleu foncé et ombre",
        "a circle badge on white background",
        "3d",
        "watercolour",
        "line art",
        "duotone in purple and orange",
    ),
    (
        Concept("mountain lodge", "alpine lake and larch", 3),
        "more professional",
        "a gradient background from pink to orange",
        "tilt it, white outline",
        "dark mode",
        "pixel art",
        "minimal",
        "black and white, text “NORTH & CO” on top",
    ),
)

# Measures in pixels of the sheet.
SIDE, GAP, MARGIN = 208, 20, 48
HEAD, CAPTION, SWATCH, ROW_GAP = 132, 56, 12, 34
PAGE, TEXT, MUTED = "#fbfaf8", "#1d1f24", "#8b8f98"


def main(folder: Path) -> None:
    """Draw the sheets, and say how large they are."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, drawn in (("contact-sheet", _concepts()), ("refinements", _refinements())):
        sheet = asyncio.run(drawn)
        content = encode_webp(sheet, quality=88).content
        file = folder / f"{name}.webp"
        file.write_bytes(content)
        print(f"{file}: {sheet.width} by {sheet.height}, {len(content) / 1024:.0f} kB")


async def _concepts() -> Image.Image:
    sheet = _empty(
        len(CONCEPTS), "From a sentence to a concept", "Base image", "Palette variations"
    )
    for at, concept in enumerate(CONCEPTS):
        await _row(sheet, concept, HEAD + at * (SIDE + CAPTION + ROW_GAP))
    return sheet


async def _refinements() -> Image.Image:
    sheet = _empty(len(REFINEMENTS), "From a concept to another", "Original", "Refined by a prompt")
    draw = ImageDraw.Draw(sheet)
    for at, (concept, *prompts) in enumerate(REFINEMENTS):
        top = HEAD + at * (SIDE + CAPTION + ROW_GAP)
        original = (await _drawn(concept)).content
        _picture(sheet, decode(original), MARGIN, top)
        draw.text((MARGIN, top + SIDE + 10), concept.subject, TEXT, _font(15))
        for column, prompt in enumerate(prompts, 1):
            refined = await LocalImageModel().refine(
                original=original, prompt=prompt, width=1024, height=1024
            )
            left = MARGIN + column * (SIDE + GAP)
            _picture(sheet, decode(refined.content), left, top)
            for line, words in enumerate(textwrap.wrap(_plain(prompt), 27)[:2]):
                draw.text((left, top + SIDE + 10 + 20 * line), words, TEXT, _font(15))
    return sheet


def _empty(rows: int, title: str, first: str, others: str) -> Image.Image:
    columns = 1 + VARIATIONS
    width = 2 * MARGIN + columns * SIDE + (columns - 1) * GAP
    height = HEAD + rows * (SIDE + CAPTION + ROW_GAP) + MARGIN - ROW_GAP
    sheet = Image.new("RGB", (width, height), PAGE)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, 40), title, TEXT, _font(34))
    draw.text((MARGIN, 96), first, MUTED, _font(16))
    draw.text((MARGIN + SIDE + GAP, 96), others, MUTED, _font(16))
    return sheet


def _plain(text: str) -> str:
    """Without accents, which the font of the sheet lacks."""
    parts = unicodedata.normalize("NFD", text)
    return "".join(part for part in parts if not unicodedata.combining(part))


async def _drawn(concept: Concept) -> GeneratedImage:
    return await LocalImageModel().generate(
        subject=concept.subject, theme=concept.theme, size=1024, seed=concept.seed
    )


async def _row(sheet: Image.Image, concept: Concept, top: int) -> None:
    base = decode((await _drawn(concept)).content)
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
    small = image.convert("RGBA").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    board = _checkerboard()
    board.paste(small, (0, 0), small)
    mask = Image.new("L", (SIDE * 4, SIDE * 4), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, SIDE * 4 - 1, SIDE * 4 - 1), 14 * 4, fill=255)
    sheet.paste(board, (left, top), mask.reduce(4))


def _checkerboard() -> Image.Image:
    """What transparency is shown on."""
    board = Image.new("RGB", (SIDE, SIDE), "#ffffff")
    for x in range(0, SIDE, 16):
        for y in range(0, SIDE, 16):
            if (x + y) // 16 % 2:
                board.paste("#e9e7e2", (x, y, x + 16, y + 16))
    return board


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
