"""Credit accounts and the credit ledger."""

from __future__ import annotations

__all__ = ["Account", "CreditRepository", "Entry"]

from dataclasses import dataclass
from decimal import Decimal

from repositories.database import Database, Filter, Order


@dataclass(frozen=True, slots=True)
class Account:
    """What a user may spend and what open jobs hold."""

    user_id: str
    balance: Decimal
    reserved: Decimal
    version: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the credit ledger; ``kind`` is grant, reserve, charge or release."""

    id: int  #: what is written later is higher
    kind: str
    amount: Decimal
    job_id: str | None
    reference: str | None
    created_at: str


@dataclass(frozen=True, slots=True)
class CreditRepository:
    """Accounts of all users; a user without one has a balance of 0."""

    database: Database

    async def account(self, user_id: str) -> Account:
        """The account as it stands."""
        rows = await self.database.select(
            "credit_accounts",
            columns=("user_id", "balance::text", "reserved::text", "version"),
            where=[Filter("user_id", "eq", user_id)],
        )
        if not rows:
            return Account(user_id, Decimal(0), Decimal(0), 0)
        return _account(rows[0])

    async def entries(
        self, user_id: str, *, limit: int = 20, before: int | None = None
    ) -> list[Entry]:
        """The newest entries first; ``before`` is the id of the last one known."""
        where = [Filter("user_id", "eq", user_id)]
        if before is not None:
            where.append(Filter("id", "lt", before))
        rows = await self.database.select(
            "credit_entries",
            columns=("id", "kind", "amount::text", "job_id", "reference", "created_at"),
            where=where,
            order=[Order("id", descending=True)],
            limit=limit,
        )
        return [Entry(**{**row, "amount": Decimal(row["amount"])}) for row in rows]

    async def grant(self, user_id: str, amount: Decimal, reference: str) -> Account:
        """Add credits; the same reference adds once. Raises ``Refused`` for an amount of 0 or less."""
        answer = await self.database.call(
            "grant_credits", user_id=user_id, amount=str(amount), reference=reference
        )
        return _account(answer)


def _account(row: dict[str, str]) -> Account:
    return Account(
        row["user_id"], Decimal(row["balance"]), Decimal(row["reserved"]), int(row["version"])
    )
