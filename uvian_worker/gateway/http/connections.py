"""Connections, before anybody has said who they are: how many, for how long, and at what pace.

A connection costs a file and memory, and whoever can reach the port can open one. So there are at
most as many as fit into the process, and for a new one the quietest goes; who has not sent a whole
header within seconds is hung up on, and so is who does not read its answer. The next request
of a connection waits until the answers before it were taken.

The loop that accepts is ours: those of asyncio and uvloop end, or sleep, when files run out.
"""

from __future__ import annotations

from uvian_common.tasks import cancel_until_done

__all__ = ["Connection", "Connections", "attended", "speaks_frames"]

import asyncio
import contextlib
import errno
import logging
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import orjson
from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from uvian_worker.gateway.http.client_address import Addresses
from uvian_worker.gateway.http.middleware import answer_to
from uvian_worker.gateway.http.problems import Problem
from uvian_worker.process.runtime import file_limit

log = logging.getLogger("uvian.gateway")

HEAD_SECONDS: Final = 10.0  #: from the connection, or a header's first byte, to its end
UNREAD_SECONDS: Final = 45.0  #: that what was answered may wait for its client to read
FRAME_BYTES: Final = 1024 * 1024  #: of a live socket's client,
FRAME_SECONDS: Final = 10.0  #: in such a time
_LOOK_EVERY: Final = 1.0
_RESERVED: Final = 64  #: files for Postgres, Redis, pictures and the log
_FULL_PAUSE: Final = 0.1  #: seconds, where no file is free and no connection can be closed for it
_NO_FILE: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Connection(web.RequestHandler):
    """One connection; ``attended`` reports which request is being answered."""

    def __init__(
        self, connections: Connections, address: str | None, manager: web.Server, **options: Any
    ) -> None:
        super().__init__(manager, **options)
        self.address = address
        self._connections = connections
        self._clock = options["loop"].time
        self._requesting_since: float | None = self._clock()
        self._attended = False
        self._spoke = False  #: while it was attended
        self._said_last = b""
        self._unread_since: float | None = None
        self._flow = asyncio.Event()
        self._flow.set()
        self._frames_since: float | None = None  #: None where HTTP is spoken
        self._frame_bytes = 0

    def data_received(self, data: bytes) -> None:
        """See ``asyncio.Protocol``."""
        if data:  # nothing is aiohttp's word for going on with what it has
            self._spoke = True
            self._said_last = (self._said_last + data[-4:])[-4:]
            if self._frames_since is not None and not self._may_say(len(data)):
                self.hang_up()
                return
            if not self._attended and self._requesting_since is None:
                self._requesting_since = self._clock()
        super().data_received(data)

    def pause_writing(self) -> None:
        """See ``asyncio.Protocol``: the client reads too slowly."""
        super().pause_writing()
        self._unread_since = self._clock()
        self._flow.clear()

    def resume_writing(self) -> None:
        """See ``asyncio.Protocol``."""
        super().resume_writing()
        self._unread_since = None
        self._flow.set()

    def connection_lost(self, exc: BaseException | None) -> None:
        """See ``asyncio.Protocol``."""
        self._connections.left(self)
        self._flow.set()
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """aiohttp's hook for what is no HTTP: a problem document like any other."""
        if request.writer.output_size > 0 or isinstance(exc, ConnectionError):
            raise ConnectionError("an answer was begun, or the client has gone") from exc
        if status >= 500:
            log.error("A connection failed", exc_info=exc)
        answer = answer_to(Problem(_code_of(status, exc)))
        answer.force_close()
        return answer

    async def begin(self) -> None:
        """A request is to be answered, once the client has read what was answered before."""
        self._requesting_since, self._attended, self._spoke = None, True, False
        self._connections.busy(self)
        await self._flow.wait()

    def end(self, *, had_body: bool) -> None:
        """It was answered; what came meanwhile, or behind it, may be half of the next one."""
        self._attended = False
        half = self._spoke or not (had_body or self._said_last == b"\r\n\r\n")
        self._requesting_since = self._clock() if half else None
        self._connections.idle(self)

    def speaks_frames(self) -> None:
        """From now on it is a live socket."""
        self._frames_since = self._clock()

    def is_overdue(self, now: float) -> bool:
        """Whether it was given all the time that anybody needs."""
        if self._requesting_since is not None and now - self._requesting_since > HEAD_SECONDS:
            return True
        return self._unread_since is not None and now - self._unread_since > UNREAD_SECONDS

    def hang_up(self) -> None:
        """At once, whatever is on its way."""
        self._connections.left(self)
        if self.transport is not None:
            self.transport.abort()

    def _may_say(self, size: int) -> bool:
        """Frames wait in queues that have an end; the pieces of which they are put together do not."""
        now = self._clock()
        if self._frames_since is None or now - self._frames_since > FRAME_SECONDS:
            self._frames_since, self._frame_bytes = now, 0
        self._frame_bytes += size
        return self._frame_bytes <= FRAME_BYTES


def _code_of(status: int, error: BaseException | None) -> str:
    if status >= 500:
        return "internal_error"
    many = "Too many headers" in str(getattr(error, "message", ""))
    return "headers_too_large" if many or isinstance(error, LineTooLong) else "bad_request"


@web.middleware
async def attended(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Report to a connection when a request on it begins and ends."""
    connection = request.protocol
    if not isinstance(connection, Connection):
        return await handler(request)
    await connection.begin()
    try:
        return await handler(request)
    finally:
        connection.end(had_body=request.body_exists)


def speaks_frames(request: web.Request) -> None:
    """Say that the connection of this request is a live socket."""
    if isinstance(request.protocol, Connection):
        request.protocol.speaks_frames()


class Connections:
    """Accepts connections, and looks after them. ``per_address`` counts those that come straight."""

    def __init__(
        self,
        server: web.Server,
        addresses: Addresses,
        *,
        most: int,
        per_address: int,
        **options: Any,
    ) -> None:
        self._server = server
        self._addresses = addresses
        self._most = most
        self._per_address = per_address
        self._options = options
        self._all: set[Connection] = set()
        self._silent: dict[Connection, None] = {}  #: that have sent no request yet, oldest first
        self._idle: dict[Connection, None] = {}  #: between two requests
        self._by_address: Counter[str] = Counter()
        self._listeners: list[socket.socket] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._is_full = False

    def open(self, sockets: Sequence[socket.socket]) -> None:
        """Accept what comes at these."""
        self._listeners = list(sockets)
        parts = [self._accept(listener) for listener in sockets]
        self._tasks = [asyncio.create_task(part, name="accept") for part in parts]
        self._tasks.append(asyncio.create_task(self._look_after(), name="connections"))

    async def stop(self) -> None:
        """Accept nothing more; what is open stays. Twice is fine."""
        tasks, self._tasks = self._tasks, []
        await cancel_until_done(*tasks)
        for listener in self._listeners:
            listener.close()

    @property
    def open_now(self) -> int:
        """How many connections there are."""
        return len(self._all)

    def busy(self, connection: Connection) -> None:
        """It has sent a request."""
        self._silent.pop(connection, None)
        self._idle.pop(connection, None)

    def idle(self, connection: Connection) -> None:
        """It has been answered."""
        if connection in self._all:
            self._idle[connection] = None

    def left(self, connection: Connection) -> None:
        """It is gone; twice is fine."""
        if connection not in self._all:
            return
        self._all.discard(connection)
        self.busy(connection)
        if connection.address is not None:
            self._by_address[connection.address] -= 1
            if not self._by_address[connection.address]:
                del self._by_address[connection.address]

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                wire, peer = await loop.sock_accept(listener)
            except OSError as error:
                if error.errno in _NO_FILE:
                    self._note_full(f"no file is free ({error.strerror})")
                    await asyncio.sleep(0 if self._make_room() else _FULL_PAUSE)
                continue
            try:
                await self._admit(wire, self._addresses.of_peer(peer))
            except OSError:  # it has gone again
                wire.close()
            except Exception:
                log.exception("A connection could not be accepted")
                wire.close()

    async def _admit(self, wire: socket.socket, address: str | None) -> None:
        if address is not None and self._by_address[address] >= self._per_address:
            if not self._make_room(address):
                _refuse(wire, "too_many_sockets", "Too many connections from this address.")
                return
        elif len(self._all) >= (most := self._room()):
            self._note_full(f"{most} connections are open")
            if not self._make_room():
                _refuse(wire, "unavailable", "There is no room for another connection.")
                return
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(lambda: self._enter(address), wire)

    def _enter(self, address: str | None) -> Connection:
        loop = asyncio.get_running_loop()
        connection = Connection(self, address, self._server, loop=loop, **self._options)
        self._all.add(connection)
        self._silent[connection] = None
        if address is not None:
            self._by_address[address] += 1
        return connection

    def _make_room(self, address: str | None = None) -> bool:
        """Hang up on the one that has been silent for longest, of this address if one is given."""
        for quiet in (self._silent, self._idle):
            for connection in quiet:
                if address is None or connection.address == address:
                    connection.hang_up()
                    return True
        return False

    def _room(self) -> int:
        """How many connections fit: what was set, and what the system gives at this moment."""
        files = file_limit()
        return self._most if files is None else min(self._most, max(files - _RESERVED, files // 2))

    async def _look_after(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            now = clock()
            for connection in [each for each in self._all if each.is_overdue(now)]:
                connection.hang_up()
            if self._is_full and len(self._all) < 0.9 * self._room():
                self._is_full = False
                log.info("There is room for connections again")

    def _note_full(self, why: str) -> None:
        if not self._is_full:
            log.warning("%s: for each new connection the quietest one is closed", why)
        self._is_full = True


def _refuse(wire: socket.socket, code: str, detail: str) -> None:
    """An answer without a connection: as much of it as the kernel takes."""
    problem = Problem(code, detail)
    body = orjson.dumps(problem.document("0" * 16))
    head = (
        f"HTTP/1.1 {problem.kind.status} Refused\r\nContent-Type: application/problem+json\r\n"
        f"Retry-After: {problem.headers.get('Retry-After', '5')}\r\n"
        f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with contextlib.suppress(OSError):
        wire.send(head.encode() + body)
    wire.close()
