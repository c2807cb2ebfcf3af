"""Messages from operators and APIs to workers: cancel a job, pause, resume, drain.

Published on one channel as ``{"type": …, …}``. A worker that was not connected misses a message:
a cancellation reaches it with its next renewal of leases, and a pause is stored in a key as well, so
that it holds for workers that start later.
"""

from __future__ import annotations

__all__ = [
    "CONTROL_TYPES",
    "CancelJob",
    "Control",
    "ControlMessage",
    "DrainWorker",
    "PauseWorker",
    "ResumeWorker",
]

import logging
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import orjson
from redis.asyncio import Redis

from uvian_worker.events.subscriptions import STALE, Subscriptions
from uvian_worker.redis.connection import FAULTS
from uvian_worker.redis.keys import Keys, canonical

log = logging.getLogger(__name__)

_ALL = "*"


@dataclass(frozen=True, slots=True)
class CancelJob:
    """Stop this job if you run it.

    Write the request to the row first: a worker that is away reads it there.
    """

    type: ClassVar[str] = "job.cancel"
    job_id: str
    run: int | None = None  #: the run to stop: no later one is stopped; null is any

    def __post_init__(self) -> None:
        # Whoever sends it, in whatever language, may have written the id in capitals.
        object.__setattr__(self, "job_id", canonical(self.job_id))


@dataclass(frozen=True, slots=True)
class PauseWorker:
    """Begin no more jobs until `worker.resume`; what runs goes on."""

    type: ClassVar[str] = "worker.pause"
    worker: str | None = None  #: name of the worker; null is all of them


@dataclass(frozen=True, slots=True)
class ResumeWorker:
    """Begin jobs again."""

    type: ClassVar[str] = "worker.resume"
    worker: str | None = None  #: name of the worker; null is all of them


@dataclass(frozen=True, slots=True)
class DrainWorker:
    """Begin no more jobs, finish what runs, and end: what SIGTERM does."""

    type: ClassVar[str] = "worker.drain"
    worker: str | None = None  #: name of the worker; null is all of them


ControlMessage = CancelJob | PauseWorker | ResumeWorker | DrainWorker

#: Every control message, by its name on the wire.
CONTROL_TYPES: dict[str, type[ControlMessage]] = {
    cls.type: cls for cls in (CancelJob, PauseWorker, ResumeWorker, DrainWorker)
}


class Control:
    """Sends control messages, and listens for those to one worker."""

    def __init__(
        self,
        redis: Redis,
        namespace: str,
        *,
        subscriptions: Subscriptions | None = None,
        silence: float = 15.0,
    ) -> None:
        self._redis: Any = redis
        self._keys = Keys(namespace)
        self._subscriptions = subscriptions or Subscriptions(redis)
        self._silence = silence

    async def close(self) -> None:
        """End the connection that listens. Closing twice is fine."""
        await self._subscriptions.close()

    async def send(self, message: ControlMessage) -> int:
        """Publish a message, and store a pause; returns how many connections received it."""
        match message:
            case PauseWorker(worker=worker):
                await self._redis.sadd(self._keys.paused, worker or _ALL)
            case ResumeWorker(worker=None):
                await self._redis.delete(self._keys.paused)
            case ResumeWorker(worker=worker):
                await self._redis.srem(self._keys.paused, worker)
            case _:
                pass
        document = orjson.dumps({"type": message.type, **asdict(message)})
        return int(await self._redis.publish(self._keys.control, document))

    async def listen(self, worker: str) -> AsyncIterator[ControlMessage]:
        """The messages to this worker, until cancelled. Reconnects by itself.

        A pause that holds already comes first; one that began or ended while the
        connection was down comes when it is back.
        """
        paused = False
        async with self._subscriptions.listen(self._keys.control) as inbox:
            while True:
                received = await inbox.get(self._silence)
                message = (
                    await self._missed(worker, paused=paused)
                    if received is STALE
                    else _parse(received, worker)
                )
                if message is None:
                    continue
                if isinstance(message, PauseWorker | ResumeWorker):
                    paused = isinstance(message, PauseWorker)
                yield message

    async def _missed(self, worker: str, *, paused: bool) -> ControlMessage | None:
        try:
            names = await self._redis.smembers(self._keys.paused)
        except FAULTS as error:
            log.debug("Cannot read who is paused (%s); asking again later", error)
            return None
        should = not names.isdisjoint({_ALL.encode(), worker.encode()})
        if should == paused:
            return None
        return PauseWorker(worker) if should else ResumeWorker(worker)


def _parse(raw: bytes, worker: str) -> ControlMessage | None:
    """The message, if it is one of ours and for this worker. Newer releases may send others."""
    try:
        document: dict[str, Any] = orjson.loads(raw)
        cls = CONTROL_TYPES[document.pop("type")]
        message = cls(**document)
    except (ValueError, TypeError, KeyError, AttributeError):
        log.warning("A control message is not understood: %r", raw[:200])
        return None
    if isinstance(message, CancelJob) or message.worker is None or message.worker == worker:
        return message
    return None
