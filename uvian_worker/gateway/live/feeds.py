"""One follower per topic, shared by all who listen in this process.

A listener first reads from its own cursor, then hears what follows; the two are joined by seq. The
events it is handed are those the feed heard, encoded once for all.
"""

from __future__ import annotations

__all__ = ["Feeds", "Listener"]

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Protocol

from uvian_worker.eventstream.envelope import Envelope
from uvian_worker.eventstream.reader import Expired, Merge, Reader, Resume, Snapshot
from uvian_worker.gateway.live.outbox import Told

log = logging.getLogger("uvian.gateway.live")

Answer = Resume | Snapshot | Expired


class Listener(Protocol):
    """Who hears of a topic. Nothing here may block or raise."""

    def answered(self, answer: Answer) -> None:
        """What the cursor was answered: at first, and whenever the topic's history begins anew."""

    def heard(self, told: Told) -> None:
        """The next event."""

    def ended(self) -> None:
        """The job of this topic has ended: nothing follows in this run."""


class _Subscription:
    """One listener's place in a topic."""

    def __init__(self, listener: Listener, cursor: str | None) -> None:
        self.listener = listener
        self.cursor = cursor
        self.merge = Merge()
        self.reading = True
        self.early: list[Told] = []  #: heard while it was reading

    def offer(self, told: Told) -> bool:
        """Hand the event on if it is the next one; False when there is a gap before it."""
        if self.merge.knows(told.place):
            return True
        if not self.merge.continues(told.place):
            return False
        self.cursor = told.envelope.id
        self.listener.heard(told)
        return True

    def place(self, answer: Answer) -> None:
        """Go on from what was read."""
        self.merge.jump(answer.cursor)
        self.cursor = answer.cursor
        self.listener.answered(answer)


class _Feed:
    """A topic that somebody listens to."""

    def __init__(self, reader: Reader, topic: str, on_empty: Callable[[str], None]) -> None:
        self._reader = reader
        self.topic = topic
        self._on_empty = on_empty
        self._subscriptions: set[_Subscription] = set()
        self._follower: asyncio.Task[None] | None = None
        self._readers: set[asyncio.Task[None]] = set()

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
        task = asyncio.create_task(self._place(subscription), name=f"read {self.topic}")
        self._readers.add(task)
        task.add_done_callback(self._readers.discard)

    async def _place(self, subscription: _Subscription) -> None:
        answer = await self._reader.read_patiently(self.topic, subscription.cursor or "")
        if subscription not in self._subscriptions:
            return
        subscription.place(answer)
        if answer.ended:
            self._end(subscription)
            return
        subscription.reading = False
        early, subscription.early = subscription.early, []
        for told in early:
            self._offer(subscription, told)
        if self._follower is None:
            self._follower = asyncio.create_task(
                self._follow(answer.cursor), name=f"follow {self.topic}"
            )

    async def _follow(self, cursor: str) -> None:
        try:
            async for event in self._reader.follow(self.topic, cursor):
                if isinstance(event, Envelope):
                    told = Told(event)
                    for subscription in list(self._subscriptions):
                        self._offer(subscription, told)
                else:
                    self._begin_anew(event)
        except Exception:
            log.exception("%s: the follower failed; its listeners read again", self.topic)
            await asyncio.sleep(1)
        # The job has ended, or we failed: whoever still listens finds out by reading.
        self._follower = None
        for subscription in list(self._subscriptions):
            if not subscription.reading:
                self._read(subscription)

    def _begin_anew(self, answer: Snapshot | Expired) -> None:
        for subscription in list(self._subscriptions):
            if not subscription.reading:
                subscription.place(answer)
                if answer.ended:
                    self._end(subscription)

    def _offer(self, subscription: _Subscription, told: Told) -> None:
        if subscription.reading:
            subscription.early.append(told)
        elif not subscription.offer(told):
            self._read(subscription)
        elif told.envelope.ends_job and self.topic.startswith("job:"):
            self._end(subscription)

    def _end(self, subscription: _Subscription) -> None:
        self.remove(subscription)
        subscription.listener.ended()


class Feeds:
    """The topics that somebody in this process listens to."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._feeds: dict[str, _Feed] = {}

    def listen(self, topic: str, cursor: str | None, listener: Listener) -> Callable[[], None]:
        """Let ``listener`` hear all that follows ``cursor``; answers what ends it (twice is fine)."""
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
