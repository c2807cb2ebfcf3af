"""Jobs, events and the means to follow them, for the tests of the event stream."""

from __future__ import annotations

__all__ = ["Followed", "append", "job", "texts", "user_of"]

import asyncio
import itertools
from typing import Any

from executors.events import Appended, Event, JobRef
from tests.redis_servers import eventually
from uvian_worker.events.envelope import Envelope
from uvian_worker.events.publisher import Publisher
from uvian_worker.events.reader import Expired, Reader, Snapshot

_numbers = itertools.count(1)


def job(run: int = 1, *, id: str | None = None, attempt: int = 0) -> JobRef:  # noqa: A002
    """A job of its own user, with a conversation."""
    name = id or f"j{next(_numbers)}"
    return JobRef(name, user_of(name), run, attempt, f"c-{name}")


def user_of(job_id: str) -> str:
    """The user of ``job(id=job_id)``."""
    return f"u-{job_id}"


async def append(publisher: Publisher, ref: JobRef, *events: Event) -> list[Appended]:
    """Emit events of one job and wait for what became of them."""
    return list(await asyncio.gather(*[publisher.emit(ref, event) for event in events]))


def texts(events: Any) -> list[str]:
    """The types of envelopes."""
    return [event.type for event in events]


class Followed:
    """A follower at work, and what it has seen."""

    def __init__(self, reader: Reader, topic: str, cursor: str | None = None) -> None:
        self.seen: list[Envelope | Snapshot | Expired] = []
        self._reader = reader
        self._topic = topic
        self._cursor = cursor
        self._task = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        async for event in self._reader.follow(self._topic, self._cursor):
            self.seen.append(event)

    @property
    def events(self) -> list[Envelope]:
        """The events among what was seen."""
        return [event for event in self.seen if isinstance(event, Envelope)]

    async def sees(self, count: int) -> None:
        """Wait until so many things were seen."""
        await eventually(lambda: len(self.seen) >= count)

    async def until_end(self) -> list[Envelope]:
        """The events, when the follower has ended by itself."""
        async with asyncio.timeout(60):
            await self._task
        return self.events

    async def close(self) -> None:
        """Stop following."""
        self._task.cancel()
        await asyncio.wait([self._task])
