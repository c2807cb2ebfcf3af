"""Every database of these tests is reached through the pooler; ``direct_dsn`` leads past it."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.adapters import Adapter, OverPostgres
from tests.lifecycle.world import World
from tests.lifecycle.world import opened as opened_world
from tests.pooler.pgbouncer import PgBouncer
from tests.processes.site import Site
from tests.processes.site import opened as opened_site
from tests.servers import CleanDatabase
from uvian_worker.local.embedded import EmbeddedPostgres, EmbeddedRedis


@pytest.fixture
def pgbouncer(tmp_path: Path, postgres_server: EmbeddedPostgres) -> Iterator[PgBouncer]:
    """A pooler of this test alone."""
    with PgBouncer(tmp_path / "pgbouncer", postgres_server) as pgbouncer:
        yield pgbouncer


@pytest.fixture
def direct_dsn(database: CleanDatabase, postgres_server: EmbeddedPostgres) -> str:
    """The way past the pooler."""
    return postgres_server.dsn_for(database.name, user="uvian_migrator")


@pytest.fixture
def database(database: CleanDatabase, pgbouncer: PgBouncer) -> CleanDatabase:
    """The service comes through the pooler; the SQL editor has a session."""
    return dataclasses.replace(database, dsn=pgbouncer.dsn_for(database.name))


@pytest.fixture
def adapter(database: CleanDatabase) -> Adapter:
    """Straight to the pooler: the API is not concerned."""
    return OverPostgres(database)


@pytest.fixture
async def world(adapter: Adapter) -> AsyncIterator[World]:
    """A world behind the pooler."""
    async with opened_world(adapter) as world:
        yield world


@pytest.fixture
async def site(
    adapter: Adapter, redis_server: EmbeddedRedis, redis_url: str, tmp_path: Path
) -> AsyncIterator[Site]:
    """A site whose workers and client come through the pooler."""
    async with opened_site(adapter, redis_server, tmp_path) as site:
        yield site
