"""Somebody who comes through PostgREST."""

from __future__ import annotations

__all__ = ["Caller", "Connection"]

from typing import Any, TypeAlias

import asyncpg
import orjson

Connection: TypeAlias = "asyncpg.Connection[Any]"


class Caller:
    """Somebody as PostgREST lets one in."""

    def __init__(self, connection: Connection, role: str, user: str | None) -> None:
        self._connection = connection
        self._role = role
        self._claims = {"role": role} | ({"sub": user} if user else {})

    async def fetch(self, statement: str, *arguments: Any) -> list[Any]:
        """Run it, and take it back."""
        transaction = self._connection.transaction()
        await transaction.start()
        try:
            await self._connection.execute(f"set local role {self._role}")
            claims = orjson.dumps(self._claims).decode()
            await self._connection.execute(
                "select set_config('request.jwt.claims', $1, true)", claims
            )
            return list(await self._connection.fetch(statement, *arguments))
        finally:
            await transaction.rollback()
