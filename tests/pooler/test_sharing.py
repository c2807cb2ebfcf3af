"""What the pooler takes from its clients: without it the other tests here would prove nothing."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from tests.pooler.pgbouncer import SERVER_CONNECTIONS

pytestmark = pytest.mark.e2e


@contextlib.asynccontextmanager
async def _clients(dsn: str, number: int, **options: Any) -> AsyncIterator[list[Any]]:
    async with contextlib.AsyncExitStack() as stack:
        clients = []
        for _ in range(number):
            clients.append(await asyncpg.connect(dsn, **options))
            stack.push_async_callback(clients[-1].close)
        yield clients


async def test_ten_clients_share_three_servers(database_dsn: str) -> None:
    """Nobody has a connection of its own: one client's statements run on any of them."""
    async with _clients(database_dsn, 10, statement_cache_size=0) as clients:

        async def servers(client: Any) -> set[int]:
            statement = "select pg_backend_pid() from pg_sleep(0.002)"
            return {await client.fetchval(statement) for _ in range(20)}

        seen = await asyncio.gather(*map(servers, clients))
    assert len(set().union(*seen)) == SERVER_CONNECTIONS
    assert max(map(len, seen)) > 1


async def test_what_one_client_sets_another_reads(database_dsn: str) -> None:
    """A session's settings belong to whoever comes next."""
    secret = str(uuid.uuid4())
    async with _clients(database_dsn, 2, statement_cache_size=0) as (one, other):
        await one.execute(f"select set_config('uvian.left', '{secret}', false)")
        assert await other.fetchval("select current_setting('uvian.left', true)") == secret


async def test_what_a_transaction_sets_ends_with_it(database_dsn: str) -> None:
    """That is what the functions use to mark themselves."""
    async with _clients(database_dsn, 2, statement_cache_size=0) as (one, other):
        await one.execute("select set_config('uvian.within', 'x', true)")
        assert await other.fetchval("select current_setting('uvian.within', true)") in (None, "")


async def test_a_prepared_statement_is_gone_with_the_next_call(database_dsn: str) -> None:
    """asyncpg as it comes keeps statements, and calls fail: the product must not."""
    async with _clients(database_dsn, 6) as clients:

        async def ask(client: Any) -> None:
            for number in range(20):
                await client.fetchval("select $1::int from pg_sleep(0.001)", number)

        answers = await asyncio.gather(*map(ask, clients), return_exceptions=True)
    states = {getattr(answer, "sqlstate", None) for answer in answers}
    assert states & {"26000", "42P05"}  # it does not exist; it exists already


async def test_a_session_lock_excludes_nobody(database_dsn: str) -> None:
    """Two clients hold it, one after the other: only locks of a transaction exclude."""
    async with _clients(database_dsn, 2, statement_cache_size=0) as (one, other):
        statement = "select pg_try_advisory_lock(1)"
        assert await one.fetchval(statement)
        assert await other.fetchval(statement)
