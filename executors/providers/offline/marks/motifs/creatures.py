"""Animals, faces, hearts and eyes."""

from __future__ import annotations

__all__ = ["CREATURES"]

from random import Random

import numpy as np

from executors.providers.offline.marks.inks import Inks
from executors.providers.offline.marks.motifs.kinds import Motif
from executors.providers.offline.marks.shapes import (
    Outline,
    Shape,
    arc,
    box,
    circle,
    clipped,
    ellipse,
    flipped,
    moved,
    path,
    petal,
    polygon,
    stroke,
)


def _both(ink: str, right: Outline, left_ink: str | None = None) -> list[Shape]:
    return [Shape(left_ink or ink, flipped(right)), Shape(ink, right)]


def bird(ink: Inks, chance: Random) -> list[Shape]:
    """A bird folded of paper, wings up."""
    shapes = [
        Shape(ink.accent, polygon((-0.5, 0.1), (-1.0, 0.52), (-0.12, 0.44))),
        Shape(ink.second, polygon((0.06, 0.16), (-0.1, -0.95), (-0.58, 0.2))),
        Shape(ink.main, polygon((-0.58, 0.2), (0.5, -0.06), (0.02, 0.62))),
        Shape(ink.accent, polygon((0.12, 0.04), (0.42, -0.92), (0.44, 0.1), (0.1, 0.36))),
        Shape(ink.main, polygon((0.12, 0.04), (0.42, -0.92), (-0.12, -0.2), (-0.2, 0.3))),
        Shape(ink.second, polygon((0.5, -0.06), (0.72, -0.24), (0.66, 0.06), (0.3, 0.3))),
        Shape(ink.accent, polygon((0.72, -0.24), (1.0, -0.1), (0.69, -0.06))),
    ]
    return (
        shapes
        if chance.random() < 0.6
        else [s._replace(outline=flipped(s.outline)) for s in shapes]
    )


def dove(ink: Inks, chance: Random) -> list[Shape]:
    """A bird of quarter circles."""
    body = np.vstack([arc(0.1, -0.1, 0.72, 0, 180), polygon((-0.62, -0.1))])
    head = circle(0.56, -0.32, 0.27)
    wing = np.vstack([polygon((-0.5, -0.1)), arc(-0.5, -0.1, 0.78, -90, 0)])
    tail = polygon((-0.62, -0.1), (-1.02, -0.1), (-0.6, 0.3))
    beak = polygon((0.8, -0.42), (1.06, -0.28), (0.8, -0.2))
    shapes = [
        Shape(ink.second, tail),
        Shape(ink.main, body),
        Shape(ink.main, head),
        Shape(ink.accent, beak),
        Shape(ink.second, wing),
        Shape(ink.ground, circle(0.62, -0.38, 0.06)),
    ]
    return (
        shapes
        if chance.random() < 0.6
        else [s._replace(outline=flipped(s.outline)) for s in shapes]
    )


def owl(ink: Inks, _: Random) -> list[Shape]:
    """An owl with large eyes."""
    body = path(
        "M -.7 -.9 C -.4 -.68 .4 -.68 .7 -.9 C .84 -.3 .84 .5 0 1 C -.84 .5 -.84 -.3 -.7 -.9"
    )
    belly = path("M 0 .0 C .5 .1 .5 .6 0 .9 C -.5 .6 -.5 .1 0 .0")
    eyes = [
        (0.34, -0.32, 0.33, ink.second),
        (0.34, -0.32, 0.24, ink.ground),
        (0.32, -0.32, 0.13, ink.main),
    ]
    shapes = [Shape(ink.main, body), Shape(ink.second, belly)]
    for x, y, r, tone in eyes:
        shapes += _both(tone, circle(x, y, r))
    return [*shapes, Shape(ink.accent, polygon((-0.13, -0.2), (0.13, -0.2), (0, 0.1)))]


def fox(ink: Inks, _: Random) -> list[Shape]:
    """A fox's face in facets."""
    ear = polygon((0.2, -0.4), (0.86, -0.95), (0.88, -0.1))
    inner = polygon((0.42, -0.42), (0.76, -0.7), (0.76, -0.26))
    face = polygon((0, -0.42), (0.5, -0.5), (0.9, -0.06), (0.98, 0.16), (0, 0.92))
    cheek = polygon((0.16, 0.36), (0.98, 0.16), (0.62, 0.5), (0.0, 0.92))
    eye = polygon((0.26, 0.06), (0.52, -0.06), (0.46, 0.14))
    shapes = _both(ink.main, ear) + _both(ink.accent, inner)
    shapes += _both(ink.second, face, ink.main) + _both(ink.accent, cheek) + _both(ink.ground, eye)
    return [*shapes, Shape(ink.ground, polygon((-0.17, 0.7), (0.17, 0.7), (0, 0.92)))]


def cat(ink: Inks, _: Random) -> list[Shape]:
    """A cat's face."""
    ear = polygon((0.12, -0.5), (0.78, -0.95), (0.86, 0.0))
    inner = polygon((0.4, -0.5), (0.68, -0.68), (0.72, -0.26))
    head = ellipse(0, 0.16, 0.86, 0.72)
    eye = moved(petal(0.36, 0.2), 0.36, 0.2)
    shapes = _both(ink.main, ear) + _both(ink.accent, inner) + [Shape(ink.main, head)]
    shapes += [Shape(ink.second, ellipse(0, 0.5, 0.26, 0.19)), *_both(ink.ground, eye)]
    nose = polygon((-0.1, 0.38), (0.1, 0.38), (0, 0.5))
    return [*shapes, Shape(ink.accent, nose)]


def dog(ink: Inks, _: Random) -> list[Shape]:
    """A dog's face with hanging ears."""
    ear = path("M .36 -.7 C .8 -.9 1 -.5 .98 .2 C .9 .4 .7 .3 .6 .1")
    head = path(
        "M 0 -.8 C .5 -.8 .7 -.5 .68 -.1 C .66 .5 .5 .9 0 .9 C -.5 .9 -.66 .5 -.68 -.1"
        " C -.7 -.5 -.5 -.8 0 -.8"
    )
    muzzle = path(
        "M 0 -.8 C .14 -.5 .12 -.1 .4 .3 C .5 .66 .26 .9 0 .9 C -.26 .9 -.5 .66 -.4 .3"
        " C -.12 -.1 -.14 -.5 0 -.8"
    )
    shapes = [Shape(ink.main, head), Shape(ink.accent, muzzle), *_both(ink.second, ear)]
    shapes += _both(ink.ground, circle(0.36, -0.12, 0.09))
    return [
        *shapes,
        Shape(ink.ground, ellipse(0, 0.34, 0.2, 0.14)),
        *(Shape(ink.ground, p) for p in stroke([(0, 0.36), (0, 0.64)], 0.05)),
    ]


def bear(ink: Inks, _: Random) -> list[Shape]:
    """A bear's face."""
    shapes = _both(ink.main, circle(0.62, -0.56, 0.32)) + _both(
        ink.second, circle(0.62, -0.56, 0.17)
    )
    shapes += [
        Shape(ink.main, ellipse(0, 0.08, 0.88, 0.8)),
        Shape(ink.second, ellipse(0, 0.4, 0.42, 0.36)),
    ]
    shapes += _both(ink.ground, circle(0.34, -0.1, 0.09))
    return [*shapes, Shape(ink.accent, ellipse(0, 0.26, 0.17, 0.12))]


def paw(ink: Inks, _: Random) -> list[Shape]:
    """A paw print."""
    pad = path(
        "M 0 -.02 C .3 -.02 .38 .24 .56 .4 C .74 .62 .56 .9 .3 .86 C .12 .82 -.12 .82 -.3 .86"
        " C -.56 .9 -.74 .62 -.56 .4 C -.38 .24 -.3 -.02 0 -.02"
    )
    outer = ellipse(0.72, -0.04, 0.2, 0.29, 24)
    inner = ellipse(0.28, -0.52, 0.22, 0.33, 8)
    heart = moved(_heart_half(), 0, 0.46, scale=0.24)
    return [
        Shape(ink.main, pad),
        *_both(ink.second, outer),
        *_both(ink.main, inner),
        *_both(ink.accent, heart),
    ]


def fish(ink: Inks, chance: Random) -> list[Shape]:
    """A fish of two arcs, with scales."""
    body = moved(petal(1.5, 0.86), -0.9, 0, turn=90)
    upper = clipped(body, box(-1, -1, 1, 0))
    tail = polygon((0.42, 0), (1.0, -0.46), (0.84, 0), (1.0, 0.46))
    gill = stroke(arc(-0.62, 0, 0.3, -48, 48), 0.06)
    shapes = [
        Shape(ink.accent, tail),
        Shape(ink.main, body),
        Shape(ink.second, upper),
        *(Shape(ink.ground, p) for p in gill),
        Shape(ink.ground, circle(-0.6, -0.08, 0.07)),
    ]
    for x in (-0.02, 0.22):
        shapes += [Shape(ink.ground, p) for p in stroke(arc(x - 0.1, 0, 0.2, -50, 50), 0.045)]
    return (
        shapes
        if chance.random() < 0.5
        else [s._replace(outline=flipped(s.outline)) for s in shapes]
    )


def whale(ink: Inks, chance: Random) -> list[Shape]:
    """A whale that blows."""
    body = path(
        "M -.95 .1 C -.95 -.4 -.5 -.56 -.1 -.5 C .36 -.44 .44 .0 .7 -.1"
        " C .66 -.3 .56 -.42 .5 -.6 C .66 -.58 .74 -.5 .8 -.4 C .84 -.52 .92 -.6 1.06 -.64"
        " C 1.04 -.4 .98 -.26 .9 -.1 C .9 .5 .5 .72 0 .72 C -.6 .72 -.95 .5 -.95 .1"
    )
    belly = path("M -.9 .28 C -.5 .22 -.1 .4 .1 .72 L 0 .72 C -.5 .72 -.8 .6 -.9 .28")
    spout = stroke(arc(-0.68, -0.7, 0.22, 180, 350), 0.08) + stroke(
        arc(-0.24, -0.7, 0.22, 190, 360), 0.08
    )
    shapes = [
        Shape(ink.main, body),
        Shape(ink.second, belly),
        Shape(ink.ground, circle(-0.5, 0.06, 0.07)),
        *(Shape(ink.accent, p) for p in spout),
    ]
    return (
        shapes
        if chance.random() < 0.5
        else [s._replace(outline=flipped(s.outline)) for s in shapes]
    )


def butterfly(ink: Inks, _: Random) -> list[Shape]:
    """Four wings in two tones."""
    upper = path("M .04 -.1 C .2 -.8 .7 -1 .94 -.78 C 1.1 -.5 .8 .0 .04 .06")
    spot = path("M .2 -.16 C .32 -.54 .6 -.72 .76 -.6 C .84 -.44 .6 -.1 .2 -.08")
    lower = path("M .04 .06 C .6 .0 .84 .24 .76 .56 C .66 .9 .2 .84 .04 .2")
    feelers = stroke(path("M 0 -.3 Q .06 -.62 .26 -.74"), 0.05)
    shapes = _both(ink.main, upper) + _both(ink.second, lower) + _both(ink.accent, spot)
    for piece in feelers:
        shapes += _both(ink.main, piece)
    return [
        *shapes,
        Shape(ink.ground, ellipse(0, 0.08, 0.11, 0.48)),
        Shape(ink.main, ellipse(0, 0.08, 0.07, 0.44)),
    ]


def bee(ink: Inks, _: Random) -> list[Shape]:
    """A striped bee."""
    body = ellipse(0, 0.3, 0.5, 0.66)
    stripes = [clipped(body, box(-1, y, 1, y + 0.17)) for y in (0.02, 0.34, 0.66)]
    wing = moved(petal(0.92, 0.52), 0.12, -0.02, turn=58)
    feelers = stroke(path("M .08 -.56 Q .14 -.86 .34 -.92"), 0.06)
    shapes = [
        *_both(ink.second, wing),
        Shape(ink.main, circle(0, -0.42, 0.3)),
        Shape(ink.accent, body),
    ]
    shapes += [Shape(ink.main, stripe) for stripe in stripes]
    for piece in feelers:
        shapes += _both(ink.main, piece)
    return shapes


def _heart_half() -> Outline:
    return path("M 0 -.5 C .2 -.95 1 -.92 1 -.28 C 1 .3 .4 .6 0 .98")


def heart(ink: Inks, chance: Random) -> list[Shape]:
    """A heart of two halves, or of two leaves that overlap."""
    if chance.random() < 0.5:
        shade = path("M 0 -.5 C .2 -.95 1 -.92 1 -.28 C 1 .3 .4 .6 0 .98 C .5 .4 .5 -.2 0 -.5")
        return [*_both(ink.second, _heart_half(), ink.main), Shape(ink.accent, shade)]
    lobes = [(-45, ink.main), (45, ink.second)]
    shapes = [Shape(tone, _pill(turn)) for turn, tone in lobes]
    middle = moved(box(-0.41, -0.41, 0.41, 0.41), 0, 0.3, turn=45)
    return [*shapes, Shape(ink.accent, middle)]


def _pill(turn: float) -> Outline:
    """A square with a half circle on top, leaning."""
    shape = np.vstack([arc(0, -0.41, 0.41, 180, 360), polygon((0.41, 0.41), (-0.41, 0.41))])
    return moved(shape, 0, 0.3, turn=turn)


def eye(ink: Inks, _: Random) -> list[Shape]:
    """An eye whose iris is in rings."""
    outline = moved(petal(2, 1.16), -1, 0, turn=90)
    return [
        Shape(ink.main, outline),
        Shape(ink.ground, circle(0, 0, 0.5)),
        Shape(ink.second, circle(0, 0, 0.42)),
        Shape(ink.accent, circle(0, 0, 0.22)),
        Shape(ink.ground, circle(0.13, -0.13, 0.09)),
    ]


def feather(ink: Inks, chance: Random) -> list[Shape]:
    """A feather with notches."""
    right = path("M 0 -1 C .5 -.6 .52 .1 0 .66")
    shapes = _both(ink.second, right, ink.main)
    shapes += [Shape(ink.accent, p) for p in stroke(path("M 0 -.8 Q .03 .2 -.04 1"), 0.07)]
    for y, side in ((-0.3, 1), (0.1, -1), (0.3, 1)):
        shapes.append(
            Shape(
                ink.ground, polygon((0.04 * side, y), (0.6 * side, y - 0.34), (0.6 * side, y - 0.2))
            )
        )
    turn = chance.choice((28, -28))
    return [s.moved(turn=turn) for s in shapes]


CREATURES: tuple[Motif, ...] = (
    Motif(bird, "bird origami crane freedom migration tweet heron swallow"),
    Motif(dove, "dove pigeon peace songbird robin sparrow chick duck"),
    Motif(owl, "owl wise wisdom tutor research university knowledge scholar"),
    Motif(fox, "fox wolf coyote clever"),
    Motif(cat, "cat kitten feline pet tiger lion"),
    Motif(dog, "dog puppy hound pet grooming kennel"),
    Motif(bear, "bear teddy panda toy toys kids children kindergarten"),
    Motif(paw, "paw vet veterinary animal animals shelter zoo"),
    Motif(fish, "fish fishing seafood sushi aquarium angler salmon"),
    Motif(whale, "whale dolphin orca docker"),
    Motif(
        butterfly,
        "butterfly beauty transform transformation salon cosmetic cosmetics",
        repeats=True,
    ),
    Motif(bee, "bee honey beekeeper apiary hive pollinator"),
    Motif(
        heart,
        "heart love care charity dating romance wedding nurse hospital clinic medical donation nonprofit",
        repeats=True,
    ),
    Motif(eye, "eye vision optic optician watch see look observe insight analytics optometrist"),
    Motif(
        feather,
        "feather pen write writing writer quill poet poetry light author editor blog",
    ),
)
