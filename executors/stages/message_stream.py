"""An answer while it is written: published as deltas, and whole at any moment.

A delta is published at once when the stream was quiet, else with the next tick of the one timer that
all streams of the process share. A stream has at most one delta in flight. While Redis is slow or away,
text gathers here and follows in one larger delta, or as a snapshot when the log no longer has the text
before it. Nothing here ever waits.
"""

from __future__ import annotations

__all__ = ["LONGEST_ANSWER", "TICK", "MessageStream", "Pace"]

import asyncio
from collections import OrderedDict
from collections.abc import Callable

from executors.errors import LeaseLost
from executors.events import (
    Appended,
    Event,
    MessageDelta,
    MessageReset,
    MessageSnapshot,
    MessageStarted,
)
from uvian_common.text import TextCleaner

#: Seconds between two deltas of one answer, at most, while the log keeps up.
TICK = 0.02
#: Bytes of UTF-8; a longer answer is cut there.
LONGEST_ANSWER = 1_000_000

#: Deltas of all streams in flight to the log: two calls full, so that the next one is made while Redis
#: works.
WINDOW = 150

_LOST = frozenset({Appended.MISMATCH, Appended.LOST})
_OVER = frozenset({Appended.FENCED, Appended.SEALED})


class Pace:
    """One timer for any number of streams, armed only while one of them has something to publish.

    No more than ``window`` deltas are in flight at once. A stream whose tick comes while there is no room
    waits in order, and later publishes all that it has by then: what waits here grows, but it does not
    age in a queue.
    """

    def __init__(self, tick: float = TICK, window: int = WINDOW) -> None:
        self._tick = tick
        self._window = window
        self._streams: dict[MessageStream, None] = {}
        self._waiting: OrderedDict[MessageStream, None] = OrderedDict()
        self._in_flight = 0
        self._timer: asyncio.TimerHandle | None = None

    def join(self, stream: MessageStream) -> None:
        """Let a stream publish with the next tick, and with those after it until it is quiet."""
        self._streams[stream] = None
        self._arm()

    def leave(self, stream: MessageStream) -> None:
        """Forget a stream that is closed, also where it waits for room."""
        self._streams.pop(stream, None)
        self._waiting.pop(stream, None)

    def sent(self) -> None:
        """A delta is in flight."""
        self._in_flight += 1

    def arrived(self) -> None:
        """The answer to a delta is there."""
        self._in_flight -= 1
        self._serve()

    def __contains__(self, stream: object) -> bool:
        return stream in self._streams

    def _arm(self) -> None:
        if self._timer is None and self._streams:
            self._timer = asyncio.get_running_loop().call_later(self._tick, self._beat)

    def _beat(self) -> None:
        self._timer = None
        self._waiting.update(self._streams)
        try:
            self._serve()
        finally:
            self._arm()

    def _serve(self) -> None:
        while self._waiting and self._in_flight < self._window:
            stream, _ = self._waiting.popitem(last=False)
            if not stream.publish_news():
                self._streams.pop(stream, None)


class MessageStream:
    """One answer of one run. ``emit`` publishes an event and returns what becomes of it."""

    def __init__(
        self,
        emit: Callable[[Event], asyncio.Future[Appended]],
        pace: Pace,
        message_id: str,
        *,
        limit: int = LONGEST_ANSWER,
    ) -> None:
        self.message_id = message_id
        self._emit = emit
        self._pace = pace
        self._limit = limit
        self._written = bytearray()  #: UTF-8, as offsets count
        self._published = 0  #: bytes of it that the log has, if all went well
        self._stale = False  #: the log does not have them: publish all of it
        self._unanswered = False
        self._over = False
        self._closed = False
        self._cleaner = TextCleaner()

    def begin(self, conversation_id: str, reply_to: str | None, *, again: bool) -> None:
        """Announce the answer; ``again``: what an earlier run may have published of it is void."""
        if again:
            self._emit(MessageReset(message_id=self.message_id))
        self._emit(
            MessageStarted(
                message_id=self.message_id, conversation_id=conversation_id, reply_to=reply_to
            )
        )

    @property
    def text(self) -> str:
        """All of it so far."""
        return self._written.decode()

    def write(self, text: str) -> bool:
        """Add text; False when the answer is as long as one may be: it was cut there.

        Raises ``LeaseLost`` when a later run has written to the log: what follows would be paid twice.
        """
        if self._over:
            raise LeaseLost
        if self._closed:
            return False
        raw = self._cleaner.clean(text).encode()
        room = self._limit - len(self._written)
        if len(raw) > room:
            self._add(raw[:room].decode("utf-8", "ignore").encode())
            return False
        self._add(raw)
        return True

    def publish_news(self) -> bool:
        """A tick: publish what is new; False when there was nothing."""
        if self._unanswered:
            return True
        if not self._has_news():
            return False
        self._publish()
        return True

    def close(self) -> None:
        """Publish the rest; nothing can be written any more. Closing twice is fine."""
        if not self._closed:
            self._closed = True
            self._unanswered = False  # the rest cannot wait for its answer
            self._pace.leave(self)
            if self._has_news():
                self._publish()

    def _add(self, raw: bytes) -> None:
        self._written += raw
        if self._has_news() and self not in self._pace:
            self._publish()
            self._pace.join(self)

    def _has_news(self) -> bool:
        return self._stale or self._published < len(self._written)

    def _publish(self) -> None:
        if self._unanswered or self._over:
            return
        event: Event
        if self._stale:
            event = MessageSnapshot(message_id=self.message_id, text=self.text)
        else:
            news = self._written[self._published :].decode()
            event = MessageDelta(message_id=self.message_id, offset=self._published, text=news)
        self._stale = False
        self._published = len(self._written)
        self._unanswered = True
        self._emit(event).add_done_callback(self._answered)
        self._pace.sent()  # after it: a delta that could not be published takes no room

    def _answered(self, published: asyncio.Future[Appended]) -> None:
        self._unanswered = False
        answer = Appended.LOST if published.cancelled() else published.result()
        if answer in _OVER:
            self._over = True
        elif answer in _LOST and not self._closed:
            self._stale = True
            self._pace.join(self)
        self._pace.arrived()
