"""Colour spaces, differences and contrast agree with their published definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from executors.imaging.colour import (
    contrast,
    delta_e_2000,
    delta_e_lab_2000,
    delta_e_ok,
    fit_gamut,
    format_hex,
    hex_oklch,
    hex_srgb,
    linear_to_srgb,
    luminance,
    oklab_to_oklch,
    oklab_to_srgb,
    oklch_hex,
    oklch_to_oklab,
    parse_hex,
    srgb_to_lab,
    srgb_to_linear,
    srgb_to_oklab,
)

levels = st.tuples(*[st.integers(0, 255)] * 3)

#: Sharma, Wu and Dalal 2005, table 1: L, a, b of two colours and their CIEDE2000.
SHARMA = [
    (50.0000, 2.6772, -79.7751, 50.0000, 0.0000, -82.7485, 2.0425),
    (50.0000, 3.1571, -77.2803, 50.0000, 0.0000, -82.7485, 2.8615),
    (50.0000, 2.8361, -74.0200, 50.0000, 0.0000, -82.7485, 3.4412),
    (50.0000, -1.3802, -84.2814, 50.0000, 0.0000, -82.7485, 1.0000),
    (50.0000, -1.1848, -84.8006, 50.0000, 0.0000, -82.7485, 1.0000),
    (50.0000, -0.9009, -85.5211, 50.0000, 0.0000, -82.7485, 1.0000),
    (50.0000, 0.0000, 0.0000, 50.0000, -1.0000, 2.0000, 2.3669),
    (50.0000, -1.0000, 2.0000, 50.0000, 0.0000, 0.0000, 2.3669),
    (50.0000, 2.4900, -0.0010, 50.0000, -2.4900, 0.0009, 7.1792),
    (50.0000, 2.4900, -0.0010, 50.0000, -2.4900, 0.0010, 7.1792),
    (50.0000, 2.4900, -0.0010, 50.0000, -2.4900, 0.0011, 7.2195),
    (50.0000, 2.4900, -0.0010, 50.0000, -2.4900, 0.0012, 7.2195),
    (50.0000, -0.0010, 2.4900, 50.0000, 0.0009, -2.4900, 4.8045),
    (50.0000, -0.0010, 2.4900, 50.0000, 0.0010, -2.4900, 4.8045),
    (50.0000, -0.0010, 2.4900, 50.0000, 0.0011, -2.4900, 4.7461),
    (50.0000, 2.5000, 0.0000, 50.0000, 0.0000, -2.5000, 4.3065),
    (50.0000, 2.5000, 0.0000, 73.0000, 25.0000, -18.0000, 27.1492),
    (50.0000, 2.5000, 0.0000, 61.0000, -5.0000, 29.0000, 22.8977),
    (50.0000, 2.5000, 0.0000, 56.0000, -27.0000, -3.0000, 31.9030),
    (50.0000, 2.5000, 0.0000, 58.0000, 24.0000, 15.0000, 19.4535),
    (50.0000, 2.5000, 0.0000, 50.0000, 3.1736, 0.5854, 1.0000),
    (50.0000, 2.5000, 0.0000, 50.0000, 3.2972, 0.0000, 1.0000),
    (50.0000, 2.5000, 0.0000, 50.0000, 1.8634, 0.5757, 1.0000),
    (50.0000, 2.5000, 0.0000, 50.0000, 3.2592, 0.3350, 1.0000),
    (60.2574, -34.0099, 36.2677, 60.4626, -34.1751, 39.4387, 1.2644),
    (63.0109, -31.0961, -5.8663, 62.8187, -29.7946, -4.0864, 1.2630),
    (61.2901, 3.7196, -5.3901, 61.4292, 2.2480, -4.9620, 1.8731),
    (35.0831, -44.1164, 3.7933, 35.0232, -40.0716, 1.5901, 1.8645),
    (22.7233, 20.0904, -46.6940, 23.0331, 14.9730, -42.5619, 2.0373),
    (36.4612, 47.8580, 18.3852, 36.2715, 50.5065, 21.2231, 1.4146),
    (90.8027, -2.0831, 1.4410, 91.1528, -1.6435, 0.0447, 1.4441),
    (90.9257, -0.5406, -0.9208, 88.6381, -0.8985, -0.7239, 1.5381),
    (6.7747, -0.2908, -2.4247, 5.8714, -0.0985, -2.2286, 0.6377),
    (2.0776, 0.0795, -1.1350, 0.9033, -0.0636, -0.5514, 0.9082),
]


@pytest.mark.parametrize("row", SHARMA)
def test_ciede2000_agrees_with_the_published_pairs(row: tuple[float, ...]) -> None:
    """Every pair of the paper comes out as printed, in both directions."""
    first, second, expected = row[0:3], row[3:6], row[6]
    assert delta_e_lab_2000(first, second) == pytest.approx(expected, abs=5e-5)
    assert delta_e_lab_2000(second, first) == pytest.approx(expected, abs=5e-5)


@given(levels)
def test_oklab_and_back_is_the_same_colour(level: tuple[int, int, int]) -> None:
    """SRGB → linear → OKLab → OKLCH → OKLab → sRGB loses less than a hundredth of a level."""
    colour = np.array(level, np.float32) / 255
    lab = oklch_to_oklab(oklab_to_oklch(srgb_to_oklab(colour)))
    assert np.abs(oklab_to_srgb(lab) - colour).max() < 2e-3
    assert np.abs(linear_to_srgb(srgb_to_linear(colour)) - colour).max() < 1e-5


@given(levels)
def test_hex_and_back_is_the_same_text(level: tuple[int, int, int]) -> None:
    """Formatting what was parsed gives the text again."""
    text = "#{:02x}{:02x}{:02x}".format(*level)
    assert format_hex(hex_srgb([text])[0]) == text
    assert parse_hex(text.upper().lstrip("#")) == level


def test_short_hex_means_doubled_digits() -> None:
    """#abc is #aabbcc."""
    assert parse_hex("#abc") == (0xAA, 0xBB, 0xCC)


@pytest.mark.parametrize("text", ["", "#12", "#12345", "#ggg", "red", "#1234567", "##123456"])
def test_what_is_no_colour_says_so(text: str) -> None:
    """The error names the text and shows how to write a colour."""
    with pytest.raises(ValueError, match="write #rrggbb"):
        parse_hex(text)


def test_oklab_of_known_colours() -> None:
    """White, black and the primaries lie where Ottosson's reference puts them."""
    white, black, red = srgb_to_oklab(hex_srgb(["#ffffff", "#000000", "#ff0000"]))
    assert white == pytest.approx([1, 0, 0], abs=1e-3)
    assert black == pytest.approx([0, 0, 0], abs=1e-6)
    assert red == pytest.approx([0.62796, 0.22486, 0.12585], abs=1e-3)


def test_lab_of_known_colours() -> None:
    """White is L* 100 without colour; the sRGB red is (53.24, 80.09, 67.20)."""
    white, red = srgb_to_lab(hex_srgb(["#ffffff", "#ff0000"]))
    assert white == pytest.approx([100, 0, 0], abs=0.02)
    assert red == pytest.approx([53.24, 80.09, 67.20], abs=0.05)


def test_contrast_is_the_one_of_wcag() -> None:
    """Black on white is 21, #777 on white just misses 4.5, and order does not matter."""
    white, black, grey = hex_srgb(["#fff", "#000", "#777777"])
    assert contrast(white, black) == pytest.approx(21, abs=1e-3)
    assert contrast(grey, white) == pytest.approx(4.48, abs=0.01)
    assert contrast(white, grey) == contrast(grey, white)
    assert luminance(white) == pytest.approx(1, abs=1e-5)


@given(st.floats(0, 1), st.floats(0, 0.4), st.floats(0, 360))
def test_reducing_chroma_reaches_the_gamut_and_keeps_hue(
    lightness: float, chroma: float, hue: float
) -> None:
    """Any lightness, chroma and hue becomes a colour of sRGB with that lightness and hue."""
    fitted = fit_gamut([lightness, chroma, hue])
    srgb = oklab_to_srgb(oklch_to_oklab(fitted))
    assert srgb.min() >= -2e-3
    assert srgb.max() <= 1 + 2e-3
    assert fitted[0] == pytest.approx(lightness, abs=1e-5)
    assert fitted[2] == pytest.approx(hue, abs=1e-3)
    assert fitted[1] <= np.float32(chroma)


@given(levels)
def test_colours_of_srgb_are_left_alone(level: tuple[int, int, int]) -> None:
    """What already is in the gamut keeps its chroma."""
    text = "#{:02x}{:02x}{:02x}".format(*level)
    assert float(delta_e_2000(hex_srgb([oklch_hex(*hex_oklch(text))]), hex_srgb([text]))[0]) < 0.6


@given(levels, levels)
def test_differences_are_symmetric_and_zero_only_for_equals(
    one: tuple[int, int, int], two: tuple[int, int, int]
) -> None:
    """Both differences are symmetric, never negative, and tell unequal colours apart."""
    first, second = np.array(one, np.float32) / 255, np.array(two, np.float32) / 255
    for measure in (delta_e_2000, delta_e_ok):
        there, back = float(measure(first, second)), float(measure(second, first))
        assert there == pytest.approx(back, abs=1e-5)
        assert (there == 0) == (one == two)


def test_differences_broadcast() -> None:
    """A table of all pairs is one call."""
    colours = hex_srgb(["#000", "#fff", "#f00"])
    table = delta_e_2000(colours[:, None], colours[None])
    assert table.shape == (3, 3)
    assert np.diag(table).max() == 0
