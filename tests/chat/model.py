"""A chat model that says what a test says, when it says it: the port's other side, no vendor."""

from __future__ import annotations

__all__ = ["STOP", "ScriptedModel", "Step"]

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from executors.providers.base import ChatDelta, ChatMessage, VendorRequest

#: A piece of text, the end or whatever else comes with a piece, a failure, or a pause until it is set.
Step = str | ChatDelta | Exception | asyncio.Event

STOP = ChatDelta(finish_reason="stop")


class ScriptedModel:
    """Each request plays the next script; ``paused`` is set whenever one waits."""

    name = "scripted"
    structured = False

    def __init__(self) -> None:
        self.scripts: list[Sequence[Step]] = []
        self.asked: list[list[tuple[str, str]]] = []
        self.options: list[dict[str, Any]] = []
        self.paused = asyncio.Event()
        self.closed = 0  #: requests whose connection would be closed now

    async def stream(
        self,
        messages: Sequence[ChatMessage],
        *,
        model: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        schema: Mapping[str, Any] | None = None,
        request: VendorRequest | None = None,
    ) -> AsyncGenerator[ChatDelta, None]:
        """The next script."""
        self.asked.append([(message.role, message.content) for message in messages])
        self.options.append(
            {
                "model": model,
                "temperature": temperature,
                "max_tokens": max_tokens,
                "request": request,
            }
        )
        try:
            for step in self.scripts.pop(0):
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, asyncio.Event):
                    self.paused.set()
                    await step.wait()
                else:
                    yield ChatDelta(text=step) if isinstance(step, str) else step
        finally:
            self.closed += 1
