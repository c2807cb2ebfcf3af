"""What ends a worker in good order: signals, the drain, its grace."""

from __future__ import annotations

__all__ = ["Shutdown", "close_in_time"]

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Final

from uvian_worker.process.runtime import SIGNALS
from uvian_worker.worker.services import Services

log = logging.getLogger("uvian.worker")

_CLOSING_SECONDS: Final = 5.0


class Shutdown:
    """On SIGTERM or SIGINT: start no more jobs, wait for the running ones, interrupt what is left.

    What was interrupted is settled, and queued again at once. A second signal ends the grace. Then
    ``end`` ends the process; its argument is whether the source of work has finished, too.
    """

    def __init__(self, services: Services, end: Callable[[bool], Awaitable[None]]) -> None:
        self._services = services
        self._end = end
        self._draining: asyncio.Task[None] | None = None

    @property
    def has_begun(self) -> bool:
        """Whether the worker is draining."""
        return self._draining is not None

    def install(self) -> None:
        """Handle the signals of this process."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self.begin)

    def begin(self) -> None:
        """Begin to drain; called again, interrupt what still runs."""
        if self._draining is not None:
            self._services.runner.interrupt()
            return
        log.info("draining: %d jobs are running", self._services.runner.active)
        self._draining = asyncio.create_task(self._drain(), name="drain")

    async def _drain(self) -> None:
        source, runner = self._services.source, self._services.runner
        finished = False
        try:
            source.pause()
            await source.handed_out()
            await runner.drain(self._services.config.drain_grace)
            finished = await source.finished()
            log.info("drained")
        except Exception:
            log.exception("draining failed; the worker ends all the same")
        await self._end(finished)


async def close_in_time(stack: AsyncExitStack) -> bool:
    """Close what was opened, within a few seconds; whether all of it was closed."""
    closing = asyncio.ensure_future(stack.aclose())
    await asyncio.wait([closing], timeout=_CLOSING_SECONDS)
    if not closing.done():
        log.warning("the worker ends without closing everything: Redis or Postgres does not answer")
        return False
    if (error := closing.exception()) is not None:
        log.error("the services were not closed in good order", exc_info=error)
    return True
