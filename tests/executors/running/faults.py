"""A database that loses requests, loses replies and takes its time, by script."""

from __future__ import annotations

__all__ = ["Fault", "FaultyDatabase"]

import asyncio
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import Any

from repositories.database import Database, Filter, Function, Json, Order, Row, Table
from repositories.errors import Unavailable


class Fault(Enum):
    """What happens to a call."""

    NONE = "none"
    REFUSED = "refused"  #: it never arrives
    REPLY_LOST = "reply lost"  #: it is committed, and nobody hears of it
    SLOW = "slow"


class FaultyDatabase:
    """The real database behind a bad line. ``script`` says what happens to each call, in turn."""

    def __init__(self, database: Database, script: Iterator[Fault]) -> None:
        self.database = database
        self.script = script
        self.gates: dict[str, asyncio.Event] = {}  #: a call of that name waits until it is set
        self.entered: dict[str, asyncio.Event] = {}  #: set when such a call has begun to wait
        self.calls: list[str] = []

    def hold(self, function: str) -> tuple[asyncio.Event, asyncio.Event]:
        """From now on calls of ``function`` wait: (set once one does, to be set to let them go)."""
        self.entered[function], self.gates[function] = asyncio.Event(), asyncio.Event()
        return self.entered[function], self.gates[function]

    async def call(self, function: Function, /, **arguments: Json) -> Json:
        self.calls.append(function)
        if (gate := self.gates.get(function)) is not None:
            self.entered[function].set()
            await gate.wait()
        fault = next(self.script, Fault.NONE)
        if fault is Fault.REFUSED:
            raise Unavailable("the call did not arrive")
        if fault is Fault.SLOW:
            await asyncio.sleep(0.01)
        answer = await self.database.call(function, **arguments)
        if fault is Fault.REPLY_LOST:
            raise Unavailable("the reply was lost")
        return answer

    async def select(
        self,
        table: Table,
        *,
        where: Sequence[Filter] = (),
        columns: Sequence[str] = (),
        order: Sequence[Order] = (),
        limit: int | None = None,
    ) -> list[Row]:
        return await self.database.select(
            table, where=where, columns=columns, order=order, limit=limit
        )

    async def insert(
        self, table: Table, rows: Sequence[Row], *, on_conflict: Sequence[str] | None = None
    ) -> list[Row]:
        return await self.database.insert(table, rows, on_conflict=on_conflict)

    async def update(self, table: Table, values: Row, *, where: Sequence[Filter]) -> list[Row]:
        return await self.database.update(table, values, where=where)

    async def delete(self, table: Table, *, where: Sequence[Filter]) -> list[Row]:
        return await self.database.delete(table, where=where)

    async def listen(self, channel: str, callback: Callable[[str], None]) -> bool:
        return await self.database.listen(channel, callback)

    async def close(self) -> None:
        await self.database.close()


def _keeps_the_port(database: FaultyDatabase) -> Any:
    """mypy: it is a ``Database``."""
    port: Database = database
    return port
