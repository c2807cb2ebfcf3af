"""A chat model for worker processes: it talks as its question says, and never the same twice."""

from __future__ import annotations

__all__ = ["TalkingModel"]

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import orjson

from executors.providers.base import ChatDelta, ChatMessage

_WORDS = ("and ", "so, ", "„Grüße“ ", "漢字", "🎨 ", "— ", "e\u0301", "\n\n", "👩‍👧 ")


class TalkingModel:
    """``{"pieces": how many, "pause": seconds between them}`` is all it understands."""

    name = "talking"
    structured = False

    async def stream(
        self, messages: Sequence[ChatMessage], **_: Any
    ) -> AsyncGenerator[ChatDelta, None]:
        """Words by chance; a model that is asked again says something else."""
        asked = orjson.loads(messages[-1].content)
        chance = random.SystemRandom()
        for _number in range(asked["pieces"]):
            await asyncio.sleep(asked["pause"])
            yield ChatDelta(text="".join(chance.choices(_WORDS, k=chance.randint(1, 4))))
        yield ChatDelta(finish_reason="stop")
