"""Words in the picture: below the subject, above it, or across a band where there is no room."""

from __future__ import annotations

__all__ = ["Unwritable", "lettered"]

import unicodedata
from functools import cache
from typing import Final, Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from executors.imaging.clusters import find_clusters
from executors.imaging.colour import contrast, format_hex, hex_srgb
from executors.providers.offline.refining.layers import Layers
from executors.providers.offline.refining.layouts import placed

Place = Literal["bottom", "top"]

_LONGEST: Final = 60  # characters
_WIDTH = 0.8  # of the picture that a line takes at most
_TALLEST = 0.125  # of the picture is the size of letters
_SHORT: Final = 20  # characters that stay on one line
_LEGIBLE = 3.0  # contrast of large letters, WCAG 1.4.3

_CEDILLA: Final = "\u0327"
#: The font that comes with Pillow has the letters of ASCII: accents are put together from its signs.
_MARKS: Final = {
    "\u0300": "`",
    "\u0301": "\u00b4",
    "\u0302": "^",
    "\u0303": "~",
    "\u0307": ".",
    "\u0308": "..",
    "\u030a": "\u00b0",
    _CEDILLA: ",",
}
_SPELT: Final = str.maketrans(
    {"ß": "ss", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L"}
    | {"\u2013": "-", "\u2014": "-", "\u2018": "'", "\u00d7": "x", "\u0131": "i"}
)


class Unwritable(ValueError):
    """The font that comes along has no such letters."""


def lettered(layers: Layers, text: str, place: Place, colour: str | None = None) -> Layers:
    """The subject makes room for the text, which is set in a colour of the subject's by default."""
    lines = _lines(_writable(text))
    width, height = layers.size
    if not layers.found:
        return _banded(layers, lines, place, colour)
    letters = _set(lines, colour or _ink(layers), (round(width * _WIDTH), round(height * _TALLEST)))
    left, top, right, bottom = layers.box()
    share = letters.height / height
    room = 0.84 - 1.4 * share
    factor = min(room * height / (bottom - top), 0.86 * width / (right - left), 1.0)
    tall = factor * (bottom - top) / height
    gap = 0.06 + 0.2 * (room - tall)
    start = (1 - tall - gap - share) / 2
    middle = start + tall / 2 if place == "bottom" else 1 - start - tall / 2
    subject = placed(layers, factor, (0.5, middle)).subject
    at = start + tall + gap if place == "bottom" else start
    subject.alpha_composite(letters, ((width - letters.width) // 2, round(at * height)))
    return layers.with_subject(subject)


def _lines(text: str) -> list[str]:
    """One line, or two of about the same length."""
    spaces = [at for at, letter in enumerate(text) if letter == " "]
    if len(text) <= _SHORT or not spaces:
        return [text]
    middle = min(spaces, key=lambda at: abs(at - len(text) / 2))
    return [text[:middle], text[middle + 1 :]]


def _banded(layers: Layers, lines: list[str], place: Place, colour: str | None) -> Layers:
    """Over the picture itself, on a dark that comes up from the border."""
    width, height = layers.size
    subject = layers.subject.copy()
    shade = Image.linear_gradient("L").resize((width, round(height * 0.45)))
    shade = shade.point(lambda level: round(level * 0.85))
    if place == "top":
        shade = shade.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    dark = Image.new("RGBA", shade.size, "#0d0f14")
    dark.putalpha(shade)
    subject.alpha_composite(dark, (0, height - shade.height if place == "bottom" else 0))
    letters = _set(lines, colour or "#ffffff", (round(width * _WIDTH), round(height * _TALLEST)))
    margin = round(height * 0.09)
    top = height - margin - letters.height if place == "bottom" else margin
    subject.alpha_composite(letters, ((width - letters.width) // 2, max(0, top)))
    return layers.with_subject(subject)


def _set(lines: list[str], colour: str, box: tuple[int, int]) -> Image.Image:
    """The lines below each other, as large as they fit into ``box``, cropped to their ink."""
    capitals = all(line == line.upper() for line in lines)
    tracking = 0.045 if capitals else 0.012  # capitals are cut to stand apart
    size = box[1] / 0.72
    wide = max(_length(line, size, tracking) for line in lines)
    size = max(4.0, min(size, size * box[0] / wide))
    wide = max(_length(line, size, tracking) for line in lines)
    canvas = Image.new("L", (round(wide + size), round(size * (1.2 * len(lines) + 1))))
    draw = ImageDraw.Draw(canvas)
    for at, line in enumerate(lines):
        x = (canvas.width - _length(line, size, tracking)) / 2
        for letter in line:
            _write(draw, letter, (x, size * (0.4 + 1.2 * at)), size)
            x += _advance(letter, size) + tracking * size
    inked = canvas.crop(canvas.getbbox() or (0, 0, 1, 1))
    letters = Image.new("RGBA", inked.size, colour)
    letters.putalpha(inked)
    return letters


def _write(draw: ImageDraw.ImageDraw, letter: str, place: tuple[float, float], size: float) -> None:
    """A letter, and what stands above or below it, which this font has as signs of their own."""
    base, *marks = list(unicodedata.normalize("NFD", letter))
    font = _font(size)
    # A little heavier than the font: letters beside a mark have to hold their own.
    weight = size * 0.014
    draw.text(place, base, fill=255, font=font, stroke_width=weight)
    left, top, right, bottom = _inked(base, font)
    for mark in marks:
        sign = _MARKS[mark]
        x0, y0, x1, y1 = _inked(sign, font)
        x = place[0] + (left + right - x0 - x1) / 2
        y = place[1] + (bottom - y0 - 0.02 * size if mark == _CEDILLA else top - y1 - 0.08 * size)
        draw.text((x, y), sign, fill=255, font=font, stroke_width=weight)


def _inked(text: str, font: ImageFont.FreeTypeFont) -> tuple[int, int, int, int]:
    """Where its ink is, from where it is drawn; a font's own box may be larger."""
    side = round(font.size)
    canvas = Image.new("L", (3 * side, 3 * side))
    ImageDraw.Draw(canvas).text((side, side), text, fill=255, font=font)
    left, top, right, bottom = canvas.getbbox() or (side, side, side, side)
    return left - side, top - side, right - side, bottom - side


def _advance(letter: str, size: float) -> float:
    return _font(size).getlength(unicodedata.normalize("NFD", letter)[0])


def _length(line: str, size: float, tracking: float) -> float:
    return sum(_advance(letter, size) for letter in line) + tracking * size * (len(line) - 1)


def _ink(layers: Layers) -> str:
    """The subject's own colour that is read best on the ground; else black or white."""
    ground = hex_srgb([layers.ground.colour if layers.ground else "#ffffff"])[0]
    clusters = find_clusters(layers.subject)
    plain = hex_srgb(["#14161c", "#ffffff"])
    own = clusters.colours[clusters.shares > 0.02] if len(clusters) else plain
    best = own[int(np.argmax(contrast(own, ground)))]
    if float(contrast(best, ground)) < _LEGIBLE:
        best = plain[int(np.argmax(contrast(plain, ground)))]
    return format_hex(best)


def _writable(text: str) -> str:
    """One line of letters that the font has; raises ``Unwritable``."""
    line = unicodedata.normalize("NFC", " ".join(text.split()).translate(_SPELT))
    line = line[:_LONGEST].strip()
    if not line or not all(_has(letter) for letter in line):
        raise Unwritable(text)
    return line


@cache
def _has(letter: str) -> bool:
    base, *marks = list(unicodedata.normalize("NFD", letter))
    if base == " ":
        return True
    font = _font(40)
    shape = bytes(font.getmask(base))
    drawn = bool(shape) and shape != bytes(font.getmask("\U0010ffff"))
    return drawn and all(mark in _MARKS for mark in marks)


@cache
def _sized(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # noqa: S101 - with a size it always is
    return font


def _font(size: float) -> ImageFont.FreeTypeFont:
    return _sized(max(4, round(size)))
