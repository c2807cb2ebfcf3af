"""Feeds whose reader fails: their listeners are told, and hear again when it works."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.exceptions import ResponseError

from uvian_worker.events.envelope import Envelope
from uvian_worker.events.reader import Resume
from uvian_worker.gateway.live import feeds
from uvian_worker.gateway.live.feeds import Feeds
from uvian_worker.gateway.live.outbox import PublishedEvent

TOPIC = "job:x"


def event(seq: int, size: int = 0) -> Envelope:
    """The event of this place."""
    return Envelope(
        f"e-{seq}-a", seq, TOPIC, f"x:1:{seq}", "stage.started", "", "x", 1, 0, {"x": "y" * size}
    )


class Listener:
    """Writes down what it hears, events by their seq."""

    def __init__(self) -> None:
        self.heard_of: list[Any] = []
        self.news = asyncio.Event()

    def _note(self, *words: Any) -> None:
        self.heard_of += words
        self.news.set()

    def answered(self, answer: Any) -> None:
        self._note("answered", *(each.seq for each in answer.events))

    def received(self, published: PublishedEvent) -> None:
        self._note(published.cursor.seq)

    def ended(self) -> None:
        self._note("ended")

    def troubled(self) -> None:
        self._note("troubled")

    async def until(self, *words: Any) -> None:
        """Wait until this is all that was heard."""
        async with asyncio.timeout(10):
            while self.heard_of[-len(words) :] != list(words):
                self.news.clear()
                await self.news.wait()


class Reader:
    """A reader that fails as often as it is told to, and has these events."""

    def __init__(self, *, reads: int = 0, follows: int = 0) -> None:
        self.reads, self.follows = reads, follows
        self.log = [event(1)]
        self.coming: asyncio.Queue[Envelope] = asyncio.Queue()
        self.gate = asyncio.Event()
        self.gate.set()

    async def read_patiently(self, topic: str, cursor: str) -> Resume:
        await self.gate.wait()
        if self.reads:
            self.reads -= 1
            raise ResponseError("WHATEVER Redis may say one day")
        after = int(cursor.split("-")[1]) if cursor else 0
        return Resume(topic, tuple(self.log[after:]), self.log[-1].id, False)

    async def follow(self, _topic: str, _cursor: str) -> AsyncIterator[Envelope]:
        if self.follows:
            self.follows -= 1
            raise ResponseError("WHATEVER Redis may say one day")
        while True:
            yield await self.coming.get()

    def happens(self, *, seen: bool = True, size: int = 0) -> None:
        """One more event; one that is not ``seen`` is in the log alone."""
        self.log.append(event(len(self.log) + 1, size))
        if seen:
            self.coming.put_nowait(self.log[-1])


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "_FIRST_PAUSE", 0.001)
    monkeypatch.setattr(feeds, "_LONGEST_PAUSE", 0.01)


@pytest.mark.parametrize("failures", [1, 2, 20])
async def test_a_topic_that_could_not_be_read_is_read_again(
    failures: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever Redis said: the listener is told once, the log has one line, and events follow."""
    reader, listener = Reader(reads=failures), Listener()
    feed = Feeds(reader)  # type: ignore[arg-type] # as much of one as is asked
    feed.listen(TOPIC, None, listener)
    await listener.until("troubled", "answered", 1)
    reader.happens()
    await listener.until("troubled", "answered", 1, 2)
    assert listener.heard_of.count("troubled") == 1
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    await feed.close()


async def test_a_follower_that_fails_is_started_again_and_nothing_is_missed() -> None:
    """What happened meanwhile is read; nothing is told twice."""
    reader, listener = Reader(follows=3), Listener()
    feed = Feeds(reader)  # type: ignore[arg-type]
    feed.listen(TOPIC, None, listener)
    await listener.until("answered", 1, *["troubled", "answered"] * 3)
    reader.happens(seen=False)
    reader.happens()
    await listener.until("answered", 2, 3)
    await feed.close()


async def test_a_listener_that_fails_harms_no_other() -> None:
    """Neither those beside it nor the feed."""

    class Broken(Listener):
        def _note(self, *words: Any) -> None:
            raise ValueError(words)

    reader, listener = Reader(), Listener()
    feed = Feeds(reader)  # type: ignore[arg-type]
    for each in (Broken(), listener, Broken()):
        feed.listen(TOPIC, None, each)
    await listener.until("answered", 1)
    reader.happens()
    await listener.until("answered", 1, 2)
    await feed.close()


@pytest.mark.parametrize("size", [0, 3_000])
async def test_what_happens_while_somebody_reads_is_bounded(size: int) -> None:
    """In number and in bytes; the rest is read once the first answer is here, in order."""
    reader, first, late = Reader(), Listener(), Listener()
    feed = Feeds(reader)  # type: ignore[arg-type]
    feed.listen(TOPIC, None, first)
    await first.until("answered", 1)
    reader.gate.clear()
    feed.listen(TOPIC, "e-1-a", late)
    for _ in range(2_000):
        reader.happens(size=size)
    await first.until(2_001)
    (subscription,) = [
        each
        for each in feed._feeds[TOPIC]._subscriptions
        if each.listener is late  # what only memory shows
    ]
    assert len(subscription.early) <= 500
    assert sum(len(each.frame) for each in subscription.early) <= 512 * 1024
    reader.gate.set()
    await late.until(2_001)
    seqs = [word for word in late.heard_of if isinstance(word, int)]
    assert seqs == list(range(2, 2_002))
    await feed.close()
