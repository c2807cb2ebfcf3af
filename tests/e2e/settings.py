"""What the worker of these tests runs: the real settings and the local models, at a pace one can watch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from executors.errors import ProviderRejected
from executors.providers.base import ChatDelta, ChatMessage, GeneratedImage
from executors.providers.offline.chat import LocalChatModel
from executors.providers.offline.images import LocalImageModel
from tests.e2e.words import FORBIDDEN, SLOW
from uvian_worker.worker import models as providers
from uvian_worker.worker.settings import WorkerSettings

__all__ = ["WorkerSettings"]

_PACE = 0.12  #: seconds a word: an answer takes long enough to leave in the middle of it
_ENDLESS = 60.0


class Painter(LocalImageModel):
    """The local image model, which refuses a word and is slow at another."""

    async def generate(self, *, subject: str, **asked: Any) -> GeneratedImage:
        """See the port."""
        if FORBIDDEN in subject:
            raise ProviderRejected("the provider's content policy forbids it.")
        if SLOW in subject:
            await asyncio.sleep(_ENDLESS)
        return await super().generate(subject=subject, **asked)


class Voice(LocalChatModel):
    """The offline voice, which refuses a word."""

    async def stream(
        self, messages: Sequence[ChatMessage], **asked: Any
    ) -> AsyncGenerator[ChatDelta, None]:
        """See the port."""
        if FORBIDDEN in messages[-1].content:
            raise ProviderRejected("the provider's content policy forbids it.")
        async with aclosing(super().stream(messages, **asked)) as deltas:
            async for delta in deltas:
                yield delta


providers._Vendors.image = lambda self, name: Painter()  # type: ignore[method-assign]
providers._Vendors.chat = lambda self, name: Voice(pace=_PACE)  # type: ignore[method-assign]
