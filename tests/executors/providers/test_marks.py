"""The parts of a mark: geometry that holds, motifs within their circle, words that find them."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from executors.imaging.colour import contrast, hex_srgb
from executors.providers.offline.marks.compositions import FRAMES, compose
from executors.providers.offline.marks.inks import Inks, colours_of, inks_on
from executors.providers.offline.marks.motifs import MOTIFS, SIGNS, motifs_for
from executors.providers.offline.marks.motifs.kinds import Motif
from executors.providers.offline.marks.raster import paint
from executors.providers.offline.marks.shapes import (
    Shape,
    area,
    box,
    circle,
    clipped,
    crescent,
    moved,
    path,
    petal,
    regular,
    star,
)

INK = Inks("#111111", "#222222", "#333333", "#eeeeee")


def name(motif: Motif) -> str:
    """What the motif's function is called."""
    return motif.draw.__name__


@pytest.mark.parametrize("seed", range(2))
def test_a_motif_is_drawn_in_three_inks_at_most_and_fits(seed: int) -> None:
    """Finite, near the unit circle, in the inks it was given, two of them at least."""
    for motif in MOTIFS:
        shapes = motif.draw(INK, Random(seed))
        points = np.vstack([shape.outline for shape in shapes])
        assert np.isfinite(points).all(), name(motif)
        assert 0.75 < np.hypot(*points.T).max() < 1.45, name(motif)
        inks = {shape.ink for shape in shapes}
        assert inks <= set(INK), name(motif)
        assert len(inks) >= 2, name(motif)


def test_a_motif_is_the_same_for_the_same_chances() -> None:
    """Nothing but the chances varies it."""
    for motif in MOTIFS:
        first, second = (motif.draw(INK, Random(9)) for _ in range(2))
        outlines = zip(first, second, strict=True)
        assert all(np.array_equal(a.outline, b.outline) for a, b in outlines), name(motif)


@pytest.mark.parametrize("frame", FRAMES)
def test_every_frame_stays_on_the_picture(frame: str) -> None:
    """No frame reaches the edge of the picture, with any of three motifs."""
    colours = colours_of("ocean and sand")
    for motif in MOTIFS[::25]:
        only = {frame: FRAMES[frame]}
        for seed in range(2):
            mark = _framed(motif, colours, seed, only)
            assert max(float(np.abs(s.outline).max()) for s in mark) < 1


def _framed(motif: Motif, colours: object, seed: int, only: Mapping[str, object]) -> list[Shape]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("executors.providers.offline.marks.compositions.FRAMES", only)
        patch.setattr("executors.providers.offline.marks.compositions._BACKDROPS", (lambda _: [],))
        return compose(motif._replace(repeats=True), colours, Random(seed)).shapes  # type: ignore[arg-type]  # any Colours


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        ("a mountain lodge", "mountain"),
        ("Coffee Roasters", "cup"),
        ("coffee", "cup"),
        ("law firm", "scales"),
        ("Bakeries of the town: bakery", "wheat"),
        ("solar energy", "sun"),
    ],
)
def test_words_find_their_motif(subject: str, expected: str) -> None:
    """The subject's own words, in singular or plural, decide what is drawn."""
    assert name(motifs_for(subject)[0]) == expected


def test_unknown_words_find_none_and_are_drawn_as_signs() -> None:
    """No motif is guessed for a name."""
    assert motifs_for("Kowalski 1923 Žluťoučký 漢字") == []
    assert len(SIGNS) > 8


def test_words_are_lower_case_and_singular_enough() -> None:
    """A word that the search would have turned into another could never be found."""
    for motif in MOTIFS:
        assert motif.words == motif.words.lower()


@pytest.mark.parametrize(
    "theme", ["ocean teal and sand", "black and white", "cream", "#000", "#fff", "", "navy", "neon"]
)
def test_inks_can_be_seen_on_every_ground(theme: str) -> None:
    """On paper, ink and each brand colour, the main ink is legible and the three are distinct."""
    colours = colours_of(theme)
    for ground in (colours.paper, colours.ink, *colours.brand):
        inks = inks_on(ground, colours)
        assert len({inks.main, inks.second, inks.accent, ground}) == 4
        assert float(contrast(*hex_srgb([inks.main, ground]))) > 2


def test_named_colours_are_used_as_named() -> None:
    """A theme of three hex codes is drawn in these."""
    assert colours_of("#1f6fb5 #e8b04a #c2583a").brand == ("#1f6fb5", "#e8b04a", "#c2583a")


@given(st.floats(0.1, 0.9), st.floats(0.1, 0.9), st.floats(0, 360))
def test_clipping_never_adds_area(x: float, radius: float, turn: float) -> None:
    """What is cut lies within both; the parts on either side of a line add up to the whole."""
    shape = moved(star(5, 1, 0.5), x, 0, turn=turn)
    frame = circle(0, 0, radius)
    cut = clipped(shape, frame)
    if len(cut):
        assert np.hypot(*cut.T).max() <= radius + 1e-9
        assert area(cut) <= min(area(shape), area(frame)) + 1e-9
    halves = [clipped(shape, box(-3, -3, x, 3)), clipped(shape, box(x, -3, 3, 3))]
    assert sum(area(half) for half in halves if len(half)) == pytest.approx(area(shape), rel=1e-6)


def test_shapes_have_their_areas() -> None:
    """Disc, hexagon, petal and crescent measure what geometry says."""
    assert area(circle()) == pytest.approx(np.pi, rel=2e-3)
    assert area(regular(6)) == pytest.approx(3 * np.sqrt(3) / 2)
    # Two unit circles through each other's centres share 2π/3 - √3/2.
    assert area(petal(np.sqrt(3), 1)) == pytest.approx(2 * np.pi / 3 - np.sqrt(3) / 2, rel=2e-3)
    lens = 2 * np.pi / 3 - np.sqrt(3) / 2
    assert area(crescent(1, 1, 1)) == pytest.approx(np.pi - lens, rel=5e-3)


def test_paths_are_svg() -> None:
    """Lines keep their points; a cubic curve ends where it says and stays in its hull."""
    assert path("M 0 0 L 1 0 L 1 1").tolist() == [[0, 0], [1, 0], [1, 1]]
    curve = path("M -1 0 C -1 -.5 1 -.5 1 0")
    assert curve[-1].tolist() == [1, 0]
    assert curve[:, 1].min() > -0.5


@pytest.mark.parametrize("size", [64, 300, 600])
def test_painting_in_bands_leaves_no_trace(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the picture is cut into bands, it is the same picture."""
    shapes = [Shape("#c02040", circle(0.1, -0.2, 0.7)), Shape("#20a0c0", star(7))]
    whole = paint(shapes, ground="#ffffff", size=size)
    monkeypatch.setattr("executors.providers.offline.marks.raster._ROWS", 32)
    assert paint(shapes, ground="#ffffff", size=size).tobytes() == whole.tobytes()
