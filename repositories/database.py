"""The Database port: what the repositories and the runner ask of Postgres, over any transport.

Two adapters keep it: ``repositories.postgres`` (asyncpg) and, from the next release,
``repositories.supabase`` (PostgREST). Both pass ``tests/contracts/database.py``. It is therefore as
small as PostgREST is: functions of the schema ``uvian`` called by name, and single-table reads and
writes with equality filters. Values go in and come out as JSON knows them: uuids and timestamps as
text (ISO 8601 with offset), numerics as text, jsonb as Python values.
"""

from __future__ import annotations

__all__ = ["Database", "Filter", "Json", "Order", "Row"]

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

Json = Any
Row = dict[str, Any]


class Filter(NamedTuple):
    """One condition; several are joined by *and*. ``op``: eq, lt, lte, gt, gte, in, is_null."""

    column: str
    op: str
    value: Json


class Order(NamedTuple):
    """One column to sort by."""

    column: str
    descending: bool = False


class Database(Protocol):
    """Functions and tables of the schema ``uvian``, as the service.

    Every method raises only errors of ``repositories.errors``; those that derive from
    ``Transient`` may be retried, and since every function is idempotent, should be.
    """

    async def call(self, function: str, arguments: Mapping[str, Json]) -> Json:
        """Call ``uvian.<function>`` with named arguments; answers its jsonb (or scalar)."""
        ...

    async def select(
        self,
        table: str,
        *,
        where: Sequence[Filter] = (),
        columns: Sequence[str] = (),
        order: Sequence[Order] = (),
        limit: int | None = None,
    ) -> list[Row]:
        """Rows of one table; ``columns`` empty means all."""
        ...

    async def insert(
        self, table: str, rows: Sequence[Row], *, on_conflict: Sequence[str] = ()
    ) -> list[Row]:
        """Insert rows and answer them; with ``on_conflict`` rows that exist are left alone and not answered."""
        ...

    async def update(self, table: str, values: Row, *, where: Sequence[Filter]) -> list[Row]:
        """Update the rows that match (at least one filter is required) and answer them."""
        ...

    async def delete(self, table: str, *, where: Sequence[Filter]) -> list[Row]:
        """Delete the rows that match (at least one filter is required) and answer them."""
        ...

    async def listen(self, channel: str, callback: Callable[[str], None]) -> bool:
        """Call back for every NOTIFY; False where the transport has no LISTEN."""
        ...

    async def ping(self) -> None:
        """Raise unless the schema answers."""
        ...

    async def close(self) -> None:
        """Close every connection; closing twice is fine."""
        ...
