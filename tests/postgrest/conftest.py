"""The same database and the same project as elsewhere, on PostgreSQL 17 and behind a real PostgREST."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.postgrest.process import POSTGRES_17, PostgRest, RealRest
from tests.servers import CleanDatabase, Clones
from tests.supabase.keys import Keys
from tests.supabase.platform import Platform
from uvian_worker.local.embedded import EmbeddedPostgres


@pytest.fixture(scope="session")
def postgres_server(_servers: Path) -> Iterator[EmbeddedPostgres]:
    """PostgreSQL 17, which new projects of Supabase have, with ``jit`` on as there."""
    if not POSTGRES_17.exists():
        pytest.fail("These tests need PostgreSQL 17: make e2e", pytrace=False)
    folder = _servers / "postgres-17"
    with EmbeddedPostgres(folder, durable=False, binaries=POSTGRES_17) as server:
        asyncio.run(_execute(server.dsn, "alter role all set jit = on"))
        yield server


@pytest.fixture(scope="session")
def clones(postgres_server: EmbeddedPostgres) -> Iterator[Clones]:
    """Databases of that server."""
    clones = Clones(postgres_server)
    yield clones
    clones.close()


@pytest.fixture(scope="session")
def database_template(clones: Clones) -> Clones:
    """Migrated there."""
    clones.prepare()
    return clones


@pytest.fixture
def platform(database: CleanDatabase, tmp_path: Path) -> Iterator[Platform]:
    """A project whose PostgREST is the real one; gateway and Storage are the double's."""
    keys = Keys("realprojectreference")
    with (
        PostgRest(tmp_path / "postgrest", database.authenticator_dsn, keys) as server,
        Platform(
            database.authenticator_dsn, tmp_path / "storage", keys=keys, rest=RealRest(server)
        ) as platform,
    ):
        yield platform


async def _execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
