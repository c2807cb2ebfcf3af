"""What waits to be sent to one socket: bounded, in order, and honest about what did not fit.

A slow reader must cost neither the others nor memory. So deltas of one message grow together while
nothing else of their topic came in between, only the latest progress of a job waits, and a topic
that fills its share is given up: its events go, and the client learns from where to resume. The
terminal events among them are answered, for a client must receive those whatever happens.

All of it together has an end, too: while much waits no further question is taken (``room``), beyond
that each topic that something happens in is given up, and what then goes on growing ``overflowed``.
"""

from __future__ import annotations

__all__ = ["Outbox", "PublishedEvent"]

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from uvian_worker.events.envelope import Envelope
from uvian_worker.gateway.live.frames import event_frame, frame_of

MAX_EVENTS: Final = 500  #: of one topic
MAX_BYTES: Final = 512 * 1024  #: of one topic
ROOM_BYTES: Final = 256 * 1024  #: of all; above it no request of the client is answered
MOST_BYTES: Final = 2 * 1024 * 1024  #: of all; with more topics are given up
END_BYTES: Final = 6 * 1024 * 1024  #: of all; with more the socket is closed
_PER_FRAME: Final = 200  #: bytes that a frame costs beside its own


class PublishedEvent:
    """An event on its way to any number of sockets: encoded once, its cursor parsed once."""

    __slots__ = ("cursor", "envelope", "frame")

    def __init__(self, envelope: Envelope) -> None:
        self.envelope = envelope
        self.cursor = envelope.cursor
        self.frame = event_frame(envelope)


@dataclass(slots=True, eq=False)
class _Waiting:
    """A frame in the queue. With an envelope it is an event, and may grow."""

    frame: bytes
    size: int
    topic: str | None = None  #: of an event, or of a page of an answer
    envelope: Envelope | None = None  #: the latest, where it has grown
    begin: Envelope | None = None  #: the first
    pieces: list[str] = field(default_factory=list)  #: what a delta has grown by
    void: bool = False

    def clear(self) -> None:
        """Never to be sent: its content is freed now, its entry when its turn comes."""
        self.void, self.frame, self.envelope, self.begin = True, b"", None, None
        self.pieces.clear()

    def sent(self) -> bytes:
        """The frame, with all that it has grown by."""
        if not self.pieces or self.envelope is None or self.begin is None:
            return self.frame
        text = self.begin.data["text"] + "".join(self.pieces)
        # It continues the text where the first began, and the cursor is that of the last.
        return event_frame(replace(self.envelope, data={**self.begin.data, "text": text}))


@dataclass(slots=True)
class _Share:
    """What one topic has in the queue."""

    events: int = 0
    size: int = 0
    last: _Waiting | None = None
    progress: _Waiting | None = None


class Outbox:
    """The queue of one socket. ``take`` waits for what is next; everything else never blocks."""

    def __init__(self, *, max_events: int = MAX_EVENTS, max_bytes: int = MAX_BYTES) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._queue: deque[_Waiting] = deque()
        self._void = 0  #: frames in the queue that will not be sent
        self._shares: dict[str, _Share] = {}
        self._arrived = asyncio.Event()
        self._roomy = asyncio.Event()
        self._roomy.set()
        self.size = 0  #: bytes that wait
        self.overflowed = asyncio.Event()  #: this client is beyond help

    def put_frame(self, document: dict[str, Any]) -> None:
        """Queue a frame that is no event."""
        frame = frame_of(document)
        self._push(_Waiting(frame, len(frame) + _PER_FRAME))

    def answer(self, topic: str, documents: Iterable[dict[str, Any]]) -> None:
        """Queue the answer to a topic's cursor; it replaces everything of the topic that waits."""
        self.give_up(topic)
        for document in documents:
            frame = frame_of(document)
            self._push(_Waiting(frame, len(frame) + _PER_FRAME, topic))

    async def room(self) -> None:
        """Wait until what waits is little enough to answer a question."""
        await self._roomy.wait()

    def put_event(self, published: PublishedEvent) -> bool:
        """Queue an event; False when its topic's share is full: give the topic up."""
        share = self._shares.setdefault(published.envelope.topic, _Share())
        if _continues(share.last, published.envelope):
            self._grow(share, published.envelope)
        else:
            self._add(share, published)
        if self.size > MOST_BYTES:
            return False
        return share.events <= self._max_events and share.size <= self._max_bytes

    def give_up(self, topic: str) -> list[Envelope]:
        """Take out of the queue what waits of a topic; answers the terminal events among it."""
        self._shares.pop(topic, None)
        terminal_events = []
        for waiting in self._queue:
            if waiting.void or waiting.topic != topic:
                continue
            if waiting.envelope is not None and waiting.envelope.ends_job:
                terminal_events.append(waiting.envelope)
            self._leave_out(waiting)
        self._tidy()
        return terminal_events

    async def take(self) -> bytes:
        """The next frame, once there is one."""
        while True:
            while self._queue:
                waiting = self._queue.popleft()
                if waiting.void:
                    self._void -= 1
                    continue
                self._forget(waiting)
                return waiting.sent()
            self._arrived.clear()
            await self._arrived.wait()

    @property
    def waiting(self) -> int:
        """How many frames have not been taken."""
        return len(self._queue) - self._void

    def _add(self, share: _Share, published: PublishedEvent) -> None:
        envelope, size = published.envelope, len(published.frame) + _PER_FRAME
        waiting = _Waiting(published.frame, size, envelope.topic, envelope, envelope)
        if published.envelope.type == "job.progress":
            if share.progress is not None:
                share.events -= 1
                share.size -= share.progress.size
                self._leave_out(share.progress)
                self._tidy()
            share.progress = waiting
        share.events += 1
        share.size += waiting.size
        share.last = waiting
        self._push(waiting)

    def _grow(self, share: _Share, envelope: Envelope) -> None:
        assert share.last is not None  # noqa: S101 - it continues the last one
        text: str = envelope.data["text"]
        share.last.pieces.append(text)
        share.last.envelope = envelope
        more = len(text.encode())
        share.last.size += more
        share.size += more
        self._grown(more)

    def _forget(self, waiting: _Waiting) -> None:
        self._grown(-waiting.size)
        if waiting.envelope is None:
            return
        share = self._shares[waiting.envelope.topic]
        share.events -= 1
        share.size -= waiting.size
        if share.last is waiting:
            share.last = None
        if share.progress is waiting:
            share.progress = None
        if not share.events:
            del self._shares[waiting.envelope.topic]

    def _push(self, waiting: _Waiting) -> None:
        self._queue.append(waiting)
        self._grown(waiting.size)
        self._arrived.set()

    def _leave_out(self, waiting: _Waiting) -> None:
        waiting.clear()
        self._void += 1
        self._grown(-waiting.size)

    def _tidy(self) -> None:
        """For a client that reads nothing, the empty entries of what was left out are freed too."""
        if self._void > 64 and self._void > len(self._queue) // 2:
            self._queue = deque(waiting for waiting in self._queue if not waiting.void)
            self._void = 0

    def _grown(self, size: int) -> None:
        self.size += size
        if self.size > END_BYTES:
            self.overflowed.set()
        if self.size > ROOM_BYTES:
            self._roomy.clear()
        else:
            self._roomy.set()


def _continues(last: _Waiting | None, envelope: Envelope) -> bool:
    if last is None or last.envelope is None:
        return False
    before = last.envelope
    return (
        before.type == envelope.type == "message.delta"
        and before.run == envelope.run
        and before.data["message_id"] == envelope.data["message_id"]
    )
