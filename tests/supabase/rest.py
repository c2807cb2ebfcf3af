"""The PostgREST half: ``/rest/v1/<table>`` and ``/rest/v1/rpc/<function>``."""

from __future__ import annotations

__all__ = ["Rest"]

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Never
from urllib.parse import parse_qsl, unquote

import orjson
from aiohttp import web

from tests.supabase import calls, mutations
from tests.supabase.catalog import Catalog, Table
from tests.supabase.errors import RestError, translated
from tests.supabase.keys import Caller, Keys
from tests.supabase.pool import Pool
from tests.supabase.query import Parameters, Query
from tests.supabase.schema_cache import SchemaCache
from tests.supabase.wire import Step

_JSON: Final = "application/json; charset=utf-8"
_EXTRA_SEARCH_PATH: Final = '"public", "extensions"'
#: What may only mean that the cache is older than the last migration.
_STALE: Final = {"PGRST202", "PGRST204", "PGRST205", "42883", "42P01", "42703"}


@dataclass(frozen=True, slots=True)
class Statement:
    """What to run, and how its one row (body, rows, total) becomes an answer."""

    sql: str
    values: Sequence[Any]
    status: int = 200
    has_body: bool = True
    offset: int = 0
    is_rows: bool = True


@dataclass(frozen=True, slots=True)
class Request:
    """One request, as far as PostgREST looks at it."""

    method: str
    path: str
    query: str
    headers: Any
    body: bytes
    prefer: dict[str, str]
    schema: str

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The query string, without the key that the gateway may have found there."""
        if not self.query:
            return []
        pairs = parse_qsl(self.query, keep_blank_values=True)
        return [(name, value) for name, value in pairs if name != "apikey"]

    def json(self) -> Any:
        """The body; raises PGRST102."""
        try:
            return orjson.loads(self.document)
        except ValueError:
            with contextlib.suppress(ValueError):
                # Lone surrogates are for Postgres to judge; NaN is for nobody.
                return json.loads(self.document, parse_constant=_refuse)
        raise RestError(400, "PGRST102", "Empty or invalid json")

    @property
    def document(self) -> bytes:
        """The body as Postgres gets it."""
        return self.body or b"{}"


class Rest:
    """Answers requests of callers, as PostgREST 14 does."""

    def __init__(
        self, dsn: str, keys: Keys, *, schemas: Sequence[str], max_rows: int, pool: Pool
    ) -> None:
        self._keys = keys
        self._schemas = schemas
        self._max_rows = max_rows
        self._pool = pool
        self._cache = SchemaCache(dsn, pool, schemas)

    def start(self) -> None:
        """Read the catalog, now or as soon as Postgres is there."""
        self._cache.start()

    async def stop(self) -> None:
        """Close the connections."""
        await self._cache.stop()
        self._pool.close()

    async def answer(self, request: web.BaseRequest, token: str | None) -> web.Response:
        """One answer; every error is one."""
        role = "anon"
        try:
            caller = self._keys.caller(token) if token else Caller.of({"role": "anon"})
            role = caller.role
            return await self._answer(request, caller)
        except Exception as error:
            answer = translated(error, role=role)
            if answer is None:
                raise
            if answer.status == 503 and answer.code != "PGRST002":
                self._cache.lose()
            return _error(answer)

    async def _answer(self, incoming: web.BaseRequest, caller: Caller) -> web.Response:
        catalog = await self._cache.current()
        request = await self._request(incoming)
        try:
            return await self._execute(request, caller, catalog)
        except Exception as error:
            answer = translated(error, role=caller.role)
            if answer is None or answer.code not in _STALE:
                raise
        return await self._execute(request, caller, await self._cache.reload())

    async def _request(self, incoming: web.BaseRequest) -> Request:
        reads = incoming.method == "GET"
        profile = incoming.headers.get("Accept-Profile" if reads else "Content-Profile")
        schema = profile or self._schemas[0]
        if schema not in self._schemas:
            hint = f"Only the following schemas are exposed: {', '.join(self._schemas)}"
            raise RestError(406, "PGRST106", f"Invalid schema: {schema}", None, hint)
        return Request(
            method=incoming.method,
            path=unquote(incoming.rel_url.raw_path.removeprefix("/rest/v1")),
            query=incoming.rel_url.raw_query_string,
            headers=incoming.headers,
            body=b"" if reads else await incoming.read(),
            prefer=_preferences(incoming.headers.getall("Prefer", ())),
            schema=schema,
        )

    async def _execute(self, request: Request, caller: Caller, catalog: Catalog) -> web.Response:
        statement = self._statement(request, catalog)
        rows = await self._pool.transact(
            _prelude(request, caller, catalog),
            Step(statement.sql, statement.values),
            read_only=request.method == "GET",
        )
        body, count, total = rows[0]
        return _response(
            request, statement, body or b"", int(count or 0), None if total is None else int(total)
        )

    def _statement(self, request: Request, catalog: Catalog) -> Statement:
        first, _, rest = request.path.strip("/").partition("/")
        if first == "rpc" and request.method == "POST":
            return _call(request, catalog, rest)
        table = catalog.tables.get((request.schema, first))
        if table is None:
            message = f"Could not find the table '{request.schema}.{first}' in the schema cache"
            raise RestError(404, "PGRST205", message)
        return self._of_table(request, table)

    def _of_table(self, request: Request, table: Table) -> Statement:
        query = Query(request.pairs)
        match request.method:
            case "GET":
                return self._select(request, table, query)
            case "POST":
                representation = request.prefer.get("return") == "representation"
                sql, values = mutations.insert(
                    table, query, request.document, request.json(), request.prefer
                )
                return Statement(sql, values, 201, representation)
            case "PATCH":
                sql, values = mutations.update(
                    table, query, request.document, request.json(), request.prefer
                )
            case "DELETE":
                sql, values = mutations.delete(table, query, request.prefer)
            case _:
                message = f"Unsupported HTTP method: {request.method}"
                raise RestError(405, "PGRST117", message)
        representation = request.prefer.get("return") == "representation"
        return Statement(sql, values, 200 if representation else 204, representation)

    def _select(self, request: Request, table: Table, query: Query) -> Statement:
        parameters = Parameters()
        selection, where = query.selection(), query.where(parameters)
        offset, limit = query.window(self._max_rows)
        total = "null::bigint"
        if "count" in request.prefer:
            total = f"(select count(*) from {table.sql} t{where})"
        sql = (
            f"select coalesce(json_agg(_pgrst_t), '[]')::text, count(*), {total} from "
            f"(select {selection} from {table.sql} t{where}{query.order()} "
            f"limit {parameters.add(limit)} offset {parameters.add(offset)}) _pgrst_t"
        )
        return Statement(sql, parameters.values, offset=offset)


def _call(request: Request, catalog: Catalog, name: str) -> Statement:
    routine, sql, values = calls.call(
        catalog, request.schema, name, request.json(), request.document
    )
    is_void = routine.returns == "void"
    return Statement(sql, values, 204 if is_void else 200, not is_void, is_rows=False)


def _refuse(constant: str) -> Never:
    raise ValueError(f"{constant} is not JSON")


def _preferences(headers: Sequence[str]) -> dict[str, str]:
    preferences: dict[str, str] = {}
    for item in ",".join(headers).split(","):
        name, equals, value = item.strip().partition("=")
        if equals:
            preferences.setdefault(name, value)
    return preferences


def _prelude(request: Request, caller: Caller, catalog: Catalog) -> Step:
    """What PostgREST does before the statement: whose transaction it is, and in which schema."""
    settings: dict[str, str | bytes] = {
        "search_path": f'"{request.schema}", {_EXTRA_SEARCH_PATH}',
        "role": caller.role,
        "request.jwt.claims": caller.claims_json,
        "request.method": request.method,
        "request.path": request.path,
        "request.headers": orjson.dumps({k.lower(): v for k, v in request.headers.items()}),
        **catalog.settings.get(caller.role, {}),
    }
    calls = [f"set_config(${n}, ${n + 1}, true)" for n in range(1, 2 * len(settings), 2)]
    return Step("select " + ", ".join(calls), [text for pair in settings.items() for text in pair])


def _response(
    request: Request, statement: Statement, body: bytes, count: int, total: int | None
) -> web.Response:
    status = statement.status
    headers = {"Content-Profile": request.schema}
    if statement.is_rows:
        last = statement.offset + count - 1
        of = "*" if total is None else total
        headers["Content-Range"] = f"{statement.offset}-{last}/{of}" if count else f"*/{of}"
        if total is not None and request.method == "GET":
            if statement.offset and statement.offset >= total:
                details = f"An offset of {statement.offset} was requested, but there are only {total} rows."
                raise RestError(416, "PGRST103", "Requested range not satisfiable", details)
            status = 206 if count < total else 200
    if not statement.has_body:
        return web.Response(status=status, headers=headers)
    return web.Response(status=status, headers={**headers, "Content-Type": _JSON}, body=body)


def _error(error: RestError) -> web.Response:
    headers = {"Content-Type": _JSON, "Proxy-Status": f"PostgREST; error={error.code}"}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return web.Response(status=error.status, headers=headers, body=orjson.dumps(error.body))
