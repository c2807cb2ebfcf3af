"""INSERT, UPDATE and DELETE as PostgREST writes them: the body is one json parameter."""

from __future__ import annotations

__all__ = ["delete", "insert", "update"]

from collections.abc import Mapping, Sequence
from typing import Any

from tests.supabase.catalog import Table, identifier
from tests.supabase.errors import RestError
from tests.supabase.query import Parameters, Query, split

_ROWS = "select coalesce(json_agg(_pgrst_t), '[]')::text, count(*), count(*) from written _pgrst_t"
_NOTHING = "select '[]'::text, 0::bigint, 0::bigint"


def insert(
    table: Table, query: Query, text: bytes, body: Any, prefer: Mapping[str, str]
) -> tuple[str, list[Any]]:
    """One statement for one row or many."""
    rows = body if isinstance(body, list) else [body]
    if not rows:
        return _NOTHING, []
    columns = _columns(table, query, rows)
    names = ", ".join(identifier(column) for column in columns)
    conflict = _conflict(query, prefer)
    returning = _returning(query, prefer)
    if not columns:
        source = f"insert into {table.sql} as t default values{conflict}"
        return f"with written as ({source} returning {returning}) {_ROWS}", []
    source = (
        f"insert into {table.sql} as t ({names}) {_values(table, columns)}"
        f"{conflict} returning {returning}"
    )
    return f"with written as ({source}) {_ROWS}", [text]


def update(
    table: Table, query: Query, text: bytes, body: Any, prefer: Mapping[str, str]
) -> tuple[str, list[Any]]:
    """The same values for all rows that match."""
    parameters = Parameters([text])
    columns = _columns(table, query, [body])
    where = query.where(parameters)
    if not columns:
        return _NOTHING, []
    changes = ", ".join(f"{identifier(c)} = b.{identifier(c)}" for c in columns)
    source = (
        f"update {table.sql} t set {changes} "
        f"from json_to_record($1::json) as b ({_definitions(table, columns)})"
        f"{where} returning {_returning(query, prefer)}"
    )
    return f"with written as ({source}) {_ROWS}", parameters.values


def delete(table: Table, query: Query, prefer: Mapping[str, str]) -> tuple[str, list[Any]]:
    """All rows that match."""
    parameters = Parameters()
    where = query.where(parameters)
    source = f"delete from {table.sql} t{where} returning {_returning(query, prefer)}"
    return f"with written as ({source}) {_ROWS}", parameters.values


def _columns(table: Table, query: Query, rows: Sequence[Any]) -> list[str]:
    """The columns to write: those of ``columns=``, or the keys, which all rows share."""
    if not all(isinstance(row, dict) for row in rows):
        raise RestError(400, "PGRST102", "Empty or invalid json")
    wanted = query.get("columns")
    if wanted is not None:
        names = [name.strip('"') for name in split(wanted)]
    else:
        names = list(rows[0])
        if any(row.keys() != rows[0].keys() for row in rows):
            raise RestError(400, "PGRST102", "All object keys must match")
    for name in names:
        if name not in table.columns:
            message = f"Could not find the '{name}' column of '{table.name}' in the schema cache"
            raise RestError(400, "PGRST204", message)
    return names


def _definitions(table: Table, columns: Sequence[str]) -> str:
    return ", ".join(f"{identifier(column)} {table.columns[column]}" for column in columns)


def _values(table: Table, columns: Sequence[str]) -> str:
    """The rows of the body."""
    names = ", ".join(f"b.{identifier(column)}" for column in columns)
    return (
        f"select {names} from json_array_elements(case json_typeof($1::json) "
        f"when 'array' then $1::json else json_build_array($1::json) end) as e (row), "
        f"json_to_record(e.row) as b ({_definitions(table, columns)})"
    )


def _conflict(query: Query, prefer: Mapping[str, str]) -> str:
    """Rows that exist stay as they are, where that was asked for."""
    target = query.get("on_conflict")
    if prefer.get("resolution") != "ignore-duplicates" or target is None:
        return ""
    return f" on conflict ({', '.join(identifier(name.strip(chr(34))) for name in split(target))}) do nothing"


def _returning(query: Query, prefer: Mapping[str, str]) -> str:
    return query.selection() if prefer.get("return") == "representation" else "1"
