"""The input of a job as it is typed: one JSON object, or ``key=value`` words read by the type's schema."""

from __future__ import annotations

__all__ = ["check_fields", "parse_input"]

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from uvian_worker.cli.errors import ExitCode, Fault
from uvian_worker.cli.lookup import nearest
from uvian_worker.client.schemas import mistakes_of, sentence_of

Schema = Mapping[str, Any]

#: Of a field's schema, what fits a line.
_RULES: Final = (
    "type", "format", "enum", "minimum", "maximum", "minLength", "maxLength", "default",
)  # fmt: skip


def parse_input(words: Sequence[str], schema: Schema) -> dict[str, Any]:
    """The input that ``words`` say. Raises ``Fault`` for what is neither JSON nor ``key=value``."""
    if len(words) == 1 and words[0] == "-":
        return _object(sys.stdin.read())
    if len(words) == 1 and words[0].lstrip().startswith("{"):
        return _object(words[0])
    return dict(_pair(word, schema) for word in words)


def check_fields(values: Mapping[str, Any], schema: Schema) -> None:
    """Refuse what does not fit what the newest worker has registered. Raises ``Fault``.

    The client would refuse it as well; here unknown and missing fields are named with what to write.
    """
    fields = schema.get("properties", {})
    if schema.get("additionalProperties") is False:
        for name in values:
            if name not in fields:
                raise Fault(
                    f"The input has no field {name!r}.",
                    ExitCode.USAGE,
                    hint=nearest(name, fields),
                )
    missing = [name for name in schema.get("required", ()) if name not in values]
    if missing:
        optional = [name for name in fields if name not in schema.get("required", ())]
        also = f" Optional: {', '.join(optional)}." if optional else ""
        raise Fault(
            f"The input lacks {' and '.join(missing)}.",
            ExitCode.USAGE,
            hint=f"Give it as: {' '.join(f'{name}=…' for name in missing)}.{also}",
        )
    if mistakes := mistakes_of(schema, values):
        takes = _takes(mistakes[0].field, fields)
        raise Fault(f"The input does not fit: {sentence_of(mistakes)}", ExitCode.USAGE, hint=takes)


def _takes(field: str, fields: Schema) -> str:
    """What a field takes, as far as its schema says it in few words."""
    rules = fields.get(field, {})
    options = [rules, *rules.get("anyOf", ())]
    rules = {name: option[name] for option in options for name in _RULES if name in option}
    return (
        f"{field} takes: " + ", ".join(f"{name} {rule}" for name, rule in rules.items())
        if rules
        else ""
    )


def _object(text: str) -> dict[str, Any]:
    try:
        document = orjson.loads(text)
    except ValueError as error:
        raise Fault(f"The input is not JSON: {error}", ExitCode.USAGE) from error
    if not isinstance(document, dict):
        raise Fault("The input is a JSON object: {…}", ExitCode.USAGE)
    return document


def _pair(word: str, schema: Schema) -> tuple[str, Any]:
    name, equals, text = word.partition("=")
    if not equals or not name:
        raise Fault(
            f"{word!r} is no key=value.",
            ExitCode.USAGE,
            hint="Write fields as key=value, or the whole input as one JSON object in quotes.",
        )
    return name, _value(text, schema.get("properties", {}).get(name, {}))


def _value(text: str, field: Schema) -> Any:
    """Text where the field takes text, else JSON; what is not JSON is text again."""
    kinds = {field.get("type"), *(option.get("type") for option in field.get("anyOf", ()))}
    if "string" in kinds and not (text == "null" and "null" in kinds):
        return text
    try:
        return orjson.loads(text)
    except ValueError:
        return text
