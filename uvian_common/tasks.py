"""How a task is ended: the one place that cancels and waits."""

from __future__ import annotations

__all__ = ["cancel_until_done"]

import asyncio
import logging
from typing import Any

log = logging.getLogger("uvian.tasks")

_AGAIN_SECONDS = 0.05


async def cancel_until_done(*tasks: asyncio.Future[Any]) -> None:
    """Cancel the tasks until every one has ended. What they end with is logged for debugging alone.

    One cancellation is not enough: ``asyncio.wait_for`` of Python 3.11 swallows a cancellation that
    meets its result, and redis-py sends everything through it.
    """
    while running := [task for task in tasks if not task.done()]:
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=_AGAIN_SECONDS)
    for task in tasks:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.debug("%r has ended with %r", task, error, exc_info=error)
