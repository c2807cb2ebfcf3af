"""The executors' ``EventSink`` on Redis."""

from __future__ import annotations

__all__ = ["Publisher"]

import asyncio
import logging

from redis.asyncio import Redis

from executors.events import Appended, Event, JobRef
from uvian_worker.events.append import append_of_event
from uvian_worker.events.log import EventLog

log = logging.getLogger(__name__)


class Publisher:
    """Appends events in the order they are emitted; see ``EventLog`` for what happens without Redis."""

    def __init__(self, redis: Redis, namespace: str, *, limit: int = 20_000) -> None:
        self.log = EventLog(redis, namespace, answer=Appended, limit=limit)
        self._number = 0

    async def close(self, patience: float = 5.0) -> None:
        """Append what waits for up to ``patience`` seconds; the rest is lost. Closing twice is fine."""
        await self.log.close(patience)

    def emit(self, job: JobRef, event: Event) -> asyncio.Future[Appended]:
        """Queue an event; never blocks, and the future never carries an exception.

        The future stays open while Redis is away: do not let a job wait for it.
        """
        self._number += 1
        try:
            item = append_of_event(job, event, self._number)
        except TypeError:
            # An event that JSON cannot hold must not end its job.
            log.exception("%s of job %s cannot be encoded", event.type, job.id)
            lost: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
            lost.set_result(Appended.LOST)
            return lost
        return self.log.submit(item)

    async def flush(self) -> None:
        """Wait until everything emitted so far has its answer."""
        await self.log.flush()

    @property
    def waiting(self) -> int:
        """How many events have no answer yet."""
        return self.log.waiting
