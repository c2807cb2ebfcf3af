"""Limits of calls to one vendor: how many at a time, how many a second, and pauses that it demands."""

from __future__ import annotations

__all__ = ["CallLimits", "Gate", "Resting"]

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class CallLimits:
    """How many calls one worker process may make to one vendor."""

    concurrency: int = 100  #: calls at a time; a stream counts until it ends
    per_second: float = 50.0  #: calls that begin, with bursts of one second's worth


class Resting(Exception):
    """The vendor demands a pause that is longer than the caller would wait."""

    def __init__(self, left: float) -> None:
        super().__init__(f"resting for {left:.1f} s more")
        self.left = left  #: seconds


class Gate:
    """Lets calls to one vendor through, in the order in which they came.

    One 429 that names a time makes all jobs wait for it. Without this, each of a hundred jobs would
    get a 429 of its own and repeat its call.
    """

    def __init__(self, limits: CallLimits) -> None:
        self._slots = asyncio.Semaphore(limits.concurrency)
        self._interval = 1 / limits.per_second
        self._burst = max(limits.per_second, 1.0) * self._interval
        self._next = 0.0  # when the next call is due, were there no bursts
        self._rests: dict[str, float] = {}

    def rest(self, bucket: str, seconds: float) -> None:
        """Let no call of ``bucket`` (what shares one limit, as a model) through for so long."""
        until = time.monotonic() + seconds
        self._rests[bucket] = max(self._rests.get(bucket, 0.0), until)

    @asynccontextmanager
    async def slot(self, bucket: str, *, max_wait: float) -> AsyncIterator[None]:
        """Hold a slot while the call lasts.

        Raises :class:`Resting` when the vendor demands a pause of more than ``max_wait`` seconds.
        """
        while True:
            await self._wait_for_rest(bucket, max_wait)
            async with self._slots:
                if self._left(bucket) > 0:
                    continue  # the vendor demanded a pause while this call waited for its slot
                await self._paced()
                yield
                return

    async def _wait_for_rest(self, bucket: str, max_wait: float) -> None:
        while (left := self._left(bucket)) > 0:
            if left > max_wait:
                raise Resting(left)
            # Not all in the same instant.
            await asyncio.sleep(left * random.uniform(1.0, 1.1))  # noqa: S311 - jitter, not a secret

    def _left(self, bucket: str) -> float:
        left = self._rests.get(bucket, 0.0) - time.monotonic()
        if left <= 0:
            self._rests.pop(bucket, None)
        return left

    async def _paced(self) -> None:
        now = time.monotonic()
        due = max(self._next, now - self._burst + self._interval)
        self._next = due + self._interval
        if due > now:
            await asyncio.sleep(due - now)
