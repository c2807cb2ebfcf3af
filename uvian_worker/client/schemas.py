"""Whether an input fits a JSON Schema, field by field: as much of it as pydantic writes.

What it does not know it lets through: the worker's own validation has the last word. This one has
the first, before a job is made and credits are reserved: at the gateway, in the client, at the command
line.
"""

from __future__ import annotations

__all__ = ["Mistake", "mistakes_of", "sentence_of"]

import logging
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any, Final, NamedTuple
from uuid import UUID

log = logging.getLogger("uvian.schemas")

Schema = Mapping[str, Any]

_DEEPEST: Final = 40  #: schemas inside schemas; a reference may lead to itself
_STEPS: Final = 50_000  #: values held against schemas: choices inside choices multiply
_MOST: Final = 50  #: mistakes
_SHOWN: Final = 3  #: of them, in a sentence


class Mistake(NamedTuple):
    """What is wrong with one field, as pydantic would say it."""

    field: str
    code: str
    message: str


def mistakes_of(schema: Schema, document: Any, field: str = "") -> list[Mistake]:
    """What keeps the document from being one of this schema, the first few of it.

    A schema that makes no sense, or takes too long to follow, refuses nothing.
    """
    try:
        return list(islice(_Check(schema).of(schema, document, field, 0), _MOST))
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        log.warning("A schema of job_types cannot be followed: %s: %s", type(error).__name__, error)
        return []


def sentence_of(mistakes: Sequence[Mistake]) -> str:
    """The first few mistakes for a person, by the names of their fields."""
    parts = [_part(mistake) for mistake in mistakes[:_SHOWN]]
    more = len(mistakes) - len(parts)
    return "; ".join(parts) + (f"; and {more} more." if more else ".")


def _part(mistake: Mistake) -> str:
    field, message = mistake.field or "the input", mistake.message
    if mistake.code == "missing":
        return f"{field} is missing"
    if mistake.code == "extra_forbidden":
        return f"there is no field {field}"
    if message.startswith("Input "):
        message = message.removeprefix("Input ")
    else:
        message = message[:1].lower() + message[1:]
    return f"{field} {message}" if message.startswith("should") else f"{field}: {message}"


class _Check:
    def __init__(self, root: Schema) -> None:
        self._definitions = root.get("$defs", {})
        self._steps = 0

    def of(self, schema: Any, value: Any, field: str, depth: int) -> Iterator[Mistake]:
        """The mistakes of one value."""
        if not isinstance(schema, Mapping) or depth > _DEEPEST:
            return
        self._steps += 1
        if self._steps > _STEPS:
            raise ValueError("more choices than anybody can try")
        schema = self._resolved(schema)
        expected = str(schema.get("type", ""))
        is_one, name = _TYPES.get(expected, (_anything, ""))
        if not is_one(value):
            yield Mistake(field, f"{expected}_type", f"Input should be {name}")
            return
        yield from _broken(schema, value, field)
        for part in schema.get("allOf", ()):
            yield from self.of(part, value, field, depth + 1)
        yield from self._choices(schema, value, field, depth)
        if isinstance(value, dict):
            yield from self._object(schema, value, field, depth)
        elif isinstance(value, list):
            first = schema.get("prefixItems", ())
            for n, item in enumerate(value):
                rule = first[n] if n < len(first) else schema.get("items")
                yield from self.of(rule, item, _inside(field, n), depth + 1)

    def _resolved(self, schema: Schema) -> Schema:
        reference = schema.get("$ref")
        if not isinstance(reference, str):
            return schema
        target = self._definitions.get(reference.removeprefix("#/$defs/"), {})
        return {**target, **{name: rule for name, rule in schema.items() if name != "$ref"}}

    def _choices(self, schema: Schema, value: Any, field: str, depth: int) -> Iterator[Mistake]:
        yield from self._any_of(schema.get("anyOf") or (), value, field, depth)
        choices = schema.get("oneOf") or ()
        if not isinstance(value, dict) or not (names := _given_alone(choices)):
            yield from self._any_of(choices, value, field, depth)
        elif sum(not list(self.of(each, value, field, depth + 1)) for each in choices) != 1:
            yield Mistake(field, "one_of", f"Input should have exactly one of {', '.join(names)}")

    def _any_of(
        self, choices: Sequence[Schema], value: Any, field: str, depth: int
    ) -> Iterator[Mistake]:
        """The mistakes of the choice that comes nearest: null is nobody's first."""
        nearest: list[Mistake] | None = None
        for choice in choices:
            mistakes = list(self.of(choice, value, field, depth + 1))
            if not mistakes:
                return
            if nearest is None or _distance(mistakes, field) < _distance(nearest, field):
                nearest = mistakes
        yield from nearest or ()

    def _object(
        self, schema: Schema, value: dict[str, Any], field: str, depth: int
    ) -> Iterator[Mistake]:
        properties = schema.get("properties", {})
        for name in schema.get("required", ()):
            if name not in value:
                yield Mistake(_inside(field, name), "missing", "Field required")
        others = schema.get("additionalProperties", True)
        for name, each in value.items():
            if name in properties:
                yield from self.of(properties[name], each, _inside(field, name), depth + 1)
            elif others is False:
                message = "Extra inputs are not permitted"
                yield Mistake(_inside(field, name), "extra_forbidden", message)
            else:
                yield from self.of(others, each, _inside(field, name), depth + 1)


def _given_alone(choices: Sequence[Any]) -> list[str]:
    """The fields of which exactly one is to be given, where the choices say no more than that."""
    required = [each.get("required", ()) for each in choices if isinstance(each, Mapping)]
    names = [name for fields in required if len(fields) == 1 for name in fields]
    return names if len(names) == len(choices) else []


def _broken(schema: Schema, value: Any, field: str) -> Iterator[Mistake]:
    for keyword, (concerns, holds, code, message) in _RULES.items():
        rule = schema.get(keyword)
        if rule is not None and concerns(value) and not holds(rule, value):
            yield Mistake(field, code, message.format(rule))


def _distance(mistakes: list[Mistake], field: str) -> tuple[bool, int]:
    """How far a value is from a choice: another type altogether is farther than anything."""
    return any(m.field == field and m.code.endswith("_type") for m in mistakes), len(mistakes)


def _inside(field: str, name: str | int) -> str:
    return f"{field}.{name}" if field else str(name)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _anything(_: Any) -> bool:
    return True


def _is_of_format(name: str, value: str) -> bool:
    if name != "uuid":
        return True
    try:
        UUID(value)
    except ValueError:
        return False
    return True


def _matches(pattern: str, value: str) -> bool:
    compiled = _compiled(pattern)
    return compiled is None or compiled.search(value) is not None


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str] | None:
    try:
        return re.compile(pattern)
    except re.error:  # another dialect: the worker's to check
        return None


_TYPES: Final[Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "array": (_is_list, "a list"),
    "boolean": (lambda value: isinstance(value, bool), "true or false"),
    "integer": (lambda value: _is_number(value) and value % 1 == 0, "a whole number"),
    "null": (lambda value: value is None, "null"),
    "number": (_is_number, "a number"),
    "object": (lambda value: isinstance(value, dict), "an object"),
    "string": (_is_text, "a string"),
}

_Rule = tuple[Callable[[Any], bool], Callable[[Any, Any], bool], str, str]


def _at_least(rule: int, value: Any) -> bool:
    return len(value) >= rule


def _at_most(rule: int, value: Any) -> bool:
    return len(value) <= rule


#: By keyword: what it is about, whether it holds, and what the mistake says when it does not.
_RULES: Final[Mapping[str, _Rule]] = {
    "const": (_anything, operator.eq, "literal_error", "Input should be {}"),
    "enum": (_anything, operator.contains, "literal_error", "Input should be one of {}"),
    "minLength": (_is_text, _at_least, "string_too_short", "At least {} characters"),
    "maxLength": (_is_text, _at_most, "string_too_long", "At most {} characters"),
    "pattern": (_is_text, _matches, "string_pattern_mismatch", "Should match {}"),
    "format": (_is_text, _is_of_format, "format", "Input should be a {}"),
    "minimum": (_is_number, operator.le, "greater_than_equal", "At least {}"),
    "maximum": (_is_number, operator.ge, "less_than_equal", "At most {}"),
    "exclusiveMinimum": (_is_number, operator.lt, "greater_than", "More than {}"),
    "exclusiveMaximum": (_is_number, operator.gt, "less_than", "Less than {}"),
    "minItems": (_is_list, _at_least, "too_short", "At least {} items"),
    "maxItems": (_is_list, _at_most, "too_long", "At most {} items"),
}
