"""Server-sent events out of bytes, however they were cut into pieces.

The rules are those of the HTML standard ("Interpreting an event stream"), with three kindnesses. An
event that the connection's end cuts off before its blank line still counts, because servers forget
that line. A line that is a JSON object, without a field's name, is an event: Ollama and some proxies
write errors so. A field ``error`` is the data of an event of that type: older llama.cpp. Text is
decoded line by line, so a character whose bytes came in two pieces stays whole.
"""

from __future__ import annotations

__all__ = ["EventStream", "ServerEvent", "TooLargeError"]

import codecs
from dataclasses import dataclass


class TooLargeError(ValueError):
    """A line or an event is larger than is allowed."""


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event."""

    data: str
    event: str = ""  #: its type; empty for the usual one


class EventStream:
    """Feed it bytes, get events."""

    def __init__(self, largest: int = 1024 * 1024) -> None:
        self._largest = largest  # bytes, of a line and of an event's data
        self._line = bytearray()  # the one that is not complete
        self._after_cr = False  # an LF that comes next belongs to that CR
        self._at_start = True
        self._type = ""
        self._data: list[str] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[ServerEvent]:
        """The events that are complete now. Raises :class:`TooLargeError`."""
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            self._after_cr = False
        if not chunk:
            return []
        self._after_cr = chunk.endswith(b"\r")
        if b"\r" in chunk:
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        first, *others = chunk.split(b"\n")
        self._line += first
        if len(self._line) > self._largest:
            raise TooLargeError(f"a line of more than {self._largest} bytes")
        if not others:
            return []
        lines = [bytes(self._line), *others[:-1]]
        self._line = bytearray(others[-1])
        return [event for line in lines if (event := self._take(line)) is not None]

    def end(self) -> list[ServerEvent]:
        """The event that the end of the stream cut off, if there is one."""
        line, self._line = bytes(self._line), bytearray()
        return [event for end in (line, b"") if (event := self._take(end)) is not None]

    def _take(self, line: bytes) -> ServerEvent | None:
        """One line; the event that a blank one completes."""
        if self._at_start:
            line = line.removeprefix(codecs.BOM_UTF8)
            self._at_start = False
        if not line:
            return self._complete()
        if line.startswith(b":"):
            return None  # a comment, which keeps the connection alive
        if line.startswith(b"{"):
            return ServerEvent(line.decode("utf-8", "replace"))
        name, _, value = line.partition(b":")
        text = value.removeprefix(b" ").decode("utf-8", "replace")
        if name == b"error":
            self._type = "error"
        if name in {b"data", b"error"}:
            self._size += len(value) + 1
            if self._size > self._largest:
                raise TooLargeError(f"an event of more than {self._largest} bytes")
            self._data.append(text)
        elif name == b"event":
            self._type = text
        return None

    def _complete(self) -> ServerEvent | None:
        data, self._data, self._size = self._data, [], 0
        type_, self._type = self._type, ""
        return ServerEvent("\n".join(data), type_) if data else None
