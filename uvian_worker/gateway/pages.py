"""Lists, a page at a time: the newest first, on from a cursor that stays true while rows are added."""

from __future__ import annotations

__all__ = ["Page", "PageQuery", "page_of"]

import base64
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated
from uuid import UUID

import orjson
from pydantic import BaseModel, Field

from repositories.database import Database, Filter, Order, Row, Table
from uvian_worker.gateway.operations import Parameters
from uvian_worker.gateway.problems import Problem

_ORDER = (Order("created_at", descending=True), Order("id"))


class PageQuery(Parameters):
    """How much, and from where."""

    limit: Annotated[int, Field(ge=1, le=100)] = 20
    cursor: Annotated[str, Field(max_length=200)] | None = None


class Page(BaseModel):
    """Base of lists. Ask again with ``next_cursor``; null is the end."""

    next_cursor: str | None = None


async def page_of(
    database: Database,
    table: Table,
    *,
    columns: Sequence[str],
    where: Sequence[Filter],
    query: PageQuery,
) -> tuple[list[Row], str | None]:
    """Rows by (created_at descending, id), which ``columns`` contain, and where to go on."""
    wanted = query.limit + 1  # one more tells whether there is a next page
    rows: list[Row] = []
    for place in _places(query.cursor):
        if len(rows) < wanted:
            rows += await database.select(
                table,
                columns=columns,
                where=[*where, *place],
                order=_ORDER,
                limit=wanted - len(rows),
            )
    more = len(rows) == wanted
    rows = rows[: query.limit]
    return rows, _cursor(rows[-1]) if more else None


def _places(cursor: str | None) -> list[list[Filter]]:
    """What comes after a cursor, in order: the rest of its moment, then everything older."""
    if cursor is None:
        return [[]]
    try:
        moment, id_ = orjson.loads(base64.urlsafe_b64decode(cursor.encode()))
        datetime.fromisoformat(moment)
        UUID(id_)
    except (ValueError, TypeError, AttributeError) as error:
        raise Problem(
            "invalid_input",
            errors=[{"field": "cursor", "code": "cursor", "message": "Not a cursor of ours."}],
        ) from error
    return [
        [Filter("created_at", "eq", moment), Filter("id", "gt", id_)],
        [Filter("created_at", "lt", moment)],
    ]


def _cursor(row: Row) -> str:
    return base64.urlsafe_b64encode(orjson.dumps([row["created_at"], row["id"]])).decode()
