"""Chats by the clock, told to a gateway: every token is the time at which it was due.

    python -m benchmarks.gateway_speech < {"redis", "at", "rate", "count", "pad", "rooms"}

Each room hears ``count`` tokens, ``rate`` a second from the time ``at`` on, as a worker tells them:
through ``MessageStream``, so that what is due while a piece is on its way goes with the next one.
The peer's half (``gateway_socketio``) runs without our packages, hence the imports below.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Speech:
    """What is said, and where."""

    redis: str
    at: float
    rate: float
    count: int
    rooms: list[str]  #: `conversation:<id>`
    pad: int = 0  #: bytes that each token is longer

    @classmethod
    def asked(cls) -> Speech:
        """As it stands on stdin."""
        return cls(**json.loads(sys.stdin.read()))

    async def pieces(self, number: int) -> AsyncIterator[str]:
        """The text of one room; late ones come with those that are due by then.

        The rooms take turns within a period, as independent chats do.
        """
        first = self.at + number / len(self.rooms) / self.rate
        said = 0
        while said < self.count:
            if (pause := first + said / self.rate - time.time()) > 0:
                await asyncio.sleep(pause)
            due = min(self.count, max(said, int((time.time() - first) * self.rate)) + 1)
            yield "".join(self._token(first + n / self.rate) for n in range(said, due))
            said = due

    async def everywhere(self, say: Callable[[int, str], Awaitable[None]]) -> None:
        """``say(room, text)`` in every room, each piece after the one before."""

        async def speak(number: int) -> None:
            async for text in self.pieces(number):
                await say(number, text)

        await asyncio.gather(*map(speak, range(len(self.rooms))))

    def _token(self, due: float) -> str:
        return f"{due:.4f} " + "x" * self.pad


async def _tell(speech: Speech) -> None:
    from executors.events import JobRef  # noqa: PLC0415 - see above
    from executors.stages.message_stream import LONGEST_ANSWER, MessageStream, Pace  # noqa: PLC0415
    from uvian_worker.events.publisher import Publisher  # noqa: PLC0415
    from uvian_worker.redis.connection import redis_from_url  # noqa: PLC0415

    redis = redis_from_url(speech.redis)
    publisher, pace = Publisher(redis, "uvian"), Pace()

    def stream(topic: str) -> MessageStream:
        conversation = topic.removeprefix("conversation:")
        job, message = (str(uuid.uuid4()) for _ in range(2))
        ref = JobRef(job, str(uuid.uuid4()), 1, 0, conversation)
        opened = MessageStream(lambda event: publisher.emit(ref, event), pace, message)
        opened.begin(conversation, None, again=False)
        return opened

    streams = [stream(room) for room in speech.rooms]

    async def say(number: int, text: str) -> None:
        if len(streams[number].text) + len(text) > LONGEST_ANSWER:
            streams[number].close()
            streams[number] = stream(speech.rooms[number])
        streams[number].write(text)

    await speech.everywhere(say)
    for each in streams:
        each.close()
    await publisher.flush()
    await publisher.close()
    await redis.aclose()


if __name__ == "__main__":
    asyncio.run(_tell(Speech.asked()))
