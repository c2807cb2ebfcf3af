"""arq as a source of work: it starts a loop for each run it picks, and the loop takes further runs."""

from __future__ import annotations

__all__ = ["ArqWorkSource"]

import asyncio
from typing import Final

from redis.asyncio import Redis

from uvian_worker.queue.arq_adapter.pool import WakingArqRedis
from uvian_worker.queue.taker import Taker

_FINISH_SECONDS: Final = 5.0


class ArqWorkSource:
    """A ``WorkSource``: what arq picks through ``pool``, and what the taker takes beside it."""

    def __init__(self, pool: WakingArqRedis, redis: Redis, namespace: str) -> None:
        self._pool = pool
        self._taker = Taker(redis, namespace)

    async def picked(self, job_id: str, run: int) -> tuple[str, int] | None:
        """What the loop begins with that arq has started for this run: the run, or the next due one.

        It leaves arq's queue first, so that the queue holds only what waits.
        """
        if await self._taker.enter(job_id, run):
            return job_id, run
        return await self._taker.next()

    async def next(self) -> tuple[str, int] | None:
        """The next due run, without arq's six round trips."""
        return await self._taker.next()

    def claim_answered(self, job_id: str, run: int) -> None:
        """The claim of this run was answered."""
        self._taker.claim_answered(job_id, run)

    def pause(self) -> None:
        """To arq the queue looks empty from now on, and the taker takes nothing."""
        self._pool.reader.pause()
        self._taker.pause()

    def resume(self) -> None:
        """Take back ``pause``."""
        self._pool.reader.resume()
        self._taker.resume()

    async def handed_out(self) -> None:
        """Wait until arq has started all it had picked."""
        await self._pool.reader.picks_are_over()

    async def finished(self) -> bool:
        """Wait until arq has recorded that its jobs are over, which it cannot while Redis is away.

        arq's ``close`` cancels its jobs wherever they are, and then fails with what it cancelled.
        """
        names = {task: getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()}
        if not (jobs := {task for task, name in names.items() if name == "Worker.run_job"}):
            return True
        _, pending = await asyncio.wait(jobs, timeout=_FINISH_SECONDS)
        return not pending

    async def close(self) -> None:
        """Send what is left. Closing twice is fine; the pool is arq's to close."""
        await self._taker.close()
