"""When the schema cache is read: at the start, on NOTIFY, and again and again while Postgres is away."""

from __future__ import annotations

__all__ = ["SchemaCache"]

import asyncio
import contextlib
from collections.abc import Coroutine, Sequence
from typing import Any

import asyncpg

from tests.supabase.catalog import Catalog
from tests.supabase.errors import RestError
from tests.supabase.pool import Pool, PoolExhausted, Unreachable
from tests.supabase.wire import Lost, PostgresError

_AGAIN_AFTER = 0.2  # seconds; PostgREST waits 1, 2, 4 … 32
_LOST = (
    OSError,
    Unreachable,
    PoolExhausted,
    Lost,
    PostgresError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
)


class SchemaCache:
    """The catalog, or the reason why there is none."""

    def __init__(self, dsn: str, pool: Pool, schemas: Sequence[str]) -> None:
        self._dsn = dsn
        self._pool = pool
        self._schemas = schemas
        self._catalog: Catalog | None = None
        self._first_attempt: asyncio.Future[None] | None = None  # while it is being read again
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to read it, and to listen."""
        self.lose()
        self._keep(self._listen())

    async def stop(self) -> None:
        """End what runs in the background."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def current(self) -> Catalog:
        """The catalog; a request waits for the first attempt to read it, and no longer."""
        if self._first_attempt is not None:
            await asyncio.shield(self._first_attempt)
        if self._catalog is None:
            message = "Could not query the database for the schema cache. Retrying."
            raise RestError(503, "PGRST002", message)
        return self._catalog

    def lose(self) -> None:
        """A 503 was answered: the connections are suspect, and so is what they told."""
        if self._first_attempt is None:
            self._pool.flush()
            self._first_attempt = asyncio.get_running_loop().create_future()
            self._keep(self._read_again(self._first_attempt))

    async def reload(self) -> Catalog:
        """Read it now; raises what the pool raises."""
        self._catalog = await Catalog.load(self._pool, self._schemas)
        return self._catalog

    async def _read_again(self, first_attempt: asyncio.Future[None]) -> None:
        try:
            while not await self._try():
                if not first_attempt.done():
                    first_attempt.set_result(None)
                await asyncio.sleep(_AGAIN_AFTER)
        finally:
            self._first_attempt = None
            if not first_attempt.done():
                first_attempt.set_result(None)

    async def _try(self) -> bool:
        try:
            await self.reload()
        except _LOST:
            self._catalog = None
            self._pool.flush()
        return self._catalog is not None

    async def _listen(self) -> None:
        while True:
            with contextlib.suppress(*_LOST):
                await self._listen_until_lost()
            await asyncio.sleep(_AGAIN_AFTER)

    async def _listen_until_lost(self) -> None:
        connection = await asyncpg.connect(self._dsn, server_settings={"application_name": "pgrst"})
        awake = asyncio.Event()
        connection.add_termination_listener(lambda _: awake.set())
        try:
            await connection.add_listener("pgrst", lambda *_: awake.set())
            while True:
                await awake.wait()
                awake.clear()
                if connection.is_closed():
                    return
                await self.reload()
        finally:
            connection.terminate()

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
