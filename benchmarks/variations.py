"""Seven palette variations of a 2048² picture as PNG, against merely encoding them.

Everything is counted: looking at the picture, a LUT per palette, applying it, encoding; in two
threads, as the executor does it. The limit to compare with is the encoder alone on the finished
pictures, same settings, same threads. The peer is what one would write first: k-means on every
pixel, in NumPy, for each palette (run for one palette, counted seven times).

    python -m benchmarks variations          python -m benchmarks.variations
"""

from __future__ import annotations

__all__ = ["run"]

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.result import Result
from executors.imaging.codec import EncodedImage, encode_png
from executors.imaging.colour import hex_srgb, srgb_to_oklab
from executors.imaging.palettes import harmonies
from executors.imaging.recolour import Artwork
from executors.providers.offline.marks.draw import draw_mark, seed_for

SIDE = 2048  # pixels
PALETTES = 7
THREADS = 2
REPEATS = 7
TARGET = 1.3
ITERATIONS = 10  # of k-means: few; libraries default to 300

_SUBJECT, _THEME = "fox trail running", "rust and pine"


def run() -> list[Result]:
    """Time of everything over time of encoding, for a flat logo and for a picture with grain."""
    logo = draw_mark(_SUBJECT, _THEME, size=SIDE, seed=seed_for(_SUBJECT, _THEME))
    palettes = [palette.colours for palette in harmonies(_THEME, PALETTES)]
    flat, naive = _measured("flat logo", logo, palettes), _k_means_seconds(logo, palettes[0])
    grainy = _measured("shaded, with grain", _grainy(logo), palettes)
    everything = flat[1].value
    peer = Result(
        "… flat logo, against k-means per palette",
        everything,
        "s",
        peer=naive * PALETTES,
        peer_name=f"NumPy k-means, {ITERATIONS} rounds, {PALETTES} times",
    )
    return [*flat, peer, *grainy]


def _measured(name: str, image: Image.Image, palettes: Sequence[Sequence[str]]) -> list[Result]:
    """The best of interleaved runs of each: whatever else the machine does can only add to both."""
    finished = [Artwork.of(image).in_palette(colours) for colours in palettes]
    flat = Artwork.of(image).flat
    everything, encoding = [], []
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in range(REPEATS):
            everything.append(_spent(lambda: _vary(pool, image, palettes)))
            encoding.append(
                _spent(lambda: list(pool.map(partial(encode_png, flat=flat), finished)))
            )
        size = sum(len(file.content) for file in _vary(pool, image, palettes)) // len(palettes)
    (whole, whole_cpu), (part, part_cpu) = (
        (min(wall for wall, _ in times), min(cpu for _, cpu in times))
        for times in (everything, encoding)
    )
    label = f"{PALETTES} variations of {SIDE}², {name}"
    return [
        Result(f"{label}: all / encoding", whole / part, "x", TARGET),
        Result("… in all", whole, "s", peer=part, peer_name="encoding alone"),
        Result("… CPU in all", whole_cpu, "CPU-s", peer=part_cpu, peer_name="encoding alone"),
        Result("… size of a file", size / 1024, "kB"),
    ]


def _vary(
    pool: ThreadPoolExecutor, image: Image.Image, palettes: Sequence[Sequence[str]]
) -> list[EncodedImage]:
    artwork = Artwork.of(image)

    def variation(colours: Sequence[str]) -> EncodedImage:
        return encode_png(artwork.in_palette(colours), flat=artwork.flat)

    return list(pool.map(variation, palettes))


def _spent(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds on the wall and of CPU."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def _grainy(image: Image.Image) -> Image.Image:
    """The picture as a camera or a diffusion model would give it: light falls off, noise."""
    chance = np.random.default_rng(1)
    light = np.linspace(1, 0.86, image.height, dtype=np.float32)[:, None, None]
    grain = chance.normal(0, 1.5, (image.height, image.width, 3)).astype(np.float32)
    return Image.fromarray(np.clip(np.asarray(image) * light + grain, 0, 255).astype(np.uint8))


def _k_means_seconds(image: Image.Image, colours: Sequence[str]) -> float:
    """One palette the naive way, encoding included."""

    def naive() -> None:
        pixels = srgb_to_oklab(np.asarray(image, np.float32).reshape(-1, 3) / 255)
        labels, centres = _k_means(pixels, len(colours))
        palette = hex_srgb(colours)
        palette = palette[np.argsort(srgb_to_oklab(palette)[:, 0])]
        rank = np.argsort(np.argsort(centres[:, 0]))
        painted = np.rint(palette[rank][labels] * 255).astype(np.uint8)
        encode_png(Image.fromarray(painted.reshape(image.height, image.width, 3)), flat=True)

    return _spent(naive)[0]


def _k_means(pixels: NDArray[np.float32], k: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Lloyd's algorithm on every pixel."""
    chance = np.random.default_rng(0)
    centres = pixels[chance.choice(len(pixels), k, replace=False)]
    labels = np.zeros(len(pixels), np.intp)
    for _ in range(ITERATIONS):
        distances = np.stack([np.sum((pixels - centre) ** 2, axis=1) for centre in centres])
        labels = distances.argmin(axis=0)
        for at in range(k):
            mine = pixels[labels == at]
            if len(mine):
                centres[at] = mine.mean(axis=0)
    return labels, centres


if __name__ == "__main__":
    for result in run():
        print(result.line())
