"""From a prompt to the steps it asks for."""

from __future__ import annotations

__all__ = ["Step", "read"]

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from PIL import ImageColor

from executors.imaging.colour import hex_oklch, oklch_hex, parse_hex
from executors.imaging.palettes import theme_colours
from executors.imaging.theme_words import MOOD_WORDS, THEME_WORDS
from executors.providers.refining.words import ALIASES, ASKED, COLOUR_NAMES, ROLES

_LONGEST = 2000  # characters
_MOST_STEPS = 12
_PHRASE = 4  # words
_STEM = 3  # letters at least
_EXACT: Final = {"black": "#000000", "white": "#ffffff"}
_OPPOSITES: Final = {
    "warmer": "cooler",
    "brighter": "darker",
    "more saturated": "muted",
    "more contrast": "less contrast",
    "sharpness": "blur",
    "larger": "padding",
}
_THINGS: Final = {"shadow", "outline", "corners", "gradient", "circle"}
_OPPOSITES_BOTH: Final = _OPPOSITES | {other: one for one, other in _OPPOSITES.items()}

_TOKEN = re.compile(
    r"3d\b|8bit\b|#[0-9a-f]{6}\b|#[0-9a-f]{3}\b|\d+(?:\.\d+)?|[^\W\d_]+|->|=>|[,.;:!?\u2192\n]"
)
_QUOTES = re.compile(
    r"\"([^\"]{1,200})\"|[\u201c\u201e\u201d]([^\u201c\u201d]{1,200})[\u201c\u201d]"
    r"|\u00ab([^\u00bb]{1,200})\u00bb|\u300c([^\u300d]{1,200})\u300d"
    r"|(?<!\w)['\u2018]([^'\u2019]{1,200})['\u2019](?!\w)"
)
#: Text without quotes: after a colon, or in capitals.
_NAMED = re.compile(
    r"\b(?:text|slogan|tagline|title|titel|texte|texto|testo)\s*[:=]\s*([^,.;\n]{1,60})"
    r"|\b(?:text|word|words|slogan|name|says?|saying|wort|texte|texto|testo)\s+"
    r"((?:[A-Z0-9&][\w&'\u2019-]*\s?){1,6})"
)


@dataclass(frozen=True, slots=True)
class Step:
    """One operation. ``amount`` multiplies the strength of the whole refinement."""

    name: str
    amount: float = 1.0
    colours: tuple[str, ...] = ()
    text: str = ""  #: what is written, or the words of a theme
    place: Literal["bottom", "top"] = "bottom"
    degrees: float = 0.0
    vertical: bool = False


@dataclass(slots=True)
class _Word:
    """A word or phrase of the prompt, and all it may mean."""

    text: str
    asked: str | None = None
    roles: frozenset[str] = frozenset()
    colour: str | None = None
    number: float | None = None
    ends: bool = False  #: ends a clause
    done: bool = field(default=False)


def read(prompt: str) -> list[Step]:
    """The steps that a prompt asks for, in its order; none where no word is known."""
    texts, rest = _texts(prompt[:_LONGEST])
    words = _shaded(_words(rest))
    steps = [(len(words), _text_step(text, words)) for text in texts[:1]]
    steps += _steps(words)
    return [step for _, step in sorted(steps, key=lambda pair: pair[0])][:_MOST_STEPS]


def _steps(words: list[_Word]) -> Iterator[tuple[int, Step]]:
    yield from _grounds(words)
    yield from _replacements(words)
    yield from _accents(words)
    yield from _operations(words)
    yield from _palette(words)


def _text_step(text: str, words: list[_Word]) -> Step:
    """What is written, where, and in which colour."""
    place: Literal["bottom", "top"] = "top" if any("top" in w.roles for w in words) else "bottom"
    colours: list[str] = []
    for at, word in enumerate(words):
        if "text" in word.roles:
            beside = [
                w for w in (*_clause(words, at, -1, 2), *_clause(words, at, 1, 2)) if w.colour
            ]
            _finish(beside[:1])
            colours += [w.colour for w in beside[:1] if w.colour]
    return Step("text", text=text, place=place, colours=tuple(colours[:1]))


# --- patterns ------------------------------------------------------------------------------------


def _grounds(words: list[_Word]) -> Iterator[tuple[int, Step]]:
    """A background, with what is said of it before or after."""
    for at, word in enumerate(words):
        if "ground" not in word.roles or word.done:
            continue
        before = list(_clause(words, at, -1, 4))
        after = list(_clause(words, at, 1, 8))
        word.done = True
        kept = any("keep" in w.roles for w in before) or (
            any("no" in w.roles for w in before) and any("change" in w.roles for w in before)
        )
        removed = any(w.roles & {"remove", "no", "clear"} for w in before)
        cleared = removed or any("clear" in w.roles for w in after)
        if kept:
            _finish(before)
        elif cleared:
            _finish(w for w in before + after if w.roles & {"remove", "no", "clear"} or w.colour)
            yield at, Step("transparent background")
        else:
            near = [w for w in before[:2] if _describes(w)]
            if not near or all(w.asked == "gradient" for w in near):
                near += [w for w in after if _describes(w)]
            yield at, _ground_of(near)


def _ground_of(said: list[_Word]) -> Step:
    _finish(said)
    colours = tuple(w.colour for w in said if w.colour)
    if any(w.asked == "gradient" for w in said):
        return Step("gradient background", colours=colours)
    if colours:
        return Step("background", colours=colours[-1:])
    if any("dark" in w.roles for w in said):
        return Step("dark background")
    if any("light" in w.roles for w in said):
        return Step("light background")
    return Step("gradient background")


def _describes(word: _Word) -> bool:
    """Whether it says how a background shall be."""
    return bool(word.colour or word.asked == "gradient" or word.roles & {"dark", "light"})


def _replacements(words: list[_Word]) -> Iterator[tuple[int, Step]]:
    """One colour to become another."""
    for at, word in enumerate(words):
        if not word.colour or word.done:
            continue
        after = list(_clause(words, at, 1, 6))
        to = next(
            (i for i, w in enumerate(after[:4]) if "to" in w.roles or w.text in _ARROWS), None
        )
        if to is None:
            continue
        other = next((w for w in after[to + 1 : to + 4] if w.colour), None)
        if other is not None and other.colour is not None:
            _finish([word, other])
            yield at, Step("colour", colours=(word.colour, other.colour))


def _accents(words: list[_Word]) -> Iterator[tuple[int, Step]]:
    """A colour for a small part."""
    for at, word in enumerate(words):
        if "accent" not in word.roles:
            continue
        around = [*_clause(words, at, -1, 3), *_clause(words, at, 1, 3)]
        coloured = next((w for w in around if w.colour and not w.done), None)
        if coloured is not None and coloured.colour is not None:
            _finish([coloured, word])
            yield at, Step("accent", colours=(coloured.colour,))


def _operations(words: list[_Word]) -> Iterator[tuple[int, Step]]:
    """Words that ask for an operation by themselves, with their degree and direction."""
    corners = any(w.asked == "corners" for w in words)
    seen: set[str] = set()
    for at, word in enumerate(words):
        if word.asked is None or word.done or (word.asked == "circle" and corners):
            continue
        beside = next(_clause(words, at, 1, 1), None)
        if beside is not None and beside.asked in _THINGS and word.asked not in _THINGS:
            continue  # it says how the thing shall be: a soft shadow makes no soft picture
        before = list(_clause(words, at, -1, 3))
        around = before + list(_clause(words, at, 1, 5))
        name = {"contrast": "more contrast"}.get(word.asked, word.asked)
        if any(w.roles & {"less", "no", "remove"} for w in before):
            if name not in _OPPOSITES_BOTH:
                continue  # what is not there need not be taken away
            name = _OPPOSITES_BOTH[name]
        if name in seen:
            continue
        seen.add(name)
        yield at, _with_details(Step(name, _degree(before)), word, around)


def _with_details(step: Step, word: _Word, around: list[_Word]) -> Step:
    match step.name:
        case "rotate":
            turn = next((w.number for w in around if w.number is not None), None)
            tilted = re.match(r"tilt|slant|neig|kipp|schrag|inclin|angled", word.text)
            degrees = turn if turn is not None else (12.0 if tilted else 90.0)
            back = any("counter" in w.roles for w in around)
            return replace(step, degrees=-degrees if back else degrees)
        case "mirror":
            upside = "vertical" in word.roles or any("vertical" in w.roles for w in around)
            return replace(step, vertical=upside)
        case "outline" | "sticker" | "duotone" | "shadow":
            coloured = [w for w in around if w.colour and not w.done]
            _finish(coloured)
            return replace(step, colours=tuple(w.colour for w in coloured if w.colour))
        case _:
            return step


def _palette(words: list[_Word]) -> Iterator[tuple[int, Step]]:
    """Colours that nothing else has taken; words of a theme, where one is asked for or nothing is."""
    left = [(at, w) for at, w in enumerate(words) if not w.done]
    coloured = [(at, w.colour) for at, w in left if w.colour]
    if coloured:
        colours = tuple(dict.fromkeys(colour for _, colour in coloured))
        yield coloured[0][0], Step("palette", colours=colours)
        return
    asked = any("theme" in w.roles for w in words)
    themed = [(at, w.text) for at, w in left if not w.asked and _is_theme(w.text)]
    nothing_else = not any(w.asked or w.done for w in words)
    if themed and (asked or nothing_else):
        yield themed[0][0], Step("palette", text=" ".join(text for _, text in themed))


def _is_theme(text: str) -> bool:
    return any(
        form in THEME_WORDS or form in MOOD_WORDS
        for form in (text, text.removesuffix("s"), text.removesuffix("y"))
    )


def _degree(before: list[_Word]) -> float:
    if any("slightly" in w.roles for w in before):
        return 0.5
    return 1.5 if any("very" in w.roles for w in before) else 1.0


def _clause(words: list[_Word], at: int, way: int, reach: int) -> Iterator[_Word]:
    """The words next to one, nearest first, as far as the clause goes."""
    for other in range(at + way, at + way * (reach + 1), way):
        if not 0 <= other < len(words) or words[other].ends:
            return
        yield words[other]


def _finish(words: Iterable[_Word]) -> None:
    for word in words:
        word.done = True


# --- words ---------------------------------------------------------------------------------------

_ARROWS: Final = {"->", "=>", "\u2192"}
_ENDS: Final = set(",.;:!?\n")


def _texts(prompt: str) -> tuple[list[str], str]:
    """What shall be written in the picture, and the prompt without it."""
    quoted = [next(filter(None, match.groups())) for match in _QUOTES.finditer(prompt)]
    if quoted and _speaks_of_text(_QUOTES.sub(" ", prompt)):
        return quoted, _QUOTES.sub(" ", prompt)
    named = _NAMED.search(prompt)
    if named and not quoted:
        return [(named[1] or named[2]).strip()], prompt[: named.start()] + prompt[named.end() :]
    return [], prompt


def _speaks_of_text(prompt: str) -> bool:
    return any(word.roles & {"text", "more"} for word in _words(prompt))


def _words(text: str) -> list[_Word]:
    """The prompt as words and phrases, the longest known phrase first."""
    tokens = [alias for token in _tokens(text) for alias in _unaliased(token)]
    words: list[_Word] = []
    at = 0
    while at < len(tokens):
        for length in range(min(_PHRASE, len(tokens) - at), 0, -1):
            word = _word(tokens[at : at + length])
            if word is not None:
                words.append(word)
                at += length
                break
    return words


def _tokens(text: str) -> list[str]:
    plain = text.casefold().replace("n't", "nt").replace("n\u2019t", "nt")
    plain = "".join(c for c in unicodedata.normalize("NFKD", plain) if not unicodedata.combining(c))
    return _TOKEN.findall(plain)


def _unaliased(token: str) -> list[str]:
    return [",", *ALIASES[token].split(), ","] if token in ALIASES else [token]


def _word(tokens: list[str]) -> _Word | None:
    """What these tokens mean together; a single one always means something, if only itself."""
    text = "_".join(tokens)
    if len(tokens) > 1 and not all(token.isalnum() for token in tokens):
        return None
    if len(tokens) == 1:
        if text in _ENDS:
            return _Word(text, ends=True)
        if text.replace(".", "").isdecimal():
            return _Word(text, number=float(text))
    colour = _colour(text)
    roles = frozenset(_found(text, _ROLES))
    asked = next(iter(_found(text, _ASKED)), None)
    if len(tokens) > 1 and not (colour or roles or asked):
        return None
    return _Word(text, asked if not colour else None, roles, colour)


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


def _shaded(words: list[_Word]) -> list[_Word]:
    """Colours with the light or dark beside them made one word."""
    shaded: list[_Word] = []
    for word in words:
        last = shaded[-1] if shaded else None
        if last is not None and word.colour and not last.colour and last.roles & {"light", "dark"}:
            shaded[-1] = _Word(word.text, colour=_shade(word.colour, last))
        elif last is not None and last.colour and not word.colour and word.text in _BEHIND:
            shaded[-1] = _Word(last.text, colour=_shade(last.colour, word))
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


def _shade(colour: str, said: _Word) -> str:
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
