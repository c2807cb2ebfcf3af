"""arq without polling: an ``ArqRedis`` whose read of an empty queue waits for a wake-up.

Whoever enqueues pushes a token to the wake list; an idle worker waits there. arq is neither patched
nor forked: it calls ``zrangebyscore`` on the pool it was given, and gets its answer a little later.
"""

from __future__ import annotations

__all__ = ["WakingArqRedis", "arq_redis_from_url", "deserialize", "serialize"]

import asyncio
import contextlib
import math
import time
from typing import Any

import orjson
from arq.connections import ArqRedis
from redis.asyncio.client import Pipeline
from redis.asyncio.connection import ConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from uvian_common.backoff import pause_before
from uvian_common.tasks import cancel_until_done
from uvian_worker.redis.clock import StoreClock
from uvian_worker.redis.errors import FAULTS, RedisAway, RedisState
from uvian_worker.redis.keys import ARQ, ARQ_IN_PROGRESS, Keys
from uvian_worker.redis.transport import (
    PatientRetry,
    StubbornParser,
    pool_from_url,
    sibling,
    state_of,
)

#: Seconds. A token lost with a cut connection costs no more, and it must be less than the second in
#: which a delayed job comes without a token.
_BLOCK = 0.75
_TOKENS = 64
#: Ids that arq is given at once. It picks one after another, while the loops take what is due in one call:
#: of a long list it would find most taken already.
_PICKS = 8
_GLANCE = 0.5  #: seconds for what only a line of arq's log needs
_LAST_WORD = 1.0  #: seconds for arq's, once the process ends
_LONGEST_PACE = 0.05


def serialize(document: dict[str, Any]) -> bytes:
    """``job_serializer`` for arq: JSON, since whoever can write pickle to Redis runs code here.

    arq also serialises what it makes of a failure, an exception among it; nobody reads that.
    """
    return orjson.dumps(document, default=repr)


def deserialize(document: bytes) -> dict[str, Any]:
    """``job_deserializer`` for arq."""
    parsed: dict[str, Any] = orjson.loads(document)
    return parsed


def arq_redis_from_url(url: str, namespace: str, **options: Any) -> WakingArqRedis:
    """The pool for ``WorkerSettings.redis_pool``; nothing connects before its first use.

    It waits for a Redis that is away as long as it takes, since an error in arq's loop ends the worker.
    Whatever Redis answers, it never does so by an error that arq would let through. Call ``give_up``
    when the process ends.
    """
    defaults = {
        "retry": PatientRetry(math.inf),
        "retry_on_error": [RedisAway, RedisConnectionError, OSError],
        "parser_class": StubbornParser,
    }
    pool = pool_from_url(url, math.inf, **defaults | options)
    return WakingArqRedis(pool, namespace=namespace)


class WakingArqRedis(ArqRedis):
    """arq's client of one namespace."""

    def __init__(
        self,
        pool_or_conn: ConnectionPool | None = None,
        *,
        namespace: str = "uvian",
        **options: Any,
    ) -> None:
        self._keys = Keys(namespace)
        options.setdefault("job_serializer", serialize)
        options.setdefault("job_deserializer", deserialize)
        options.setdefault("default_queue_name", self._keys.queue)
        super().__init__(pool_or_conn, **options)
        self.state: RedisState = state_of(self)
        self.clock = StoreClock()
        self._draining = False
        self._ends = False
        self._came_back = asyncio.Event()
        self._found_nothing = False
        self._last: list[bytes] = []
        self._repeats = 0
        self._tokens: Any = None
        self._token: asyncio.Task[bool] | None = None
        self._listening = False
        self._nudge: asyncio.Future[None] | None = None

    def drain(self) -> None:
        """From now on the queue looks empty; a wake-up that arrives is given to somebody else."""
        self._draining = True
        self._came_back.clear()
        if self._nudge is not None and not self._nudge.done():
            self._nudge.set_result(None)

    async def picks_are_over(self) -> None:
        """Wait until arq, told to drain, has started the last job of the list it read before."""
        with contextlib.suppress(TimeoutError):  # Redis is away: it starts nothing either
            async with asyncio.timeout(2):
                await self._came_back.wait()

    def resume(self) -> None:
        """Take back ``drain``."""
        self._draining = False

    def give_up(self) -> None:
        """From now on no command waits for a Redis that is away: the process ends."""
        self._ends = True
        retry = self.connection_pool.connection_kwargs.get("retry")
        if isinstance(retry, PatientRetry):
            retry.give_up()

    def zrangebyscore(self, name: Any, min: Any, max: Any, *rest: Any, **options: Any) -> Any:  # noqa: A002 — redis-py's names
        """arq's read of the queue waits for work; any other is redis-py's."""
        if name != self._keys.queue or rest or options.get("withscores"):
            return super().zrangebyscore(name, min, max, *rest, **options)
        return self._read_queue(options["num"])

    async def delete(self, *names: Any) -> Any:
        """redis-py's; arq's last word is one, and unheard it must not change how the process ends."""
        if not self._ends:
            return await super().delete(*names)
        with contextlib.suppress(*FAULTS):  # a TimeoutError is an OSError
            async with asyncio.timeout(_LAST_WORD):
                return await super().delete(*names)
        return 0

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Any command; arq's keys get the namespace."""
        base: Any = super()
        return base.execute_command(*_named(args, self._keys), **options)

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        """A pipeline in which arq picks a job."""
        return _PickingPipeline(
            self._keys,
            self.clock,
            self.connection_pool,
            self.response_callbacks,
            transaction,
            shard_hint,
        )

    async def close(self, close_connection_pool: bool | None = None) -> None:
        """What arq calls."""
        await self.aclose(close_connection_pool)

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Close everything, the connection that waits included. Closing twice is fine."""
        self.give_up()
        if self._token is not None:
            await cancel_until_done(self._token)
        if self._tokens is not None:
            await self._tokens.aclose(close_connection_pool=True)
        await super().aclose(close_connection_pool)

    async def _read_queue(self, count: int) -> list[bytes]:
        while not self._draining:
            if self.state.away is not None:
                await self._served_again()
            due, following = await self._look(count)
            if due:
                return await self._found(due)
            if not self._found_nothing:
                # The first time it is said at once: `arq --burst` ends on an empty queue.
                self._found_nothing = True
                return []
            if not await self._woken(following):
                return []
        self._came_back.set()
        await asyncio.sleep(_LONGEST_PACE)  # arq goes on asking while its jobs finish
        return []

    async def _look(self, count: int) -> tuple[list[bytes], float | None]:
        """The first ids that are due; if there are none, seconds until one is.

        More each time when none of the last could be picked: a worker that was killed may have locked them.
        """
        entries = await self._head(min(count, _PICKS << min(self._repeats, 16)))
        now = self.clock.now()
        due = [member for member, score in entries if score <= now]
        following = (entries[len(due)][1] - now) / 1000 if len(due) < len(entries) else None
        return due, following

    async def _head(self, count: int) -> list[tuple[bytes, float]]:
        """The first ids with their scores; now and then the time of Redis as well, on the same trip."""
        query: Any = {"start": 0, "num": count, "withscores": True}
        if self.clock.holds:
            entries: list[tuple[bytes, float]]
            entries = await super().zrangebyscore(self._keys.queue, "-inf", "+inf", **query)
            return entries
        async with self.pipeline(transaction=False) as pipe:
            pipe.zrangebyscore(self._keys.queue, "-inf", "+inf", **query)
            pipe.time()
            asked = time.monotonic()
            entries, moment = await pipe.execute()
        self.clock.learn(moment, asked)
        return entries

    async def _served_again(self) -> None:
        """Wait until Redis takes a write: what arq picked before could not be locked."""
        await self.set(self._keys.probe, "1", px=60_000)
        self.state.works()

    async def _found(self, due: list[bytes]) -> list[bytes]:
        self._found_nothing = False
        await self._pace(due)
        if len(due) > 1 or self._draining:
            await self._pass_on()
        return [] if self._draining else due

    async def _pace(self, due: list[bytes]) -> None:
        """The same ids again: somebody else has them, or had when it was killed. Do not spin."""
        last, self._last = self._last, due
        self._repeats = self._repeats + 1 if last and due[: len(last)] == last else 0
        if due == last:
            pause = pause_before(self._repeats, first=0.0025, longest=_LONGEST_PACE)
            await asyncio.sleep(pause)

    async def _woken(self, following: float | None) -> bool:
        """Wait for a token, or until the next job is due: whether to look again.

        The wait for the token goes on beside that: Redis ends a block up to 100 ms late, and one
        that is cancelled may take its token along.
        """
        if self._token is None or self._token.done():
            self._token = asyncio.create_task(self._next_token(), name="wake-up")
        self._listening = True
        try:
            self._nudge = asyncio.get_running_loop().create_future()
            waits: list[asyncio.Future[Any]] = [self._token, self._nudge]
            await asyncio.wait(
                waits,
                timeout=following,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            self._listening = False
        if not self._token.done():
            return True
        return self._token.result()

    async def _next_token(self) -> bool:
        """Wait for a token, ``_BLOCK`` seconds at most; one nobody here waits for any more is passed on."""
        if self._tokens is None:
            # A blocking read needs its own timeout: longer than the block.
            self._tokens = sibling(self, single=True, socket_timeout=_BLOCK + 5)
        try:
            token = await self._tokens.blpop([self._keys.wake], timeout=_BLOCK)
        except FAULTS:
            await asyncio.sleep(_BLOCK)
            return False
        if token is None:
            return False
        if self._draining or not self._listening:
            await self._pass_on()
        return True

    async def _pass_on(self) -> None:
        """One token says that there is work; how much, it does not say."""
        async with self.pipeline(transaction=False) as pipe:
            pipe.lpush(self._keys.wake, b"1")
            pipe.ltrim(self._keys.wake, 0, _TOKENS - 1)
            await pipe.execute()


def _named(args: tuple[Any, ...], keys: Keys) -> tuple[Any, ...]:
    """A command with the namespace before arq's own keys, so that installations do not meet in them."""
    return tuple(
        keys.arq(arg) if isinstance(arg, str) and arg.startswith(ARQ) else arg for arg in args
    )


class _PickingPipeline(Pipeline):
    """arq's pick, WATCH, EXISTS and ZSCORE one after another, in one round trip.

    It is sooner, and what arq expects: that of its pick only EXEC fails. When the connection breaks
    between them redis-py raises ``WatchError``, which would end the worker.
    """

    def __init__(self, keys: Keys, clock: StoreClock, *options: Any) -> None:
        super().__init__(*options)
        self._keys = keys
        self._clock = clock
        self._locks = keys.arq(ARQ_IN_PROGRESS)
        self._answers: dict[tuple[Any, ...], Any] = {}

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Any command; arq's keys get the namespace."""
        return super().execute_command(*_named(args, self._keys), **options)

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """redis-py's; what arq asks before it starts, to log it, nobody waits for or needs a right for."""
        base: Any = super()
        asked = [args[0] for args, _ in self.command_stack]
        if not asked or not set(asked) <= {"INFO", "DBSIZE"}:
            answers: list[Any] = await base.execute(raise_on_error)
            return answers
        answers = [{} for _ in asked]
        with contextlib.suppress(*FAULTS):
            async with asyncio.timeout(_GLANCE):
                answers = await base.execute(raise_on_error=False)
        return [{} if isinstance(answer, ResponseError) else answer for answer in answers]

    async def reset(self) -> None:
        """redis-py's end of a pipeline; one that is cut short gives its connection back all the same."""
        base: Any = super()
        try:
            await base.reset()
        except BaseException as error:
            connection, self.connection = self.connection, None
            if connection is not None:
                await connection.disconnect(nowait=True)
                await self.connection_pool.release(connection)
            if not isinstance(error, FAULTS):
                raise
            self.watching = self.explicit_transaction = False

    async def _send_command_parse_response(
        self, conn: Any, command_name: Any, *args: Any, **options: Any
    ) -> Any:
        if args in self._answers:
            return self._answers.pop(args)
        base: Any = super()
        if command_name != "WATCH" or not args[1].startswith(self._locks):
            return await base._send_command_parse_response(  # noqa: SLF001 - our own base
                conn, command_name, *args, **options
            )
        lock = args[1]
        follow = [
            ("EXISTS", lock),
            ("ZSCORE", self._keys.queue, lock.removeprefix(self._locks)),
        ]
        await conn.send_packed_command(conn.pack_commands([args, *follow]))
        try:
            watched = await self.parse_response(conn, command_name, **options)
            exists, score = [await self.parse_response(conn, asked[0]) for asked in follow]
        except BaseException:
            # Answers that nobody reads are on their way; nothing was picked, it can all be asked again.
            self.watching = False
            await conn.disconnect(nowait=True)
            raise
        self._answers = {
            follow[0]: exists,
            follow[1]: None if score is None else self._clock.as_ours(score),
        }
        return watched
