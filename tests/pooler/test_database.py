"""The port and the functions behind the pooler keep every promise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from repositories.errors import Misconfigured, Transient
from repositories.postgres import PostgresDatabase
from tests.contracts.database import DatabaseContract
from tests.lifecycle.test_storm import (  # noqa: F401 - collected here once more
    test_a_storm_of_everything_ends_with_everything_ended,
    test_hands_in_the_storm_are_the_ones_who_wait,
)
from tests.lifecycle.world import World
from tests.pooler.pgbouncer import PgBouncer
from uvian_worker.schema.migrate import bootstrap, migrate, status

pytestmark = pytest.mark.e2e


class TestPooledDatabase(DatabaseContract):
    """The contract, with a session for LISTEN beside the pooler."""

    @pytest.fixture
    async def port(self, database_dsn: str, direct_dsn: str) -> AsyncIterator[PostgresDatabase]:
        port = await PostgresDatabase.connect(database_dsn, listen_dsn=direct_dsn)
        yield port
        await port.close()

    @pytest.fixture
    async def user(self, world: World) -> str:
        return await world.user()


async def test_one_sweep_excludes_another(world: World) -> None:
    """The lock lives as long as its transaction, whichever connections the two are given."""
    holder = await asyncpg.connect(world.clean.dsn, statement_cache_size=0)
    try:
        async with holder.transaction():
            assert (await _sweep(holder))["swept"]
            assert not (await world.sweep())["swept"]
        assert (await world.sweep())["swept"]
    finally:
        await holder.close()


async def _sweep(connection: asyncpg.Connection[object]) -> dict[str, object]:
    from orjson import loads

    return dict(loads(await connection.fetchval("select uvian.sweep_jobs('{}')::text")))


async def test_what_reads_the_ledger_needs_no_session_and_what_writes_it_does(
    database_dsn: str,
) -> None:
    """A worker checks the schema at its start; migrations are refused before anything is touched."""
    (await status(database_dsn)).require_usable()
    for change in (migrate, bootstrap):
        with pytest.raises(Misconfigured, match="session pooler"):
            await change(database_dsn)


@pytest.mark.parametrize("how", ["killed", "in order"])
async def test_the_adapter_survives_its_pooler(
    world: World, pgbouncer: PgBouncer, how: str
) -> None:
    """While it is away every call is transient; once it is back the same adapter works."""
    user = await world.user()
    job = await world.create(user)
    if how == "killed":
        pgbouncer.kill()
    else:
        pgbouncer.stop()
    for _ in range(3):
        with pytest.raises(Transient):
            await world.create(user)
    pgbouncer.start()
    async with asyncio.timeout(20):
        while True:
            try:
                claim = await world.claim(job)
                break
            except Transient:
                continue
    assert claim["claimed"]
