"""What an action of the script does to a request."""

from __future__ import annotations

__all__ = ["struck"]

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from tests.supabase.faults import Action

_RST: Final = struct.pack("ii", 1, 0)
_LOOK_EVERY: Final = 0.02  # seconds; aiohttp does not say when a client has gone


async def struck(
    request: web.BaseRequest, action: Action, answer: Callable[[], Awaitable[web.Response]]
) -> web.StreamResponse:
    """The answer as the client gets it, or a response that nobody will: the connection is closed."""
    match action.kind:
        case "answer":
            await request.read()
            headers = {"Content-Type": action.content_type}
            return web.Response(status=action.status, body=action.body.encode(), headers=headers)
        case "delay":
            await asyncio.sleep(action.seconds)
            return await answer()
        case "truncate":
            await _send_half(request, await answer())
        case "lose_reply":
            await answer()
        case "lose_request":
            await request.read()
        case "reset":
            await request.read()
            _reset_on_close(request)
        case "hang":
            await request.read()
            while _is_open(request):
                await asyncio.sleep(_LOOK_EVERY)
    if request.transport is not None:
        request.transport.close()
    return web.Response()


def _is_open(request: web.BaseRequest) -> bool:
    return request.transport is not None and not request.transport.is_closing()


def _reset_on_close(request: web.BaseRequest) -> None:
    if request.transport is not None:
        raw: socket.socket = request.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)


async def _send_half(request: web.BaseRequest, answer: web.Response) -> None:
    body = answer.body if isinstance(answer.body, bytes) else b""
    partial = web.StreamResponse(status=answer.status, headers=answer.headers)
    partial.content_length = len(body)
    await partial.prepare(request)
    await partial.write(body[: len(body) // 2])
