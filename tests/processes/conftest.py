"""Servers of their own for tests that break them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.adapters import Adapter
from tests.processes.site import Site, opened
from tests.servers import POSTGRES_BINARIES, REDIS_BINARY, CleanDatabase, lift_limits
from uvian_worker.local.embedded import EmbeddedPostgres, EmbeddedRedis
from uvian_worker.schema.migrate import bootstrap, migrate


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    """A Redis that may be killed."""
    with EmbeddedRedis(tmp_path / "redis", binary=REDIS_BINARY) as server:
        yield server


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    """A Postgres that may be stopped, migrated. The ``site`` of such a test lives there."""
    tmp_path.chmod(0o755)
    with EmbeddedPostgres(tmp_path / "postgres", binaries=POSTGRES_BINARIES) as server:
        asyncio.run(bootstrap(server.dsn))
        asyncio.run(migrate(server.migrator_dsn))
        asyncio.run(lift_limits(server.dsn))
        yield server


@pytest.fixture
def database(request: pytest.FixtureRequest) -> CleanDatabase:
    """In the session's Postgres, or the test's own."""
    if "own_postgres" not in request.fixturenames:
        database: CleanDatabase = request.getfixturevalue("database")
        return database
    server: EmbeddedPostgres = request.getfixturevalue("own_postgres")
    authenticator = server.dsn_for(user="authenticator")
    return CleanDatabase("postgres", server.migrator_dsn, server.dsn, authenticator)


@pytest.fixture
async def site(adapter: Adapter, own_redis: EmbeddedRedis, tmp_path: Path) -> AsyncIterator[Site]:
    """Everything but workers; those a test starts are killed after it."""
    async with opened(adapter, own_redis, tmp_path) as site:
        yield site
