"""``GET /v1/live``: many topics on one WebSocket. The protocol is ``session``'s, the wire is here.

A browser cannot set headers on a WebSocket. Its token comes as a subprotocol (``new WebSocket(url,
["uvian", "bearer.<token>"])``), or as ``?access_token=``, which no log of ours ever holds.
"""

from __future__ import annotations

from uvian_common.tasks import cancel_until_done

__all__ = ["LiveSockets", "cut_later", "keep_little", "token_of"]

import asyncio
import contextlib
import random
import socket as socket_module
import weakref
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import WSMsgType, web

from uvian_worker.gateway.http.auth import User
from uvian_worker.gateway.http.client_address import Addresses
from uvian_worker.gateway.http.connections import speaks_frames
from uvian_worker.gateway.live.pace import Pace
from uvian_worker.gateway.live.session import Close, Rules, Session
from uvian_worker.gateway.live.slots import Slots

PROTOCOL: Final = "uvian"
_BEARER: Final = "bearer."
_FRAME_BYTES: Final = 16 * 1024  #: of a client's frame; a token is the longest thing it says
_HEARTBEAT: Final = 20.0  #: seconds between pings; a socket that answers none is closed
_SEND_SECONDS: Final = 30.0  #: that one frame may wait for the client to read
_UNSENT_BYTES: Final = 128 * 1024  #: that the kernel takes of what a client has no room for
_LOOK_EVERY: Final = 5.0  #: seconds between looks whether one does
_GOODBYE_SECONDS: Final = (
    5.0  #: that a client has to receive why it is closed, and then to take the rest
)


class LiveSockets:
    """The sockets of this process. ``admit`` names the user, by token; it raises what it refuses with."""

    def __init__(
        self,
        rules: Rules,
        admit: Callable[[web.Request, str], Awaitable[User]],
        slots: Slots,
        addresses: Addresses,
        *,
        lifetime: float = 3600.0,
    ) -> None:
        self._rules = rules
        self._admit = admit
        self._slots = slots
        self._addresses = addresses
        self._lifetime = lifetime
        self._open: weakref.WeakSet[web.WebSocketResponse] = weakref.WeakSet()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One socket, from the upgrade to its end."""
        user = await self._admit(request, token_of(request))
        with self._slots.taken(user.id, self._addresses.of(request)):
            return await self._serve(request, user)

    async def _serve(self, request: web.Request, user: User) -> web.StreamResponse:
        socket = web.WebSocketResponse(
            protocols=(PROTOCOL,),
            heartbeat=_HEARTBEAT,
            max_msg_size=_FRAME_BYTES,
            writer_limit=_UNSENT_BYTES,
            autoping=False,  # it would answer as fast as anybody can send
            compress=False,  # a kilobyte of state per socket and message is worth more than its bytes
        )
        await socket.prepare(request)
        speaks_frames(request)
        keep_little(request)
        self._open.add(socket)
        session = Session(user, self._rules)
        try:
            await self._converse(socket, session)
        finally:
            session.close()
            cut_later(request)
        return socket

    async def close(self) -> None:
        """Close every socket, so that its client connects again, elsewhere."""
        sockets = list(self._open)
        closing = (socket.close(code=Close.GOING_AWAY, message=b"going away") for socket in sockets)
        await asyncio.gather(*closing, return_exceptions=True)

    async def _converse(self, socket: web.WebSocketResponse, session: Session) -> None:
        # Not all at the same moment: a thousand sockets were opened after the last deploy.
        lifetime = self._lifetime * random.uniform(0.8, 1)  # noqa: S311 - jitter
        speaker = _Speaker(socket, session)
        parts = {
            asyncio.create_task(_receive(socket, session), name="live receive"),
            asyncio.create_task(speaker.speak(), name="live speak"),
            asyncio.create_task(speaker.until_slow(), name="live slow"),
            asyncio.create_task(session.until_over(lifetime), name="live watch"),
        }
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            reasons = [task.result() for task in done]
            reason = next((each for each in reasons if each is not None), None)
        finally:
            await cancel_until_done(*parts)
        if reason is not None:
            with contextlib.suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(_GOODBYE_SECONDS):
                    await socket.close(code=reason, message=reason.name.lower().encode())


async def _receive(socket: web.WebSocketResponse, session: Session) -> Close | None:
    pace = Pace()
    async for message in socket:
        if not await pace.turn():  # frames of every kind, those of the protocol itself as well
            return Close.FLOOD
        if message.type is WSMsgType.PING:
            await session.outbox.room()
            await socket.pong(message.data)
        elif message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
            reason = await session.receive(message.data)
            if reason is not None:
                return reason
    return None


class _Speaker:
    """Sends what waits. A timer for each frame would cost more than the frame: one look now and then
    finds who does not read."""

    def __init__(self, socket: web.WebSocketResponse, session: Session) -> None:
        self._socket = socket
        self._session = session
        self._sending_since: float | None = None

    async def speak(self) -> Close | None:
        """Send until the socket is closed."""
        clock = asyncio.get_running_loop().time
        while True:
            frame = await self._session.outbox.take()
            self._sending_since = clock()
            try:
                await self._socket.send_frame(frame, WSMsgType.TEXT)
            except (ConnectionError, RuntimeError):  # closed while we spoke
                return None
            self._sending_since = None

    async def until_slow(self) -> Close:
        """Wait until a frame has waited too long for the client to read, or too much waits."""
        clock = asyncio.get_running_loop().time
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY):
                    await self._session.outbox.overflowed.wait()
                    return Close.SLOW
            since = self._sending_since
            if since is not None and clock() - since > _SEND_SECONDS:
                return Close.SLOW


def keep_little(request: web.Request) -> None:
    """What a slow client has not read shall wait in its outbox, where it is bounded and coalesces.

    The kernel would take megabytes of it, per socket.
    """
    lowat = getattr(socket_module, "TCP_NOTSENT_LOWAT", None)  # of Linux and macOS
    wire = request.get_extra_info("socket")
    if lowat is not None and wire is not None and wire.family != socket_module.AF_UNIX:
        with contextlib.suppress(OSError):
            wire.setsockopt(socket_module.IPPROTO_TCP, lowat, _UNSENT_BYTES)


def cut_later(request: web.Request) -> None:
    """A connection that ends waits for its client to read what was sent, without an end: give it one."""
    if request.transport is not None:
        asyncio.get_running_loop().call_later(_GOODBYE_SECONDS, request.transport.abort)


def token_of(request: web.Request) -> str:
    """The access token: of the header, a subprotocol or the query; empty when there is none."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    for offered in request.headers.getall("Sec-WebSocket-Protocol", ()):
        for protocol in offered.split(","):
            if protocol.strip().startswith(_BEARER):
                return protocol.strip().removeprefix(_BEARER)
    return request.query.get("access_token", "")
