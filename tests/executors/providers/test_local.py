"""What the local provider promises: real marks, in the theme's hues, deterministic and distinct."""

from __future__ import annotations

import asyncio
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from executors.errors import ProviderRejected
from executors.imaging.codec import decode
from executors.imaging.colour import format_hex, hex_oklch
from executors.imaging.palettes import theme_colours
from executors.providers.base import ImageModel
from executors.providers.offline.images import LocalImageModel
from executors.providers.offline.marks.draw import draw_mark, seed_for

PROMPTS = [
    ("a mountain coffee roaster", "ocean teal and sand"),
    ("coffee shop", "ocean teal and sand"),
    ("yoga studio by the lake", "lavender and mint"),
    ("fast courier startup", "sunset"),
    ("honest law firm", "navy and gold"),
    ("organic bakery", "wheat and terracotta"),
    ("cat cafe", "peach and charcoal"),
    ("deep sea research", "midnight"),
    ("kids bookshop", "playful red and blue"),
    ("Zenith Analytics", "indigo and coral"),
    ("Kowalski & Sons", "forest"),
    ("surf school", "tropical"),
    ("quantum computing lab", "cyberpunk"),
    ("plumber", "blue"),
    ("wedding florist", "blush and sage"),
    ("craft brewery", "amber"),
    ("Nordlicht", "aurora"),
    ("space tourism", "galaxy"),
    ("Umbrella Corporation", "autumn"),
    ("Acme", ""),
]


def draw(subject: str, theme: str, *, size: int = 256, seed: int | None = None) -> Image.Image:
    """The mark of a prompt."""
    chosen = seed_for(subject, theme) if seed is None else seed
    return draw_mark(subject, theme, size=size, seed=chosen)


def regions(image: Image.Image, least: float = 0.003) -> list[str]:
    """Colours that cover more than this share of the picture."""
    colours, counts = np.unique(np.asarray(image).reshape(-1, 3), axis=0, return_counts=True)
    large = colours[counts > least * image.width * image.height]
    return [format_hex(colour / 255) for colour in large]


def distinct_hues(colours: list[str]) -> list[float]:
    """Hues more than 15° apart, of colours that have one."""
    found: list[float] = []
    for colour in colours:
        _, chroma, hue = hex_oklch(colour)
        if chroma >= 0.035 and all(turn(hue, other) > 15 for other in found):
            found.append(hue)
    return found


def turn(one: float, two: float) -> float:
    """Degrees between two hues."""
    return abs((one - two + 180) % 360 - 180)


def phash(image: Image.Image) -> NDArray[np.bool_]:
    """Perceptual hash: signs of the 8 by 8 lowest frequencies (DCT of 32 by 32) about their median."""
    grey = np.asarray(image.convert("L").resize((32, 32)), float)
    k = np.arange(32)
    basis = np.cos(np.pi * (2 * k[None] + 1) * k[:, None] / 64)
    low = (basis @ grey @ basis.T)[:8, :8].ravel()
    return np.asarray(low > np.median(low))


async def ask(
    subject: str = "fox",
    theme: str = "rust",
    *,
    size: int = 128,
    style: str | None = None,
    seed: int | None = None,
) -> bytes:
    """The bytes the provider answers with."""
    made = await LocalImageModel().generate(
        subject=subject, theme=theme, size=size, style=style, seed=seed
    )
    return made.content


def test_twenty_prompts_are_twenty_pictures() -> None:
    """Pairwise at least 8 of 64 bits of the perceptual hash apart (up to 4 mean "the same picture")."""
    hashes = [phash(draw(*prompt)) for prompt in PROMPTS]
    assert len(hashes) == 20
    assert min(int(np.sum(a != b)) for a, b in combinations(hashes, 2)) >= 8


def test_one_prompt_has_many_pictures() -> None:
    """Seeds vary the composition, not only the colours: most pairs of ten are far apart."""
    hashes = [phash(draw("mountain lodge", "forest", seed=seed)) for seed in range(10)]
    apart = [int(np.sum(a != b)) for a, b in combinations(hashes, 2)]
    assert np.median(apart) >= 12


@pytest.mark.parametrize("seed", range(3))
def test_a_mark_has_three_regions_in_two_hues_of_its_theme(seed: int) -> None:
    """At least three flat colours of 0.3 % each, two of them in different hues of the theme."""
    for subject, theme in PROMPTS[seed::3]:
        seen = regions(draw(subject, theme, seed=seed))
        assert len(seen) >= 3, subject
        named, present = distinct_hues(list(theme_colours(theme))), distinct_hues(seen)
        matched = [hue for hue in named if any(turn(hue, other) < 25 for other in present)]
        assert len(matched) >= min(2, len(named)), subject


@pytest.mark.parametrize("prompt", PROMPTS[::4], ids=lambda prompt: prompt[0])
def test_colours_are_flat(prompt: tuple[str, str]) -> None:
    """Few colours cover nearly everything; the rest is antialiasing."""
    image = draw(*prompt, size=512)
    counts = sorted((n for n, _ in image.getcolors(1 << 24) or []), reverse=True)
    assert sum(counts[:10]) > 0.9 * 512 * 512
    assert len(counts) > 20  # edges are antialiased


def test_whitespace_is_kept() -> None:
    """The outermost pixels belong to the ground alone: two tones at most, and the edge between."""
    for prompt in PROMPTS:
        image = np.asarray(draw(*prompt, size=200))
        rim = np.concatenate([image[:4].reshape(-1, 3), image[-4:].reshape(-1, 3)])
        _, counts = np.unique(rim, axis=0, return_counts=True)
        assert np.sort(counts)[-2:].sum() > 0.93 * len(rim), prompt


async def test_the_same_seed_gives_the_same_bytes() -> None:
    """Twice the same request is the same file; without a seed, the words are the seed."""
    assert await ask(seed=7) == await ask(seed=7)
    assert await ask() == await ask(seed=seed_for("fox", "rust"))
    assert await ask("  FOX ", "Rust") == await ask()


async def test_everything_asked_for_matters() -> None:
    """Another seed, theme, style or subject is another picture."""
    variants = [
        await ask(seed=1),
        await ask(seed=2),
        await ask(theme="ocean", seed=1),
        await ask("bear", seed=1),
        await ask(style="badge", seed=1),
    ]
    assert len(set(variants)) == len(variants)


def test_seeds_never_change() -> None:
    """A concept drawn by an older release can be drawn again."""
    assert seed_for("fox", "rust") == 5824604775557029972


@pytest.mark.parametrize("size", [16, 100, 257, 1024])
async def test_the_answer_is_a_png_of_the_size_asked_for(size: int) -> None:
    """It passes the same safe decoding as any other provider's."""
    made = await LocalImageModel().generate(subject="fox", theme="rust", size=size, seed=3)
    image = decode(made.content)
    assert image.size == (size, size)
    assert image.mode == "RGB"
    assert (made.provider, made.model, made.seed) == ("local", "marks-1", 3)


@pytest.mark.parametrize("size", [0, 15, 4097, 100_000])
async def test_an_impossible_size_is_rejected(size: int) -> None:
    """The provider refuses, in its own words, before it draws."""
    with pytest.raises(ProviderRejected, match="16 to 4096"):
        await LocalImageModel().generate(subject="fox", theme="rust", size=size)


async def test_drawing_does_not_hold_up_the_event_loop() -> None:
    """The loop goes round while a large mark is being drawn."""
    turns = 0
    task = asyncio.create_task(ask(size=1024))
    while not task.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns > 10
    assert await task


def test_it_is_an_image_model() -> None:
    """The port is met, as the type checker sees it."""
    model: ImageModel = LocalImageModel()
    assert model.name == "local"
