"""Our worker with a model behind HTTP, so that there is a connection to close."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import aiohttp
import orjson

from executors.chat import ChatExecutor
from executors.providers.base import ChatDelta, ChatMessage, ChatModel
from uvian_worker import providers
from uvian_worker.worker import WorkerSettings

__all__ = ["WorkerSettings"]


class SseModel:
    """Server-sent events: one JSON string per token, ``null`` at the end."""

    name = "sse"
    structured = False

    def __init__(self, url: str) -> None:
        self._url = url

    async def stream(
        self, messages: Sequence[ChatMessage], **_: Any
    ) -> AsyncGenerator[ChatDelta, None]:
        """Whatever the server says."""
        async with (
            aiohttp.ClientSession() as session,
            session.post(self._url, data=messages[-1].content) as response,
        ):
            async for line in response.content:
                if line.startswith(b"data: "):
                    text = orjson.loads(line[6:])
                    yield ChatDelta(finish_reason="stop") if text is None else ChatDelta(text)


def model_behind(url: str) -> ChatModel:
    """The client that is measured."""
    return SseModel(url)


providers._Vendors.chat = lambda self, name: model_behind(os.environ["BENCH_MODEL_URL"])  # type: ignore[method-assign] # noqa: SLF001
WorkerSettings.executors = (ChatExecutor,)
