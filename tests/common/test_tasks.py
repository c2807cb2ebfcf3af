"""A task that is to end is cancelled until it has ended."""

from __future__ import annotations

import asyncio
import logging
import re
from pathlib import Path

import pytest

from uvian_common.tasks import cancel_until_done

ROOT = Path(__file__).parents[2]


async def stubborn(swallows: int) -> None:
    """Swallows that many cancellations, and ends with the next."""
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if not swallows:
                raise
            swallows -= 1


async def test_a_swallowed_cancellation_is_repeated() -> None:
    """Hole: ``asyncio.wait_for`` of Python 3.11 may swallow one, and the task would never end."""
    tasks = [asyncio.create_task(stubborn(swallows)) for swallows in range(3)]
    await asyncio.sleep(0)
    await cancel_until_done(*tasks)
    assert all(task.cancelled() for task in tasks)


async def test_tasks_that_have_ended_are_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    """No task, an ended one and one that failed are fine; the error is in the log for debugging."""

    async def ended() -> int:
        return 7

    async def failed() -> None:
        raise ValueError("why")

    good, bad = asyncio.create_task(ended()), asyncio.create_task(failed())
    await asyncio.wait([good, bad])
    with caplog.at_level(logging.DEBUG, "uvian.tasks"):
        await cancel_until_done()
        await cancel_until_done(good, bad)
    assert good.result() == 7
    assert "why" in caplog.text


async def test_being_cancelled_ends_the_waiting() -> None:
    """Whoever waits for a task that never ends can be cancelled."""
    endless = asyncio.create_task(stubborn(100))
    await asyncio.sleep(0)
    waiting = asyncio.create_task(cancel_until_done(endless))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not endless.done()
    await cancel_until_done(endless)


def test_nobody_else_cancels_and_waits() -> None:
    """A cancellation that is followed by a wait for its end stands in ``uvian_common/tasks.py`` alone."""
    elsewhere = re.compile(
        r"(?<!_timer)\.cancel\(\)[^\n]*\n(?:[^\n]*\n)?\s+await asyncio\.(?:wait|gather)\(",
        re.MULTILINE,
    )
    found = [
        path.relative_to(ROOT).as_posix()
        for package in ("uvian_worker", "executors", "repositories", "uvian_common")
        for path in (ROOT / package).rglob("*.py")
        if elsewhere.search(path.read_text("utf-8"))
    ]
    assert found == ["uvian_common/tasks.py"]
