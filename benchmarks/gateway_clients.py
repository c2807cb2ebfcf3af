"""Many sockets in a process of their own: how late each token is, and whether all came.

    python -m benchmarks.gateway_clients < {"url", "token", "rooms", "tokens", "patience", "stall"}

One socket a room; rooms may repeat. Says ``ready`` and when, once all are subscribed; then, when every socket
has its ``tokens`` or after ``patience`` seconds, one JSON document. With ``stall`` the last socket
reads nothing for so many seconds. Without ``token`` the server is the peer's.
"""

from __future__ import annotations

import asyncio
import re
import socket
import sys
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson

from benchmarks.site import quantile

_DUE = re.compile(r"1\d{9}\.\d{4}(?= )")  # begins with a literal: most of a frame is skipped fast


@dataclass
class Ears:
    """One socket: what it has heard."""

    topic: str
    tokens: int  #: until all is heard
    last: float = 0.0  #: the token it heard last; what is told again counts once
    late: list[float] = field(default_factory=list)
    frames: int = 0
    complete_at: float | None = None
    event: str = ""  #: the latest frame with an event: where to go on from
    stalled_until: float = 0.0
    subscribed: asyncio.Event = field(default_factory=asyncio.Event)

    def hear(self, text: str) -> None:
        """A frame."""
        now = time.time()
        self.frames += 1
        for due in map(float, _DUE.findall(text)):
            if due > self.last:
                self.late.append(now - due)
                self.last = due
        if len(self.late) == self.tokens:
            self.complete_at = now


class Ours:
    """The live protocol."""

    def __init__(self, asked: dict[str, Any]) -> None:
        self._url, self._token = f"{asked['url']}/v1/live", asked["token"]

    async def open(
        self, session: aiohttp.ClientSession, topic: str
    ) -> aiohttp.ClientWebSocketResponse:
        """A socket that has asked for the topic."""
        ws = await session.ws_connect(
            self._url, protocols=("uvian", f"bearer.{self._token}"), max_msg_size=0
        )
        await self._subscribe(ws, topic, None)
        return ws

    async def hear(self, ws: aiohttp.ClientWebSocketResponse, ears: Ears, text: str) -> None:
        """One frame."""
        if text.startswith('{"op":"event",'):
            ears.event = text
            ears.hear(text)
        elif text.startswith('{"op":"subscribed",'):
            ears.subscribed.set()
            ears.hear(text)
        elif text.startswith('{"op":"gap",'):
            await self._subscribe(ws, ears.topic, orjson.loads(ears.event)["event"]["id"])
        else:
            raise AssertionError(text)

    async def _subscribe(
        self, ws: aiohttp.ClientWebSocketResponse, topic: str, cursor: str | None
    ) -> None:
        frame = {"op": "subscribe", "topic": topic, "cursor": cursor}
        await ws.send_str(orjson.dumps(frame).decode())


class Peers:
    """Engine.IO 4 and Socket.IO 5 on a WebSocket from the start: as little work as for ours."""

    def __init__(self, asked: dict[str, Any]) -> None:
        self._url = f"{asked['url']}/socket.io/?EIO=4&transport=websocket"

    async def open(
        self, session: aiohttp.ClientSession, topic: str
    ) -> aiohttp.ClientWebSocketResponse:
        """A socket that has asked for the room."""
        ws = await session.ws_connect(self._url, max_msg_size=0)
        assert (await ws.receive_str()).startswith("0")
        await ws.send_str("40")
        assert (await ws.receive_str()).startswith("40")
        await ws.send_str(f'420["join","{topic}"]')
        return ws

    async def hear(self, ws: aiohttp.ClientWebSocketResponse, ears: Ears, text: str) -> None:
        """One packet."""
        if text.startswith("42"):
            ears.hear(text)
        elif text.startswith("430"):
            ears.subscribed.set()
        elif text == "2":
            await ws.send_str("3")
        else:
            raise AssertionError(text)


async def _listen(wire: Ours | Peers, ws: aiohttp.ClientWebSocketResponse, ears: Ears) -> None:
    async for message in ws:
        await wire.hear(ws, ears, message.data)
        if ears.complete_at is not None:
            return


async def _stall(
    wire: Ours | Peers, ws: aiohttp.ClientWebSocketResponse, ears: Ears, until: Awaitable[float]
) -> None:
    """Hear that it is subscribed, read nothing for a while (aiohttp and the kernel hold little)."""
    await wire.hear(ws, ears, await ws.receive_str())
    ears.stalled_until = await until
    await asyncio.sleep(ears.stalled_until - time.time())
    await _listen(wire, ws, ears)


def _narrow(address: Any) -> socket.socket:
    """A socket whose kernel holds little for a reader that does not read."""
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
    return made


async def _run(asked: dict[str, Any]) -> dict[str, Any]:
    wire = Ours(asked) if asked["token"] else Peers(asked)
    everybody = [Ears(room, asked["tokens"]) for room in asked["rooms"]]
    staller = everybody[-1] if asked["stall"] else None
    stalls_until: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    few = asyncio.Semaphore(20)
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(socket_factory=_narrow)) as narrow,
    ):

        async def open_one(ears: Ears) -> asyncio.Task[None]:
            async with few:
                ws = await wire.open(narrow if ears is staller else session, ears.topic)
                task = asyncio.create_task(
                    _stall(wire, ws, ears, stalls_until)
                    if ears is staller
                    else _listen(wire, ws, ears)
                )
                await ears.subscribed.wait()
                return task

        async with asyncio.timeout(30):
            tasks = await asyncio.gather(*map(open_one, everybody))
        now = time.time()
        stalls_until.set_result(now + asked["stall"])
        print("ready", now, flush=True)
        await asyncio.wait(tasks, timeout=asked["patience"])
        for task in tasks:
            if task.done():
                task.result()
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    report = _report([ears for ears in everybody if ears is not staller])
    if staller is not None:
        report["stalled_frames"] = staller.frames
        report["lost"] += staller.tokens - len(staller.late)
        report["converged"] = (staller.complete_at or time.time()) - staller.stalled_until
    return report


def _report(everybody: list[Ears]) -> dict[str, Any]:
    late = [seconds * 1000 for ears in everybody for seconds in ears.late] or [float("nan")]
    return {
        **{f"p{percent}": quantile(late, percent / 100) for percent in (50, 95, 99)},
        "heard": sum(len(ears.late) for ears in everybody),
        "lost": sum(ears.tokens - len(ears.late) for ears in everybody),
        "frames": sum(ears.frames for ears in everybody),
    }


if __name__ == "__main__":
    print(orjson.dumps(asyncio.run(_run(orjson.loads(sys.stdin.readline())))).decode(), flush=True)
