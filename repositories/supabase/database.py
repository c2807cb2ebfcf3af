"""The Database port over PostgREST: the same tables and functions, through a project's API."""

from __future__ import annotations

__all__ = ["SupabaseDatabase"]

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeVar

import orjson
from postgrest import APIResponse, AsyncSelectRequestBuilder, CountMethod
from postgrest.base_request_builder import BaseFilterRequestBuilder

from repositories import errors
from repositories.database import (
    KEYS,
    SIGNATURES,
    Filter,
    Function,
    Json,
    Order,
    Row,
    Table,
    as_json,
    column_and_cast,
    may_repeat,
    require_filters,
    require_name,
    require_rows,
)
from repositories.postgres import Listener
from repositories.supabase.client import TRIES, Supabase

#: Fewer rows than that are all there are: no project's *max rows* is lower. One whose is, shows it in an
#: answer that says how many there would have been.
_UNCUT: Final = 100
#: Calls in flight; beyond four in all the client answers fewer per second, not more.
_CALLS: Final = 3
_NOT_POSTGREST: Final = (
    "What answers at UVIAN_SUPABASE_URL is not PostgREST but a page, or nothing."
)
_OPERATORS: Final = {"ne": "neq"}


class SupabaseDatabase:
    """Few calls at a time, and slots of their own for lease renewals, which must never wait.

    Reads and functions (those that ``may_repeat``) are repeated here when their reply is lost. Writes
    to a table are not: only the caller knows what the second answer means (see the port).
    """

    def __init__(
        self, supabase: Supabase, *, listener: Listener | None = None, timeout: float = 10.0
    ) -> None:
        self._supabase = supabase
        self._listener = listener
        self._timeout = timeout
        self._calls = asyncio.Semaphore(_CALLS)
        self._renewals = asyncio.Semaphore(1)
        self._closed = False
        self._uncut = _UNCUT

    @classmethod
    async def connect(
        cls,
        supabase: Supabase,
        *,
        listen_dsn: str | None = None,
        timeout: float = 10.0,  # noqa: ASYNC109 - of every call to come
    ) -> SupabaseDatabase:
        """The database of a project, tried.

        ``supabase`` stays the caller's to close. Raises ``Unavailable`` when the API does not answer,
        ``NotGranted`` for a wrong key, ``SchemaMissing`` when ``uvian`` is not exposed or not there.
        """
        database = cls.untried(supabase, listen_dsn=listen_dsn, timeout=timeout)
        await database.select("schema_migrations", columns=("name",), limit=1)
        return database

    @classmethod
    def untried(
        cls, supabase: Supabase, *, listen_dsn: str | None = None, timeout: float = 10.0
    ) -> SupabaseDatabase:
        """The database of a project; ``timeout`` is in seconds, for each call with its tries."""
        listener = Listener(listen_dsn, timeout=timeout) if listen_dsn else None
        return cls(supabase, listener=listener, timeout=timeout)

    async def call(self, function: Function, /, **arguments: Json) -> Json:
        """Call a function of the schema; see the port."""
        types = SIGNATURES[function]
        body = {name: _argument(value, types[name]) for name, value in arguments.items()}
        slots = self._renewals if function == "renew_leases" else self._calls
        tries = TRIES if may_repeat(function, arguments) else 1
        answer = await self._answer(self._supabase.rest.rpc(function, body), slots, tries=tries)
        data: Any = answer.data
        if isinstance(data, str | list):
            raise errors.Unavailable(_NOT_POSTGREST)
        return data

    async def select(
        self,
        table: Table,
        *,
        where: Sequence[Filter] = (),
        columns: Sequence[str] = (),
        order: Sequence[Order] = (),
        limit: int | None = None,
    ) -> list[Row]:
        """Read rows, page by page where the API's ``max_rows`` cuts the answer; see the port."""
        rows: list[Row] = []
        wanted = limit
        while wanted is None or len(rows) < wanted:
            left = None if wanted is None else wanted - len(rows)
            request = self._page(table, columns, order, after=len(rows), limit=left)
            page = await self._answer(_narrow(request, where))
            rows += _rows(page)
            got = len(page.data)
            if wanted is None:
                wanted = _counted(page)
                if got < wanted:
                    self._uncut = min(self._uncut, got)
            if not got or (left is not None and got < min(left, self._uncut)):
                break
        return rows

    def _page(
        self,
        table: Table,
        columns: Sequence[str],
        order: Sequence[Order],
        *,
        after: int,
        limit: int | None,
    ) -> AsyncSelectRequestBuilder:
        """Rows from the ``after``-th on; without a limit the answer says how many there are."""
        count = CountMethod.exact if limit is None else None
        request = self._supabase.rest.from_(require_name(table)).select(
            *map(_output, columns), count=count
        )
        for each in _total(table, order):
            request.order(require_name(each.column), desc=each.descending)
        if after:
            request.offset(after)
        return request if limit is None else request.limit(limit)

    async def insert(
        self, table: Table, rows: Sequence[Row], *, on_conflict: Sequence[str] | None = None
    ) -> list[Row]:
        """Insert rows; see the port."""
        if not rows:
            return []
        require_rows(rows)
        for name in rows[0]:
            require_name(name)
        body = _plain(list(rows))
        request = self._supabase.rest.from_(require_name(table))
        if on_conflict is None:
            return await self._write(request.insert(body))
        keys = ",".join(map(require_name, on_conflict))
        return await self._write(request.upsert(body, on_conflict=keys, ignore_duplicates=True))

    async def update(self, table: Table, values: Row, *, where: Sequence[Filter]) -> list[Row]:
        """Update rows; see the port."""
        require_filters(where)
        for name in values:
            require_name(name)
        request = self._supabase.rest.from_(require_name(table)).update(_plain(values))
        return await self._write(_narrow(request, where))

    async def delete(self, table: Table, *, where: Sequence[Filter]) -> list[Row]:
        """Delete rows; see the port."""
        require_filters(where)
        request = self._supabase.rest.from_(require_name(table)).delete()
        return await self._write(_narrow(request, where))

    async def listen(self, channel: str, callback: Callable[[str], None]) -> bool:
        """Call back for every NOTIFY, where a connection to Postgres is configured besides the API."""
        if self._listener is None:
            return False
        self._listener.listen(channel, callback)
        return True

    async def close(self) -> None:
        """Send no more calls; the connections are ``supabase``'s. Closing twice is fine."""
        self._closed = True
        if self._listener is not None:
            await self._listener.close()

    async def _answer(
        self,
        request: _Request,
        slots: asyncio.Semaphore | None = None,
        *,
        tries: int = TRIES,
    ) -> APIResponse:
        if self._closed:
            raise errors.Unavailable("The database is closed.")

        async def send() -> APIResponse:
            async with slots or self._calls:
                return await request.execute()

        return await self._supabase.call(send, timeout=self._timeout, tries=tries)

    async def _write(self, request: _Request) -> list[Row]:
        return _rows(await self._answer(request, tries=1))


class _Request(Protocol):
    """A request of postgrest's, ready to be sent; sending it again is the same request."""

    async def execute(self) -> APIResponse: ...


_Narrowed = TypeVar("_Narrowed", bound=BaseFilterRequestBuilder[Any])


def _narrow(request: _Narrowed, where: Sequence[Filter]) -> _Narrowed:
    for column, op, value in where:
        request.filter(require_name(column), *_criterion(op, value))
    return request


def _criterion(op: str, value: Json) -> tuple[str, str]:
    if op == "is_null":
        return "is", "null"
    if op == "in":
        return _one_of([_in_url(each) for each in value if each is not None])
    if value is None:
        return "in", "()"  # as in SQL, where nothing compares with null
    return _OPERATORS.get(op, op), _in_url(value)


def _one_of(values: list[str]) -> tuple[str, str]:
    """PostgREST 12 takes a list of one empty text for an empty list."""
    if len(values) == 1:
        return "eq", values[0]
    return "in", f"({','.join(map(_quoted, values))})"


def _in_url(value: Json) -> str:
    """As PostgREST reads it: text as it is, everything else as JSON.

    Raises ``DataError`` for U+0000, at which PostgREST 12 would end the text: other rows would match.
    """
    encoded = as_json(value)
    plain = orjson.loads(encoded)
    if isinstance(plain, str) and "\0" in plain:
        raise errors.DataError("text with U+0000 is none that Postgres has")
    return plain if isinstance(plain, str) else encoded.decode()


def _quoted(text: str) -> str:
    """An element of a list; postgrest leaves an empty one out, and its list would be empty."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _output(column: str) -> str:
    column_and_cast(column)  # PostgREST writes it in the same way
    return column


def _total(table: Table, order: Sequence[Order]) -> list[Order]:
    """The order, made total by the key: pages of rows that are equal in it would overlap."""
    named = {each.column for each in order}
    return [*order, *(Order(key) for key in KEYS.get(table, ()) if key not in named)]


def _argument(value: Json, sql_type: str) -> Json:
    if sql_type == "jsonb":
        return _plain(value)
    return None if value is None else str(value)


def _plain(value: Json) -> Any:
    """What JSON makes of it, exactly as on the other transport; raises ``DataError``."""
    return orjson.loads(as_json(value))


def _rows(answer: APIResponse) -> list[Row]:
    data: Any = answer.data
    if not isinstance(data, list):
        raise errors.Unavailable(_NOT_POSTGREST)
    return data


def _counted(answer: APIResponse) -> int:
    if answer.count is None:
        raise errors.Unavailable(_NOT_POSTGREST)
    return answer.count
