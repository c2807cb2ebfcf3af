"""A listener's inbox: what it holds, and when it says that something may be missing."""

from __future__ import annotations

import asyncio
import time

from uvian_worker.events.subscriptions import STALE, Inbox


async def test_messages_come_in_order_and_at_once() -> None:
    """Also those that arrive while nobody waits."""
    inbox = Inbox(10)
    inbox.put(b"1")
    inbox.put(b"2")
    assert [await inbox.get(60), await inbox.get(60)] == [b"1", b"2"]
    waiting = asyncio.create_task(inbox.get(60))
    await asyncio.sleep(0)
    inbox.put(b"3")
    assert await waiting == b"3"
    inbox.close()


async def test_more_than_fit_are_read_again_instead() -> None:
    """One STALE stands for all that was dropped, and what comes before it is read is covered by it."""
    inbox = Inbox(2)
    for message in (b"1", b"2", b"3", b"4"):
        inbox.put(message)
    assert await inbox.get(60) is STALE
    inbox.put(b"5")
    assert await inbox.get(60) == b"5"


async def test_silence_is_counted_from_the_last_message() -> None:
    """One timer serves many waits: it must fire neither too early nor never."""
    inbox = Inbox(10)
    began = time.monotonic()
    for _ in range(3):
        asyncio.get_running_loop().call_later(0.06, inbox.put, b"x")
        assert await inbox.get(0.15) == b"x"
    last = time.monotonic()
    assert await inbox.get(0.15) is STALE
    assert time.monotonic() - last >= 0.14
    assert last - began >= 0.17
    assert await inbox.get(0.02) is STALE
    inbox.close()


async def test_a_listener_that_is_cancelled_loses_no_message() -> None:
    """What arrived in the same turn as the cancellation is there for the next wait."""
    inbox = Inbox(10)
    waiting = asyncio.create_task(inbox.get(60))
    await asyncio.sleep(0)
    inbox.put(b"1")
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert await inbox.get(60) == b"1"
    inbox.close()
