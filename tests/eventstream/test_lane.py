"""Lanes: one call in flight, the next one collects."""

from __future__ import annotations

import asyncio
import logging

import pytest

from uvian_worker.events.lane import Fifo, Lane


class Sender:
    """A call that waits to be let through."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.open = asyncio.Event()

    async def __call__(self, items: list[int]) -> list[str]:
        self.batches.append(items)
        await self.open.wait()
        if 13 in items:
            raise ValueError("13")
        return [str(item) for item in items]


def lane_of(sender: Sender, limit: int = 100) -> Lane[int, str]:
    """A lane that sends through it."""
    return Lane(sender, Fifo(limit), lost="lost", name="test")


async def test_the_next_call_collects_while_one_is_in_flight() -> None:
    """The first leaves at once, the others share a call, in order."""
    sender = Sender()
    lane = lane_of(sender, limit=3)
    futures = [lane.submit(1)]
    await asyncio.sleep(0)
    futures += [lane.submit(number) for number in range(2, 6)]
    sender.open.set()
    assert await asyncio.gather(*futures) == ["1", "2", "3", "4", "5"]
    assert sender.batches == [[1], [2, 3, 4], [5]]


async def test_an_error_loses_its_batch_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """Futures never carry exceptions; the log does."""
    sender = Sender()
    sender.open.set()
    lane = lane_of(sender, limit=2)
    with caplog.at_level(logging.ERROR):
        answers = await asyncio.gather(*[lane.submit(number) for number in (1, 13, 2, 3)])
    assert answers == ["lost", "lost", "2", "3"]
    assert "ValueError: 13" in caplog.text


async def test_flush_waits_for_what_was_submitted_before_it() -> None:
    """… and not for what comes later, or it would never end under load."""
    sender = Sender()
    lane = lane_of(sender)
    first = lane.submit(1)
    flushing = asyncio.create_task(lane.flush())
    await asyncio.sleep(0)
    sender.open.set()
    await flushing
    assert first.done()
    await lane.flush()


async def test_closing_loses_what_cannot_be_sent() -> None:
    """In flight, waiting and late: all are answered."""
    sender = Sender()
    lane = lane_of(sender, limit=1)
    futures = [lane.submit(1), lane.submit(2)]
    await asyncio.sleep(0)
    await lane.close()
    assert await asyncio.gather(*futures, lane.submit(3)) == ["lost"] * 3
    await lane.close()


async def test_a_caller_that_stopped_waiting_does_no_harm() -> None:
    """A cancelled future is skipped; its neighbours get their answers."""
    sender = Sender()
    lane = lane_of(sender)
    gone, there = lane.submit(1), lane.submit(2)
    gone.cancel()
    sender.open.set()
    assert await there == "2"
    await lane.close(1)
