"""What can be drawn, found by the words of a subject."""

from __future__ import annotations

__all__ = ["MOTIFS", "SIGNS", "motifs_for"]

import re

from executors.providers.offline.marks.motifs.creatures import CREATURES
from executors.providers.offline.marks.motifs.food import FOOD
from executors.providers.offline.marks.motifs.kinds import Motif
from executors.providers.offline.marks.motifs.nature import NATURE
from executors.providers.offline.marks.motifs.places import PLACES
from executors.providers.offline.marks.motifs.plants import PLANTS
from executors.providers.offline.marks.motifs.signs import SIGNS
from executors.providers.offline.marks.motifs.things import THINGS

MOTIFS: tuple[Motif, ...] = (*PLANTS, *NATURE, *CREATURES, *FOOD, *PLACES, *THINGS, *SIGNS)


def motifs_for(subject: str) -> list[Motif]:
    """The motifs that the subject's words ask for, the best first; empty where none does.

    A word counts more the fewer motifs know it, and the earlier a motif lists it: "lake" alone is
    a wave, "mountain lake" a mountain.
    """
    words = [_singular(word) for word in re.findall(r"[a-z0-9]+", subject.lower())]
    scores = {at: _score(motif, words) for at, motif in enumerate(MOTIFS)}
    best = sorted((at for at in scores if scores[at] > 0), key=lambda at: -scores[at])
    return [MOTIFS[at] for at in best]


def _score(motif: Motif, words: list[str]) -> float:
    known = motif.words.split()
    return sum(1 / (1 + 0.1 * known.index(word)) for word in words if word in known)


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
