"""What clients are told while Postgres stops, crashes and comes back, or has no connection left."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from storage3.exceptions import StorageApiError

from tests.servers import POSTGRES_BINARIES
from tests.supabase.asking import response
from tests.supabase.conftest import Connect
from tests.supabase.platform import Platform
from uvian_worker.local.embedded import EmbeddedPostgres
from uvian_worker.schema.migrate import bootstrap, migrate

pytestmark = pytest.mark.database

_DOZE = """
create function public.doze(seconds double precision) returns int language plpgsql
  as $$ begin perform pg_sleep(seconds); return 1; end $$
"""


@pytest.fixture(scope="module")
def own_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A real one that tests may stop and kill."""

    async def prepare(server: EmbeddedPostgres) -> None:
        await bootstrap(server.dsn)
        await migrate(server.migrator_dsn)
        connection = await asyncpg.connect(server.dsn)
        await connection.execute(_DOZE)
        await connection.close()

    folder = tmp_path_factory.mktemp("postgres")
    with EmbeddedPostgres(folder, durable=False, binaries=POSTGRES_BINARIES) as server:
        asyncio.run(prepare(server))
        yield server


@pytest.fixture
def postgres(own_postgres: EmbeddedPostgres) -> EmbeddedPostgres:
    """It runs, whatever the test before has done to it."""
    return own_postgres.start()


@pytest.fixture
def platform(postgres: EmbeddedPostgres, tmp_path: Path) -> Iterator[Platform]:
    """A platform on ``postgres``."""
    dsn = postgres.dsn_for(user="authenticator")
    with Platform(dsn, tmp_path, pool_size=3, acquisition_timeout=0.3) as platform:
        yield platform


async def told(platform: Platform) -> tuple[int, str]:
    """Status and code of a small call; ``""`` for success."""
    body: dict[str, Any] = {"type": "generation", "input": {}}
    headers = {"Content-Profile": "uvian"}
    answer = await response(
        platform, "POST", "/rest/v1/rpc/calculate_cost", headers=headers, json=body
    )
    document = answer.json()
    return answer.status_code, document["code"] if answer.is_error else ""


async def doze(platform: Platform, seconds: float = 0.2) -> httpx.Response:
    """A call that takes a while."""
    return await response(platform, "POST", "/rest/v1/rpc/doze", json={"seconds": seconds})


async def until_back(platform: Platform) -> list[tuple[int, str]]:
    """Ask until it works; what was told before."""
    before = []
    async with asyncio.timeout(60):
        while (now := await told(platform)) != (200, ""):
            before.append(now)
            await asyncio.sleep(0.02)
    return before


async def backends(postgres: EmbeddedPostgres, condition: str) -> list[int]:
    """Process ids of PostgREST's backends."""
    connection = await asyncpg.connect(postgres.dsn)
    try:
        rows = await connection.fetch(
            f"select pid from pg_stat_activity where application_name = 'PostgREST 14' and {condition}"
        )
        return [row["pid"] for row in rows]
    finally:
        await connection.close()


async def dozing(postgres: EmbeddedPostgres) -> int:
    """The process id of the backend that executes ``doze``."""
    async with asyncio.timeout(60):
        while not (found := await backends(postgres, "wait_event = 'PgSleep'")):
            await asyncio.sleep(0.02)
    return found[0]


async def test_postgres_stopping_is_503_57p01_then_pgrst002(
    platform: Platform, postgres: EmbeddedPostgres
) -> None:
    """The pooled connection tells the server's last words, and then there is no schema cache."""
    assert await told(platform) == (200, "")
    postgres.stop()
    assert await told(platform) == (503, "57P01")
    for _ in range(3):
        assert await told(platform) == (503, "PGRST002")
    postgres.start()
    assert set(await until_back(platform)) <= {(503, "PGRST002")}


async def test_a_crash_is_an_empty_400_once_per_pooled_connection(
    platform: Platform, postgres: EmbeddedPostgres
) -> None:
    """A transient fault that looks permanent: HTTP 400 with an empty code and message."""
    await asyncio.gather(*(doze(platform) for _ in range(3)))
    postgres.restart("immediate")
    assert [await told(platform) for _ in range(4)] == [(400, "")] * 3 + [(200, "")]


async def test_the_body_of_the_empty_400(platform: Platform, postgres: EmbeddedPostgres) -> None:
    """Nothing in it says that it may be tried again."""
    await doze(platform)
    postgres.restart("immediate")
    answer = await doze(platform)
    assert answer.status_code == 400
    assert answer.json() == {"code": "", "message": "", "details": None, "hint": None}


async def test_postgres_out_of_reach_is_503_pgrst000(
    platform: Platform, postgres: EmbeddedPostgres
) -> None:
    """When the pool needs one more connection than it has, and gets none."""
    await told(platform)
    busy = asyncio.create_task(doze(platform, 30))
    await dozing(postgres)
    socket = postgres.socket_folder / ".s.PGSQL.5432"
    hidden = socket.with_name("hidden")
    socket.rename(hidden)
    assert await told(platform) == (503, "PGRST000")
    assert await told(platform) == (503, "PGRST002")
    hidden.rename(socket)
    assert set(await until_back(platform)) <= {(503, "PGRST002")}
    os.kill(await dozing(postgres), signal.SIGTERM)
    assert (await busy).status_code == 503
    await until_back(platform)


async def test_a_killed_backend_is_503_pgrst001(
    platform: Platform, postgres: EmbeddedPostgres
) -> None:
    """Its connection ends in the middle of a call."""
    call = asyncio.create_task(doze(platform, 30))
    os.kill(await dozing(postgres), signal.SIGKILL)
    answer = await call
    assert (answer.status_code, answer.json()["code"]) == (503, "PGRST001")
    await until_back(platform)


async def test_a_terminated_backend_is_503_57p01(
    platform: Platform, postgres: EmbeddedPostgres
) -> None:
    """In the middle of a call, and with the next one when it had been idle."""
    call = asyncio.create_task(doze(platform, 30))
    os.kill(await dozing(postgres), signal.SIGTERM)
    answer = await call
    assert (answer.status_code, answer.json()["code"]) == (503, "57P01")
    await until_back(platform)
    for pid in await backends(postgres, "state = 'idle'"):
        os.kill(pid, signal.SIGTERM)
    async with asyncio.timeout(60):
        while await backends(postgres, "true"):
            await asyncio.sleep(0.02)
    assert await told(platform) == (503, "57P01")
    await until_back(platform)


async def test_an_exhausted_pool_waits_then_504_pgrst003(
    platform: Platform, postgres: EmbeddedPostgres
) -> None:
    """Calls wait for a connection, and give up."""
    await told(platform)
    short = await asyncio.gather(*(doze(platform, 0.05) for _ in range(6)))
    assert {answer.status_code for answer in short} == {200}
    calls = [asyncio.create_task(doze(platform, 3)) for _ in range(3)]
    await dozing(postgres)
    async with asyncio.timeout(60):
        while await told(platform) != (504, "PGRST003"):
            await asyncio.sleep(0.02)
    assert {answer.status_code for answer in await asyncio.gather(*calls)} == {200}
    assert await told(platform) == (200, "")


async def test_a_platform_may_be_there_first(tmp_path: Path, postgres: EmbeddedPostgres) -> None:
    """Started without Postgres it answers 503 PGRST002 until there is one."""
    postgres.stop()
    with Platform(postgres.dsn_for(user="authenticator"), tmp_path) as platform:
        assert await told(platform) == (503, "PGRST002")
        postgres.start()
        assert set(await until_back(platform)) == {(503, "PGRST002")}


async def test_storage_without_postgres_is_a_500(
    platform: Platform, postgres: EmbeddedPostgres, connect: Connect
) -> None:
    """And works again when it is back."""
    files = connect().storage.from_("uvian-images")
    await files.upload("a.png", b"1", {"content-type": "image/png"})
    postgres.stop()
    with pytest.raises(StorageApiError) as caught:
        await files.download("a.png")
    assert str(caught.value.status) == "500"
    postgres.start()

    async def downloaded() -> bytes:
        try:
            return bytes(await files.download("a.png"))
        except StorageApiError:
            return b""

    async with asyncio.timeout(60):
        while await downloaded() != b"1":
            await asyncio.sleep(0.02)


async def test_stopping_cuts_what_is_in_flight(
    platform: Platform, postgres: EmbeddedPostgres
) -> None:
    """And leaves no connection to Postgres behind; the same address comes back."""
    address = platform.url
    call = asyncio.create_task(doze(platform, 30))
    await dozing(postgres)
    await asyncio.to_thread(platform.stop)
    with pytest.raises(httpx.RemoteProtocolError):
        await call
    with pytest.raises(httpx.ConnectError):
        await told(platform)
    async with asyncio.timeout(60):
        while await backends(postgres, "state <> 'active'"):
            await asyncio.sleep(0.02)
    await asyncio.to_thread(platform.start)
    assert platform.url == address
    assert await told(platform) == (200, "")
