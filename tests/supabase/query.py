"""The query string of PostgREST, as SQL: ``select``, filters, ``order``, ``limit``, ``offset``.

Names become quoted identifiers and values become parameters: nothing of a request is ever SQL text.
"""

from __future__ import annotations

__all__ = ["Parameters", "Query", "split"]

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tests.supabase.catalog import identifier
from tests.supabase.errors import RestError

_RESERVED: Final = {"select", "order", "limit", "offset", "columns", "on_conflict"}
_COMPARISONS: Final = {"eq": "=", "neq": "<>", "lt": "<", "lte": "<=", "gt": ">", "gte": ">="}
_FILTER: Final = re.compile(r"(?P<not>not\.)?(?P<op>[a-z]+)\.(?P<value>.*)", re.DOTALL)
_CAST: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_ORDER: Final = re.compile(r"(?P<column>.+?)(?:\.(?P<way>asc|desc))?")


@dataclass(slots=True)
class Parameters:
    """The values of one statement, in order."""

    values: list[Any] = field(default_factory=list)

    def add(self, value: Any) -> str:
        """Its placeholder."""
        self.values.append(value)
        return f"${len(self.values)}"


@dataclass(frozen=True, slots=True)
class Query:
    """What a request wants of a table."""

    pairs: Sequence[tuple[str, str]]

    def get(self, name: str) -> str | None:
        """A parameter that is no filter."""
        return next((value for key, value in self.pairs if key == name), None)

    def selection(self) -> str:
        """The expressions of SELECT or RETURNING."""
        wanted = self.get("select")
        return ", ".join(map(_selected, split(wanted))) if wanted else "t.*"

    def where(self, parameters: Parameters) -> str:
        """The filters, joined by *and*; empty without one."""
        parts = [
            _condition(name, value, parameters)
            for name, value in self.pairs
            if name not in _RESERVED
        ]
        return " where " + " and ".join(parts) if parts else ""

    def order(self) -> str:
        """ORDER BY; empty without one."""
        wanted = self.get("order")
        return " order by " + ", ".join(map(_ordered, split(wanted))) if wanted else ""

    def window(self, max_rows: int) -> tuple[int, int]:
        """Offset and limit; no answer has more than ``max_rows`` rows."""
        return self._number("offset", 0), min(self._number("limit", max_rows), max_rows)

    def _number(self, name: str, default: int) -> int:
        text = self.get(name)
        if text is None:
            return default
        if not text.isdecimal():
            raise _unreadable(f"failed to parse {name} parameter ({text})")
        return int(text)


def _selected(item: str) -> str:
    if item == "*":
        return "t.*"
    name, _, cast_to = item.partition("::")
    expression = _column(name)
    if cast_to:
        if not _CAST.fullmatch(cast_to):
            raise _unreadable(f"failed to parse select parameter ({item})")
        expression = f"cast({expression} as {cast_to})"
    return f"{expression} as {identifier(name)}"


def _ordered(item: str) -> str:
    match = _ORDER.fullmatch(item)
    if match is None:
        raise _unreadable(f"failed to parse order ({item})")
    return f"{_column(match['column'])} {match['way'] or 'asc'}"


def _column(name: str) -> str:
    return f"t.{identifier(name)}"


def _condition(name: str, value: str, parameters: Parameters) -> str:
    match = _FILTER.fullmatch(value)
    condition = match and _comparison(_column(name), match["op"], match["value"], parameters)
    if match is None or condition is None:
        raise _unreadable(f"failed to parse filter ({value})")
    return f"not {condition}" if match["not"] else condition


def _comparison(expression: str, op: str, operand: str, parameters: Parameters) -> str | None:
    if op == "is":
        return f"({expression} is null)" if operand == "null" else None
    if op == "in":
        if not (operand.startswith("(") and operand.endswith(")")):
            return None
        items = [_unquoted(item) for item in split(operand[1:-1])]
        return f"({expression} = any ({parameters.add(items)}))"
    if op not in _COMPARISONS:
        return None
    return f"({expression} {_COMPARISONS[op]} {parameters.add(operand)})"


def split(text: str) -> list[str]:
    """The items of a list, at commas that are not quoted."""
    return [item for item in _items(text) if item]


def _items(text: str) -> Iterator[str]:
    start = 0
    in_quotes = escaped = False
    for position, char in enumerate(text):
        if escaped:
            escaped = False
        elif in_quotes:
            escaped = char == "\\"
            in_quotes = char != '"'
        elif char == '"':
            in_quotes = True
        elif char == ",":
            yield text[start:position]
            start = position + 1
    yield text[start:]


def _unquoted(text: str) -> str:
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)
    return text


def _unreadable(message: str) -> RestError:
    return RestError(
        400, "PGRST100", json.dumps(message) + " (line 1, column 1)", "unexpected input"
    )
