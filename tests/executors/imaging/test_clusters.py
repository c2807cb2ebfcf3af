"""The clusters of a picture are the colours a person would name, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from executors.imaging.clusters import MAX_CLUSTERS, find_clusters
from executors.imaging.colour import delta_e_2000, format_hex, hex_srgb, srgb_to_oklab
from tests.executors.imaging.pictures import LOGOS, edge, jpeg, logo, ramp


def colours(image: Image.Image) -> set[str]:
    """The clusters as hex."""
    return {format_hex(colour) for colour in find_clusters(image).colours}


@pytest.mark.parametrize("name", LOGOS)
def test_a_flat_logo_has_its_colours_and_no_others(name: str) -> None:
    """Every colour of the drawing is found to the level; no antialiased pixel becomes one."""
    assert colours(logo(LOGOS[name])) == set(LOGOS[name])


@pytest.mark.parametrize("size", [(1, 1), (2, 7), (3, 3), (16, 300), (1000, 20)])
def test_any_size_works(size: tuple[int, int]) -> None:
    """Pictures smaller than a sample's neighbourhood, and very long ones, are no special case."""
    assert colours(Image.new("RGB", size, "#336699")) == {"#336699"}


def test_clusters_go_from_dark_to_light_and_shares_add_up() -> None:
    """The order is OKLab lightness; the shares are areas."""
    found = find_clusters(edge("#ffffff", "#c8643f"))
    assert np.all(np.diff(srgb_to_oklab(found.colours)[:, 0]) > 0)
    assert found.shares.sum() == pytest.approx(1)
    assert found.shares == pytest.approx([0.5, 0.5], abs=0.03)


def test_neighbours_are_counted() -> None:
    """A disc in a ring in a field: the disc never touches the field."""
    image = Image.new("RGB", (1200, 1200), "#ffffff")
    draw = ImageDraw.Draw(image)
    draw.ellipse((200, 200, 1000, 1000), fill="#000000")
    draw.ellipse((400, 400, 800, 800), fill="#cc2222")
    found = find_clusters(image.reduce(4))
    black, red, white = range(3)
    assert found.touching[black, red] > 0
    assert found.touching[black, white] > 0
    assert found.touching[red, white] == 0
    assert np.array_equal(found.touching, found.touching.T)


def test_a_small_region_counts() -> None:
    """An eye of a thousandth of the picture is a colour of its own."""
    image = Image.new("RGB", (1024, 1024), "#f4efe6")
    ImageDraw.Draw(image).ellipse((500, 500, 536, 536), fill="#c21838")
    assert colours(image) == {"#f4efe6", "#c21838"}


def test_close_flat_regions_stay_two() -> None:
    """Two regions that a person just tells apart are two clusters."""
    near = ("#4a6a8a", "#52749a")
    assert 3 < float(delta_e_2000(*hex_srgb(near))) < 6
    assert colours(edge(*near)) == set(near)


def test_noise_does_not_multiply_colours() -> None:
    """A logo that went through JPEG has as many clusters as before, and close to them."""
    names = LOGOS["two colours"]
    found = find_clusters(jpeg(logo(names)))
    assert len(found) == 2
    assert delta_e_2000(found.colours, hex_srgb(sorted(names))).max() < 1


def test_a_gradient_has_few_clusters() -> None:
    """A gradient over half of all lightness is a handful of widely spaced colours."""
    found = find_clusters(ramp("#0b3d91", "#ffffff"))
    assert 1 <= len(found) <= 5
    lab = srgb_to_oklab(found.colours)
    assert np.linalg.norm(np.diff(lab, axis=0), axis=1).min() > 0.1


def test_a_faint_gradient_is_one_cluster() -> None:
    """Shading within one region does not split it."""
    assert len(find_clusters(ramp("#3a6ea5", "#4676ad"))) == 1


def test_transparent_pixels_have_no_colour() -> None:
    """What is under full transparency is not looked at; a wholly transparent picture has none."""
    image = Image.new("RGBA", (64, 64), (255, 0, 255, 0))
    assert len(find_clusters(image)) == 0
    image.paste((20, 120, 200, 255), (10, 10, 50, 50))
    assert colours(image) == {"#1478c8"}


def test_grain_everywhere_still_gives_an_idea() -> None:
    """A picture without a single flat pixel gets clusters, and not too many."""
    chance = np.random.default_rng(3)
    noise = Image.fromarray(chance.integers(0, 256, (128, 128, 3)).astype(np.uint8))
    assert 1 <= len(find_clusters(noise)) <= MAX_CLUSTERS


def test_more_colours_than_the_limit_keep_the_largest() -> None:
    """Of twenty flat stripes the limit is kept."""
    image = Image.new("RGB", (400, 100))
    draw = ImageDraw.Draw(image)
    for at in range(20):
        shade = (at * 47 % 256, at * 91 % 256, at * 139 % 256)
        draw.rectangle((at * 20, 0, at * 20 + 19, 99), fill=shade)
    assert len(find_clusters(image)) == MAX_CLUSTERS
