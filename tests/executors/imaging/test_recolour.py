"""Recoloured pictures look right: exact regions, clean edges, smooth gradients, untouched alpha."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from executors.imaging.clusters import Clusters
from executors.imaging.colour import (
    Floats,
    delta_e_2000,
    format_hex,
    hex_srgb,
    luminance,
    parse_hex,
    srgb_to_oklab,
)
from executors.imaging.palettes import harmonies
from executors.imaging.recolour import Artwork, assign, palette_lut, share_cube
from tests.executors.imaging.pictures import (
    LOGOS,
    PALETTES,
    edge,
    jpeg,
    known_logo,
    logo,
    ramp,
    srgb,
    where,
)

ALL = [(name, palette) for name in LOGOS for palette in PALETTES]


@cache
def artwork_of(name: str) -> Artwork:
    """One of the logos, with its clusters, which every palette shares."""
    return Artwork.of(known_logo(name))


def targets_by_colour(artwork: Artwork, palette: tuple[str, ...]) -> dict[str, Floats]:
    """Original colour → the colour it is promised to become."""
    targets = assign(artwork.clusters, palette)
    return {format_hex(c): t for c, t in zip(artwork.clusters.colours, targets, strict=True)}


# --- regions -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "palette"), ALL)
def test_every_region_gets_its_colour(name: str, palette: str) -> None:
    """Every pixel of every flat region is within ΔE2000 1 of its colour (5 are promised)."""
    image, artwork = known_logo(name), artwork_of(name)
    result = srgb(artwork.in_palette(PALETTES[palette]))
    for colour, target in targets_by_colour(artwork, PALETTES[palette]).items():
        assert delta_e_2000(result[where(image, colour)], target).max() < 1


@pytest.mark.parametrize(("name", "palette"), ALL)
def test_regions_stay_distinct(name: str, palette: str) -> None:
    """Any two regions still differ at a glance, also where there are more of them than colours."""
    image = known_logo(name)
    result = srgb(artwork_of(name).in_palette(PALETTES[palette]))
    means = [result[where(image, colour)].mean(axis=0) for colour in LOGOS[name]]
    apart = min(float(delta_e_2000(a, b)) for a, b in combinations(means, 2))
    assert apart > 5


@pytest.mark.parametrize(("name", "palette"), ALL)
def test_lightness_keeps_its_order(name: str, palette: str) -> None:
    """What was lighter is not darker afterwards."""
    artwork = artwork_of(name)
    lightness = srgb_to_oklab(assign(artwork.clusters, PALETTES[palette]))[:, 0]
    assert np.all(np.diff(lightness) > -1e-5)


def test_colours_are_used_once() -> None:
    """With enough colours, every region gets one of the palette's own, and no two the same."""
    artwork = Artwork.of(logo(LOGOS["five colours"]))
    given_out = [format_hex(target) for target in assign(artwork.clusters, PALETTES["sea"])]
    assert sorted(given_out) == sorted(PALETTES["sea"])


def test_white_becomes_the_whitest_exactly() -> None:
    """A pure white of the palette is #ffffff in the picture, and black #000000: no grey veil."""
    image = edge("#f4efe6", "#24406a")
    result = np.asarray(Artwork.of(image).in_palette(["#ffffff", "#000000"]))
    assert (result[where(image, "#f4efe6")] == 255).all()
    assert (result[where(image, "#24406a")] == 0).all()


def test_a_picture_of_one_colour_takes_one() -> None:
    """No edges, no neighbours: still recoloured."""
    result = Artwork.of(Image.new("RGB", (40, 40), "#808080")).in_palette(PALETTES["sea"])
    assert result.getcolors() == [(1600, parse_hex("#0077b6"))]


def test_one_colour_for_many_regions_keeps_them_apart() -> None:
    """A palette of a single colour tints; lightness tells the regions apart."""
    image = logo(LOGOS["one hue"])
    result = srgb(Artwork.of(image).in_palette(["#b8336a"]))
    means = [result[where(image, colour)].mean(axis=0) for colour in LOGOS["one hue"]]
    assert min(float(delta_e_2000(a, b)) for a, b in combinations(means, 2)) > 5


@given(
    st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=1, max_size=12, unique=True),
    st.integers(0, 10_000),
)
def test_assignment_promises(levels: list[tuple[int, int, int]], seed: int) -> None:
    """For any clusters and any palette: in order of lightness, one to one while colours last."""
    colours: Floats = np.array(levels, np.float32) / np.float32(255)
    colours = colours[np.argsort(srgb_to_oklab(colours)[:, 0])]
    k = len(colours)
    shares = np.random.default_rng(seed).random(k).astype(np.float32)
    clusters = Clusters(colours, shares, np.ones((k, k), np.int64))
    palette = harmonies("theme", 1, seed=seed)[0].colours
    targets = assign(clusters, palette)
    given_out = {format_hex(target) for target in targets}
    assert np.all(np.diff(srgb_to_oklab(targets)[:, 0]) > -1e-4)
    assert len(given_out) == k
    assert len(given_out & set(palette)) == min(k, len(palette))


def test_no_palette_is_an_error() -> None:
    """An empty palette is a mistake of the caller, told at once."""
    with pytest.raises(ValueError, match="at least one"):
        Artwork.of(edge("#fff", "#000")).in_palette([])


# --- edges ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("palette", PALETTES)
@pytest.mark.parametrize(
    "pair",
    [
        ("#ffffff", "#000000"),
        ("#e63946", "#457b9d"),
        ("#ffff00", "#0000ff"),
        ("#f4efe6", "#e8dcc8"),
    ],
    ids="-".join,
)
def test_an_antialiased_edge_becomes_the_same_blend(pair: tuple[str, str], palette: str) -> None:
    """A pixel that was t of A and 1 - t of B is t of A' and 1 - t of B', within a few levels."""
    image = edge(*pair)
    artwork = Artwork.of(image)
    targets = targets_by_colour(artwork, PALETTES[palette])
    first, second = (hex_srgb([colour])[0] for colour in pair)
    way = second - first
    t = (srgb(image) - first) @ way / (way @ way)
    blended = targets[pair[0]] + t[..., None] * (targets[pair[1]] - targets[pair[0]])
    error = np.abs(srgb(artwork.in_palette(PALETTES[palette])) - blended).max()
    plateau = 4 / 255 / float(np.linalg.norm(way))  # around each colour, where noise is calmed
    reach = float(np.abs(targets[pair[1]] - targets[pair[0]]).max())
    assert error < 3 / 255 + min(0.25, plateau) * 1.2 * reach


def beyond_neighbours(image: Image.Image, flat: NDArray[np.bool_]) -> NDArray[np.float64]:
    """How far each pixel's luminance lies outside of that of the flat pixels within two pixels."""
    levels = luminance(srgb(image)) * 255
    upper = Image.fromarray(np.where(flat, levels, 0).astype(np.uint8)).filter(
        ImageFilter.MaxFilter(5)
    )
    lower = Image.fromarray(np.where(flat, levels, 255).astype(np.uint8)).filter(
        ImageFilter.MinFilter(5)
    )
    high, low = np.asarray(upper, float), np.asarray(lower, float)
    known = high >= low  # some flat pixel is near
    return np.where(known, np.maximum(np.maximum(levels - high - 1, low - levels), 0), 0)


@pytest.mark.parametrize(("name", "palette"), ALL)
def test_no_seams_along_edges(name: str, palette: str) -> None:
    """No edge pixel is darker or brighter than both sides, unless it was so before.

    Tolerance: 12 of 255 in linear luminance, for all but 1 in 200 edge pixels (where three regions
    meet within one pixel, the palette's colours may well leave the range of two of them).
    """
    image = known_logo(name)
    flat = np.any([where(image, colour) for colour in LOGOS[name]], axis=0)
    before = beyond_neighbours(image, flat)
    after = beyond_neighbours(artwork_of(name).in_palette(PALETTES[palette]), flat)
    edges = ~flat & (before < 4)
    assert np.mean(after[edges] > 12) < 0.005


def test_a_third_colour_on_the_line_is_passed_in_order() -> None:
    """White to black through a flat grey: luminance falls all the way in every palette."""
    picture = Image.new("RGB", (300, 100))
    picture.paste(ramp("#ffffff", "#000000", width=100, height=100), (0, 0))
    picture.paste("#808080", (100, 0, 200, 100))
    picture.paste("#ffffff", (200, 0, 250, 100))
    artwork = Artwork.of(picture)
    for palette in PALETTES.values():
        row = luminance(srgb(artwork.in_palette(palette))[50, :100])
        assert np.diff(row).max() < 4 / 255


# --- gradients and grain -------------------------------------------------------------------------


@pytest.mark.parametrize("palette", PALETTES)
@pytest.mark.parametrize(
    "ends",
    [
        ("#0b3d91", "#ffffff"),
        ("#2b1055", "#ff9e5e"),
        ("#101010", "#f0f0f0"),
        ("#3a6ea5", "#4676ad"),
    ],
    ids="-".join,
)
def test_gradients_stay_smooth(ends: tuple[str, str], palette: str) -> None:
    """No step of a recoloured gradient jumps: at most 6 levels where the input has 1.

    Second differences measure banding: those of the input are 2 (rounding); 6 are allowed.
    """
    row = np.asarray(Artwork.of(ramp(*ends)).in_palette(PALETTES[palette]))[10].astype(int)
    assert np.abs(np.diff(row, axis=0)).max() <= 6
    assert np.abs(np.diff(row, n=2, axis=0)).max() <= 6


@pytest.mark.parametrize("palette", PALETTES)
def test_gradients_keep_their_direction(palette: str) -> None:
    """A gradient from dark to light gets lighter all the way."""
    row = srgb(Artwork.of(ramp("#0b3d91", "#ffffff")).in_palette(PALETTES[palette]))[10]
    assert np.diff(srgb_to_oklab(row)[:, 0]).min() > -0.006


def test_grain_is_not_amplified() -> None:
    """The noise of a JPEG in a flat region is no larger than before."""
    image = jpeg(logo(LOGOS["two colours"], seed=4), quality=80)
    clean = where(logo(LOGOS["two colours"], seed=4), "#ffffff")
    inner = np.asarray(Image.fromarray(clean).filter(ImageFilter.MinFilter(19)))
    result = Artwork.of(image).in_palette(PALETTES["sea"])
    assert srgb(result)[inner].std(axis=0).max() <= srgb(image)[inner].std(axis=0).max() + 1 / 255


def test_small_accents_survive() -> None:
    """A dot too small to be a cluster remains visible in its surroundings."""
    image = Image.new("RGB", (1024, 1024), "#24406a")
    image.paste("#f4efe6", (0, 0, 512, 1024))
    image.paste("#e63946", (700, 500, 704, 504))
    result = srgb(Artwork.of(image).in_palette(PALETTES["greens"]))
    assert float(delta_e_2000(result[502, 702], result[502, 900])) > 10


# --- alpha, threads, odds ------------------------------------------------------------------------


def test_alpha_is_kept_to_the_bit() -> None:
    """Soft edges of transparency, and colour under full transparency, do not disturb."""
    picture = logo(LOGOS["five colours"], side=200).convert("RGBA")
    alpha = Image.linear_gradient("L").resize(picture.size)
    picture.putalpha(alpha)
    result = Artwork.of(picture).in_palette(PALETTES["sea"])
    assert result.mode == "RGBA"
    assert result.getchannel("A").tobytes() == alpha.tobytes()


def test_colours_under_half_transparency_are_recoloured() -> None:
    """A half transparent region is a region."""
    picture = Image.new("RGBA", (60, 60), (0, 0, 0, 0))
    picture.paste((200, 30, 40, 128), (10, 10, 50, 50))
    result = Artwork.of(picture).in_palette(["#0077b6"])
    assert result.getpixel((30, 30)) == (*parse_hex("#0077b6"), 128)
    assert result.getpixel((0, 0))[3] == 0  # type: ignore[index]  # a pixel of RGBA is a tuple


def test_nothing_opaque_is_left_as_it_is() -> None:
    """A wholly transparent picture has no colours to change."""
    picture = Image.new("RGBA", (20, 20), (10, 20, 30, 0))
    assert Artwork.of(picture).in_palette(PALETTES["sea"]).tobytes() == picture.tobytes()


def test_threads_do_not_disturb_each_other() -> None:
    """Many palettes at once give what they give one by one."""
    artwork = Artwork.of(logo(LOGOS["eight colours"], side=200))
    palettes = [palette.colours for palette in harmonies("sea", 8)]
    with ThreadPoolExecutor(4) as pool:
        together = [image.tobytes() for image in pool.map(artwork.in_palette, palettes * 3)]
    assert together == [artwork.in_palette(colours).tobytes() for colours in palettes] * 3
    assert len(set(together)) == len(palettes)


@given(st.lists(st.tuples(*[st.integers(0, 15)] * 3), min_size=1, max_size=12, unique=True))
def test_any_clusters_give_a_sound_lut(levels: list[tuple[int, int, int]]) -> None:
    """Weights are shares, the LUT stays in 0…1, and each cluster's colour is exact in it."""
    colours: Floats = np.array(levels, np.float32) * np.float32(17 / 255)
    colours = colours[np.argsort(srgb_to_oklab(colours)[:, 0])]
    k = len(colours)
    touching = np.random.default_rng(k).integers(0, 2, (k, k))
    clusters = Clusters(colours, np.full(k, 1 / k, np.float32), touching | touching.T)
    cube = share_cube(clusters)
    assert cube.weights.sum(axis=1) == pytest.approx(1, abs=1e-4)
    assert cube.weights.min() >= 0
    palette = PALETTES["sea"]
    lut = palette_lut(clusters, cube, palette)
    table = np.asarray(lut.table)
    assert np.isfinite(table).all()
    assert table.min() >= 0
    assert table.max() <= 1
    strip = Image.fromarray(np.rint(colours * 255).astype(np.uint8)[None])
    assert delta_e_2000(srgb(strip.filter(lut))[0], assign(clusters, palette)).max() < 5
