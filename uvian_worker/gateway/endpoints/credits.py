"""``/v1/credits``: the balance of a user, and the entries of the credit ledger."""

from __future__ import annotations

__all__ = ["credit_operations"]

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field

from repositories.credits import CreditRepository
from repositories.database import Database
from uvian_worker.gateway.http.operations import Answer, Operation, Parameters, Request, Shown
from uvian_worker.gateway.http.pagination import Page


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


def credit_operations(database: Database) -> Sequence[Operation]:
    """The endpoints of credits."""
    ledger = CreditRepository(database)

    async def account(request: Request[Any, Any, Any]) -> Answer:
        return Answer(Account.model_validate(await ledger.account(request.user.id)))

    async def entries(request: Request[Any, EntriesQuery, Any]) -> Answer:
        limit, cursor = request.query.limit, request.query.cursor
        before = None if cursor is None else int(cursor)
        found = await ledger.entries(request.user.id, limit=limit + 1, before=before)
        shown = found[:limit]
        more = len(found) > limit
        return Answer(
            Entries(
                items=[Entry.model_validate(each) for each in shown],
                next_cursor=str(shown[-1].id) if more else None,
            )
        )

    common: Mapping[str, Any] = {"method": "GET", "tag": "credits"}
    return (
        Operation(
            id="getCredits",
            route="/v1/credits",
            summary="Your balance, and what open jobs have reserved",
            handle=account,
            answers={200: Account},
            **common,
        ),
        Operation(
            id="listCreditEntries",
            route="/v1/credits/entries",
            summary="The entries of your credit ledger, the newest first",
            handle=entries,
            query=EntriesQuery,
            answers={200: Entries},
            **common,
        ),
    )
