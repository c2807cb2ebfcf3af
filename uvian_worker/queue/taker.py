"""The worker's side of the queue: takes ids out of it, for all loops of a worker in one call."""

from __future__ import annotations

__all__ = ["Taker"]

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from redis.asyncio import Redis

from uvian_common.batching import Batcher, Fifo
from uvian_worker.queue.arq_adapter.names import ARQ_LUA
from uvian_worker.redis.connection import FAULTS, Script, run_script
from uvian_worker.redis.keys import parsed_queue_id, queue_id

_TAKE = Script.of(ARQ_LUA, Path(__file__).with_name("take.lua"))
_BATCH: Final = 100


class _Request(NamedTuple):
    """What a loop of the worker wants of the queue."""

    verb: Literal["enter", "next"]
    id: str = ""


_Answer = bytes | bool | None


class Taker:
    """A ``WorkSource`` on the queue itself.

    arq needs six round trips to start a job, so a loop that has finished one takes the next due id
    here. ``enter`` is for an id that somebody else has picked, as arq does.

    While Redis is away ``enter`` answers True (Postgres is the fence) and ``next`` has nothing.
    """

    _LINGER = 0.05  # seconds that an answered claim waits for others, to be sent in one call

    def __init__(self, redis: Redis, namespace: str) -> None:
        self._redis = redis
        self._namespace = namespace
        self._batcher: Batcher[_Request, _Answer] = Batcher(
            self._send, Fifo(_BATCH), name="queue taker", fallback=lambda: None
        )
        self._answered: dict[str, None] = {}  #: ids that may leave the claiming set
        self._timer: asyncio.TimerHandle | None = None
        self._flushing: asyncio.Task[None] | None = None
        self._paused = False

    async def close(self) -> None:
        """Send what is left. Closing twice is fine."""
        self.pause()
        await self._batcher.close(1.0)
        if self._timer is not None:
            self._timer.cancel()
        if self._flushing is not None:
            await asyncio.wait([self._flushing])
        if self._answered:
            await self._call([])

    def pause(self) -> None:
        """From now on ``next`` has nothing. What was taken already is still handed out."""
        self._paused = True

    def resume(self) -> None:
        """Take back ``pause``."""
        self._paused = False

    async def handed_out(self) -> None:
        """Nothing is on its way: ``next`` hands out what it takes."""

    async def finished(self) -> bool:
        """The queue needs nothing of a worker that has finished."""
        return True

    async def enter(self, job_id: str, run: int) -> bool:
        """Move a picked id out of the queue; False if it no longer waits for a worker."""
        answer = await self._batcher.submit(_Request("enter", queue_id(job_id, run)))
        return answer is not False

    async def next(self) -> tuple[str, int] | None:
        """Take the next due job; None if there is none."""
        if self._paused:
            return None
        while isinstance(answer := await self._batcher.submit(_Request("next")), bytes):
            if (run := parsed_queue_id(answer)) is not None:
                return run
        return None

    def claim_answered(self, job_id: str, run: int) -> None:
        """The claim of this id was answered, whatever the answer was: the sweep need not watch it."""
        self._answered[queue_id(job_id, run)] = None
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._LINGER, self._flush)

    def _flush(self) -> None:
        self._timer = None
        if self._answered:
            self._flushing = asyncio.get_running_loop().create_task(self._send_answered())

    async def _send_answered(self) -> None:
        if self._answered:  # no other call has taken them along
            await self._call([])

    async def _send(self, requests: list[_Request]) -> Sequence[_Answer]:
        entering = [each.id for each in requests if each.verb == "enter"]
        reply = await self._call(entering, 0 if self._paused else len(requests) - len(entering))
        if reply is None:
            return [True if each.verb == "enter" else None for each in requests]
        entered, taken = iter(reply[0]), iter(reply[1])
        return [
            bool(next(entered)) if each.verb == "enter" else next(taken, None) for each in requests
        ]

    async def _call(self, entering: list[str], wanted: int = 0) -> Any:
        """One call of the script; None while Redis is away: nothing is tried again.

        What was taken when a reply got lost stands in the claiming set, and is dispatched again.
        """
        answered, self._answered = self._answered, {}
        arguments = (self._namespace, wanted, len(entering), *entering, *answered)
        try:
            return await run_script(self._redis, _TAKE, *arguments)
        except FAULTS:
            return None
