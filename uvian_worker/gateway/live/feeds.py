"""One follower per topic, shared by all who listen in this process.

A listener first reads from its own cursor, then receives what follows; the two are joined by seq. The
events it is handed are those that the feed received, encoded once for all.

Whatever goes wrong with a topic, known or not, is said to its listeners once, and tried again for as
long as somebody listens: a topic never falls silent.
"""

from __future__ import annotations

__all__ = ["Feeds", "Listener"]

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Final, Protocol

from uvian_common.backoff import pause_before
from uvian_worker.events.envelope import Envelope
from uvian_worker.events.reader import Expired, Merge, Reader, Resume, Snapshot
from uvian_worker.gateway.live.outbox import PublishedEvent

log = logging.getLogger("uvian.gateway.live")

Answer = Resume | Snapshot | Expired

_MOST_EARLY: Final = 500  #: events that wait while a listener is still reading,
_MOST_EARLY_BYTES: Final = 512 * 1024  #: and their bytes
_FIRST_PAUSE: Final = 0.1  #: seconds before the second try, and more before each further one,
_LONGEST_PAUSE: Final = 5.0  #: up to here
_SAID_EVERY: Final = 60.0  #: seconds between lines in the log about one topic


class Listener(Protocol):
    """What receives the events of a topic. Nothing here may block or raise."""

    def answered(self, answer: Answer) -> None:
        """What the cursor was answered: at first, and whenever the topic's history begins anew."""

    def received(self, published: PublishedEvent) -> None:
        """The next event."""

    def ended(self) -> None:
        """The job of this topic has ended: nothing follows in this run."""

    def troubled(self) -> None:
        """The topic cannot be read at the moment; it is tried again, and ``answered`` follows."""


class _Subscription:
    """One listener's subscription: how far it has received the topic."""

    def __init__(self, listener: Listener, cursor: str | None) -> None:
        self.listener = listener
        self.cursor = cursor
        self.merge = Merge()
        self.reading = True
        self.early: list[PublishedEvent] = []  #: received while it was reading
        self._early_bytes = 0
        self._spilled = False  #: more was received than is stored
        self._in_trouble = False

    def hold(self, published: PublishedEvent) -> None:
        """Keep an event until what comes before it is read; too many are read again instead."""
        self._early_bytes += len(published.frame)
        if len(self.early) >= _MOST_EARLY or self._early_bytes > _MOST_EARLY_BYTES:
            self._spilled = True
            self.early.clear()
        if not self._spilled:
            self.early.append(published)

    def take_early(self) -> tuple[list[PublishedEvent], bool]:
        """What was held, and whether something is missing."""
        early, spilled = self.early, self._spilled
        self.early, self._early_bytes, self._spilled = [], 0, False
        return early, spilled

    def trouble(self) -> None:
        """Notify the listener, once until the next answer."""
        if not self._in_trouble:
            self._in_trouble = True
            self.notify("troubled")

    def notify(self, callback: str, *arguments: Answer | PublishedEvent) -> None:
        """Call the listener; one that fails shall harm no other."""
        try:
            getattr(self.listener, callback)(*arguments)
        except Exception:
            log.exception("A listener failed")

    def offer(self, published: PublishedEvent) -> bool:
        """Hand the event on if it is the next one; False when there is a gap before it."""
        if self.merge.knows(published.cursor):
            return True
        if not self.merge.continues(published.cursor):
            return False
        self.cursor = published.envelope.id
        self.notify("received", published)
        return True

    def continue_after(self, answer: Answer) -> None:
        """Continue after what was read."""
        self.merge.jump(answer.cursor)
        self.cursor = answer.cursor
        self._in_trouble = False
        self.notify("answered", answer)


class _Feed:
    """A topic that somebody listens to."""

    def __init__(self, reader: Reader, topic: str, on_empty: Callable[[str], None]) -> None:
        self._reader = reader
        self.topic = topic
        self._on_empty = on_empty
        self._subscriptions: set[_Subscription] = set()
        self._follower: asyncio.Task[None] | None = None
        self._readers: set[asyncio.Task[None]] = set()
        self._failures = 0  #: of the follower, in a row
        self._said_at: float | None = None

    def add(self, subscription: _Subscription) -> None:
        self._subscriptions.add(subscription)
        self._read(subscription)

    def remove(self, subscription: _Subscription) -> None:
        self._subscriptions.discard(subscription)
        if not self._subscriptions:
            self.close()
            self._on_empty(self.topic)

    def close(self) -> None:
        for task in (self._follower, *self._readers):
            if task is not None:
                task.cancel()

    def _read(self, subscription: _Subscription) -> None:
        subscription.reading = True
        task = asyncio.create_task(self._catch_up(subscription), name=f"read {self.topic}")
        self._readers.add(task)
        task.add_done_callback(self._readers.discard)

    async def _catch_up(self, subscription: _Subscription) -> None:
        answer = await self._answer(subscription)
        if answer is None:
            return
        subscription.continue_after(answer)
        if answer.ended:
            self._end(subscription)
            return
        subscription.reading = False
        early, spilled = subscription.take_early()
        for published in early:
            self._offer(subscription, published)
        if spilled and not subscription.reading:
            self._read(subscription)
        if self._follower is None:
            self._follower = asyncio.create_task(
                self._follow(answer.cursor), name=f"follow {self.topic}"
            )

    async def _answer(self, subscription: _Subscription) -> Answer | None:
        """What its cursor is answered, however often it takes; None when nobody wants to know."""
        tries = 0
        while subscription in self._subscriptions:
            try:
                answer = await self._reader.read_patiently(self.topic, subscription.cursor or "")
            except Exception as error:  # noqa: BLE001 - the listeners get it, and it is tried again
                self._fail(error)
                subscription.trouble()
                await _pause(tries)
                tries += 1
            else:
                return answer if subscription in self._subscriptions else None
        return None

    async def _follow(self, cursor: str) -> None:
        try:
            async for event in self._reader.follow(self.topic, cursor):
                self._failures = 0
                if isinstance(event, Envelope):
                    published = PublishedEvent(event)
                    for subscription in list(self._subscriptions):
                        self._offer(subscription, published)
                else:
                    self._begin_anew(event)
        except Exception as error:  # noqa: BLE001 - the listeners get it, and it is tried again
            self._fail(error)
            for subscription in list(self._subscriptions):
                subscription.trouble()
            await _pause(self._failures)
            self._failures += 1
        # The job has ended, or we failed: whoever still listens finds out by reading.
        self._follower = None
        for subscription in list(self._subscriptions):
            if not subscription.reading:
                self._read(subscription)

    def _fail(self, error: Exception) -> None:
        """Say what it was, once a minute at most however often it is tried."""
        now = time.monotonic()
        if self._said_at is None or now - self._said_at > _SAID_EVERY:
            self._said_at = now
            log.error("%s cannot be read; it is tried again", self.topic, exc_info=error)

    def _begin_anew(self, answer: Snapshot | Expired) -> None:
        for subscription in list(self._subscriptions):
            if not subscription.reading:
                subscription.continue_after(answer)
                if answer.ended:
                    self._end(subscription)

    def _offer(self, subscription: _Subscription, published: PublishedEvent) -> None:
        if subscription.reading:
            subscription.hold(published)
        elif not subscription.offer(published):
            self._read(subscription)
        elif published.envelope.ends_job and self.topic.startswith("job:"):
            self._end(subscription)

    def _end(self, subscription: _Subscription) -> None:
        self.remove(subscription)
        subscription.notify("ended")


async def _pause(tries: int) -> None:
    await asyncio.sleep(pause_before(tries, first=_FIRST_PAUSE, longest=_LONGEST_PAUSE))


class Feeds:
    """The topics that somebody in this process listens to."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._feeds: dict[str, _Feed] = {}

    def listen(self, topic: str, cursor: str | None, listener: Listener) -> Callable[[], None]:
        """Let ``listener`` receive all that follows ``cursor``; returns what ends it (twice is fine)."""
        feed = self._feeds.get(topic)
        if feed is None:
            feed = self._feeds[topic] = _Feed(self._reader, topic, self._forget)
        subscription = _Subscription(listener, cursor)
        feed.add(subscription)

        def leave() -> None:
            if self._feeds.get(topic) is feed:
                feed.remove(subscription)

        return leave

    @property
    def topics(self) -> int:
        """How many topics are followed."""
        return len(self._feeds)

    async def close(self) -> None:
        """Follow nothing any more."""
        for feed in list(self._feeds.values()):
            feed.close()
        self._feeds.clear()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)

    def _forget(self, topic: str) -> None:
        self._feeds.pop(topic, None)
