"""Postgres as most servers have it, with ``jit`` on: nothing of a job's life is compiled first.

``set enable_seqscan = off`` adds 10,000,000,000 to the costs of a plan (up to PostgreSQL 17), which then is
compiled for 100 to 200 ms before it runs for one. The wheel's server has no compiler: the tests that measure
need one that has.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import asyncpg
import pytest

from repositories.conversations import ConversationRepository
from repositories.postgres import PostgresDatabase
from tests.plans.life import life
from tests.plans.million import Explained
from tests.servers import CleanDatabase, Clones
from uvian_worker.local.embedded import EmbeddedPostgres

_INSTALLED = Path("/usr/lib/postgresql")


@pytest.mark.database
async def test_who_changes_what_plans_cost_also_stops_the_compiler(database: CleanDatabase) -> None:
    """Of every function: the two settings stand side by side."""
    connection = await asyncpg.connect(database.dsn)
    names = await connection.fetch(
        "select p.proname, p.proconfig from pg_proc p "
        "where p.pronamespace = 'uvian'::regnamespace and p.proconfig::text like '%enable_%'"
    )
    await connection.close()
    assert len(names) > 40
    assert [name for name, settings in names if "jit=off" not in settings] == []


@pytest.fixture(scope="module")
def compiling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clones]:
    """Databases of a PostgreSQL that was built with LLVM, as the distributions' are."""
    found = sorted(_INSTALLED.glob("*/lib/llvmjit.so"))
    if not found:
        pytest.fail(
            "These tests need a PostgreSQL with LLVM: apt-get install postgresql", pytrace=False
        )
    folder = tmp_path_factory.mktemp("jit")
    folder.chmod(0o755)
    binaries = found[-1].parents[1] / "bin"
    with EmbeddedPostgres(folder / "postgres", durable=False, binaries=binaries) as server:
        clones = Clones(server)
        clones.prepare()
        yield clones
        clones.close()


@pytest.fixture
def database(request: pytest.FixtureRequest) -> Iterator[CleanDatabase]:
    """Of the compiling server where a test asks for one."""
    place = "compiling" if "compiling" in request.fixturenames else "database_template"
    clones: Clones = request.getfixturevalue(place)
    database = clones.clone()
    yield database
    clones.drop(database)


async def _settled(dsn: str) -> tuple[str, str]:
    """A user with credits, and a conversation."""
    connection = await asyncpg.connect(dsn)
    assert await connection.fetchval("show jit") == "on"
    assert await connection.fetchval("select pg_jit_available()")
    user = str(await connection.fetchval("insert into auth.users default values returning id"))
    await connection.execute("insert into uvian.job_types (type) values ('noop')")
    await connection.execute("insert into uvian.job_prices values ('noop', 0.001), ('chat', 0.001)")
    await connection.close()
    service = await PostgresDatabase.connect(dsn)
    await service.call("grant_credits", user_id=user, amount="1000", reference="r")
    conversation = (await ConversationRepository(service).create(user)).id
    await service.close()
    return user, conversation


@pytest.mark.e2e
@pytest.mark.usefixtures("compiling")
async def test_nothing_of_a_jobs_life_is_compiled(database: CleanDatabase) -> None:
    """Heard from inside, on a server that would."""
    user, conversation = await _settled(database.superuser_dsn)
    async with Explained.opened(database.superuser_dsn) as explained:
        for number in (1, 20):
            await life(explained.port, user, conversation, number)
        await explained.catch_up()
        assert len(explained.told) > 100
        assert explained.compiled() == []


@pytest.mark.e2e
@pytest.mark.usefixtures("compiling")
async def test_a_jobs_life_takes_as_long_as_without_a_compiler(database: CleanDatabase) -> None:
    """The median of ten lives, on connections of one server with and without ``jit``."""
    user, conversation = await _settled(database.superuser_dsn)
    times: dict[str, list[float]] = {"on": [], "off": []}
    services = {
        jit: await PostgresDatabase.connect(f"{database.superuser_dsn}&jit={jit}", connections=2)
        for jit in times
    }
    for _ in range(10):
        for jit, service in services.items():
            began = time.perf_counter()
            await life(service, user, conversation, 5)
            times[jit].append(time.perf_counter() - began)
    await asyncio.gather(*(service.close() for service in services.values()))
    assert median(times["on"]) < 1.5 * median(times["off"]) + 0.02, times
