"""Our worker with models that talk by the clock, and a chat as one would first write it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

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


class Speech(JobInput):
    """Tokens by the clock: the first ``at`` this time, then ``rate`` a second."""

    conversation_id: str = ""
    at: float
    rate: float
    count: int


class Nothing(BaseModel):
    """Nothing is answered."""


async def spoken(speech: Speech) -> AsyncGenerator[str, None]:
    """Each token is the time at which it was due: whoever hears it knows how late it is.

    A busy event loop does not excuse: the token was in the socket by then.
    """
    for number in range(speech.count):
        due = speech.at + number / speech.rate
        if (pause := due - time.time()) > 0:
            await asyncio.sleep(pause)
        yield f"{due:.4f} "


class ClockModel:
    """A ``ChatModel`` that reads its question as a ``Speech``."""

    name = "clock"
    structured = False

    async def stream(
        self, messages: Sequence[ChatMessage], **_: Any
    ) -> AsyncGenerator[ChatDelta, None]:
        """Tokens, then the end."""
        async for token in spoken(Speech.model_validate_json(messages[-1].content)):
            yield ChatDelta(text=token)
        yield ChatDelta(finish_reason="stop")


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
        async for token in spoken(job.input):
            event = {"type": "token", "job_id": job.job.id, "data": {"text": token}}
            await self._redis.publish(channel, orjson.dumps(event))
        return Nothing()


providers._Vendors.chat = lambda self, name: ClockModel()  # type: ignore[method-assign] # noqa: SLF001
WorkerSettings.executors = (ChatExecutor, NaiveChat)
