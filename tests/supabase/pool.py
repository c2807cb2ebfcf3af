"""Connections as ``authenticator``: a few, each request in a transaction of its own."""

from __future__ import annotations

__all__ = ["Pool", "PoolExhausted", "Unreachable"]

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

import asyncpg

from tests.supabase.wire import Lost, PostgresError, Row, Step, Wire

_CONNECT_SECONDS: Final = 10.0
_COMMIT: Final = Step("commit")
_ROLLBACK: Final = Step("rollback")
_ASKED: Final = 2  # begin, whose it is, what is asked


class PoolExhausted(Exception):
    """No connection became free in time."""


class Unreachable(Exception):
    """Postgres takes no connection."""


class Pool:
    """Up to ``size`` connections; the last one used is the first to be used again."""

    def __init__(
        self, dsn: str, *, name: str, size: int = 10, acquisition_timeout: float = 10.0
    ) -> None:
        self._dsn = dsn
        self._name = name
        self._acquisition_timeout = acquisition_timeout
        self._free = asyncio.Semaphore(size)
        self._idle: list[Wire] = []
        self._all: set[Wire] = set()

    async def transact(
        self,
        prelude: Step,
        asked: Step,
        *,
        read_only: bool = False,
        check: Callable[[list[Row]], None] | None = None,
    ) -> list[Row]:
        """The rows of ``asked``, which runs behind ``prelude``, committed.

        ``check`` may still refuse them: what it raises rolls everything back. Raises
        ``PostgresError``, ``Lost``, ``PoolExhausted`` and ``Unreachable``.
        """
        begin = Step(f"begin isolation level read committed{' read only' if read_only else ''}")
        async with self._connection() as wire:
            try:
                steps = [begin, prelude, asked]
                rows = await wire.run(steps if check else [*steps, _COMMIT], rows_of=_ASKED)
                if check is not None:
                    check(rows)
                    await wire.run([_COMMIT])
            except Exception:
                await _roll_back(wire)
                raise
            return rows

    async def read(self, steps: Sequence[Step]) -> list[list[Row]]:
        """The rows of each step, as the login itself."""
        async with self._connection() as wire:
            return [await wire.run([step]) for step in steps]

    def flush(self) -> None:
        """Forget idle connections: after Postgres was away they are good for nothing."""
        idle, self._idle = self._idle, []
        for wire in idle:
            self._discard(wire)

    def close(self) -> None:
        """Close them all; those that are at work are cut."""
        self._idle.clear()
        for wire in list(self._all):
            self._discard(wire)

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[Wire]:
        try:
            async with asyncio.timeout(self._acquisition_timeout):
                await self._free.acquire()
        except TimeoutError:
            raise PoolExhausted from None
        try:
            wire = self._idle.pop() if self._idle else await self._connect()
            was_lost = False
            try:
                yield wire
            except Lost:
                was_lost = True
                raise
            finally:
                if was_lost or wire.is_busy:
                    self._discard(wire)
                else:
                    self._idle.append(wire)  # also one that is lost by now: the next shall hear it
        finally:
            self._free.release()

    async def _connect(self) -> Wire:
        try:
            raw = await asyncpg.connect(
                self._dsn,
                timeout=_CONNECT_SECONDS,
                server_settings={"application_name": self._name},
            )
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise Unreachable(str(error)) from error
        wire = Wire(raw)
        self._all.add(wire)
        return wire

    def _discard(self, wire: Wire) -> None:
        self._all.discard(wire)
        wire.close()


async def _roll_back(wire: Wire) -> None:
    if wire.in_transaction and not wire.is_lost:
        with contextlib.suppress(PostgresError, Lost):
            await wire.run([_ROLLBACK])
