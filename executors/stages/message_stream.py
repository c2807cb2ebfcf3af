"""An answer while it is written: told in small pieces, and whole at any moment.

A piece is told at once when the stream was quiet, else with the next tick of the one timer that
all streams of the process share. A stream has at most one piece on its way: while Redis is slow or
away, text gathers here and follows in one larger piece, or as a snapshot when the log no longer has
what came before it. Nothing here ever waits.
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

#: Seconds between two pieces of one answer, at most, while the log keeps up.
TICK = 0.02
#: Bytes of UTF-8; whatever writes more is cut there.
LONGEST_ANSWER = 1_000_000

#: Pieces of all streams on their way to the log: two calls full, so that while Redis works the next
#: one is made.
WINDOW = 150

_LOST = frozenset({Appended.MISMATCH, Appended.LOST})
_OVER = frozenset({Appended.FENCED, Appended.SEALED})


class Pace:
    """One timer for any number of streams, armed only while one of them has something to tell.

    No more than ``window`` pieces are on their way at once. Whose tick comes while there is no room
    stands in line, and says when its turn comes all that it has by then: what waits here grows, but
    it does not age in a queue.
    """

    def __init__(self, tick: float = TICK, window: int = WINDOW) -> None:
        self._tick = tick
        self._window = window
        self._streams: dict[MessageStream, None] = {}
        self._line: OrderedDict[MessageStream, None] = OrderedDict()
        self._on_their_way = 0
        self._timer: asyncio.TimerHandle | None = None

    def join(self, stream: MessageStream) -> None:
        """Let a stream speak with the next tick, and with those after it until it is quiet."""
        self._streams[stream] = None
        self._arm()

    def leave(self, stream: MessageStream) -> None:
        """Forget a stream that has said its last, also where it stands in line for room."""
        self._streams.pop(stream, None)
        self._line.pop(stream, None)

    def sent(self) -> None:
        """A piece is on its way."""
        self._on_their_way += 1

    def arrived(self) -> None:
        """… and has its answer."""
        self._on_their_way -= 1
        self._serve()

    def __contains__(self, stream: object) -> bool:
        return stream in self._streams

    def _arm(self) -> None:
        if self._timer is None and self._streams:
            self._timer = asyncio.get_running_loop().call_later(self._tick, self._beat)

    def _beat(self) -> None:
        self._timer = None
        self._line.update(self._streams)
        try:
            self._serve()
        finally:
            self._arm()

    def _serve(self) -> None:
        while self._line and self._on_their_way < self._window:
            stream, _ = self._line.popitem(last=False)
            if not stream.speak():
                self._streams.pop(stream, None)


class MessageStream:
    """One answer of one run. ``emit`` tells an event and answers with what becomes of it."""

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
        self._told = 0  #: so many bytes of it the log has, if all went well
        self._stale = False  #: the log does not have them: tell all of it
        self._unanswered = False
        self._over = False
        self._closed = False
        self._cleaner = TextCleaner()

    def begin(self, conversation_id: str, reply_to: str | None, *, again: bool) -> None:
        """Announce the answer; ``again``: an earlier run may have told some of it, which is void."""
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
        """Add a piece; False when the answer is as long as one may be: it was cut there.

        Raises ``LeaseLost`` when the log has heard of a later run: what follows would be paid twice.
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

    def speak(self) -> bool:
        """A tick: tell what there is to tell; False when there was nothing."""
        if self._unanswered:
            return True
        if not self._has_news():
            return False
        self._tell()
        return True

    def close(self) -> None:
        """Tell the rest; nothing can be written any more. Closing twice is fine."""
        if not self._closed:
            self._closed = True
            self._unanswered = False  # the rest cannot wait for its answer
            self._pace.leave(self)
            if self._has_news():
                self._tell()

    def _add(self, raw: bytes) -> None:
        self._written += raw
        if self._has_news() and self not in self._pace:
            self._tell()
            self._pace.join(self)

    def _has_news(self) -> bool:
        return self._stale or self._told < len(self._written)

    def _tell(self) -> None:
        if self._unanswered or self._over:
            return
        event: Event
        if self._stale:
            event = MessageSnapshot(message_id=self.message_id, text=self.text)
        else:
            news = self._written[self._told :].decode()
            event = MessageDelta(message_id=self.message_id, offset=self._told, text=news)
        self._stale = False
        self._told = len(self._written)
        self._unanswered = True
        self._emit(event).add_done_callback(self._hear)
        self._pace.sent()  # after it: what could not be told takes nobody's room

    def _hear(self, told: asyncio.Future[Appended]) -> None:
        self._unanswered = False
        answer = Appended.LOST if told.cancelled() else told.result()
        if answer in _OVER:
            self._over = True
        elif answer in _LOST and not self._closed:
            self._stale = True
            self._pace.join(self)
        self._pace.arrived()
