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


class Publisher(EventLog[Appended]):
    """An event log that takes the executors' events, in the order in which they are emitted."""

    def __init__(self, redis: Redis, namespace: str, *, limit: int = 20_000) -> None:
        super().__init__(redis, namespace, answer=Appended, limit=limit)
        self._number = 0

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
        return self.submit(item)
