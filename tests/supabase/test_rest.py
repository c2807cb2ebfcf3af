"""The PostgREST half of the double keeps the contract of PostgREST."""

from __future__ import annotations

import asyncpg
import pytest
from supabase import AsyncClient

from tests.contracts.rest import RestCalls, RestRows
from tests.supabase.asking import answered, refused

pytestmark = pytest.mark.database


class TestRows(RestRows):
    """Tables."""


class TestCalls(RestCalls):
    """Functions."""


async def test_a_new_function_is_found(service: AsyncClient, sandbox: asyncpg.Connection) -> None:
    """The schema cache is read again for what it does not know: tests make tables when they need them."""
    assert (await refused(service.rpc("later", {}))).code == "PGRST202"
    await sandbox.execute("create function public.later() returns int language sql as 'select 1'")
    assert await answered(service.rpc("later", {})) == 1
    await sandbox.execute("drop function public.later()")
    assert (await refused(service.rpc("later", {}))).code == "PGRST202"
