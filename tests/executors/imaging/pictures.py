"""Pictures whose every pixel is known: flat logos with antialiased edges, gradients, noise."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from executors.imaging.colour import Floats, parse_hex

#: Logos by what is difficult about them.
LOGOS: dict[str, tuple[str, ...]] = {
    "five colours": ("#f4efe6", "#0f4c5c", "#e36414", "#fb8b24", "#9a031e"),
    "primaries": ("#ff0000", "#00ff00", "#0000ff", "#ffffff", "#000000"),
    "two near navies": ("#f8f8f8", "#1d3557", "#24406a", "#e63946", "#457b9d"),
    "two colours": ("#ffffff", "#111111"),
    "one hue": ("#e8f1fa", "#9cc3e6", "#4f8fcc", "#1f4f86"),
    "same lightness": ("#ffffff", "#c8643f", "#5f8a3f", "#5a7fc0"),
    "eight colours": (
        "#ffffff",
        "#e63946",
        "#f1a208",
        "#2a9d8f",
        "#264653",
        "#8ecae6",
        "#6a4c93",
        "#bc6c25",
    ),
}

PALETTES: dict[str, tuple[str, ...]] = {
    "greens": ("#132a13", "#31572c", "#90a955", "#ecf39e", "#ffffff"),
    "sea": ("#03045e", "#0077b6", "#00b4d8", "#ffb703", "#fff3e0"),
    "newspaper": ("#2b2d42", "#8d99ae", "#ef233c", "#d90429", "#edf2f4"),
}


def logo(
    colours: Sequence[str], *, side: int = 384, samples: int = 4, seed: int = 0
) -> Image.Image:
    """Overlapping discs and triangles in flat colours, ``samples``² samples a pixel."""
    chance = np.random.default_rng(seed)
    large = side * samples
    image = Image.new("RGB", (large, large), colours[0])
    draw = ImageDraw.Draw(image)
    for at in range(6 * len(colours)):
        x, y = chance.integers(0, large, 2).tolist()
        r = int(chance.integers(side // 12, side // 4)) * samples // 2
        ink = colours[at % len(colours)]
        if at % 3:
            draw.ellipse((x - r, y - r, x + r, y + r), fill=ink)
        else:
            angles = np.arange(3) * 2.1 + at
            draw.polygon([(x + r * np.cos(a), y + r * np.sin(a)) for a in angles], fill=ink)
    return image.reduce(samples)


@cache
def known_logo(name: str) -> Image.Image:
    """One of ``LOGOS``, drawn once."""
    return logo(LOGOS[name])


def edge(first: str, second: str, *, side: int = 96) -> Image.Image:
    """Two halves, divided by a slanted antialiased edge."""
    image = Image.new("RGB", (side * 8, side * 8), first)
    ImageDraw.Draw(image).polygon(
        [(side * 5, 0), (side * 8, 0), (side * 8, side * 8), (side * 3, side * 8)], fill=second
    )
    return image.reduce(8)


def ramp(first: str, second: str, *, width: int = 512, height: int = 64) -> Image.Image:
    """A linear gradient from left to right."""
    start, end = (np.array(parse_hex(colour), float) for colour in (first, second))
    row = start + (end - start) * np.linspace(0, 1, width)[:, None]
    return Image.fromarray(np.repeat(np.rint(row)[None].astype(np.uint8), height, axis=0))


def jpeg(image: Image.Image, quality: int = 85) -> Image.Image:
    """The picture after a round trip through JPEG."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")


def where(image: Image.Image, colour: str) -> NDArray[np.bool_]:
    """Which pixels have exactly this colour."""
    return np.asarray((np.asarray(image.convert("RGB")) == parse_hex(colour)).all(axis=-1))


def srgb(image: Image.Image) -> Floats:
    """The picture's colours as sRGB values: (height, width, 3)."""
    return np.asarray(image.convert("RGB"), np.float32) / np.float32(255)
