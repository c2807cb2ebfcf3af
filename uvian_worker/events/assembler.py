"""Messages put together from what a reader yields: the text of each, byte for byte as it is stored."""

from __future__ import annotations

__all__ = ["AssembledMessage", "MessageAssembler"]

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from uvian_worker.events.envelope import Cursor, Envelope
from uvian_worker.events.reader import Expired, Snapshot

State = Literal["writing", "completed", "cancelled", "void", "unknown"]


@dataclass(slots=True)
class AssembledMessage:
    """One message as far as it was received.

    ``void`` is one that will not be; ``unknown`` is one of which something was missed: it is in the
    row, or will be published whole while it is still being written.
    """

    id: str
    state: State = "writing"
    reply_to: str | None = None
    run: int = 0
    raw: bytearray = field(default_factory=bytearray)  #: UTF-8, as offsets count

    @property
    def text(self) -> str:
        """What there is of it."""
        return self.raw.decode()


class MessageAssembler:
    """Apply what ``Reader.follow`` or ``Reader.read`` yields, in order; what is repeated changes nothing."""

    def __init__(self) -> None:
        self._messages: dict[str, AssembledMessage] = {}
        self._cursors: dict[str, Cursor] = {}  #: how far each topic was received

    @property
    def messages(self) -> Mapping[str, AssembledMessage]:
        """All that it knows of, in the order of their beginning."""
        return self._messages

    def apply(self, received: Envelope | Snapshot | Expired) -> None:
        """Take in an event, or that events were missed."""
        match received:
            case Envelope():
                if self._is_new(received):
                    self._happened(received)
            case Snapshot() | Expired():
                self._forget(received.topic, received.cursor)
                for envelope in received.state:
                    self._happened(envelope)

    def _is_new(self, envelope: Envelope) -> bool:
        cursor, known = envelope.cursor, self._cursors.get(envelope.topic)
        if known is not None and known.epoch == cursor.epoch and known.seq >= cursor.seq:
            return False
        self._cursors[envelope.topic] = cursor
        return True

    def _forget(self, topic: str, cursor: str) -> None:
        """What was being written may have grown, ended or begun anew."""
        known = Cursor.parse(cursor)
        if known is not None:
            self._cursors[topic] = known
        for message in self._messages.values():
            if message.state == "writing":
                message.state, message.run = "unknown", 0

    def _happened(self, envelope: Envelope) -> None:
        happened = _HAPPENED.get(envelope.type)
        if happened is None:
            return
        name = envelope.data["message_id"]
        message = self._messages.setdefault(name, AssembledMessage(name, "unknown"))
        if envelope.run >= message.run:
            happened(message, envelope.run, envelope.data)


def _started(message: AssembledMessage, run: int, data: Mapping[str, Any]) -> None:
    message.state, message.run, message.reply_to = "writing", run, data["reply_to"]
    message.raw.clear()


def _delta(message: AssembledMessage, run: int, data: Mapping[str, Any]) -> None:
    # Of a text whose start was lost nobody knows the run; it is the one that goes on writing.
    if message.state != "writing" or message.run not in (0, run):
        message.raw.clear()
    fits = data["offset"] == len(message.raw)
    if fits:
        message.raw += data["text"].encode()
    message.state, message.run = ("writing" if fits else "unknown"), run


def _snapshot(message: AssembledMessage, run: int, data: Mapping[str, Any]) -> None:
    message.state, message.run = "writing", run
    message.raw[:] = data["text"].encode()


def _reset(message: AssembledMessage, run: int, data: Mapping[str, Any]) -> None:
    message.state, message.run = ("void" if data["final"] else "writing"), run
    message.raw.clear()


def _completed(message: AssembledMessage, run: int, data: Mapping[str, Any]) -> None:
    if data["text"] is not None:
        message.raw[:] = data["text"].encode()
    stored = data["length"], data["sha256"]
    whole = stored == (len(message.raw), hashlib.sha256(message.raw).hexdigest())
    message.state, message.run = (data["status"] if whole else "unknown"), run


_HAPPENED: Final[Mapping[str, Callable[[AssembledMessage, int, Mapping[str, Any]], None]]] = {
    "message.started": _started,
    "message.delta": _delta,
    "message.snapshot": _snapshot,
    "message.reset": _reset,
    "message.completed": _completed,
}
