"""Our worker with models that talk by the clock, and a chat as one would first write it."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel
from redis.asyncio import Redis

from executors.base import BaseExecutor, JobContext, JobInput
from executors.chat import ChatExecutor
from executors.providers.base import ChatDelta, ChatMessage
from uvian_worker import providers
from uvian_worker.config import Config
from uvian_worker.worker import WorkerSettings

__all__ = ["WorkerSettings"]


T = TypeVar("T")


class Speech(JobInput):
    """Tokens by the clock: the first ``at`` this time, then ``rate`` a second."""

    conversation_id: str = ""
    at: float
    rate: float
    count: int


class Nothing(BaseModel):
    """Nothing is answered."""


class Clock:
    """Wakes whoever waits for a time, looking every millisecond.

    The models live in the worker that is measured: with a timer per token they took nearly half of
    its CPU themselves.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self._number = itertools.count()
        self._ticking: asyncio.Task[None] | None = None

    async def until(self, due: float) -> None:
        """Wait, unless it is past."""
        if due <= time.time():
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (due, next(self._number), future))
        if self._ticking is None or self._ticking.done():
            self._ticking = asyncio.create_task(self._tick())
        await future

    async def _tick(self) -> None:
        while self._waiting:
            now = time.time()
            while self._waiting and self._waiting[0][0] <= now:
                future = heapq.heappop(self._waiting)[2]
                if not future.done():
                    future.set_result(None)
            await asyncio.sleep(0.001)


_CLOCK = Clock()


async def spoken(speech: Speech, made: Callable[[str], T]) -> AsyncGenerator[T, None]:
    """Each token is the time at which it was due: whoever hears it knows how late it is.

    A busy event loop does not excuse: the token was in the socket by then.
    """
    for number in range(speech.count):
        due = speech.at + number / speech.rate
        await _CLOCK.until(due)
        yield made(f"{due:.4f} ")


class ClockModel:
    """A ``ChatModel`` that reads its question as a ``Speech``."""

    name = "clock"
    structured = False

    def stream(self, messages: Sequence[ChatMessage], **_: Any) -> AsyncGenerator[ChatDelta, None]:
        """Tokens; the last one says that it is."""
        speech = Speech.model_validate_json(messages[-1].content)
        tokens = itertools.count(1)
        return spoken(
            speech,
            lambda text: ChatDelta(text, "stop" if next(tokens) == speech.count else None),
        )


class NaiveChat(BaseExecutor[Speech, Nothing]):
    """Publishes every token by itself, and waits for each: no log, no fence, no offsets."""

    type = "naive"
    Input = Speech
    Output = Nothing

    async def open(self) -> None:
        """Connect."""
        self._redis = Redis.from_url(Config.load().redis_url.get_secret_value())

    async def close(self) -> None:
        """Disconnect."""
        await self._redis.aclose()

    async def execute(self, job: JobContext[Speech]) -> Nothing:
        """Speak."""
        channel = f"uvian:events:conversation:{job.input.conversation_id}"
        async for token in spoken(job.input, str):
            event = {"type": "token", "job_id": job.job.id, "data": {"text": token}}
            await self._redis.publish(channel, orjson.dumps(event))
        return Nothing()


providers._Vendors.chat = lambda self, name: ClockModel()  # type: ignore[method-assign] # noqa: SLF001
WorkerSettings.executors = (ChatExecutor, NaiveChat)
