"""The newest migration runs while workers of the schema before it are busy."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from repositories.errors import TimedOut
from tests.adapters import OverPostgres
from tests.lifecycle.invariants import broken
from tests.lifecycle.test_storm import Worker
from tests.lifecycle.world import World, opened
from tests.migrations.supabase_cli import SupabaseCli
from tests.servers import CleanDatabase
from uvian_worker.schema import migrate as migrate_module
from uvian_worker.schema.export import export
from uvian_worker.schema.history import LOCK_TIMEOUT, load
from uvian_worker.schema.migrate import migrate, status

pytestmark = pytest.mark.database

RELEASE = load()
PATIENCE = 60.0  #: seconds until a test gives up; nothing waits this long when it works

#: What a later release may well bring: files that widen the busiest tables, one table each.
WIDER = {
    "9000_jobs": """-- min_code: 0.1.0
alter table uvian.jobs add column colour text check (colour <> '');
create index jobs_by_colour on uvian.jobs (colour) where colour is not null;
""",
    "9001_state": """-- min_code: 0.1.0
alter table uvian.job_state add column shade text;
""",
    "9002_leases": """-- min_code: 0.1.0
alter table uvian.job_leases add column tone text;
""",
}


class Load:
    """Workers that create, claim, renew, cancel, sweep and settle until they are told to stop."""

    def __init__(self, workers: list[Worker]) -> None:
        self.workers = workers
        self.known: list[dict[str, Any]] = []
        self._over = asyncio.Event()
        self._running = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for worker in self.workers:
                tasks.create_task(self._work(worker))

    async def _work(self, worker: Worker) -> None:
        while not self._over.is_set():
            await worker.rounds(1, self.known)

    async def grown_by(self, jobs: int) -> None:
        """Return once so many more jobs were made; at once when the load has failed."""
        target = len(self.known) + jobs
        async with asyncio.timeout(PATIENCE):
            while len(self.known) < target and not self._running.done():
                await asyncio.sleep(0.02)

    async def end(self) -> None:
        """Let everyone finish the round they are in; raises what a batcher would not have repeated."""
        self._over.set()
        await self._running

    @property
    def faults(self) -> list[str]:
        """What was repeated."""
        return [fault for worker in self.workers for fault in worker.transient]


@asynccontextmanager
async def busy(world: World) -> AsyncIterator[Load]:
    """Five workers at full speed; on leaving they have finished, without an error."""
    await world.type("paid", price=1)
    await world.type("limited", price=2, max_running_per_user=3)
    users = [await world.user(1_000_000) for _ in range(4)]
    conversations = [await world.conversation(*users[n:], *users[:n]) for n in range(4)]
    async with AsyncExitStack() as stack:
        databases = [await stack.enter_async_context(world.adapter.database()) for _ in range(5)]
        load = Load(
            [Worker(f"w{n}", each, users, conversations, n) for n, each in enumerate(databases)]
        )
        try:
            await load.grown_by(60)
            yield load
            await load.grown_by(60)
        finally:
            await load.end()


async def by_migrate(database: CleanDatabase, directory: Path, _: Path) -> None:
    """The one route."""
    await migrate(database.dsn, directory=directory)


async def by_cli(database: CleanDatabase, directory: Path, folder: Path) -> None:
    """The other; files that are applied already do nothing."""
    export(folder, directory=directory)
    await SupabaseCli(database.dsn, folder).push()


async def patiently(attempt: Callable[[], Any]) -> list[float]:
    """Try until it is through, as its message says; how long each attempt took."""
    took: list[float] = []
    while True:
        began = time.monotonic()
        try:
            await attempt()
        except (TimedOut, asyncpg.LockNotAvailableError):
            took.append(time.monotonic() - began)
            assert len(took) < 20, "never a quiet moment"
        else:
            return [*took, time.monotonic() - began]


@pytest.fixture
def wider(release: Callable[[int], Path]) -> Path:
    """This release and migrations on top, which change tables in use."""
    folder = release(len(RELEASE))
    for label, sql in WIDER.items():
        (folder / f"{label}.sql").write_text(sql)
    return folder


@pytest.mark.parametrize("route", [by_migrate, by_cli])
@pytest.mark.parametrize("which", ["newest", "wider"])
async def test_workers_of_the_schema_before_do_not_notice(
    plain: CleanDatabase,
    folder: Path,
    release: Callable[[int], Path],
    request: pytest.FixtureRequest,
    route: Callable[[CleanDatabase, Path, Path], Any],
    which: str,
) -> None:
    """No call fails but with what batchers repeat, nothing deadlocks, no lock is waited for longer than
    the rule says, and every row is as it must be, before and after.
    """
    count = len(RELEASE) - (which == "newest")
    await migrate(plain.dsn, directory=release(count))
    directory = release(len(RELEASE)) if which == "newest" else request.getfixturevalue("wider")
    pending = (await status(plain.dsn, directory=directory)).pending
    assert len(pending) == (1 if which == "newest" else len(WIDER))
    async with opened(OverPostgres(plain)) as world:
        await world.hand.execute(f"alter database {plain.name} set deadlock_timeout = '50ms'")
        async with busy(world) as load_:
            took = await patiently(lambda: route(plain, directory, folder))
        assert (await status(plain.dsn, directory=directory)).pending == ()
        assert await broken(world) == {}
        assert [fault for fault in load_.faults if "deadlock" in fault] == []
        deadlocks = "select deadlocks from pg_stat_database where datname = current_database()"
        assert await world.hand.fetchval(deadlocks) == 0
    allowed = float(LOCK_TIMEOUT.removesuffix("s")) * sum(each.sql.count(";") for each in pending)
    assert max(took) < allowed, "no statement waits for longer"


async def test_behind_a_report_that_never_ends_work_goes_on(
    plain: CleanDatabase,
    release: Callable[[int], Path],
    wider: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever asks for a table after a migration waits behind it: it gives up, and they go on."""
    monkeypatch.setattr(migrate_module, "LOCK_TIMEOUT", "100ms")
    await migrate(plain.dsn)
    async with opened(OverPostgres(plain)) as world:
        async with busy(world) as load_:
            report = await asyncpg.connect(plain.dsn)
            async with report.transaction():
                await report.fetch("select count(*) from uvian.jobs")
                with pytest.raises(TimedOut, match="9000_jobs was rolled back"):
                    await migrate(plain.dsn, directory=wider)
                await load_.grown_by(60)
            await report.close()
            await patiently(lambda: migrate(plain.dsn, directory=wider))
        assert await broken(world) == {}
