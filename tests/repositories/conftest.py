"""The adapter over a project's API, and hands beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from repositories.supabase import SupabaseDatabase, connect_supabase
from tests.servers import CleanDatabase
from tests.supabase.platform import Platform


@pytest.fixture
async def service(platform: Platform) -> AsyncIterator[SupabaseDatabase]:
    """The adapter on a migrated database without rows."""
    supabase = connect_supabase(platform.url, platform.secret_key)
    service = await SupabaseDatabase.connect(supabase)
    yield service
    await service.close()
    await supabase.close()


@pytest.fixture
async def hand(database: CleanDatabase) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A superuser with a connection of its own."""
    connection = await asyncpg.connect(database.superuser_dsn)
    yield connection
    await connection.close()


@pytest.fixture
async def user(superuser_dsn: str) -> str:
    """A user who exists."""
    connection = await asyncpg.connect(superuser_dsn)
    try:
        return str(await connection.fetchval("insert into auth.users default values returning id"))
    finally:
        await connection.close()
