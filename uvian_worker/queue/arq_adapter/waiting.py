"""How arq reads its queue without polling: a read that finds nothing due waits for a wake-up token.

Whoever enqueues pushes a token to the wake list. The method and its traps are tested in
``tests/queue/test_arq_adapter.py``.
"""

from __future__ import annotations

__all__ = ["QueueReader"]

import asyncio
import contextlib
import time
from typing import Any, Final

from redis.asyncio import Redis

from uvian_common.backoff import pause_before
from uvian_common.tasks import cancel_until_done
from uvian_worker.redis.clients import sibling, state_of
from uvian_worker.redis.clock import StoreClock
from uvian_worker.redis.errors import FAULTS
from uvian_worker.redis.keys import Keys

#: Seconds that one blocking read waits. A token that is lost with a broken connection costs no more;
#: a delayed job comes without a token, so this is less than a second.
_BLOCK: Final = 0.75
_TOKENS: Final = 64
#: Ids that arq gets at once. arq picks one after another, while the loops take what is due in one call:
#: of a long list it would find most ids taken already.
_PICKS: Final = 8
_LONGEST_PAUSE: Final = 0.05
_PICKS_SECONDS: Final = 2.0  #: that the picks of one list may take


class QueueReader:
    """Reads the queue for arq, and waits while nothing is due."""

    def __init__(self, redis: Redis, keys: Keys, clock: StoreClock) -> None:
        self._redis: Any = redis
        self._keys = keys
        self._clock = clock
        self._state = state_of(redis)
        self._paused = False
        self._returned_paused = asyncio.Event()
        self._returned_empty = False
        self._last: list[bytes] = []
        self._repeats = 0
        self._tokens: Any = None
        self._token: asyncio.Task[bool] | None = None
        self.is_waiting = False  #: for a token, which will be its own
        self._interrupt: asyncio.Future[None] | None = None

    def pause(self) -> None:
        """From now on the queue looks empty; a token that still arrives is passed on."""
        self._paused = True
        self._returned_paused.clear()
        if self._interrupt is not None and not self._interrupt.done():
            self._interrupt.set_result(None)

    def resume(self) -> None:
        """Take back ``pause``."""
        self._paused = False

    async def picks_are_over(self) -> None:
        """After ``pause``: wait until arq has started the last job of the list that it read before."""
        with contextlib.suppress(TimeoutError):  # Redis is away: arq starts nothing either
            async with asyncio.timeout(_PICKS_SECONDS):
                await self._returned_paused.wait()

    async def close(self) -> None:
        """Stop waiting and close the connection that waits. Closing twice is fine."""
        if self._token is not None:
            await cancel_until_done(self._token)
        if self._tokens is not None:
            await self._tokens.aclose(close_connection_pool=True)

    async def read(self, count: int) -> list[bytes]:
        """Ids that are due, ``count`` at most; an empty list when arq shall look for finished jobs."""
        while not self._paused:
            if self._state.away is not None:
                await self._until_writable()
            due, seconds = await self.look(count)
            if due:
                return await self._found(due)
            if not self._returned_empty:
                # The first empty list is returned at once: `arq --burst` ends on an empty queue.
                self._returned_empty = True
                return []
            if not await self._woken(seconds):
                return []
        self._returned_paused.set()
        await asyncio.sleep(_LONGEST_PAUSE)  # arq continues to read while its jobs finish
        return []

    async def look(self, count: int) -> tuple[list[bytes], float | None]:
        """The first ids that are due; if there are none, the seconds until one is.

        More ids each time when none of the last could be picked: a killed worker may have locked them.
        """
        entries = await self._head(min(count, _PICKS << min(self._repeats, 16)))
        now = self._clock.now()
        due = [member for member, score in entries if score <= now]
        seconds = (entries[len(due)][1] - now) / 1000 if len(due) < len(entries) else None
        return due, seconds

    async def pass_on(self) -> None:
        """Push a token: there is work for another worker."""
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.lpush(self._keys.wake, b"1")
            pipe.ltrim(self._keys.wake, 0, _TOKENS - 1)
            await pipe.execute()

    async def _head(self, count: int) -> list[tuple[bytes, float]]:
        """The first ids with their scores; every few seconds the time of Redis on the same trip."""
        query: Any = {"start": 0, "num": count, "withscores": True}
        if self._clock.holds:
            entries: list[tuple[bytes, float]]
            entries = await self._redis.zrangebyscore(self._keys.queue, "-inf", "+inf", **query)
            return entries
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.zrangebyscore(self._keys.queue, "-inf", "+inf", **query)
            pipe.time()
            sent_at = time.monotonic()
            entries, moment = await pipe.execute()
        self._clock.learn(moment, sent_at)
        return entries

    async def _until_writable(self) -> None:
        """Wait until Redis takes a write: what arq picks before that it could not lock."""
        await self._redis.set(self._keys.probe, "1", px=60_000)
        self._state.works()

    async def _found(self, due: list[bytes]) -> list[bytes]:
        self._returned_empty = False
        await self._pace(due)
        if len(due) > 1 or self._paused:
            await self.pass_on()
        return [] if self._paused else due

    async def _pace(self, due: list[bytes]) -> None:
        """Do not spin on the same ids: another worker has them, or was killed while it had them."""
        last, self._last = self._last, due
        self._repeats = self._repeats + 1 if last and due[: len(last)] == last else 0
        if due == last:
            pause = pause_before(self._repeats, first=0.0025, longest=_LONGEST_PAUSE)
            await asyncio.sleep(pause)

    async def _woken(self, seconds: float | None) -> bool:
        """Wait for a token, or until the next job is due: whether to look again.

        The read of the token continues in a task of its own: Redis ends a blocking read up to 100 ms
        late, and a read that is cancelled may lose the token that it got.
        """
        if self._token is None or self._token.done():
            self._token = asyncio.create_task(self._next_token(), name="wake-up")
        self.is_waiting = True
        try:
            self._interrupt = asyncio.get_running_loop().create_future()
            waits: list[asyncio.Future[Any]] = [self._token, self._interrupt]
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.is_waiting = False
        if not self._token.done():
            return True
        return self._token.result()

    async def _next_token(self) -> bool:
        """Wait ``_BLOCK`` seconds at most for a token; pass it on when nobody here waits for it."""
        if self._tokens is None:
            # A blocking read needs its own timeout: longer than the block.
            self._tokens = sibling(self._redis, single=True, socket_timeout=_BLOCK + 5)
        try:
            token = await self._tokens.blpop([self._keys.wake], timeout=_BLOCK)
        except FAULTS:
            await asyncio.sleep(_BLOCK)
            return False
        if token is None:
            return False
        if self._paused or not self.is_waiting:
            await self.pass_on()
        return True
