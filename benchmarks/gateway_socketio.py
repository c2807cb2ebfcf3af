"""The peer: python-socketio with its Redis manager, as its documentation shows it.

    .venv/socketio/bin/python -m benchmarks.gateway_socketio serve <redis url>
    .venv/socketio/bin/python -m benchmarks.gateway_socketio speak < speech

It asks nobody who they are, keeps no log, and what a client missed is gone.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import socketio  # type: ignore[import-not-found] # of an environment of its own
from aiohttp import web

from benchmarks.gateway_speech import Speech


async def serve(redis_url: str) -> None:
    """Sockets that join rooms; says where, and ends when it is told to."""
    server = socketio.AsyncServer(
        async_mode="aiohttp", client_manager=socketio.AsyncRedisManager(redis_url)
    )

    async def join(sid: str, room: str) -> str:
        await server.enter_room(sid, room)
        return room

    server.on("join", join)
    app = web.Application()
    server.attach(app)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"gateway on http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


async def speak(speech: Speech) -> None:
    """Emit to the rooms, from a process without sockets."""
    manager = socketio.AsyncRedisManager(speech.redis, write_only=True)

    async def say(number: int, text: str) -> None:
        room = speech.rooms[number]
        data: dict[str, Any] = {"type": "message.delta", "topic": room, "data": {"text": text}}
        await manager.emit("event", data, room=room)

    await speech.everywhere(say)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", url]:
            asyncio.run(serve(url))
        case _:
            asyncio.run(speak(Speech.asked()))
