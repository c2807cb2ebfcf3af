"""What a client sends as a body: read within seconds, and accepted only if all of it can be stored.

JSON that is well-formed and still cannot be stored (half an emoji, a NUL, arrays inside arrays without
an end) is an input that is not valid, and the answer names each field. Of a name that is given twice
the last one counts, as in browsers and in Postgres; numbers beyond 64 bits become floating ones.
"""

from __future__ import annotations

__all__ = ["document_of_body", "read_body"]

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final, NoReturn

import orjson
from aiohttp import web

from uvian_worker.gateway.http.problems import Problem

_DEEPEST: Final = 64  #: objects and arrays inside each other
_MOST_FIELDS: Final = 1_000  #: of the outermost object; no endpoint knows a tenth of that
_MOST_MISTAKES: Final = 20  #: mistakes in one answer
_FIRST_SECONDS: Final = 10.0  #: that a body has in any case,
_BYTES_PER_SECOND: Final = 16 * 1024  #: and a second more for each of these,
_LONGEST_SECONDS: Final = 30.0  #: up to here
_SCANNED: Final = 128 * 1024  #: bytes of what is no JSON, to say which field is

_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{},]')
_ESCAPED_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")


async def read_body(request: web.Request, most: int) -> bytes:
    """All of it, at most ``most`` bytes, from a client that goes on sending.

    Raises ``Problem``: what comes byte by byte, or not at all, ends within ten seconds.
    """
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Problem("unsupported_media_type", "Send the body as it is, not compressed.")
    if (request.content_length or 0) > most:
        raise Problem("input_too_large")
    clock = asyncio.get_running_loop().time
    began, body = clock(), bytearray()
    try:
        while not request.content.at_eof():
            left = began + min(_FIRST_SECONDS + len(body) / _BYTES_PER_SECOND, _LONGEST_SECONDS)
            async with asyncio.timeout_at(left):
                body += await request.content.readany()
            if len(body) > most:
                raise Problem("input_too_large")
    except TimeoutError as error:
        raise Problem("bad_request", "The body did not arrive in time.") from error
    return bytes(body)


def document_of_body(raw: bytes) -> Any:
    """The JSON of a body; an empty one is ``{}``. Raises ``Problem``."""
    try:
        document = orjson.loads(raw or b"{}")
    except ValueError as error:  # also what is no UTF-8
        _explain(raw)
        raise Problem("bad_request", "The body is not JSON.") from error
    if isinstance(document, dict) and len(document) > _MOST_FIELDS:
        raise Problem("invalid_input", f"A body has at most {_MOST_FIELDS} fields.")
    if raw.count(b"{") + raw.count(b"[") > _DEEPEST and _is_deep(document):
        _refuse("too_deep", _deep_fields(document))
    if b"\\u0000" in raw:
        _refuse("string_nul", _fields_with(document, _has_nul))
    return document


def _explain(raw: bytes) -> None:
    """Say what is wrong where it is well-formed all the same: half a character, or too deep."""
    if (deep := _scanned_too_deep(raw[:_SCANNED])) is not None:
        _refuse("too_deep", iter([deep]))
    if not _ESCAPED_SURROGATE.search(raw):
        return
    try:
        document = json.loads(raw, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return
    _refuse("string_unicode", _fields_with(document, _is_half))


_MESSAGES: Final = {
    "too_deep": f"Objects and arrays may be {_DEEPEST} deep",
    "string_nul": "Text cannot hold the character NUL",
    "string_unicode": "Text ends in half a character: a surrogate without its other half",
}


def _refuse(code: str, fields: Iterator[str]) -> None:
    errors = [
        {"field": field, "code": code, "message": _MESSAGES[code]}
        for field in islice(fields, _MOST_MISTAKES)
    ]
    if errors:
        problem = Problem("invalid_input", errors=errors)
        problem.members["in"] = "body"
        raise problem


def _walk(document: Any) -> Iterator[tuple[str, int, Any]]:
    """Every value with its field and depth, in no particular order, without recursion."""
    waiting: list[tuple[str, int, Any]] = [("", 0, document)]
    while waiting:
        field, depth, value = waiting.pop()
        yield field, depth, value
        if depth > _DEEPEST:  # deeper levels are not looked at
            continue
        if isinstance(value, dict):
            waiting += [(_inside(field, name), depth + 1, each) for name, each in value.items()]
        elif isinstance(value, list):
            waiting += [(_inside(field, str(n)), depth + 1, each) for n, each in enumerate(value)]


def _is_deep(document: Any) -> bool:
    """Whether there is something below the deepest level, looked for level by level."""
    level = [document]
    for _ in range(_DEEPEST):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return False
    return True


def _deep_fields(document: Any) -> Iterator[str]:
    """Where it is too deep: the field of the body, not the seventy names on the way down."""
    deep = (
        _shortened(field)
        for field, depth, value in _walk(document)
        if depth >= _DEEPEST and isinstance(value, (dict, list))
    )
    return iter(dict.fromkeys(islice(deep, 1_000)))


def _fields_with(document: Any, is_wrong: Callable[[str], bool]) -> Iterator[str]:
    """The fields whose text, or the name of one of whose fields, cannot be stored."""
    for field, _, value in _walk(document):
        texts = value if isinstance(value, dict) else (value,)
        if any(isinstance(text, str) and is_wrong(text) for text in texts):
            yield _shown(field)


def _has_nul(text: str) -> bool:
    return "\0" in text


def _is_half(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _scanned_too_deep(raw: bytes) -> str | None:
    """The field that is too deep, of what no parser follows to its end."""
    names: list[str] = []  # of the objects and arrays we are in
    latest = ""
    for token in _TOKEN.finditer(raw):
        match text := token[0]:
            case b"{" | b"[":
                names.append(latest)
                latest = ""
                if len(names) > _DEEPEST:
                    return _shortened(".".join(name for name in names[1:] if name))
            case b"}" | b"]":
                if names:
                    names.pop()
                latest = ""
            case b",":
                latest = ""
            case _:
                latest = text[1:-1].decode(errors="replace")
    return None


def _inside(field: str, name: str) -> str:
    return f"{field}.{name}" if field else name


def _shortened(field: str) -> str:
    return _shown(".".join(field.split(".")[:3]))


def _shown(field: str) -> str:
    """As it can be answered: a name of a field may be long, or hold what cannot be written either."""
    return field.encode(errors="replace").decode().replace("\0", "?")[:200]


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
