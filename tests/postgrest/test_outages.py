"""What our adapter makes of a real PostgREST whose Postgres stops, crashes, or that is killed itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from repositories import errors
from repositories.supabase import SupabaseDatabase, connect_supabase
from tests.postgrest.process import POSTGRES_17, PostgRest, RealRest
from tests.supabase.keys import Keys
from tests.supabase.platform import Platform
from uvian_worker.local.embedded import EmbeddedPostgres
from uvian_worker.schema.migrate import bootstrap, migrate

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """One that tests may stop and kill."""

    async def prepare(server: EmbeddedPostgres) -> None:
        await bootstrap(server.dsn)
        await migrate(server.migrator_dsn)

    folder = tmp_path_factory.mktemp("postgres")
    with EmbeddedPostgres(folder, durable=False, binaries=POSTGRES_17) as server:
        asyncio.run(prepare(server))
        yield server


@pytest.fixture
def rest(postgres: EmbeddedPostgres, tmp_path: Path) -> Iterator[PostgRest]:
    """A PostgREST that tests may kill."""
    keys = Keys("realprojectreference")
    dsn = postgres.start().dsn_for(user="authenticator")
    with PostgRest(tmp_path / "postgrest", dsn, keys) as server:
        yield server


@pytest.fixture
async def service(
    rest: PostgRest, postgres: EmbeddedPostgres, tmp_path: Path
) -> AsyncIterator[SupabaseDatabase]:
    """The adapter, which gives up after a second."""
    dsn = postgres.dsn_for(user="authenticator")
    with Platform(dsn, tmp_path / "storage", keys=rest.keys, rest=RealRest(rest)) as platform:
        supabase = connect_supabase(platform.url, platform.secret_key)
        service = await SupabaseDatabase.connect(supabase, timeout=1)
        yield service
        await service.close()
        await supabase.close()


async def _ask(service: SupabaseDatabase) -> None:
    answer = await service.call("renew_leases", request={"worker": "w", "jobs": []})
    assert answer == {"lost": [], "cancel": []}


@pytest.mark.parametrize("way", ["fast", "immediate", "postgrest"])
async def test_an_outage_is_transient_from_its_first_to_its_last_call(
    service: SupabaseDatabase, postgres: EmbeddedPostgres, rest: PostgRest, way: str
) -> None:
    """Whatever PostgREST says of it: nothing else is heard, and once it is over calls are answered."""
    await _ask(service)
    if way == "postgrest":
        await asyncio.to_thread(rest.kill)
    else:
        await asyncio.to_thread(postgres.stop, "fast" if way == "fast" else "immediate")
    heard_meanwhile = await _heard(service, calls=2)
    await asyncio.to_thread((rest if way == "postgrest" else postgres).start)
    heard = heard_meanwhile + await _until_answered(service)
    assert heard
    assert all(isinstance(error, errors.Transient) for error in heard), heard


async def _heard(service: SupabaseDatabase, calls: int) -> list[Exception]:
    heard: list[Exception] = []
    for _ in range(calls):
        try:
            await _ask(service)
        except errors.RepositoryError as error:
            heard.append(error)
    return heard


async def _until_answered(service: SupabaseDatabase) -> list[Exception]:
    heard: list[Exception] = []
    async with asyncio.timeout(60):
        while said := await _heard(service, calls=1):
            heard += said
    return heard
