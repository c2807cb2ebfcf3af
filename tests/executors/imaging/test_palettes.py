"""Palettes are valid, distinct, visible, in the theme's colours, and the same every time."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from executors.imaging.colour import contrast, delta_e_2000, hex_oklch, hex_srgb, parse_hex
from executors.imaging.palettes import Palette, harmonies, stable_seed, theme_colours
from executors.imaging.theme_words import MOOD_WORDS, THEME_WORDS

THEMES = [
    "ocean teal and sand",
    "sunset",
    "#ff6600",
    "black and white",
    "dark luxury gold",
    "",
    "zzz",
]


def turn(one: float, two: float) -> float:
    """Degrees between two hues."""
    return abs((one - two + 180) % 360 - 180)


@given(st.text(max_size=40), st.integers(1, 12), st.integers(0, 2**40))
def test_any_theme_gives_as_many_distinct_palettes_as_asked(theme: str, n: int, seed: int) -> None:
    """Whatever the words: n palettes of five colours, names and looks pairwise distinct."""
    palettes = harmonies(theme, n, seed=seed)
    assert len(palettes) == n
    assert len({palette.name for palette in palettes}) == n
    for one, two in combinations(palettes, 2):
        apart = delta_e_2000(hex_srgb(one.colours), hex_srgb(two.colours))
        assert apart.mean() > 5.9


@pytest.mark.parametrize("theme", THEMES)
def test_ends_carry_text_and_steps_are_visible(theme: str) -> None:
    """Dark to light, at least 7:1 between the ends, at least ΔE2000 6 from step to step."""
    for palette in harmonies(theme, 12):
        srgb = hex_srgb(palette.colours)
        assert contrast(srgb[0], srgb[-1]) >= 7
        assert min(float(delta_e_2000(a, b)) for a, b in pairwise(srgb)) > 6
        lightness = [hex_oklch(colour)[0] for colour in palette.colours]
        assert lightness == sorted(lightness)


def test_the_same_question_has_the_same_answer() -> None:
    """Theme and seed decide; a larger n begins with the same palettes; another seed differs."""
    assert harmonies("sunset", 7, seed=5) == harmonies("sunset", 7, seed=5)
    assert harmonies("sunset", 12, seed=5)[:7] == harmonies("sunset", 7, seed=5)
    assert harmonies("sunset", 7, seed=5) != harmonies("sunset", 7, seed=6)
    assert harmonies(" Sunset ", 3) == harmonies("sunset", 3)


def test_seeds_never_change() -> None:
    """The hash is part of the promise "the same seed, the same bytes" across releases."""
    assert stable_seed("ocean", None) == stable_seed("ocean", "")
    assert stable_seed("a", "b") != stable_seed("ab")
    assert stable_seed("ocean") == 7683790299719641882


@pytest.mark.parametrize(
    ("theme", "expected"),
    [
        ("ocean teal and sand", ("#0b6e99", "#12858a", "#d9b77e", "#14a3a8", "#b98b56")),
        ("#ff6600 and #abc", ("#ff6600", "#aabbcc")),
        ("Navy & Gold", ("#1f3566", "#d4a52a", "#4a78b8", "#8c6418")),
        ("oceans", ("#0b6e99", "#14a3a8")),
        ("sandy", ("#d9b77e", "#b98b56")),
        ("rebeccapurple and tomato", ("#663399", "#ff6347")),
    ],
)
def test_themes_name_colours(theme: str, expected: tuple[str, ...]) -> None:
    """Hex codes, colour names and words are understood, each word's main colour first."""
    assert theme_colours(theme) == expected


@given(st.text(max_size=60))
def test_every_theme_has_two_colours(theme: str) -> None:
    """No words that mean a colour, or only one: neighbours fill up."""
    colours = theme_colours(theme)
    assert len(colours) >= 2
    assert all(parse_hex(colour) for colour in colours)


@pytest.mark.parametrize("theme", ["ocean teal and sand", "sunset", "forest", "lavender and mint"])
def test_the_first_palette_is_in_the_themes_hues(theme: str) -> None:
    """Each of the three middle colours lies within 30° of a hue that the theme names."""
    named = [hex_oklch(colour)[2] for colour in theme_colours(theme)]
    for colour in harmonies(theme, 1)[0].colours[1:4]:
        hue = hex_oklch(colour)[2]
        assert min(turn(hue, other) for other in named) < 30


def test_black_and_white_stays_grey() -> None:
    """A theme without colours gets greys, and accents at most."""
    first = harmonies("black and white", 1)[0]
    assert max(hex_oklch(colour)[1] for colour in first.colours) < 0.03


def test_a_mood_is_heard() -> None:
    """ "Pastel" makes the first palette lighter than "dark" does."""
    soft, deep = (harmonies(f"{mood} blue", 1)[0].colours for mood in ("pastel", "dark"))
    assert np.mean([hex_oklch(c)[0] for c in soft]) > np.mean([hex_oklch(c)[0] for c in deep]) + 0.1


@pytest.mark.parametrize(
    ("name", "colours", "reason"),
    [
        ("x", ("#000000", "notacolour"), "not a colour"),
        ("x", ("#000000",), "2 to 12"),
        ("x", tuple(f"#{i * 10:02x}0000" for i in range(13)), "2 to 12"),
        ("x", ("#000000", "#ffffff", "#fefefe"), "look alike"),
        ("x", ("#777777", "#999999"), "contrast"),
        (" ", ("#000000", "#ffffff"), "name"),
        ("x" * 81, ("#000000", "#ffffff"), "name"),
    ],
)
def test_a_bad_palette_cannot_be_made(name: str, colours: tuple[str, ...], reason: str) -> None:
    """The error says what is wrong with it."""
    with pytest.raises(ValueError, match=reason):
        Palette(name, colours)


def test_a_palette_is_normalised() -> None:
    """Short and upper-case hex codes become #rrggbb."""
    assert Palette("Ink", ("#FFF", "123456")).colours == ("#ffffff", "#123456")


def test_theme_words_are_sound() -> None:
    """Every word is lower case, has one to three valid colours; moods exist and are not colours."""
    for word, colours in THEME_WORDS.items():
        assert word == word.lower()
        assert 1 <= len(colours) <= 3
        assert all(parse_hex(colour) for colour in colours)
    assert set(MOOD_WORDS.values()) <= {"clear", "deep", "vivid", "dusty", "soft", "night"}
