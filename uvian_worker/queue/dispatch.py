"""The API's side of the queue: puts runs into it, and finds those that got lost on the way out of it.

An id waits in the queue until a worker takes it (``taker.py``); between that and the answer of its
claim it stands in the ``claiming`` set, where the sweeper finds what a dead worker left. All of it
may be lost at any moment: Postgres has the jobs. ``docs/contracts/enqueue.md`` is this contract for
other languages.

Importing this module loads neither arq nor anything of the work.
"""

from __future__ import annotations

__all__ = [
    "CLAIM_SECONDS",
    "DISPATCH_SCRIPT",
    "Depth",
    "Dispatch",
    "Dispatched",
    "Dispatcher",
]

import asyncio
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, Self

import orjson
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from uvian_common.backoff import pause_before
from uvian_common.batching import Batcher, Fifo
from uvian_worker.events.log import LOG_LUA
from uvian_worker.queue.arq_adapter.names import ARQ_LUA
from uvian_worker.redis.connection import (
    DedicatedConnection,
    RedisAway,
    Script,
    run_script,
)
from uvian_worker.redis.keys import Keys, parsed_queue_id, queue_id

_FOLDER = Path(__file__).parent
#: What every language runs to enqueue: the event log, what arq reads, then the dispatch.
DISPATCH_SCRIPT = Script.of(LOG_LUA, ARQ_LUA, _FOLDER / "dispatch.lua")
_OVERDUE = Script.of(ARQ_LUA, _FOLDER / "overdue.lua")

#: How long an id may stand between the queue and its claim before it is dispatched again.
CLAIM_SECONDS = 5.0
_BATCH = 100

_HEALING = "healing:"
_MARK = """
if ARGV[1] == '' or redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2]) end
"""


@dataclass(frozen=True, slots=True)
class Dispatch:
    """One run of one job, to be put into the queue."""

    job_id: str
    run: int
    user_id: str
    job_type: str
    priority: int = 0  #: seconds of head start
    run_at: datetime | None = None  #: not before; None is now
    attempt: int = 0  #: attempts burned
    reason: Mapping[str, Any] | None = None  #: how the last run ended: {outcome, attempt, error}

    def __post_init__(self) -> None:
        if self.run_at is not None and self.run_at.tzinfo is None:
            raise ValueError("run_at needs a time zone: datetime.now(UTC), not datetime.now().")

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """From what the functions of the schema return under ``dispatch``."""
        return cls(
            job_id=row["id"],
            run=row["run"],
            user_id=row["user_id"],
            job_type=row["type"],
            priority=row["priority"],
            run_at=datetime.fromisoformat(row["run_at"]) if row["delayed"] else None,
            attempt=row["attempt"],
            reason=row.get("reason"),
        )


class Dispatched(StrEnum):
    """What became of a dispatch."""

    QUEUED = "queued"  #: it is in the queue from now on
    WAITING = "waiting"  #: it was in the queue already
    CLAIMING = "claiming"  #: a worker took it less than ``CLAIM_SECONDS`` ago
    FENCED = "fenced"  #: a later run of the job was seen
    SEALED = "sealed"  #: this run has ended
    LOST = "lost"  #: Redis is away; the sweeper dispatches it when it is back


class Depth(NamedTuple):
    """How many runs are in Redis."""

    queued: int  #: due or not
    claiming: int


class Dispatcher:
    """Puts runs into the queue, and finds those that got lost between the queue and their claim."""

    def __init__(self, redis: Redis, namespace: str, *, patience: float = 3.0) -> None:
        """``patience``: how many seconds to try again while Redis is away."""
        self._redis: Any = redis
        self._keys = Keys(namespace)
        self._patience = patience
        self._connection = DedicatedConnection(redis, namespace)
        self._batcher: Batcher[Dispatch, Dispatched] = Batcher(
            self._send, Fifo(_BATCH), name="dispatch", fallback=lambda: Dispatched.LOST
        )
        self.has_known_redis = False  #: whether a process had marked it as complete before
        self._healing: str | None = None  #: the marker when the loss was noticed

    async def close(self) -> None:
        """Finish what is in flight and close the connection. Closing twice is fine."""
        await self._batcher.close(self._patience)
        await self._connection.close()

    async def dispatch(self, items: Iterable[Dispatch]) -> list[Dispatched]:
        """Put jobs into the queue, many in one call. Never raises because Redis is away."""
        return list(await asyncio.gather(*[self._batcher.submit(item) for item in items]))

    async def overdue(self, *, limit: int = 500) -> list[tuple[str, int]]:
        """Job and run of ids that were taken, and whose claim was not answered in ``CLAIM_SECONDS``.

        Dispatch those that are still queued, and ``forget`` the others. Raises redis-py's errors.
        """
        milliseconds = int(CLAIM_SECONDS * 1000)
        arguments = (self._keys.namespace, milliseconds, limit)
        raw = await run_script(self._redis, _OVERDUE, *arguments)
        found = {entry: parsed_queue_id(entry) for entry in raw}
        if foreign := [entry for entry, run in found.items() if run is None]:
            await self._redis.zrem(self._keys.claiming, *foreign)
        return [run for run in found.values() if run is not None]

    async def forget(self, runs: Iterable[tuple[str, int]]) -> None:
        """Remove ids from the claiming set: their jobs need nothing more."""
        if ids := [queue_id(job_id, run) for job_id, run in runs]:
            await self._redis.zrem(self._keys.claiming, *ids)

    async def depth(self) -> Depth:
        """How many ids wait, and how many are being claimed."""
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.zcard(self._keys.queue)
            pipe.zcard(self._keys.claiming)
            return Depth(*await pipe.execute())

    @property
    def away(self) -> RedisAway | None:
        """Why Redis does not serve this process, as far as the process knows."""
        return self._connection.away

    @property
    def serves_for(self) -> float:
        """Seconds since the last outage of Redis."""
        return self._connection.serves_for

    async def require_write(self) -> RedisAway | None:
        """Write something, and answer what Redis has denied in the last minute, if anything.

        Raises ``RedisAway`` when it takes no writes.
        """
        await self._connection.require_write()
        return self._connection.denied

    async def redis_lost(self) -> bool:
        """Whether the queue may have been lost since ``mark_redis``, by a flush, restart or failover.

        If so, dispatch everything that is queued, then call ``mark_redis``. Raises ``RedisAway`` on any
        fault.
        """
        server, raw = await self._connection.request("GET", self._keys.marker)
        marker = "" if raw is None else raw.decode()
        self.has_known_redis = self.has_known_redis or (
            raw is not None and not marker.startswith(_HEALING)
        )
        if raw is not None and marker == server:
            self._healing = None
            return False
        if not marker.startswith(_HEALING):
            marker = _HEALING + secrets.token_hex(8)
            await self._connection.request("SET", self._keys.marker, marker)
        if self._healing is None:
            self._healing = marker
        return True

    async def mark_redis(self) -> None:
        """Mark this server as the one that has the whole queue. Raises ``RedisAway`` on any fault.

        Marks nothing if the queue was lost once more since ``redis_lost`` first answered True.
        """
        server, _ = await self._connection.request("PING")
        key, healing = self._keys.marker, self._healing or ""
        await self._connection.request("EVAL", _MARK, 1, key, healing, server)
        self._healing = None
        self.has_known_redis = True

    async def _send(self, items: list[Dispatch]) -> Sequence[Dispatched]:
        arguments = [value for item in items for value in _arguments(item)]
        # While Redis is known to be away, no further call waits for it.
        deadline = time.monotonic() + (0 if self.away else self._patience)
        tries = 0
        while True:
            try:
                answers = await self._connection.call(DISPATCH_SCRIPT, *arguments)
            except RedisAway:
                if time.monotonic() >= deadline:
                    return [Dispatched.LOST] * len(items)
                await asyncio.sleep(pause_before(tries, first=0.02))
                tries += 1
            except ResponseError:  # it was logged; the sweep dispatches them again
                return [Dispatched.LOST] * len(items)
            else:
                return [Dispatched(answer.decode()) for answer in answers]


def _arguments(item: Dispatch) -> tuple[str | int, ...]:
    run_at = "" if item.run_at is None else round(item.run_at.timestamp() * 1000)
    return (
        item.job_id,
        item.run,
        item.user_id,
        item.job_type,
        item.priority,
        run_at,
        item.attempt,
        "" if item.reason is None else orjson.dumps(item.reason).decode(),
    )
