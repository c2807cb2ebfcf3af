"""Hearing a chat model out: what it said, or how it failed."""

from __future__ import annotations

__all__ = ["DONE", "END", "QUESTION", "chunk", "failure", "heard", "piece", "text"]

import json
from collections.abc import Sequence
from typing import Any

import pytest

from executors.errors import ExecutorError
from executors.providers.base import ChatDelta, ChatMessage, ChatModel

QUESTION = [ChatMessage("system", "Be kind."), ChatMessage("user", "How do you do?")]


async def heard(model: ChatModel, **asked: Any) -> list[ChatDelta]:
    """All of an answer."""
    return [delta async for delta in model.stream(QUESTION, **asked)]


def text(deltas: Sequence[ChatDelta]) -> str:
    """What was said."""
    return "".join(delta.text for delta in deltas)


async def failure(model: ChatModel, said: list[str] | None = None, **asked: Any) -> ExecutorError:
    """What it raised; what was heard before is added to ``said``."""

    async def listen() -> None:
        async for delta in model.stream(QUESTION, **asked):
            if said is not None:
                said.append(delta.text)

    with pytest.raises(ExecutorError) as caught:
        await listen()
    return caught.value


def chunk(content: Any = None, finish: str | None = None, **more: Any) -> bytes:
    """One chunk of a stream, with escapes."""
    delta = {} if content is None else {"content": content}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + json.dumps({"choices": [choice], **more}).encode() + b"\n\n"


def piece(document: Any) -> bytes:
    """Any document as an event."""
    return b"data: " + json.dumps(document).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
END = chunk(finish="stop") + DONE
