"""What a server understands of OpenAI's API: found out by trying, because no server says so.

A server that answers 400 or 422 and names one of these parameters gets the request again without it.
What it accepted is remembered for that model:

- ``max_completion_tokens`` or ``max_tokens``: OpenAI itself gets the first, which all its models accept
  and its newer ones require. Every other server gets the second, because most know only that one. A
  server that refuses one gets the other.
- ``stream_options``: without it there is no usage.
- ``response_format``: ``json_schema``; else ``json_object`` with the schema beside it, as llama.cpp
  and Together have it; else ``json_object`` alone, and the schema in words; else the words alone.

Some templates (Gemma's) allow no system message. A server that says so gets its text at the beginning of
the first question.
"""

from __future__ import annotations

__all__ = ["Dialect"]

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from executors.providers.transport.vendor import Refusal

_NAMES: Final = (
    "max_completion_tokens",
    "max_tokens",
    "stream_options",
    "response_format",
    "json_schema",
    "json_object",
)

_OTHER: Final[Mapping[str, Literal["max_completion_tokens", "max_tokens"]]] = {
    "max_completion_tokens": "max_tokens",
    "max_tokens": "max_completion_tokens",
}

_NO_SYSTEM: Final = re.compile(
    r"system (?:role|message|prompt|instruction)s?\b.{0,40}\b(?:not |un)supported"
    r"|(?:not support|unsupported).{0,40}\bsystem (?:role|message|prompt|instruction)",
    re.IGNORECASE,
)

_NEXT_FORM: Final[Mapping[str, Literal["json with schema", "json", "words"]]] = {
    "schema": "json with schema",
    "json with schema": "json",
    "json": "words",
}


@dataclass(frozen=True, slots=True)
class Dialect:
    """One way to put a question."""

    limit: Literal["max_completion_tokens", "max_tokens"]
    limit_is_certain: bool = False  #: the other one was refused
    stream_options: bool = True
    system: bool = True  #: it takes a message of the role "system"
    form: Literal["schema", "json with schema", "json", "words"] = "schema"

    def without(self, refusal: Refusal) -> Dialect | None:
        """The next way to try; None when the refusal is about something else."""
        if refusal.status not in {400, 422}:
            return None
        if self.system and _NO_SYSTEM.search(refusal.message):
            return replace(self, system=False)
        name = _named(refusal)
        if name == "stream_options" and self.stream_options:
            return replace(self, stream_options=False)
        if name == self.limit and not self.limit_is_certain:
            return replace(self, limit=_OTHER[self.limit], limit_is_certain=True)
        if name in {"response_format", "json_schema", "json_object"} and self.form in _NEXT_FORM:
            return replace(self, form=_NEXT_FORM[self.form])
        return None

    def parameters(
        self, *, max_tokens: int | None, schema: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """What is sent beside the messages."""
        sent: dict[str, Any] = {}
        if self.stream_options:
            sent["stream_options"] = {"include_usage": True}
        if max_tokens is not None:
            sent[self.limit] = max_tokens
        if schema is not None and self.form == "schema":
            described = {"name": "answer", "schema": schema, "strict": _is_closed(schema)}
            sent["response_format"] = {"type": "json_schema", "json_schema": described}
        if schema is not None and self.form == "json with schema":
            sent["response_format"] = {"type": "json_object", "schema": schema}
        if schema is not None and self.form == "json":
            sent["response_format"] = {"type": "json_object"}
        return sent

    def instruction(self, schema: Mapping[str, Any] | None) -> str | None:
        """The schema in words, where the server does not take it otherwise."""
        if schema is None or self.form == "schema":
            return None
        return (
            "Answer with one JSON document and nothing around it. It follows this JSON Schema: "
            + json.dumps(schema, ensure_ascii=False)
        )


def _named(refusal: Refusal) -> str:
    """The parameter a refusal is about: as it says, else the first one its sentence names."""
    if refusal.param:
        return refusal.param.partition(".")[0]
    found = [(refusal.message.find(name), -len(name), name) for name in _NAMES]
    return min((entry for entry in found if entry[0] >= 0), default=(0, 0, ""))[2]


def _is_closed(schema: Any) -> bool:
    """Whether OpenAI holds an answer to it strictly: all properties required, no others allowed."""
    if isinstance(schema, list):
        return all(map(_is_closed, schema))
    if not isinstance(schema, dict):
        return True
    if "properties" in schema or schema.get("type") == "object":
        properties = schema.get("properties", {})
        if schema.get("additionalProperties") is not False:
            return False
        if set(schema.get("required", ())) != set(properties):
            return False
    return all(map(_is_closed, schema.values()))
