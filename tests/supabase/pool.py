"""Connections as ``authenticator``: a few, each request in a transaction as its caller.

What a client sees when a connection breaks depends on what the server still said, and whether it
said so while the connection lay idle. asyncpg forgets that, so a ``_Tap`` listens in.
"""

from __future__ import annotations

__all__ = ["BadValue", "Connection", "Lost", "Pool", "PoolExhausted", "Unreachable", "quoted"]

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import asyncpg

_CONNECT_SECONDS = 10.0
_CLOSE_SECONDS = 1.0


class PoolExhausted(Exception):
    """No connection became free in time."""


class Unreachable(Exception):
    """Postgres takes no connection."""


class Lost(Exception):
    """The connection is gone; ``code`` and ``message`` are the server's last words, or empty."""

    def __init__(self, code: str = "", message: str = "", *, while_idle: bool) -> None:
        self.code = code
        self.message = message
        self.while_idle = while_idle
        super().__init__(message)


class BadValue(Exception):
    """A value that cannot be sent to Postgres at all."""


class Pool:
    """Up to ``size`` connections; the last one used is the first to be used again."""

    def __init__(
        self, dsn: str, *, name: str, size: int = 10, acquisition_timeout: float = 10.0
    ) -> None:
        self._dsn = dsn
        self._name = name
        self._acquisition_timeout = acquisition_timeout
        self._free = asyncio.Semaphore(size)
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """One connection, alone; raises ``PoolExhausted`` or ``Unreachable``."""
        try:
            async with asyncio.timeout(self._acquisition_timeout):
                await self._free.acquire()
        except TimeoutError:
            raise PoolExhausted from None
        try:
            connection = self._idle.pop() if self._idle else await self._connect()
            try:
                yield connection
            finally:
                self._put_back(connection)
        finally:
            self._free.release()

    def flush(self) -> None:
        """Forget idle connections: after Postgres was away they are good for nothing."""
        for connection in self._idle:
            self._discard(connection)
        self._idle.clear()

    async def close(self) -> None:
        """Close them all; those that are at work are cut."""
        idle, self._idle = self._idle, []
        for connection in idle:
            with contextlib.suppress(Exception):
                await connection.raw.close(timeout=_CLOSE_SECONDS)
        for connection in list(self._all):
            self._discard(connection)

    async def _connect(self) -> Connection:
        try:
            raw = await asyncpg.connect(
                self._dsn,
                timeout=_CONNECT_SECONDS,
                statement_cache_size=1000,
                max_cached_statement_lifetime=0,
                server_settings={"application_name": self._name},
            )
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise Unreachable(str(error)) from error
        connection = Connection(raw)
        self._all.add(connection)
        return connection

    def _put_back(self, connection: Connection) -> None:
        if connection.told or connection.raw.is_in_transaction():
            self._discard(connection)
        else:
            self._idle.append(connection)

    def _discard(self, connection: Connection) -> None:
        self._all.discard(connection)
        connection.raw.terminate()


class Connection:
    """A connection that knows how it ended."""

    def __init__(self, raw: asyncpg.Connection) -> None:
        self.raw = raw
        self.told = False  #: somebody has heard that it is lost
        self._tap = _Tap(raw)

    async def transact(
        self,
        prelude: str,
        statement: str,
        values: Sequence[Any] = (),
        *,
        check: Callable[[list[Any]], None] | None = None,
    ) -> list[Any]:
        """The rows of a statement that runs behind ``prelude`` (which begins), committed.

        ``check`` may still refuse them: what it raises rolls everything back. Raises
        ``asyncpg.PostgresError``, ``Lost`` and ``BadValue``.
        """
        if self.raw.is_closed():
            self.told = True
            raise Lost(self._tap.code, self._tap.message, while_idle=True)
        try:
            await self.raw.execute(prelude)
            rows: list[Any] = await self.raw.fetch(statement, *values)
            if check is not None:
                check(rows)
            await self.raw.execute("commit")
        except asyncpg.DataError as error:
            await self._roll_back()
            if error.sqlstate is None or isinstance(error, asyncpg.InterfaceError):
                raise BadValue(str(error)) from error  # asyncpg's own: it never left this process
            raise
        except (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            self.told = True
            raise Lost(self._tap.code, self._tap.message, while_idle=False) from error
        except Exception:
            await self._roll_back()
            raise
        return rows

    async def _roll_back(self) -> None:
        if self.raw.is_closed():
            self.told = True
        elif self.raw.is_in_transaction():
            with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await self.raw.execute("rollback")


class _Tap(asyncio.Protocol):
    """Between socket and asyncpg: keeps a FATAL error, also one that nobody had asked for."""

    def __init__(self, raw: asyncpg.Connection) -> None:
        self.code = self.message = ""
        self._protocol = raw._protocol
        raw._transport.set_protocol(self)

    def data_received(self, data: bytes) -> None:
        if data[:1] == b"E":
            self._listen(data)
        self._protocol.data_received(data)

    def eof_received(self) -> bool | None:
        return self._protocol.eof_received()  # type: ignore[no-any-return]

    def connection_lost(self, exc: Exception | None) -> None:
        self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    def _listen(self, data: bytes) -> None:
        fields = {part[:1]: part[1:].decode(errors="replace") for part in data[5:].split(b"\0")}
        if fields.get(b"V") in ("FATAL", "PANIC"):
            self.code, self.message = fields.get(b"C", ""), fields.get(b"M", "")


def quoted(text: str) -> str:
    """A literal, for a statement that has no parameters."""
    if "\0" in text:
        raise BadValue("a string with U+0000")
    return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
