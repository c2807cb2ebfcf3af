"""The queue contract: who puts a job into arq's queue, and who takes it out.

An id waits in the queue until a worker takes it; between that and the answer of its claim it
stands in the ``claiming`` set, where the sweeper finds what a dead worker left. All of it may be
lost at any moment: Postgres has the jobs. ``docs/contracts/enqueue.md`` is this contract for
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
    "Taker",
]

import asyncio
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import orjson
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from uvian_common.backoff import pause_before
from uvian_common.batching import Batcher, Fifo
from uvian_worker.events.log import LOG_LUA
from uvian_worker.redis.connection import (
    FAULTS,
    Line,
    RedisAway,
    Script,
    run_script,
)
from uvian_worker.redis.keys import Keys, arq_id, split_arq_id

_FOLDER = Path(__file__).parent
#: What every language runs to enqueue: the event log, then the dispatch.
DISPATCH_SCRIPT = Script.of(LOG_LUA, _FOLDER / "dispatch.lua")
_TAKE = Script.of(_FOLDER / "take.lua")
_OVERDUE = Script.of(_FOLDER / "overdue.lua")

#: How long an id may stand between the queue and its claim before it is dispatched again.
CLAIM_SECONDS = 5.0
_BATCH = 100

_HEALING = "healing:"
_MARK = """
if ARGV[1] == '' or redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2]) end
"""


@dataclass(frozen=True, slots=True)
class Dispatch:
    """One run of one job that shall be in the queue."""

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
        """From what the functions of the schema answer under ``dispatch``."""
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
    CLAIMING = "claiming"  #: a worker has just taken it
    FENCED = "fenced"  #: a later run of the job was seen
    SEALED = "sealed"  #: this run has ended
    LOST = "lost"  #: Redis is away; the sweeper dispatches it when it is back


class Depth(NamedTuple):
    """How much stands in Redis."""

    queued: int  #: due or not
    claiming: int


class Dispatcher:
    """Puts jobs into the queue, and finds those that got lost on the way out of it."""

    def __init__(self, redis: Redis, namespace: str, *, patience: float = 3.0) -> None:
        """``patience``: how many seconds to try again while Redis is away."""
        self._redis: Any = redis
        self._keys = Keys(namespace)
        self._patience = patience
        self._line = Line(redis, namespace)
        self._batcher: Batcher[Dispatch, Dispatched] = Batcher(
            self._send, Fifo(_BATCH), name="dispatch", fallback=lambda: Dispatched.LOST
        )
        self.has_known_redis = False  #: somebody had marked it as whole before
        self._healing: str | None = None  #: what stood in the marker when the loss was noticed

    async def close(self) -> None:
        """Finish what is in flight and close the connection. Closing twice is fine."""
        await self._batcher.close(self._patience)
        await self._line.close()

    async def dispatch(self, items: Iterable[Dispatch]) -> list[Dispatched]:
        """Put jobs into the queue, many in one call. Never raises because Redis is away."""
        return list(await asyncio.gather(*[self._batcher.submit(item) for item in items]))

    async def overdue(self, *, limit: int = 500) -> list[tuple[str, int]]:
        """Job and run of ids that were taken and whose claim is not over after ``CLAIM_SECONDS``.

        Dispatch those that are still queued, ``forget`` the others. Raises redis-py's errors.
        """
        milliseconds = int(CLAIM_SECONDS * 1000)
        arguments = (self._keys.namespace, milliseconds, limit)
        raw = await run_script(self._redis, _OVERDUE, *arguments)
        found = {entry: _split(entry) for entry in raw}
        if rubbish := [entry for entry, run in found.items() if run is None]:
            await self._redis.zrem(self._keys.claiming, *rubbish)
        return [run for run in found.values() if run is not None]

    async def forget(self, runs: Iterable[tuple[str, int]]) -> None:
        """Remove ids from the claiming set: their jobs need nothing more."""
        if ids := [arq_id(job_id, run) for job_id, run in runs]:
            await self._redis.zrem(self._keys.claiming, *ids)

    async def depth(self) -> Depth:
        """How many ids wait, and how many are being claimed."""
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.zcard(self._keys.queue)
            pipe.zcard(self._keys.claiming)
            return Depth(*await pipe.execute())

    @property
    def away(self) -> RedisAway | None:
        """Why Redis does not serve us, as far as anybody in this process knows."""
        return self._line.away

    @property
    def serves_for(self) -> float:
        """Seconds for which Redis has served this process without a break."""
        return self._line.serves_for

    async def prove(self) -> RedisAway | None:
        """Write something; what Redis would not let us do of late, if it takes writes otherwise.

        ``RedisAway`` when it takes none.
        """
        await self._line.prove()
        return self._line.denied

    async def redis_lost(self) -> bool:
        """Whether the queue may have been lost since ``mark_redis``: flush, restart or failover.

        Dispatch everything that is queued, then call ``mark_redis``. ``RedisAway`` on any fault.
        """
        server, raw = await self._line.ask("GET", self._keys.marker)
        marker = "" if raw is None else raw.decode()
        self.has_known_redis = self.has_known_redis or (
            raw is not None and not marker.startswith(_HEALING)
        )
        if raw is not None and marker == server:
            self._healing = None
            return False
        if not marker.startswith(_HEALING):
            marker = _HEALING + secrets.token_hex(8)
            await self._line.ask("SET", self._keys.marker, marker)
        if self._healing is None:
            self._healing = marker
        return True

    async def mark_redis(self) -> None:
        """The queue is whole again: put down that this server has it. ``RedisAway`` on any fault.

        Nothing is put down when the queue was lost once more since ``redis_lost`` first said so.
        """
        server, _ = await self._line.ask("PING")
        key, healing = self._keys.marker, self._healing or ""
        await self._line.ask("EVAL", _MARK, 1, key, healing, server)
        self._healing = None
        self.has_known_redis = True

    async def _send(self, items: list[Dispatch]) -> Sequence[Dispatched]:
        arguments = [value for item in items for value in _arguments(item)]
        # Once Redis is known to be away, nobody else waits for it.
        deadline = time.monotonic() + (0 if self.away else self._patience)
        tries = 0
        while True:
            try:
                answers = await self._line.call(DISPATCH_SCRIPT, *arguments)
            except RedisAway:
                if time.monotonic() >= deadline:
                    return [Dispatched.LOST] * len(items)
                await asyncio.sleep(pause_before(tries, first=0.02))
                tries += 1
            except ResponseError:  # it was said; the sweeper offers them again
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


class _Ask(NamedTuple):
    """What a loop of the worker wants of the queue."""

    verb: Literal["enter", "next"]
    id: str = ""


_Answer = bytes | bool | None


class Taker:
    """Takes ids out of the queue for all loops of a worker, in one call.

    arq needs six round trips to start a job. A loop that has finished one therefore takes the
    next due id itself::

        async def run_job(ctx, job_id, run):
            if not await taker.enter(job_id, run):
                return
            while True:
                await run_it(job_id, run)  # calls taker.done(job_id, run) when its claim is
                answered if (following := await taker.next()) is None:
                    return
                job_id, run = following

    While Redis is away ``enter`` says yes (Postgres is the fence) and ``next`` has nothing.
    """

    _LINGER = 0.05  # seconds that a `done` waits for company

    def __init__(self, redis: Redis, namespace: str) -> None:
        self._redis = redis
        self._namespace = namespace
        self._batcher: Batcher[_Ask, _Answer] = Batcher(
            self._send, Fifo(_BATCH), name="queue taker", fallback=lambda: None
        )
        self._done: dict[str, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._flushing: asyncio.Task[None] | None = None
        self._draining = False

    async def close(self) -> None:
        """Send what is left. Closing twice is fine."""
        self.drain()
        await self._batcher.close(1.0)
        if self._timer is not None:
            self._timer.cancel()
        if self._flushing is not None:
            await asyncio.wait([self._flushing])
        if self._done:
            await self._call([])

    def drain(self) -> None:
        """From now on ``next`` has nothing. What was taken already is still handed out."""
        self._draining = True

    def resume(self) -> None:
        """Take back ``drain``."""
        self._draining = False

    async def enter(self, job_id: str, run: int) -> bool:
        """Move an id that arq has picked out of the queue; False if nobody waits for it any more."""
        answer = await self._batcher.submit(_Ask("enter", arq_id(job_id, run)))
        return answer is not False

    async def next(self) -> tuple[str, int] | None:
        """Take the next due job; None if there is none."""
        if self._draining:
            return None
        while isinstance(answer := await self._batcher.submit(_Ask("next")), bytes):
            if (run := _split(answer)) is not None:
                return run
        return None

    def done(self, job_id: str, run: int) -> None:
        """The claim of this id is answered, whatever the answer was: it needs no watching."""
        self._done[arq_id(job_id, run)] = None
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._LINGER, self._flush)

    def _flush(self) -> None:
        self._timer = None
        if self._done:
            self._flushing = asyncio.get_running_loop().create_task(self._send_done())

    async def _send_done(self) -> None:
        await self._call([])

    async def _send(self, asks: list[_Ask]) -> Sequence[_Answer]:
        entering = [ask.id for ask in asks if ask.verb == "enter"]
        reply = await self._call(entering, 0 if self._draining else len(asks) - len(entering))
        if reply is None:
            return [True if ask.verb == "enter" else None for ask in asks]
        entered, taken = iter(reply[0]), iter(reply[1])
        return [bool(next(entered)) if ask.verb == "enter" else next(taken, None) for ask in asks]

    async def _call(self, entering: list[str], wanted: int = 0) -> Any:
        """One call of the script; None while Redis is away: nothing is tried again.

        What was taken when a reply got lost stands in the claiming set, and is dispatched again.
        """
        done, self._done = self._done, {}
        arguments = (self._namespace, wanted, len(entering), *entering, *done)
        try:
            return await run_script(self._redis, _TAKE, *arguments)
        except FAULTS:
            return None


def _split(raw: bytes) -> tuple[str, int] | None:
    """The job and the run of an id from Redis; None for what somebody else has put there."""
    try:
        return split_arq_id(raw.decode())
    except ValueError:
        return None
