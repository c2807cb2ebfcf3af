"""From a prompt to the steps it asks for."""

from __future__ import annotations

__all__ = ["Step", "read"]

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal

from executors.providers.offline.refining.lexicon import ARROWS, Word, is_theme, words_of

_LONGEST = 2000  # characters
_MOST_STEPS = 12
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
    shade: Literal["", "dark", "light"] = ""


def read(prompt: str) -> list[Step]:
    """The steps that a prompt asks for, in its order; none where no word is known."""
    texts, rest = _texts(prompt[:_LONGEST])
    words = words_of(rest)
    steps = [(len(words), _text_step(text, words)) for text in texts[:1]]
    steps += _steps(words)
    return [step for _, step in sorted(steps, key=lambda pair: pair[0])][:_MOST_STEPS]


def _steps(words: list[Word]) -> Iterator[tuple[int, Step]]:
    yield from _grounds(words)
    yield from _replacements(words)
    yield from _accents(words)
    yield from _operations(words)
    yield from _palette(words)


def _text_step(text: str, words: list[Word]) -> Step:
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


def _grounds(words: list[Word]) -> Iterator[tuple[int, Step]]:
    """A background, with what is said of it before or after."""
    for at, word in enumerate(words):
        if "ground" not in word.roles or word.done:
            continue
        before = list(_clause(words, at, -1, 4))
        after = list(_clause(words, at, 1, 8))
        word.done = True
        unchanged = any("keep" in w.roles for w in before) or (
            any("no" in w.roles for w in before) and any("change" in w.roles for w in before)
        )
        removed = any(w.roles & {"remove", "no", "clear"} for w in before)
        cleared = removed or any("clear" in w.roles for w in after)
        if unchanged:
            _finish(before)
        elif cleared:
            _finish(w for w in before + after if w.roles & {"remove", "no", "clear"} or w.colour)
            yield at, Step("transparent background")
        else:
            near = [w for w in before[:2] if _describes(w)]
            if not near or all(w.asked == "gradient" for w in near):
                near += [w for w in after if _describes(w)]
            yield at, _ground_of(near)


def _ground_of(said: list[Word]) -> Step:
    _finish(said)
    colours = tuple(w.colour for w in said if w.colour)
    dark = any("dark" in w.roles for w in said)
    light = any("light" in w.roles for w in said)
    if any(w.asked == "gradient" for w in said):
        shade: Literal["", "dark", "light"] = "dark" if dark else "light" if light else ""
        return Step("gradient background", colours=colours, shade=shade)
    if colours:
        return Step("background", colours=colours[-1:])
    if dark or light:
        return Step("dark background" if dark else "light background")
    return Step("gradient background")


def _describes(word: Word) -> bool:
    """Whether it says how a background shall be."""
    return bool(word.colour or word.asked == "gradient" or word.roles & {"dark", "light"})


def _replacements(words: list[Word]) -> Iterator[tuple[int, Step]]:
    """One colour to become another."""
    for at, word in enumerate(words):
        if not word.colour or word.done:
            continue
        after = list(_clause(words, at, 1, 6))
        to = next((i for i, w in enumerate(after[:4]) if "to" in w.roles or w.text in ARROWS), None)
        if to is None:
            continue
        other = next((w for w in after[to + 1 : to + 4] if w.colour), None)
        if other is not None and other.colour is not None:
            _finish([word, other])
            yield at, Step("colour", colours=(word.colour, other.colour))


def _accents(words: list[Word]) -> Iterator[tuple[int, Step]]:
    """A colour for a small part."""
    for at, word in enumerate(words):
        if "accent" not in word.roles:
            continue
        around = [*_clause(words, at, -1, 3), *_clause(words, at, 1, 3)]
        coloured = next((w for w in around if w.colour and not w.done), None)
        if coloured is not None and coloured.colour is not None:
            _finish([coloured, word])
            yield at, Step("accent", colours=(coloured.colour,))


def _operations(words: list[Word]) -> Iterator[tuple[int, Step]]:
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


def _with_details(step: Step, word: Word, around: list[Word]) -> Step:
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


def _palette(words: list[Word]) -> Iterator[tuple[int, Step]]:
    """Colours that nothing else has taken; words of a theme, where one is asked for or nothing is."""
    left = [(at, w) for at, w in enumerate(words) if not w.done]
    coloured = [(at, w.colour) for at, w in left if w.colour]
    if coloured:
        colours = tuple(dict.fromkeys(colour for _, colour in coloured))
        yield coloured[0][0], Step("palette", colours=colours)
        return
    asked = any("theme" in w.roles for w in words)
    themed = [(at, w.text) for at, w in left if not w.asked and is_theme(w.text)]
    nothing_else = not any(w.asked or w.done for w in words)
    if themed and (asked or nothing_else):
        yield themed[0][0], Step("palette", text=" ".join(text for _, text in themed))


def _degree(before: list[Word]) -> float:
    if any("slightly" in w.roles for w in before):
        return 0.5
    return 1.5 if any("very" in w.roles for w in before) else 1.0


def _clause(words: list[Word], at: int, way: int, reach: int) -> Iterator[Word]:
    """The words next to one, nearest first, as far as the clause goes."""
    for other in range(at + way, at + way * (reach + 1), way):
        if not 0 <= other < len(words) or words[other].ends:
            return
        yield words[other]


def _finish(words: Iterable[Word]) -> None:
    for word in words:
        word.done = True


# --- letters ------------------------------------------------------------------------------------


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
    return any(word.roles & {"text", "more"} for word in words_of(prompt))
