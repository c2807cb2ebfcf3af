"""The newest migration runs while workers of the schema before it are busy."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

import repositories
from repositories.errors import TimedOut
from tests.adapters import OverPostgres
from tests.lifecycle.invariants import broken
from tests.lifecycle.test_storm import Worker
from tests.lifecycle.world import World, opened
from tests.migrations.catalog import Dump, described, ours
from tests.migrations.dumps import busy_rows, dumped, kept, restore
from tests.migrations.supabase_cli import SupabaseCli
from tests.servers import CleanDatabase, Clones
from uvian_worker.schema import connection as connection_module
from uvian_worker.schema.export import export
from uvian_worker.schema.history import LOCK_TIMEOUT
from uvian_worker.schema.migrate import bootstrap, migrate, status

pytestmark = pytest.mark.database

PATIENCE = 60.0  #: seconds until a test gives up; nothing waits this long when it works
SQL = Path(repositories.__file__).parent / "sql"

#: What a later release may well bring: migrations that widen the busiest tables, one table each …
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

#: … a function that uses a new column, one with another argument, one that is gone, and a trigger.
CHANGED: dict[str, dict[str, str]] = {
    "functions/sweep": {
        "  perform uvian._writing(true);\n": """  perform uvian._writing(true);
  perform count(j.colour) from uvian.jobs j where j.colour = 'red';
"""
    },
    "functions/settle": {
        "_carry_out(verdicts uvian._verdict[])": (
            "_carry_out(verdicts uvian._verdict[], shade text default null)"
        ),
        "_carry_out(uvian._verdict[])": "_carry_out(uvian._verdict[], text)",
    },
    "dropped": {
        "\nnotify pgrst": """
drop function if exists uvian._carry_out(uvian._verdict[]);
drop function if exists uvian._left_over(jsonb);
notify pgrst"""
    },
    "tables/jobs": {
        "for each row when (old.status in": "for each row when (old.colour is null and old.status in"
    },
}


#: What this release had once, and calls no more: the next one drops it.
LEFT_OVER = """
create function uvian._left_over(request jsonb) returns jsonb language sql set search_path = ''
  as $$ select request $$;
alter function uvian._left_over(jsonb) owner to uvian_migrator"""


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
def wider(tmp_path: Path) -> Path:
    """A release after this one: migrations on top, and other texts of what is repeatable."""
    folder = Path(shutil.copytree(SQL, tmp_path / "wider"))
    for label, sql in WIDER.items():
        (folder / "migrations" / f"{label}.sql").write_text(sql)
    for label, changes in CHANGED.items():
        path = folder / f"{label}.sql"
        text = path.read_text(encoding="utf-8")
        for before, after in changes.items():
            assert before in text, (label, before)
            text = text.replace(before, after)
        path.write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def today(clones: Clones) -> Iterator[str]:
    """A dump of this schema with rows in it, as one is kept of every release."""
    database = clones.blank()

    async def made() -> str:
        await bootstrap(database.superuser_dsn)
        await migrate(database.dsn)
        async with opened(OverPostgres(database)) as world:
            await busy_rows(world)
        return await asyncio.to_thread(dumped, database)

    yield asyncio.run(made())
    clones.drop(database)


@pytest.mark.parametrize("route", [by_migrate, by_cli])
@pytest.mark.parametrize(
    "before", [*kept(), "today"], ids=lambda each: each if isinstance(each, str) else each.stem
)
async def test_workers_of_the_schema_before_do_not_notice(
    plain: CleanDatabase,
    new_database: Callable[[], Awaitable[CleanDatabase]],
    folder: Path,
    today: str,
    wider: Path,
    route: Callable[[CleanDatabase, Path, Path], Any],
    before: Path | str,
) -> None:
    """Every release that was dumped, and this one with the next on top: no call fails but with what a
    batcher repeats, nothing deadlocks, no lock is waited for longer than the rule says, every row is as
    it must be, before and after, and the schema is that of a fresh database.
    """
    of_a_release = isinstance(before, Path)
    dump = before.read_text(encoding="utf-8") if isinstance(before, Path) else today
    directory = SQL if of_a_release else wider
    await restore(plain, dump)
    pending = (await status(plain.dsn, directory=directory)).pending
    async with opened(OverPostgres(plain)) as world:
        if not of_a_release:
            await world.hand.execute(LEFT_OVER)
        assert await world.hand.fetchval("select count(*) from uvian.jobs") > 0
        await world.hand.execute(f"alter database {plain.name} set deadlock_timeout = '50ms'")
        async with busy(world) as load_:
            took = await patiently(lambda: route(plain, directory, folder))
        assert (await status(plain.dsn, directory=directory)).pending == ()
        assert await broken(world) == {}
        assert [fault for fault in load_.faults if "deadlock" in fault] == []
        deadlocks = "select deadlocks from pg_stat_database where datname = current_database()"
        assert await world.hand.fetchval(deadlocks) == 0
    statements = sum(each.sql.count(";") for each in pending)
    allowed = float(LOCK_TIMEOUT.removesuffix("s")) * max(statements, 1)
    assert max(took) < allowed, "no statement waits for longer"
    fresh = await new_database()
    await bootstrap(fresh.superuser_dsn)
    await migrate(fresh.dsn, directory=directory)
    assert differing(await ours(plain.superuser_dsn), await ours(fresh.superuser_dsn)) == set()


def differing(one: Dump, other: Dump) -> set[str]:
    """Names of objects. What the types of jobs are is the operator's by then; the policy of the platform's
    table was not dumped; and pg_dump leaves an owner's rights to a sequence unsaid.
    """
    objects, others = described(one), described(other)
    return {
        name
        for name in objects.keys() | others.keys()
        if objects.get(name) != others.get(name)
        and not name.startswith(("row of", "policy storage"))
        and name != "relation uvian credit_entries_id_seq"
    }


async def test_the_dump_of_today_is_a_database_of_this_release(
    plain: CleanDatabase, today: str
) -> None:
    """Restored it has what it had, and nothing is pending."""
    await restore(plain, today)
    (await status(plain.dsn)).require_usable()
    async with opened(OverPostgres(plain)) as world:
        assert await broken(world) == {}


async def test_behind_a_report_that_never_ends_work_goes_on(
    plain: CleanDatabase,
    wider: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever asks for a table after a migration waits behind it: it gives up, and they go on."""
    monkeypatch.setattr(connection_module, "LOCK_TIMEOUT", "100ms")
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
