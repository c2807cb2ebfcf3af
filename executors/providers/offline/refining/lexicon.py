"""The words of a prompt, and all that each of them may mean."""

from __future__ import annotations

__all__ = ["ARROWS", "Word", "is_theme", "words_of"]

import re
import unicodedata
from dataclasses import dataclass
from typing import Final

from PIL import ImageColor

from executors.imaging.colour import hex_oklch, oklch_hex, parse_hex
from executors.imaging.palettes import theme_colours
from executors.imaging.theme_words import MOOD_WORDS, THEME_WORDS
from executors.providers.offline.refining.words import ALIASES, ASKED, COLOUR_NAMES, ROLES

ARROWS: Final = {"->", "=>", "\u2192"}
_ENDS: Final = set(",.;:!?\n")
_PHRASE = 4  # words
_STEM = 3  # letters at least
_EXACT: Final = {"black": "#000000", "white": "#ffffff"}

_TOKEN = re.compile(
    r"3d\b|8bit\b|#[0-9a-f]{6}\b|#[0-9a-f]{3}\b|\d+(?:\.\d+)?|[^\W\d_]+|->|=>|[,.;:!?\u2192\n]"
)


@dataclass(slots=True)
class Word:
    """A word or phrase of the prompt."""

    text: str
    asked: str | None = None  #: the operation it asks for by itself
    roles: frozenset[str] = frozenset()  #: what it says of its neighbours
    colour: str | None = None
    number: float | None = None
    ends: bool = False  #: ends a clause
    done: bool = False  #: it has had its say


def words_of(text: str) -> list[Word]:
    """The prompt as words and phrases, the longest known phrase first."""
    tokens = [alias for token in _tokens(text) for alias in _unaliased(token)]
    words: list[Word] = []
    at = 0
    while at < len(tokens):
        for length in range(min(_PHRASE, len(tokens) - at), 0, -1):
            word = _word(tokens[at : at + length])
            if word is not None:
                words.append(word)
                at += length
                break
    return _shaded(words)


def is_theme(text: str) -> bool:
    """Whether the word stands for colours or a mood."""
    return any(
        form in THEME_WORDS or form in MOOD_WORDS
        for form in (text, text.removesuffix("s"), text.removesuffix("y"))
    )


def _tokens(text: str) -> list[str]:
    plain = text.casefold().replace("n't", "nt").replace("n\u2019t", "nt")
    plain = "".join(c for c in unicodedata.normalize("NFKD", plain) if not unicodedata.combining(c))
    return _TOKEN.findall(plain)


def _unaliased(token: str) -> list[str]:
    return [",", *ALIASES[token].split(), ","] if token in ALIASES else [token]


def _word(tokens: list[str]) -> Word | None:
    """What these tokens mean together; a single one always means something, if only itself."""
    text = "_".join(tokens)
    if len(tokens) > 1 and not all(token.isalnum() for token in tokens):
        return None
    if len(tokens) == 1:
        if text in _ENDS:
            return Word(text, ends=True)
        if text.replace(".", "").isdecimal():
            return Word(text, number=float(text))
    colour = _colour(text)
    roles = frozenset(_found(text, _ROLES))
    asked = next(iter(_found(text, _ASKED)), None)
    if len(tokens) > 1 and not (colour or roles or asked):
        return None
    return Word(text, asked if not colour else None, roles, colour)


def _colour(text: str) -> str | None:
    if text.startswith("#"):
        return "#{:02x}{:02x}{:02x}".format(*parse_hex(text))
    name = COLOUR_NAMES.get(text)
    for shade, change in (("dunkel", _darker), ("hell", _lighter)):
        if name is None and text.startswith(shade) and text.removeprefix(shade) in COLOUR_NAMES:
            return change(_colour(text.removeprefix(shade)) or "#808080")
    if name is None:
        return None
    if name in THEME_WORDS:
        return theme_colours(name)[0]
    return _EXACT.get(name) or "#{:02x}{:02x}{:02x}".format(*ImageColor.getrgb(name)[:3])


def _shaded(words: list[Word]) -> list[Word]:
    """Colours with the light or dark beside them made one word."""
    shaded: list[Word] = []
    for word in words:
        last = shaded[-1] if shaded else None
        if last is not None and word.colour and not last.colour and last.roles & {"light", "dark"}:
            shaded[-1] = Word(word.text, colour=_shade(word.colour, last))
        elif last is not None and last.colour and not word.colour and word.text in _BEHIND:
            shaded[-1] = Word(last.text, colour=_shade(last.colour, word))
        else:
            shaded.append(word)
    return shaded


#: In Romance languages the shade stands behind its colour.
_BEHIND: Final = {
    *("fonce", "foncee", "clair", "claire"),
    *(
        "oscuro",
        "oscura",
        "claro",
        "clara",
        "scuro",
        "scura",
        "chiaro",
        "chiara",
        "escuro",
        "escura",
    ),
}


def _shade(colour: str, said: Word) -> str:
    if said.text.startswith("bright"):
        return colour
    return _darker(colour) if "dark" in said.roles else _lighter(colour)


def _darker(colour: str) -> str:
    lightness, chroma, hue = hex_oklch(colour)
    return oklch_hex(max(0.28, lightness - 0.2), chroma * 0.6, hue)


def _lighter(colour: str) -> str:
    lightness, chroma, hue = hex_oklch(colour)
    return oklch_hex(min(0.9, lightness + 0.22), chroma * 0.7, hue)


def _index(meanings: dict[str, str]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Whole words and stems, each with its meanings."""
    whole: dict[str, list[str]] = {}
    stems: dict[str, list[str]] = {}
    for meaning, words in meanings.items():
        for word in words.split():
            place = stems if word.endswith("*") else whole
            place.setdefault(word.removesuffix("*"), []).append(meaning)
    return whole, stems


_ASKED: Final = _index(ASKED)
_ROLES: Final = _index(ROLES)


def _found(text: str, index: tuple[dict[str, list[str]], dict[str, list[str]]]) -> list[str]:
    """The meanings of a word: as it is, else by its longest stem."""
    whole, stems = index
    if text in whole:
        return whole[text]
    least = text.rfind("_") + 1 + _STEM
    return next(
        (stems[text[:end]] for end in range(len(text), least - 1, -1) if text[:end] in stems), []
    )
