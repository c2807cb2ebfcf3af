"""``/v1/credits``: the balance of a user, and the entries of the credit ledger."""

from __future__ import annotations

__all__ = ["CreditEndpoints"]

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field

from repositories.credits import CreditRepository
from repositories.database import Database
from uvian_worker.gateway.http.operations import (
    Answer,
    Endpoints,
    Operation,
    Parameters,
    Request,
    Shown,
)
from uvian_worker.gateway.http.pagination import Page, shown_of


class Account(Shown):
    """What may still be spent, and what open jobs hold. ``version`` grows with every change."""

    balance: Decimal
    reserved: Decimal
    version: int


class Entry(Shown):
    """One entry of the credit ledger: a grant, or a reservation, charge or release of a job."""

    kind: Literal["grant", "reserve", "charge", "release"]
    amount: Decimal
    job_id: UUID | None
    reference: str | None
    created_at: datetime


class Entries(Page):
    """Some lines, the newest first."""

    items: list[Entry]


class EntriesQuery(Parameters):
    """How many, and from where."""

    limit: Annotated[int, Field(ge=1, le=100)] = 20
    cursor: Annotated[str, Field(pattern=r"^[0-9]{1,18}$")] | None = None


class CreditEndpoints(Endpoints, tag="credits"):
    """The handlers. They read the user's own account."""

    def __init__(self, database: Database) -> None:
        self._ledger = CreditRepository(database)

    @Operation("getCredits", "GET", "/v1/credits", answers={200: Account})
    async def account(self, request: Request[Any, Any, Any]) -> Answer:
        """Your balance, and what open jobs have reserved."""
        return Answer(Account.model_validate(await self._ledger.account(request.user.id)))

    @Operation(
        "listCreditEntries",
        "GET",
        "/v1/credits/entries",
        query=EntriesQuery,
        answers={200: Entries},
    )
    async def entries(self, request: Request[Any, EntriesQuery, Any]) -> Answer:
        """The entries of your credit ledger, the newest first."""
        limit, cursor = request.query.limit, request.query.cursor
        before = None if cursor is None else int(cursor)
        found = await self._ledger.entries(request.user.id, limit=limit + 1, before=before)
        shown, more = shown_of(found, limit)
        return Answer(
            Entries(
                items=[Entry.model_validate(each) for each in shown],
                next_cursor=str(shown[-1].id) if more else None,
            )
        )
