"""LISTEN on a session connection of its own, beside whatever carries the calls."""

from __future__ import annotations

from uvian_common.tasks import cancel_until_done

__all__ = ["Listener"]

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import asyncpg

from repositories.postgres.errors import translated
from uvian_common.backoff import pause_before
from uvian_common.dsn import read

log = logging.getLogger("uvian.database")

_LONGEST_PAUSE: Final = 5.0  #: seconds
_PROBE_EVERY: Final = 20.0  #: seconds; a connection that was cut silently says nothing by itself


class Listener:
    """Calls back for every NOTIFY until it is closed, over a connection opened again when it breaks.

    ``dsn`` is a direct connection or a pooler's in session mode; ``timeout`` is in seconds, for
    connecting and for each probe of the connection.
    """

    def __init__(self, dsn: str, *, timeout: float = 10.0) -> None:
        self._dsn = dsn
        self._timeout = timeout
        self._listening: list[asyncio.Task[None]] = []

    def listen(self, channel: str, callback: Callable[[str], None]) -> None:
        """Begin, with the payload of each; the first call back comes once it listens, and another after
        every gap: with an empty payload, for any may have been missed."""
        self._listening.append(asyncio.create_task(self._keep_listening(channel, callback)))

    async def close(self) -> None:
        """Stop; closing twice is fine."""
        listening, self._listening = self._listening, []
        await cancel_until_done(*listening)

    async def _keep_listening(self, channel: str, callback: Callable[[str], None]) -> None:
        tries = 0  #: since it last listened
        while True:
            try:
                async with self._connection() as connection:
                    await connection.add_listener(channel, lambda *received: callback(received[-1]))
                    tries = 0
                    callback("")  # what was notified while nobody listened
                    await self._until_closed(connection)
            except Exception as error:  # noqa: BLE001 - whatever it is, nobody else opens it again
                level = logging.DEBUG if tries else logging.WARNING
                log.log(
                    level,
                    "LISTEN %s (on UVIAN_DATABASE_DIRECT_URL where it is set) broke, trying again: %s",
                    channel,
                    translated(error),
                )
                tries += 1
            await asyncio.sleep(pause_before(tries - 1, first=1.0, longest=_LONGEST_PAUSE))

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[asyncpg.Connection[Any]]:
        arguments = read(self._dsn).arguments(self._timeout)
        connection = await asyncpg.connect(**arguments, statement_cache_size=0)
        try:
            yield connection
        finally:
            with contextlib.suppress(Exception):
                await connection.close(timeout=1)

    async def _until_closed(self, connection: asyncpg.Connection[Any]) -> None:
        closed = asyncio.Event()
        connection.add_termination_listener(lambda _: closed.set())
        while not closed.is_set():
            try:
                async with asyncio.timeout(_PROBE_EVERY):
                    await closed.wait()
            except TimeoutError:
                await connection.execute("select", timeout=self._timeout)
