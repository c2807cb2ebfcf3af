"""What a motif is."""

from __future__ import annotations

__all__ = ["Draw", "Motif"]

from collections.abc import Callable
from random import Random
from typing import NamedTuple, TypeAlias

from executors.providers.offline.marks.inks import Inks
from executors.providers.offline.marks.shapes import Shape

#: Draws within the unit circle, in these inks; the chances decide details, not the subject.
Draw: TypeAlias = Callable[[Inks, Random], list[Shape]]


class Motif(NamedTuple):
    """Something that can be drawn, and the words that ask for it."""

    draw: Draw
    words: str  #: separated by spaces, lower case, singular
    repeats: bool = False  #: simple enough to be repeated around a centre
