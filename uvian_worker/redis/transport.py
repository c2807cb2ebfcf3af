"""One connection to Redis, which translates all its errors.

Every reply and every failure of a connection passes here, whoever uses it: redis-py's commands, its
pipelines and subscriptions, arq. What means that Redis is away leaves as ``RedisAway``, and a
connection that cannot be used any more has been closed by then.
"""

from __future__ import annotations

__all__ = ["CONNECTION_CLASSES", "Parser", "TlsConnection", "TranslatingConnection"]

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any, Final

from redis import exceptions
from redis._parsers import _AsyncHiredisParser
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.connection import HiredisRespSerializer

from uvian_worker.redis.errors import (
    RedisAway,
    RedisDenied,
    RedisRefuses,
    RedisState,
    away_of_failure,
    away_of_reply,
)

_CLOSING_SECONDS: Final = 1.0  #: that the other side may take to close


class Parser(_AsyncHiredisParser):
    """Reads replies; error replies become the exceptions of ``errors.py``."""

    #: Whether a refusal is logged here, because no caller of this connection would.
    logs_refusals = False

    @classmethod
    def parse_error(cls, response: str) -> Exception:
        """redis-py's hook: the exception of an error reply, also of one inside another reply."""
        return away_of_reply(response) or _ordinary_error(response)


def _ordinary_error(response: str) -> Exception:
    parser: Any = _AsyncHiredisParser
    error: Exception = parser.parse_error(response)
    return error


class TranslatingConnection(AbstractConnection):
    """redis-py's connection, changed in three points.

    It translates every error here, at one seam. It sends without ``asyncio.wait_for``, which in Python
    3.11 swallows a cancellation that meets its result: otherwise a task that uses Redis could not be
    cancelled reliably. And it opens no new connection while it opens one: otherwise a proxy that accepts
    and closes connections would cause a ``RecursionError``.
    """

    def __init__(self, *, state: RedisState | None = None, **options: Any) -> None:
        # redis-py would send its name and version: two replies for each connection, and a permission.
        options |= {"lib_name": None, "lib_version": None}
        options.setdefault("parser_class", Parser)
        super().__init__(**options)
        self._logs_refusals: bool = options["parser_class"].logs_refusals
        self._state = state or RedisState()
        self._opening = False
        self._has_answered = False  #: since it was opened

    async def connect(self) -> None:
        """Connect, with the patience of this connection's retry."""
        if not self.is_connected:
            await self.retry.call_with_retry(self._open, self._close_after)

    async def make_ready(self) -> None:
        """Connect, and make sure that no unread reply waits: then a command may be sent."""
        await self.retry.call_with_retry(self._make_ready, self._close_after)

    def pack_command(self, *args: Any) -> list[bytes]:
        """hiredis packs: redis-py's own way, in Python, is half the cost of an event."""
        packed: list[bytes] = _PACKER.pack(*args)
        return packed

    async def send_packed_command(
        self, command: bytes | str | Iterable[bytes], check_health: bool = True
    ) -> None:
        """Send once; the caller repeats it after a fault."""
        if self._opening and not self.is_connected:
            raise self._unusable(exceptions.ConnectionError("closed while it was opened"))
        if not self.is_connected:
            await self._open()
        elif check_health and not self._opening:
            await self.check_health()
        if isinstance(command, str):
            command = command.encode()
        try:
            async with asyncio.timeout(self.socket_timeout):
                await self._send_packed_command(
                    [command] if isinstance(command, bytes) else command
                )
        except BaseException as error:
            # A part of the command may have been sent: no other command can follow it.
            await self.disconnect(nowait=True)
            if isinstance(error, Exception):
                raise self._unusable(error) from error
            raise

    async def read_response(self, *args: Any, **options: Any) -> Any:
        """Read a reply; raise one that means that Redis is away, also from inside a list of replies."""
        base: Any = super()
        try:
            response = await base.read_response(*args, **options)
        except (RedisDenied, RedisRefuses) as error:
            if self._logs_refusals:
                self._note(error)
            raise
        except exceptions.ResponseError:
            self._has_answered = True
            raise
        except Exception as error:
            raise self._unusable(error) from error
        self._has_answered = True
        if isinstance(response, list):
            for part in response:
                if isinstance(part, RedisAway):
                    await self.disconnect(nowait=True)
                    raise self._unusable(part)
        return response

    async def check_health(self) -> None:
        """After a long pause: test the connection once; the caller repeats it."""
        now = asyncio.get_running_loop().time()
        if self.health_check_interval and now > self.next_health_check:
            await self._ping()

    async def can_read_destructive(self) -> bool:
        """Whether a reply waits to be read."""
        base: Any = super()
        try:
            return bool(await base.can_read_destructive())
        except Exception as error:
            raise self._unusable(error) from error

    async def disconnect(self, nowait: bool = False) -> None:
        """Close. This never fails, and never waits long for the other side."""
        parser: Any = self._parser
        parser.on_disconnect()
        writer, self._reader, self._writer = self._writer, None, None
        if writer is None:
            return
        with contextlib.suppress(Exception):
            writer.close()
            if nowait:
                # Unsent bytes are dropped; uvloop would wait for a server that has stopped.
                writer.transport.abort()
                return
            async with asyncio.timeout(_CLOSING_SECONDS):
                await writer.wait_closed()
        with contextlib.suppress(Exception):
            writer.transport.abort()

    async def _open(self) -> None:
        if self.is_connected:
            return
        self._opening, self._has_answered = True, False
        base: Any = self
        try:
            await base._connect()  # noqa: SLF001 - our own base
            await self.on_connect()
            await self._first_ping()
            self._opening = False
            for reference in self._connect_callbacks:
                if (callback := reference()) is not None:
                    subscribes: Any = callback(self)
                    await subscribes
        except BaseException as error:
            await self.disconnect(nowait=True)
            if isinstance(error, exceptions.ResponseError) or not isinstance(error, Exception):
                raise
            raise self._unusable(error) from error
        finally:
            self._opening = False

    async def _first_ping(self) -> None:
        """Does Redis answer, and serve us? A user may lack the permission for PING."""
        with contextlib.suppress(RedisDenied):
            await self._ping()

    async def _ping(self) -> None:
        await self.send_command("PING", check_health=False)
        await self.read_response()

    async def _make_ready(self) -> None:
        await self._open()
        if not await self.can_read_destructive():
            return
        # A last word of Redis (maxclients), or a reply that a caller did not wait for.
        try:
            await self.read_response(timeout=0.05)
        except RedisAway:
            raise
        except exceptions.RedisError as error:
            raise self._unusable(error) from error
        raise self._unusable(exceptions.ConnectionError("it has an unread reply"))

    async def _close_after(self, _: BaseException) -> None:
        await self.disconnect(nowait=True)

    def _unusable(self, error: BaseException) -> RedisAway:
        away = away_of_failure(error, has_answered=self._has_answered)
        self._note(away)
        return away

    def _note(self, away: RedisAway) -> None:
        self._state.note(away, self._host_error())


class _TcpConnection(TranslatingConnection, Connection):
    pass


class TlsConnection(TranslatingConnection, SSLConnection):
    """Over TLS."""


class _SocketConnection(TranslatingConnection, UnixDomainSocketConnection):
    async def _connect(self) -> None:
        async with asyncio.timeout(self.socket_connect_timeout):
            self._reader, self._writer = await asyncio.open_unix_connection(path=self.path)


_PACKER: Any = HiredisRespSerializer()

#: redis-py's class of connection, and ours in its place.
CONNECTION_CLASSES: dict[type[AbstractConnection], type[AbstractConnection]] = {
    Connection: _TcpConnection,
    SSLConnection: TlsConnection,
    UnixDomainSocketConnection: _SocketConnection,
}
