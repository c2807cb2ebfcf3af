"""Postgres on the wire: the statements of a transaction in one flight, as PostgREST sends them.

asyncpg opens the connection, for it knows every way to log in; then this takes over its socket. A
request needs four statements (begin, whose it is, what it asks, commit), and one exchange instead of
four is half of its cost. Values travel as text without a type, so that Postgres reads them like
literals and says of bad ones what it says through PostgREST. And what the server says when it ends a
connection that nobody is using is kept, as libpq keeps it: the next request hears it.
"""

from __future__ import annotations

__all__ = ["Lost", "PostgresError", "Row", "Step", "Wire"]

import asyncio
import struct
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import asyncpg

Row = list[bytes | None]

_EXECUTE: Final = b"E" + struct.pack("!i", 9) + b"\0" + struct.pack("!i", 0)
_SYNC: Final = b"S" + struct.pack("!i", 4)
_TERMINATE: Final = b"X" + struct.pack("!i", 4)
_MOST_STATEMENTS: Final = 1000
_HEADER: Final = struct.Struct("!xi")  # type, length
_SHORT: Final = struct.Struct("!h")
_LONG: Final = struct.Struct("!i")


class Step(NamedTuple):
    """A statement and its values: None, text, numbers, truth values, and lists of text."""

    statement: str
    values: Sequence[Any] = ()


class PostgresError(Exception):
    """What Postgres said no with."""

    def __init__(self, fields: dict[str, str]) -> None:
        self.code = fields.get("C", "")
        self.message = fields.get("M", "")
        self.detail = fields.get("D")
        self.hint = fields.get("H")
        self.is_fatal = fields.get("V") in ("FATAL", "PANIC")
        super().__init__(f"{self.code} {self.message}")


class Lost(Exception):
    """The connection is gone; ``words`` is what the server said last, if it did."""

    def __init__(self, words: PostgresError | None, *, while_idle: bool) -> None:
        self.words = words
        self.while_idle = while_idle
        super().__init__(str(words or "the server closed the connection unexpectedly"))


class _Flight:
    """Statements under way, and what has come back so far."""

    def __init__(self, rows_of: int) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.parsing: deque[tuple[str, bytes]] = deque()
        self.rows: list[Row] = []
        self.error: PostgresError | None = None
        self.rows_of = rows_of
        self.completed = 0


class Wire(asyncio.Protocol):
    """One connection; one flight at a time."""

    def __init__(self, raw: asyncpg.Connection) -> None:
        self._raw = raw
        self._transport: asyncio.Transport = raw._transport
        self._transport.set_protocol(self)
        self._buffer = bytearray()
        self._statements: dict[str, bytes] = {}
        self._number = 0
        self._flight: _Flight | None = None
        self._words: PostgresError | None = None
        self.is_lost = False
        self.in_transaction = False

    @property
    def is_busy(self) -> bool:
        """Whether an answer is still to come, which nobody waits for any more."""
        return self._flight is not None or self.in_transaction

    async def run(self, steps: Sequence[Step], *, rows_of: int = 0) -> list[Row]:
        """Run the steps in order until one fails; the rows of one of them, by its number.

        Raises ``PostgresError``, after which a transaction is still open, or ``Lost``.
        """
        if self.is_lost:
            raise Lost(self._words, while_idle=True)
        flight = self._flight = _Flight(rows_of)
        self._transport.write(b"".join([*(self._message(s, flight) for s in steps), _SYNC]))
        await flight.done
        self._flight = None
        if flight.error is not None:
            raise flight.error
        return flight.rows

    def close(self) -> None:
        """Say good-bye, and do not wait."""
        if not self.is_lost:
            self._transport.write(_TERMINATE)
        self._raw.terminate()

    # ─── sending ─────────────────────────────────────────────────────────────────────────────────

    def _message(self, step: Step, flight: _Flight) -> bytes:
        name = self._statements.get(step.statement)
        bind = [b"", b"\0\0", _SHORT.pack(len(step.values))]
        for value in step.values:
            text = _encoded(value)
            bind.append(b"\xff\xff\xff\xff" if text is None else _LONG.pack(len(text)) + text)
        bind.append(b"\0\0")
        parse = b""
        if name is None:
            name = self._name()
            body = name + b"\0" + step.statement.encode() + b"\0\0\0"
            parse = b"P" + _LONG.pack(len(body) + 4) + body
            flight.parsing.append((step.statement, name))
        bind[0] = b"\0" + name + b"\0"
        content = b"".join(bind)
        return b"".join([parse, b"B", _LONG.pack(len(content) + 4), content, _EXECUTE])

    def _name(self) -> bytes:
        """Of a new statement; beyond a bound it is forgotten at once."""
        if len(self._statements) >= _MOST_STATEMENTS:
            return b""
        self._number += 1
        return b"s%d" % self._number

    # ─── receiving ───────────────────────────────────────────────────────────────────────────────

    def data_received(self, data: bytes) -> None:
        buffer, start = self._buffer, 0
        buffer += data
        while len(buffer) - start >= 5:
            end = start + 1 + _HEADER.unpack_from(buffer, start)[0]
            if end > len(buffer):
                break
            self._received(buffer[start], bytes(buffer[start + 5 : end]))
            start = end
        del buffer[:start]

    def _received(self, kind: int, body: bytes) -> None:
        flight = self._flight
        if kind == 0x45:  # E: an error
            self._failed(PostgresError(_fields(body)))
        elif kind == 0x5A:  # Z: ready for more
            self.in_transaction = body != b"I"
            if flight is not None and not flight.done.done():
                flight.done.set_result(None)
        elif flight is None:
            pass  # a notice, a changed setting
        elif kind == 0x44:  # D: a row
            if flight.completed == flight.rows_of:
                flight.rows.append(_row(body))
        elif kind == 0x43:  # C: a statement has ended
            flight.completed += 1
        elif kind == 0x31:  # 1: a statement is prepared
            statement, name = flight.parsing.popleft()
            if name:
                self._statements[statement] = name

    def _failed(self, error: PostgresError) -> None:
        if error.is_fatal:
            self._words = error
        elif self._flight is not None:
            self._flight.error = error

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self._raw.terminate()
        if self._flight is not None and not self._flight.done.done():
            self._flight.done.set_exception(Lost(self._words, while_idle=False))


def _encoded(value: Any) -> bytes | None:
    match value:
        case None:
            return None
        case bytes():
            return value
        case bool():
            return b"true" if value else b"false"
        case list():
            return ("{" + ",".join(map(_element, value)) + "}").encode()
        case _:
            return str(value).encode()


def _element(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _fields(body: bytes) -> dict[str, str]:
    return {
        chr(field[0]): field[1:].decode(errors="replace") for field in body.split(b"\0") if field
    }


def _row(body: bytes) -> Row:
    row: Row = []
    at = 2
    for _ in range(_SHORT.unpack_from(body)[0]):
        length = _LONG.unpack_from(body, at)[0]
        at += 4
        row.append(None if length < 0 else body[at : at + length])
        at += max(length, 0)
    return row
