"""The query string of PostgREST, as SQL: ``select``, filters, ``order``, ``limit``, ``offset``.

Names become quoted identifiers and values become parameters: nothing of a request is ever SQL text.
"""

from __future__ import annotations

__all__ = ["Parameters", "Query", "split"]

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tests.supabase.catalog import Column, identifier
from tests.supabase.errors import RestError

_RESERVED: Final = {"select", "order", "limit", "offset", "columns", "on_conflict"}
_LOGIC: Final = {"and", "or", "not.and", "not.or"}
_COMPARISONS: Final = {
    "eq": "=",
    "neq": "<>",
    "lt": "<",
    "lte": "<=",
    "gt": ">",
    "gte": ">=",
    "like": "like",
    "ilike": "ilike",
    "match": "~",
    "imatch": "~*",
    "cs": "@>",
    "cd": "<@",
    "ov": "&&",
}
_QUANTIFIABLE: Final = {"eq", "lt", "lte", "gt", "gte", "like", "ilike", "match", "imatch"}
_IS: Final = {"null", "not_null", "true", "false", "unknown"}
_FILTER: Final = re.compile(
    r"(?P<not>not\.)?(?P<op>[a-z]+)(?:\((?P<many>any|all)\))?\.(?P<value>.*)", re.DOTALL
)
_CAST: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*(\[\])?")
_ORDER: Final = re.compile(
    r"(?P<column>.+?)(?:\.(?P<way>asc|desc))?(?:\.(?P<nulls>nullsfirst|nullslast))?"
)


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
    """What a request wants of a table, or of the rows that a function returns."""

    relation: str  #: its name, for messages
    columns: Mapping[str, Column]
    pairs: Sequence[tuple[str, str]]

    def get(self, name: str) -> str | None:
        """A parameter that is no filter."""
        return next((value for key, value in self.pairs if key == name), None)

    def selection(self) -> str:
        """The expressions of SELECT or RETURNING."""
        wanted = self.get("select")
        if wanted is None or not wanted.strip():
            return "t.*"
        return ", ".join(self._selected(item) for item in split(wanted))

    def where(self, parameters: Parameters, *, ignoring: Sequence[str] = ()) -> str:
        """The filters, joined by *and*; empty without one."""
        parts = []
        for name, value in self.pairs:
            if name in _RESERVED or name in ignoring:
                continue
            if name in _LOGIC:
                parts.append(self._logic(name, value, parameters))
            else:
                parts.append(self._condition(name, value, parameters))
        return " where " + " and ".join(parts) if parts else ""

    def order(self) -> str:
        """ORDER BY; empty without one."""
        wanted = self.get("order")
        if not wanted:
            return ""
        return " order by " + ", ".join(self._ordered(item) for item in split(wanted))

    def window(self, max_rows: int) -> tuple[int, int]:
        """Offset and limit; no answer has more than ``max_rows`` rows."""
        return self._number("offset", 0), min(self._number("limit", max_rows), max_rows)

    def _number(self, name: str, default: int) -> int:
        text = self.get(name)
        if text is None:
            return default
        if not text.lstrip("-").isdecimal():
            raise _unreadable(f"failed to parse {name} parameter ({text})")
        if int(text) < 0:
            details = "Limit should be greater than or equal to zero."
            raise RestError(416, "PGRST103", "Requested range not satisfiable", details)
        return int(text)

    def _selected(self, item: str) -> str:
        if "(" in item and not item.startswith('"'):
            other = item.partition("(")[0]
            between = f"between '{self.relation}' and '{other}' in the schema cache"
            message = f"Could not find a relationship {between}"
            raise RestError(400, "PGRST200", message, "Embedding is not reproduced here.")
        if item == "*":
            return "t.*"
        name, alias, cast_to = _parts_of_selection(item)
        expression, label = self._field(name)
        if cast_to:
            if not _CAST.fullmatch(cast_to):
                raise _unreadable(f"failed to parse select parameter ({item})")
            expression = f"cast({expression} as {cast_to})"
        return f"{expression} as {identifier(alias or label)}"

    def _field(self, name: str) -> tuple[str, str]:
        """A column, or what is inside of a json column: expression and label."""
        base, *path = re.split(r"(->>?)", name)
        column = _unquoted(base)
        known = self.columns.get(column)
        expression = f"t.{identifier(column)}"
        if not path:
            return expression, column
        if known is None or known.type not in ("json", "jsonb"):
            expression = f"to_jsonb({expression})"
        for arrow, key in zip(path[::2], path[1::2], strict=True):
            step = key if re.fullmatch(r"-?\d{1,9}", key) else _literal(_unquoted(key))
            expression += f" {arrow} {step}"
        return f"({expression})", _unquoted(path[-1])

    def _ordered(self, item: str) -> str:
        match = _ORDER.fullmatch(item)
        if match is None:
            raise _unreadable(f"failed to parse order ({item})")
        nulls = {"nullsfirst": " nulls first", "nullslast": " nulls last", None: ""}[match["nulls"]]
        return f"{self._field(match['column'])[0]} {match['way'] or 'asc'}{nulls}"

    def _logic(self, name: str, value: str, parameters: Parameters) -> str:
        if not (value.startswith("(") and value.endswith(")")):
            raise _unreadable(f"failed to parse logic tree ({name}{value})")
        parts = [self._branch(item, parameters) for item in split(value[1:-1])]
        word = " or " if name.endswith("or") else " and "
        return f"{'not ' if name.startswith('not.') else ''}({word.join(parts)})"

    def _branch(self, item: str, parameters: Parameters) -> str:
        nested = re.fullmatch(r"((?:not\.)?(?:and|or))(\(.*\))", item, re.DOTALL)
        if nested:
            return self._logic(nested[1], nested[2], parameters)
        column, dot, rest = _first_name(item)
        if not dot:
            raise _unreadable(f"failed to parse logic tree ({item})")
        return self._condition(column, rest, parameters, nested=True)

    def _condition(
        self, name: str, value: str, parameters: Parameters, *, nested: bool = False
    ) -> str:
        match = _FILTER.fullmatch(value)
        if match is None:
            raise _unreadable(f"failed to parse filter ({value})")
        expression, _ = self._field(name)
        operand = _unquoted(match["value"]) if nested else match["value"]
        condition = _comparison(expression, match["op"], match["many"], operand, parameters)
        if condition is None:
            raise _unreadable(f"failed to parse filter ({value})")
        return f"not {condition}" if match["not"] else condition


def _comparison(  # noqa: PLR0911 - a table
    expression: str, op: str, many: str | None, operand: str, parameters: Parameters
) -> str | None:
    if op == "is":
        word = operand.lower()
        return f"({expression} is {word.replace('_', ' ')})" if word in _IS else None
    if op == "in":
        if not (operand.startswith("(") and operand.endswith(")")):
            return None
        items = [_unquoted(item) for item in split(operand[1:-1])]
        return f"({expression} = any ({parameters.add(items)}))"
    if op == "isdistinct":
        return f"({expression} is distinct from {parameters.add(operand)})"
    if op not in _COMPARISONS:
        return None
    if many:
        if op not in _QUANTIFIABLE or not (operand.startswith("{") and operand.endswith("}")):
            return None
        items = [_wildcards(op, _unquoted(item)) for item in split(operand[1:-1])]
        return f"({expression} {_COMPARISONS[op]} {many} ({parameters.add(items)}))"
    value = parameters.add(_wildcards(op, operand))
    return f"({expression} {_COMPARISONS[op]} {value})"


def _wildcards(op: str, value: str) -> str:
    return value.replace("*", "%") if op in ("like", "ilike") else value


def split(text: str) -> list[str]:
    """The items of a list, at commas that are neither quoted nor in parentheses or braces."""
    return [item for item in _items(text) if item] if text else []


def _items(text: str) -> Iterator[str]:
    start = depth = 0
    in_quotes = escaped = False
    for position, char in enumerate(text):
        if escaped:
            escaped = False
        elif in_quotes:
            escaped = char == "\\"
            in_quotes = char != '"'
        elif char == '"':
            in_quotes = True
        elif char in "({":
            depth += 1
        elif char in ")}":
            depth -= 1
        elif char == "," and depth == 0:
            yield text[start:position]
            start = position + 1
    yield text[start:]


def _parts_of_selection(item: str) -> tuple[str, str, str]:
    """``alias:name::cast``: name, alias and cast."""
    name, _, cast_to = item.partition("::")
    alias, colon, rest = name.partition(":")
    return (rest, _unquoted(alias), cast_to) if colon else (name, "", cast_to)


def _first_name(item: str) -> tuple[str, str, str]:
    if item.startswith('"'):
        end = item.find('"', 1) + 1
        return item[:end], item[end : end + 1], item[end + 1 :]
    return item.partition(".")


def _unquoted(text: str) -> str:
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)
    return text


def _literal(text: str) -> str:
    escaped = text.replace("\0", "").replace("'", "''").replace("\\", "\\\\")
    return f"E'{escaped}'"


def _unreadable(message: str) -> RestError:
    return RestError(
        400, "PGRST100", json.dumps(message) + " (line 1, column 1)", "unexpected input"
    )
