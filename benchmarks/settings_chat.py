"""Our worker with models that talk by the clock, and a chat as one would first write it."""

from __future__ import annotations

import asyncio
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
from uvian_worker.config import Config
from uvian_worker.worker import models as providers
from uvian_worker.worker.settings import WorkerSettings

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
        self._waiting: dict[int, list[asyncio.Future[None]]] = {}  # by the millisecond
        self._looked_at = 0  # the last millisecond that is over
        self._ticking = False

    def at(self, due: float) -> asyncio.Future[None]:
        """What to await until then: a time to come."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        if not self._ticking:
            self._ticking = True
            self._looked_at = int(time.time() * 1000)
            loop.call_later(0.001, self._tick)
        millisecond = max(int(due * 1000), self._looked_at) + 1
        self._waiting.setdefault(millisecond, []).append(future)
        return future

    def _tick(self) -> None:
        now = int(time.time() * 1000)
        for millisecond in range(self._looked_at + 1, now + 1):
            for future in self._waiting.pop(millisecond, ()):
                if not future.done():
                    future.set_result(None)
        self._looked_at = now
        self._ticking = bool(self._waiting)
        if self._ticking:
            asyncio.get_running_loop().call_later(0.001, self._tick)


_CLOCK = Clock()


async def spoken(speech: Speech, made: Callable[[str], T]) -> AsyncGenerator[T, None]:
    """Each token is the time at which it was due: whoever hears it knows how late it is.

    A busy event loop does not excuse: the token was in the socket by then.
    """
    for number in range(speech.count):
        due = speech.at + number / speech.rate
        if due > time.time():
            await _CLOCK.at(due)
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
