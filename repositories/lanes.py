"""Micro-batching: while one call is in flight, the next collects.

The lifecycle's functions are set-based, so a hundred jobs that settle at once cost one round trip.
Each function has a lane of its own, and a lane has one call in flight.
"""

from __future__ import annotations

__all__ = ["Lane"]

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import orjson

from repositories import errors
from uvian_common.backoff import pause_before

log = logging.getLogger("uvian.lanes")

MAX_ITEMS = 200
MAX_BYTES = 1_000_000

Item = dict[str, Any]
Answer = dict[str, Any]


class _Waiting(NamedTuple):
    item: Item
    size: int  #: in bytes of JSON
    answer: asyncio.Future[Answer]


class Lane:
    """Collects items into calls; ``call`` takes a batch and answers one value per item, in order.

    What passes, and what the operator must set right, is retried with jitter until ``close`` (the
    functions are idempotent, and a job that is done must not be lost because Postgres restarts or a
    password was changed). On a timeout, and on whatever one item
    may be guilty of, the batch is halved until that one stands alone: what it was is its own to hear,
    or to wait for.
    """

    def __init__(
        self,
        name: str,
        call: Callable[[Sequence[Item]], Awaitable[Sequence[Answer]]],
        *,
        max_items: int = MAX_ITEMS,
    ) -> None:
        self.name = name
        self._call = call
        self._max_items = max_items
        self._waiting: deque[_Waiting] = deque()
        self._pump: asyncio.Task[None] | None = None
        self._closing = False

    async def submit(self, item: Item) -> Answer:
        """Answer of ``call`` for this item; raises what it raised for it.

        Raises ``DataError`` at once for what is not JSON, ``Unavailable`` once the lane is closed.
        """
        if self._closing:
            raise errors.Unavailable(f"{self.name}: closed")
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(item, _size(item), answer))
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._run(), name=f"lane {self.name}")
        return await answer

    async def close(self) -> None:
        """Send what waits, once; what fails then stays for the sweeper. Closing twice is fine."""
        self._closing = True
        if self._pump is not None:
            await self._pump

    async def _run(self) -> None:
        while self._waiting:
            # One turn of the loop lets those that are ready at the same moment share the call.
            await asyncio.sleep(0)
            await self._send(self._take())

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        size = 0
        while self._waiting and len(batch) < self._max_items:
            waiting = self._waiting[0]
            if waiting.answer.done():  # whoever asked was cancelled
                self._waiting.popleft()
                continue
            size += waiting.size
            if batch and size > MAX_BYTES:
                break
            batch.append(self._waiting.popleft())
        return batch

    async def _send(self, batch: Sequence[_Waiting]) -> None:
        if not batch:
            return
        try:
            answers = await self._until_answered([waiting.item for waiting in batch])
            # All or nothing: with an answer missing nobody knows whose the others are.
            for waiting, answer in list(zip(batch, answers, strict=True)):
                if not waiting.answer.done():
                    waiting.answer.set_result(answer)
        except (errors.Permanent, errors.TimedOut) as error:
            if len(batch) == 1 or isinstance(error, errors.Misconfigured):
                _give(batch, error)  # … or it is no item's fault, and the lane closes
                return
            half = len(batch) // 2
            await self._send(batch[:half])
            await self._send(batch[half:])
        except Exception as error:  # noqa: BLE001 - every waiter must hear of it
            _give(batch, error)

    async def _until_answered(self, items: list[Item]) -> Sequence[Answer]:
        attempt = 0
        while True:
            try:
                return await self._call(items)
            except errors.WAITED_FOR as error:
                if isinstance(error, errors.TimedOut) and len(items) > 1:
                    raise
                if self._closing and attempt >= 3:
                    raise
                log.log(
                    logging.WARNING if attempt == 3 else logging.DEBUG,
                    "%s: %s; trying again",
                    self.name,
                    error,
                )
                await asyncio.sleep(pause_before(attempt))
                attempt += 1


def _size(item: Item) -> int:
    try:
        return len(orjson.dumps(item))
    except TypeError as error:  # orjson's own error derives from it
        raise errors.DataError(f"not JSON: {error}") from error


def _give(batch: Sequence[_Waiting], error: Exception) -> None:
    for waiting in batch:
        if not waiting.answer.done():
            waiting.answer.set_exception(error)
