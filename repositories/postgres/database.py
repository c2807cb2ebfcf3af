"""The Database port over asyncpg: straight to the same functions and tables that PostgREST serves.

No prepared statement outlives its call and no session state is used, so that the transaction
pooler (port 6543) serves it too; only ``listen`` needs a session.
"""

from __future__ import annotations

__all__ = ["PostgresDatabase"]

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import asyncpg
import orjson

from repositories.database import (
    SIGNATURES,
    Filter,
    Function,
    Json,
    Order,
    Row,
    Table,
    as_json,
    column_and_cast,
    require_filters,
    require_name,
    require_rows,
)
from repositories.errors import Misconfigured, Permanent
from repositories.postgres.errors import translated
from repositories.postgres.notifications import Listener
from uvian_common.dsn import BadConnectionString, read

#: What a server answers to a setting in the connection string that it does not know, or not like this.
_REFUSED_PARAMETERS: Final = (
    asyncpg.UndefinedObjectError,
    asyncpg.InvalidParameterValueError,
    asyncpg.CantChangeRuntimeParamError,
    asyncpg.PostgresSyntaxError,  # of `options`: our statement has none
)
_OPERATORS: Final = {"eq": "=", "ne": "<>", "lt": "<", "lte": "<=", "gt": ">", "gte": ">="}


class PostgresDatabase:
    """A small pool (and one connection of their own for lease renewals: they must never queue)."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        renewals: asyncpg.Pool,
        *,
        listener: Listener | None,
        timeout: float,
    ) -> None:
        self._pool = pool
        self._renewals = renewals
        self._listener = listener
        self._timeout = timeout

    @classmethod
    async def connect(
        cls,
        dsn: str,
        *,
        connections: int = 5,
        listen_dsn: str | None = None,
        timeout: float = 10.0,  # noqa: ASYNC109 - of every call to come, not of this one
    ) -> PostgresDatabase:
        """Open the pool and try it; raises what ``untried`` and ``require_answer`` do."""
        database = await cls.untried(
            dsn, connections=connections, listen_dsn=listen_dsn, timeout=timeout
        )
        try:
            await database.require_answer()
        except BaseException:
            await database.close()
            raise
        return database

    @classmethod
    async def untried(
        cls,
        dsn: str,
        *,
        connections: int = 5,
        listen_dsn: str | None = None,
        timeout: float = 10.0,  # noqa: ASYNC109 - of every call to come, not of this one
    ) -> PostgresDatabase:
        """Open the pool, without a connection yet; ``timeout`` is for connecting and for each call.

        Raises ``Misconfigured`` for a string that cannot be used.
        """
        pools: list[asyncpg.Pool] = []
        try:
            arguments = read(dsn).arguments(timeout)
            for most in (max(connections - 1, 1), 1):
                pools.append(  # noqa: PERF401 - the second is not opened when the first fails
                    await asyncpg.create_pool(
                        **arguments,
                        min_size=0,
                        max_size=most,
                        statement_cache_size=0,
                        reset=_leaves_nothing,
                        command_timeout=timeout,
                    )
                )
        except BadConnectionString as error:
            raise Misconfigured(f"UVIAN_DATABASE_URL: {error}.") from None
        except Exception as error:
            for pool in pools:
                pool.terminate()
            raise translated(error) from error
        listener = Listener(listen_dsn, timeout=timeout) if listen_dsn else None
        return cls(pools[0], pools[1], listener=listener, timeout=timeout)

    async def require_answer(self) -> None:
        """Raises ``Unavailable`` when the server does not answer, ``SchemaMissing`` when the schema
        ``uvian`` is not there, ``Misconfigured`` for a string that it refuses.
        """
        try:
            await self.select("schema_migrations", columns=("name",), limit=1)
        except Permanent as error:
            if isinstance(error.__cause__, _REFUSED_PARAMETERS):
                said = error.__cause__.args[0]
                raise Misconfigured(
                    f"UVIAN_DATABASE_URL: Postgres refuses a parameter of it: {said}."
                ) from error
            raise

    async def call(self, function: Function, /, **arguments: Json) -> Json:
        """Call a function of the schema; see the port."""
        types = SIGNATURES[function]
        named = ", ".join(
            f"{name} => ${position}::text::{types[name]}"
            for position, name in enumerate(arguments, 1)
        )
        values = [_text(value, types[name]) for name, value in arguments.items()]
        pool = self._renewals if function == "renew_leases" else self._pool
        # Every name in the statement comes from SIGNATURES, never from a caller.
        rows = await self._run(f"select to_jsonb(uvian.{function}({named}))::text", values, pool)
        answer = rows[0][0]
        return None if answer is None else orjson.loads(answer)

    async def select(
        self,
        table: Table,
        *,
        where: Sequence[Filter] = (),
        columns: Sequence[str] = (),
        order: Sequence[Order] = (),
        limit: int | None = None,
    ) -> list[Row]:
        """Read rows; see the port."""
        wanted = ", ".join(_output(column) for column in columns) if columns else "t.*"
        conditions, values = _conditions(table, where, first=1)
        sort = ", ".join(f"t.{_name(o.column)}{' desc' if o.descending else ''}" for o in order)
        statement = (
            f"select to_json(x)::text from (select {wanted} from uvian.{_name(table)} t{conditions}"  # noqa: S608
            f"{f' order by {sort}' if sort else ''}{f' limit {int(limit)}' if limit is not None else ''}) x"
        )
        return await self._rows(statement, values)

    async def insert(
        self, table: Table, rows: Sequence[Row], *, on_conflict: Sequence[str] | None = None
    ) -> list[Row]:
        """Insert rows; see the port."""
        if not rows:
            return []
        require_rows(rows)
        names = ", ".join(_name(column) for column in rows[0])
        conflict = ""
        if on_conflict is not None:
            conflict = f" on conflict ({', '.join(map(_name, on_conflict))}) do nothing"
        statement = (
            f"insert into uvian.{_name(table)} as t ({names}) select {names} "  # noqa: S608
            f"from jsonb_populate_recordset(null::uvian.{table}, $1::text::jsonb){conflict} "
            f"returning to_json(t)::text"
        )
        return await self._rows(statement, [_json(list(rows))])

    async def update(self, table: Table, values: Row, *, where: Sequence[Filter]) -> list[Row]:
        """Update rows; see the port."""
        require_filters(where)
        changes = ", ".join(f"{_name(column)} = v.{_name(column)}" for column in values)
        conditions, rest = _conditions(table, where, first=2)
        statement = (
            f"update uvian.{_name(table)} t set {changes} "  # noqa: S608
            f"from jsonb_populate_record(null::uvian.{table}, $1::text::jsonb) v{conditions} "
            f"returning to_json(t)::text"
        )
        return await self._rows(statement, [_json(values), *rest])

    async def delete(self, table: Table, *, where: Sequence[Filter]) -> list[Row]:
        """Delete rows; see the port."""
        require_filters(where)
        conditions, values = _conditions(table, where, first=1)
        return await self._rows(
            f"delete from uvian.{_name(table)} t{conditions} returning to_json(t)::text",  # noqa: S608
            values,
        )

    async def listen(self, channel: str, callback: Callable[[str], None]) -> bool:
        """Call back for every NOTIFY, over a session connection that is opened again when it breaks."""
        if self._listener is None:
            return False
        self._listener.listen(channel, callback)
        return True

    async def close(self) -> None:
        """Close the pools; connections that do not end in time are cut."""
        if self._listener is not None:
            await self._listener.close()
        for pool in (self._pool, self._renewals):
            try:
                await asyncio.wait_for(pool.close(), 5)
            except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                pool.terminate()

    async def _rows(self, statement: str, values: Sequence[str]) -> list[Row]:
        return [orjson.loads(row[0]) for row in await self._run(statement, values, self._pool)]

    async def _run(
        self, statement: str, values: Sequence[str | None], pool: asyncpg.Pool
    ) -> list[Any]:
        try:
            async with pool.acquire(timeout=self._timeout) as connection:
                try:
                    return cast("list[Any]", await connection.fetch(statement, *values))
                except (TimeoutError, asyncio.CancelledError):
                    # A connection that was cut silently would take the same time once more. For a
                    # renewal of leases that is the whole lease.
                    connection.terminate()
                    raise
        except Exception as error:
            raise translated(error) from error


async def _leaves_nothing(_: asyncpg.Connection) -> None:
    """A call leaves no session state: the reset that the pool would send after each costs a round trip."""


def _name(identifier: str) -> str:
    return f'"{require_name(identifier)}"'


def _output(column: str) -> str:
    name, as_text = column_and_cast(column)
    return f't."{name}"::text as "{name}"' if as_text else f't."{name}"'


def _conditions(table: str, where: Sequence[Filter], *, first: int) -> tuple[str, list[str]]:
    """Conditions whose values take the type of their column by way of a record of the table."""
    parts: list[str] = []
    values: list[str] = []
    for condition in where:
        column = _name(condition.column)
        if condition.op == "is_null":
            parts.append(f"t.{column} is null")
            continue
        position = first + len(values)
        if condition.op == "in":
            values.append(_json([{condition.column: value} for value in condition.value]))
            parts.append(
                f"t.{column} = any (array(select r.{column} from "  # noqa: S608 - checked names
                f"jsonb_populate_recordset(null::uvian.{_name(table)}, ${position}::text::jsonb) r))"
            )
        else:
            values.append(_json({condition.column: condition.value}))
            parts.append(
                f"t.{column} {_OPERATORS[condition.op]} "
                f"(jsonb_populate_record(null::uvian.{_name(table)}, ${position}::text::jsonb)).{column}"
            )
    return (f" where {' and '.join(parts)}" if parts else ""), values


def _json(value: Json) -> str:
    return as_json(value).decode()


def _text(value: Json, sql_type: str) -> str | None:
    if sql_type == "jsonb":
        return _json(value)
    return None if value is None else str(value)
