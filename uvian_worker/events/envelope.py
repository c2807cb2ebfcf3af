"""The envelope around each event, and the cursor that names its position in a topic.

``{id, key, seq, type, topic, at, job_id, run, attempt, data}``: ``id`` is the cursor, ``key`` is
the same in every topic the event is appended to, ``data`` are the fields of the event's class.
"""

from __future__ import annotations

__all__ = ["Cursor", "Envelope", "encode", "now_text", "time_text"]

import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple, Self

import orjson

from uvian_common.terminal_events import TERMINAL_TYPES

_CURSOR = re.compile(r"([0-9a-z]{1,16})-([0-9]{1,15})-([0-9a-z]{1,16})", re.ASCII)


class Cursor(NamedTuple):
    """A position in a topic: ``<epoch>-<seq>-<check>``. Opaque to clients, who only hand it back."""

    epoch: str
    seq: int
    check: str

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The cursor in ``text``; None for anything that never was one."""
        match = _CURSOR.fullmatch(text)
        return cls(match[1], int(match[2]), match[3]) if match else None

    def __str__(self) -> str:
        return f"{self.epoch}-{self.seq}-{self.check}"


@dataclass(frozen=True, slots=True)
class Envelope:
    """One event as it is in a topic."""

    id: str  #: the topic's cursor: hand it back to go on after this event
    seq: int  #: position in the topic, from 1, without gaps
    topic: str  #: `job:<id>`, `user:<id>` or `conversation:<id>`
    key: str  #: the same in every topic the event is in: what you have seen already
    type: str  #: one of the types below
    at: str  #: when it happened, ISO 8601, UTC
    job_id: str | None  #: null where no job caused it
    run: int  #: which run of the job; grows with every run
    attempt: int  #: how many attempts of the job have burned
    data: dict[str, Any]  #: the fields of its type

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """The envelope in a message or a log entry; fields of a newer release are left out."""
        document = orjson.loads(raw)
        return cls(*(document[name] for name in _NAMES))

    @property
    def cursor(self) -> Cursor:
        """``id``, parsed."""
        cursor = Cursor.parse(self.id)
        assert cursor is not None, f"{self.id!r} is no cursor"  # noqa: S101 — our own writing
        return cursor

    @property
    def ends_job(self) -> bool:
        """Whether nothing of this run can follow."""
        return self.type in TERMINAL_TYPES


_NAMES = ("id", "seq", "topic", "key", "type", "at", "job_id", "run", "attempt", "data")


def encode(
    key: str, kind: str, job: tuple[str, int, int], data: Any, *, at: str | None = None
) -> bytes:
    """The body of an event as it is appended: the envelope from ``key`` on. ``job`` is id, run and attempt.

    Raises ``TypeError`` for what JSON cannot hold.
    """
    job_id, run, attempt = job
    document = {
        "key": key,
        "type": kind,
        "at": at or now_text(),
        "job_id": job_id or None,
        "run": run,
        "attempt": attempt,
        "data": data,
    }
    return orjson.dumps(document, default=str, option=orjson.OPT_NON_STR_KEYS)[1:]


def now_text() -> str:
    """Now, as envelopes write it."""
    return _text_of(time.time_ns() // 1_000_000)


@lru_cache(maxsize=1)  # many events share a millisecond
def _text_of(milliseconds: int) -> str:
    return time_text(datetime.fromtimestamp(milliseconds / 1000, UTC))


def time_text(at: datetime) -> str:
    """A moment, as envelopes write it."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
