"""Lists, a page at a time: the newest first, on from a cursor that stays true while rows are added."""

from __future__ import annotations

__all__ = ["Page", "PageCursor", "PageQuery", "bad_cursor", "page_of", "shown_of"]

import base64
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, NamedTuple, Self, TypeVar
from uuid import UUID

import orjson
from pydantic import Field

from repositories.database import Database, Filter, Order, Row, Table
from uvian_worker.gateway.http.operations import Parameters, Shown
from uvian_worker.gateway.http.problems import Problem

FoundT = TypeVar("FoundT")

_ORDER = (Order("created_at", descending=True), Order("id"))


class PageQuery(Parameters):
    """How much, and from where."""

    limit: Annotated[int, Field(ge=1, le=100)] = 20
    cursor: Annotated[str, Field(max_length=200)] | None = None


class Page(Shown):
    """Base of lists. The next page is requested with ``next_cursor``; null is the end."""

    next_cursor: str | None = None


class PageCursor(NamedTuple):
    """Where a page has ended: the row by which it did, and not how many rows there were."""

    moment: str  #: ISO 8601
    id: str

    @classmethod
    def read(cls, cursor: str) -> Self:
        """Of a cursor; raises ``Problem``."""
        try:
            moment, id_ = orjson.loads(base64.urlsafe_b64decode(cursor.encode()))
            datetime.fromisoformat(moment)
            return cls(moment, str(UUID(id_)))
        except (ValueError, TypeError, AttributeError) as error:
            raise bad_cursor() from error

    def written(self) -> str:
        """As a cursor."""
        return base64.urlsafe_b64encode(orjson.dumps(list(self))).decode()


def bad_cursor() -> Problem:
    """What a cursor is answered that we have not written."""
    return Problem(
        "invalid_input",
        errors=[{"field": "cursor", "code": "cursor", "message": "Not a cursor of ours."}],
    )


def shown_of(found: Sequence[FoundT], limit: int) -> tuple[Sequence[FoundT], bool]:
    """A page of what was found, one more than ``limit`` at most; and whether there is another page."""
    return found[:limit], len(found) > limit


async def page_of(
    database: Database,
    table: Table,
    *,
    columns: Sequence[str],
    where: Sequence[Filter],
    query: PageQuery,
) -> tuple[Sequence[Row], str | None]:
    """Rows by (created_at descending, id), which ``columns`` contain, and where to go on."""
    wanted = query.limit + 1  # one more shows whether there is a next page
    rows: list[Row] = []
    for filters in _after(query.cursor):
        if len(rows) < wanted:
            rows += await database.select(
                table,
                columns=columns,
                where=[*where, *filters],
                order=_ORDER,
                limit=wanted - len(rows),
            )
    shown, more = shown_of(rows, query.limit)
    return shown, PageCursor(shown[-1]["created_at"], shown[-1]["id"]).written() if more else None


def _after(cursor: str | None) -> list[list[Filter]]:
    """What comes after a cursor, in order: the rest of its moment, then everything older."""
    if cursor is None:
        return [[]]
    after = PageCursor.read(cursor)
    return [
        [Filter("created_at", "eq", after.moment), Filter("id", "gt", after.id)],
        [Filter("created_at", "lt", after.moment)],
    ]
