"""docs/glossary.md names what is there, and the words it replaces are gone from the code."""

from __future__ import annotations

import io
import keyword
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "glossary.md"
#: Term, meaning, files, words that are not used for it.
ROWS = re.findall(
    r"^\| \*\*(.+?)\*\* \| (.+?) \| (.+?) \| (.*?) \|$", PAGE.read_text("utf-8"), re.MULTILINE
)
REPLACED = sorted({word for row in ROWS for word in re.findall(r"`(\w+)`", row[3])})
PRODUCT = ("uvian_worker", "executors", "repositories", "clients/typescript/src")

#: Words of the last column that still stand in identifiers. It only gets shorter.
STILL_THERE = {
    "ending",
    "kept",
}


#: Rooms in which they are gone already, and those that stand there in what other rooms share.
CLEAN: dict[str, set[str]] = {
    "executors": set(),
    "repositories": set(),
    "uvian_common": set(),
    "uvian_worker/cli": set(),
    "uvian_worker/client": set(),
    "uvian_worker/config": set(),
    "uvian_worker/events": set(),
    "uvian_worker/gateway": set(),
    "uvian_worker/local": set(),
    "uvian_worker/process": set(),
    "uvian_worker/queue": set(),
    "uvian_worker/redis": set(),
    "uvian_worker/sweep": set(),
    "uvian_worker/worker": set(),
}


def test_every_term_has_one_line() -> None:
    """No term is explained twice, and each has a sentence and a file."""
    terms = [row[0] for row in ROWS]
    assert len(terms) > 60
    assert sorted(set(terms)) == sorted(terms)
    for term, meaning, files, _ in ROWS:
        assert meaning.endswith("."), term
        assert re.fullmatch(r"(?:\[[^\]]+\]\([^)]+\)(?:, )?)+", files), term


def test_every_file_of_a_term_exists() -> None:
    """Each link names a file or a folder, by its own name."""
    links = re.findall(r"\[([^\]]+)\]\(\.\./([^)]+)\)", PAGE.read_text("utf-8"))
    assert len(links) > len(ROWS)
    for name, path in links:
        assert (ROOT / path).exists(), path
        assert name.rstrip("/") == Path(path).name


def test_no_word_is_a_term_and_replaced() -> None:
    """What the last column names is not explained as a term of its own."""
    terms = {word for row in ROWS for word in re.split(r"\W+", row[0])}
    assert terms.isdisjoint(REPLACED)


@pytest.fixture(scope="module")
def words() -> dict[str, str]:
    """Every word of every identifier of the product, and one place where it stands."""
    found: dict[str, str] = {}
    for folder in PRODUCT:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in {".py", ".sql", ".lua", ".ts", ".js"}:
                where = path.relative_to(ROOT).as_posix()
                names = identifiers(path.suffix, path.read_text("utf-8"))
                for name in {*names, path.stem}:
                    for word in words_of(name):
                        found.setdefault(word, f"{where}: {name}")
    return found


@pytest.mark.parametrize("room", CLEAN)
def test_a_word_does_not_come_back_into_a_room(room: str) -> None:
    """Python of these rooms has none of the words in its names."""
    stand = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in (ROOT / room).rglob("*.py")
        for name in {*identifiers(".py", path.read_text("utf-8")), path.stem}
        if not {form for word in words_of(name) for form in _roots(word)}.isdisjoint(
            (STILL_THERE | {"ticket", "lane"}) - CLEAN[room]
        )
    }
    assert stand == set()


def _roots(word: str) -> set[str]:
    """The word, and what it may be an inflection of."""
    return {word, word.removesuffix("s"), word.removesuffix("ed"), word.removesuffix("ing")}


@pytest.mark.parametrize("word", REPLACED)
def test_a_replaced_word_stands_in_no_identifier(word: str, words: dict[str, str]) -> None:
    """Variables, functions, columns and files have the term's own name."""
    inflected = [word, f"{word}s", f"{word}ed", f"{word}ing", f"{word}d"]
    places = [words[form] for form in inflected if form in words]
    if word in STILL_THERE:
        assert places, f"{word} is gone: take it from STILL_THERE"
        return
    assert places == []


def identifiers(suffix: str, text: str) -> set[str]:
    """Names in a source: no keywords, and nothing of comments, strings or docstrings."""
    if suffix == ".py":
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        return {
            t.string for t in tokens if t.type == tokenize.NAME and not keyword.iskeyword(t.string)
        }
    comment = r"--.*" if suffix in {".sql", ".lua"} else r"//.*|/\*[\s\S]*?\*/"
    quoted = r"'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\""
    return set(re.findall(r"[A-Za-z_]\w*", re.sub(f"{quoted}|{comment}", " ", text)))


def words_of(name: str) -> list[str]:
    """`tellAccounts`, `tell_accounts` and `TellAccounts` have the words tell and accounts."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)]
