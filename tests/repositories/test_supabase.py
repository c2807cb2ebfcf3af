"""The adapter over PostgREST: the contract, then every way in which the platform answers otherwise."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from repositories.supabase import SupabaseDatabase
from repositories.supabase_client import connect_supabase
from tests.contracts.database import DatabaseContract
from tests.supabase.platform import Platform


async def new_user(superuser_dsn: str) -> str:
    """The id of a row in ``auth.users``."""
    connection = await asyncpg.connect(superuser_dsn)
    try:
        return str(await connection.fetchval("insert into auth.users default values returning id"))
    finally:
        await connection.close()


@pytest.mark.database
class TestSupabaseDatabase(DatabaseContract):
    """It keeps the promises of the port, with a key of either kind."""

    @pytest.fixture(params=["secret_key", "service_key"])
    async def port(
        self, platform: Platform, request: pytest.FixtureRequest
    ) -> AsyncIterator[SupabaseDatabase]:
        supabase = connect_supabase(platform.url, getattr(platform, request.param))
        port = await SupabaseDatabase.connect(supabase)
        yield port
        await port.close()
        await supabase.close()

    @pytest.fixture
    async def user(self, superuser_dsn: str) -> str:
        return await new_user(superuser_dsn)
