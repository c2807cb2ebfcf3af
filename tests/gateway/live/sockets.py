"""Clients of a live socket, and a hand that lets things happen in its topics."""

from __future__ import annotations

__all__ = ["Happenings", "Socket", "connected"]

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import orjson
from redis.asyncio import Redis

from executors import events
from executors.events import Event, JobRef
from tests.gateway.site import Caller
from uvian_worker.events.publisher import Publisher

PATIENCE = 20.0  #: seconds until a test gives up


class Socket:
    """A client's end: what it says, and what it hears."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def say(self, **frame: Any) -> None:
        """One frame."""
        await self.socket.send_str(orjson.dumps(frame).decode())

    async def hear(self) -> dict[str, Any]:
        """The next frame."""
        async with asyncio.timeout(PATIENCE):
            message = await self.socket.receive()
        assert message.type is aiohttp.WSMsgType.TEXT, (message, self.socket.close_code)
        return dict(orjson.loads(message.data))

    async def hears(self, op: str) -> dict[str, Any]:
        """The next frame, which is this."""
        frame = await self.hear()
        assert frame["op"] == op, frame
        return frame

    async def rest(self) -> tuple[list[dict[str, Any]], int | None]:
        """All there is to hear, until the end, and its code."""
        frames = []
        async with asyncio.timeout(PATIENCE):
            while (message := await self.socket.receive()).type is aiohttp.WSMsgType.TEXT:
                frames.append(orjson.loads(message.data))
        return frames, self.socket.close_code

    async def closed(self) -> int | None:
        """Hear all there is, until the end; its code."""
        return (await self.rest())[1]

    async def subscribe(self, topic: str, cursor: str | None = None) -> dict[str, Any]:
        """Ask for a topic; the answer."""
        await self.say(op="subscribe", topic=topic, **({"cursor": cursor} if cursor else {}))
        return await self.hear()

    async def types(self, number: int) -> list[str]:
        """The types of the next events."""
        return [(await self.hears("event"))["event"]["type"] for _ in range(number)]


@contextlib.asynccontextmanager
async def connected(caller: Caller, **options: Any) -> AsyncIterator[Socket]:
    """A socket of this caller, with the token as a browser sends it."""
    protocols = ("uvian", f"bearer.{caller.token}")
    async with caller.session.ws_connect(
        f"{caller.url}/v1/live", protocols=protocols, **options
    ) as socket:
        yield Socket(socket)


class Happenings:
    """What a worker would tell of one job."""

    def __init__(
        self, redis: Redis, job_id: str, user_id: str, conversation: str | None = None
    ) -> None:
        self._publisher = Publisher(redis, "uvian")
        self._ref = JobRef(job_id, user_id, 1, 0, conversation)

    async def tell(self, *facts: Event) -> None:
        """Publish, in order."""
        for fact in facts:
            self._publisher.emit(self._ref, fact)
        async with asyncio.timeout(PATIENCE):
            await self._publisher.flush()

    async def begin(self) -> None:
        """A worker has it."""
        await self.tell(events.JobStarted(job_type="noop", worker="w"))

    async def stages(self, *names: str) -> None:
        """These have begun."""
        await self.tell(*(events.StageStarted(stage=name, label=name) for name in names))

    async def complete(self) -> None:
        """Nothing follows."""
        await self.tell(events.JobCompleted(output={}))

    async def close(self) -> None:
        """Tell nothing more."""
        await self._publisher.close()
