"""Secrets are taken out of every text before it leaves the process, whoever wrote it.

Errors of other libraries quote what they were given: a URL with its password, a header, a line that
they could not read. Whatever a log, a command, a health page or a problem document says goes through
``scrubbed``. It removes the secrets of the settings, in every form in which they are written, and whatever
looks like a secret.
"""

from __future__ import annotations

__all__ = ["HIDDEN", "guard_logs", "keep_secret", "scrubbed", "scrubbed_trace"]

import json
import logging
import re
import traceback
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Final
from urllib.parse import parse_qsl, quote, quote_plus, unquote

HIDDEN: Final = "***"

_SHORTEST: Final = 4  #: a shorter one would be found in half of all words
#: Passwords that are words of every second sentence; where they stand in a URL they are found all the same.
_WORDS: Final = frozenset(
    {
        "postgres",
        "postgresql",
        "redis",
        "default",
        "supabase",
        "password",
        "uvian",
        "localhost",
        "none",
    }
)
#: ``scheme://user:password@``, keys of vendors, JWTs, and what follows "Bearer" or "apikey".
_LOOKS_SECRET: Final = re.compile(
    r"(?P<login>\b[a-z][a-z0-9+.-]{0,20}://[^\s:/?#@'\"]*:)(?P<password>[^\s/?#'\"]+|\[[^\s'\"]*\])(?=@)"
    r"|\bsb_secret_[\w-]+"
    r"|\bsk-[\w-]{16,}"
    r"|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"
    r"|(?P<word>\bbearer\s+|\b(?:apikey|api[_-]key|access_token|authorization|password)\b['\"]?\s*[:=]\s*['\"]?)"
    r"(?P<value>[\w.~+/=-]{12,})",
    re.IGNORECASE,
)

#: One of these is in whatever that finds: most lines have none, and are spared the search.
_MARKS: Final = (
    "://",
    "sb_secret_",
    "sk-",
    "eyj",
    "bearer",
    "key",
    "token",
    "authorization",
    "password",
)

_known: list[str] = []  #: the longest first: one may be part of another


def keep_secret(secrets: Iterable[str]) -> None:
    """From now on no text shows these, nor the passwords of those that are URLs."""
    found = {form for secret in secrets for form in _forms(secret)}
    _known[:] = sorted(found.union(_known), key=len, reverse=True)


def scrubbed(text: str) -> str:
    """``text`` without secrets."""
    for secret in _known:
        if secret in text:
            text = text.replace(secret, HIDDEN)
    lowered = text.lower()
    if any(mark in lowered for mark in _MARKS):
        return _LOOKS_SECRET.sub(_without, text)
    return text


def scrubbed_trace(
    kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
) -> str:
    """A stack trace without secrets."""
    return scrubbed("".join(traceback.format_exception(kind, error, trace))).rstrip("\n")


def guard_logs() -> None:
    """Every record of every logger is scrubbed as it is made, whoever handles it. Twice is fine."""
    if logging.getLogRecordFactory() is not _record:
        logging.setLogRecordFactory(_record)


def _record(*args: Any, **kwargs: Any) -> logging.LogRecord:
    record = logging.LogRecord(*args, **kwargs)
    try:
        message = record.getMessage()
    except Exception:  # noqa: BLE001 - arguments that do not fit: logging would print them as they are
        message = f"{record.msg} (and {record.args!r}, which does not fit)"
    record.msg, record.args = scrubbed(message), ()
    if isinstance(record.exc_info, tuple) and record.exc_info[0] is not None:
        record.exc_text = scrubbed_trace(*record.exc_info)  # formatters take it as it is
    if record.stack_info:
        record.stack_info = scrubbed(record.stack_info)
    return record


def _forms(secret: str) -> set[str]:
    """How a secret may be written: as it is, escaped for a URL, a string's repr or JSON."""
    plain = _passwords(secret) if "://" in secret else {secret}
    plain |= {unquote(each) for each in plain}
    forms = {
        form
        for each in plain
        for form in (each, quote(each, safe=""), quote_plus(each), repr(each)[1:-1], _in_json(each))
    }
    return {form for form in forms if len(form) >= _SHORTEST and form.lower() not in _WORDS}


def _passwords(url: str) -> set[str]:
    """Of a URL the password alone: an error is worth more with the host in it."""
    rest, _, query = url.partition("://")[2].partition("?")
    found = {value for name, value in parse_qsl(query) if "password" in name.lower()}
    return found | {rest.rpartition("@")[0].partition(":")[2]}


def _in_json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _without(found: re.Match[str]) -> str:
    if found["password"] in ("password", "<password>"):  # our own sentences: user:password@host
        return found[0]
    return f"{found['login'] or found['word'] or ''}{HIDDEN}"
