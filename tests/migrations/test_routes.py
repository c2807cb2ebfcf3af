"""`uvian migrate` and the Supabase CLI end alike, in any order, and apply each file once."""

from __future__ import annotations

import asyncio
import importlib.metadata
import random
import shutil
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

import repositories
from tests.migrations.catalog import Dump, history, ours
from tests.migrations.supabase_cli import MODES, Mode, SupabaseCli
from tests.servers import CleanDatabase, Clones
from uvian_worker.schema.export import export
from uvian_worker.schema.history import load
from uvian_worker.schema.migrate import bootstrap, migrate, status

pytestmark = pytest.mark.database

SQL = Path(repositories.__file__).parent / "sql"
RELEASE = load()
LABELS = tuple(file.label for file in RELEASE.files)
STEPS = [tuple(file.label for file in step) for step in RELEASE.steps]

#: Which of the two applies each step: all one, all the other, in turns, and by lot.
ORDERS = [
    "m" * len(STEPS),
    "c" * len(STEPS),
    ("mc" * len(STEPS))[: len(STEPS)],
    ("cm" * len(STEPS))[: len(STEPS)],
    *("".join(random.Random(seed).choices("mc", k=len(STEPS))) for seed in range(3)),
]


@pytest.fixture(scope="module")
def expected(clones: Clones) -> Iterator[tuple[Dump, list[tuple[Any, ...]]]]:
    """What `uvian migrate` alone makes of an empty, strict database."""
    database = clones.blank()

    async def made() -> tuple[Dump, list[tuple[Any, ...]]]:
        await bootstrap(database.superuser_dsn)
        await migrate(database.dsn)
        return await ours(database.superuser_dsn, published=True), await history(database.dsn)

    yield asyncio.run(made())
    clones.drop(database)


async def found(database: CleanDatabase) -> tuple[Dump, list[tuple[Any, ...]]]:
    """What this database has, and what its history says."""
    return await ours(database.superuser_dsn, published=True), await history(database.dsn)


def file_name(step: tuple[str, ...]) -> str:
    """What the exported file of a step is named after: its migration, or its only file."""
    return step[0].replace("/", "_")


async def ask(dsn: str, statement: str) -> Any:
    """The first value that a statement answers."""
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


@pytest.mark.parametrize("order", ORDERS)
async def test_any_mixture_of_the_routes_ends_alike(
    plain: CleanDatabase,
    folder: Path,
    release: Callable[[int], Path],
    expected: tuple[Dump, list[tuple[Any, ...]]],
    order: str,
) -> None:
    """Catalog and history are the same to the letter; afterwards neither route has anything to do."""
    cli = SupabaseCli(plain.dsn, folder)
    for count, route in enumerate(order, 1):
        if route == "m":
            report = await migrate(plain.dsn, directory=release(count))
            assert report.applied == STEPS[count - 1]
        else:
            export(folder, directory=release(count))
            assert (await cli.push())[-1].endswith(f"_uvian_{file_name(STEPS[count - 1])}.sql")
    assert await found(plain) == expected
    export(folder)
    await cli.push()
    assert await cli.push() == []
    assert (await migrate(plain.dsn)).applied == ()
    assert await found(plain) == expected


@pytest.mark.parametrize("mode", MODES)
async def test_however_the_cli_sends_a_file(
    plain: CleanDatabase,
    folder: Path,
    expected: tuple[Dump, list[tuple[Any, ...]]],
    mode: Mode,
) -> None:
    """In one transaction, statement by statement, by either protocol, or all files at once."""
    export(folder)
    cli = SupabaseCli(plain.dsn, folder, mode=mode)
    assert len(await cli.push()) == len(STEPS)
    assert await found(plain) == expected
    (await status(plain.dsn)).require_usable()


async def test_a_login_that_steps_up_to_the_owner(
    plain: CleanDatabase,
    folder: Path,
    clones: Clones,
    expected: tuple[Dump, list[tuple[Any, ...]]],
) -> None:
    """Without a password the CLI logs in as a role of its own and sets the role: the owner is the same."""
    superuser = await asyncpg.connect(plain.superuser_dsn)
    try:
        await superuser.execute("create role cli_login_test login noinherit in role uvian_migrator")
        export(folder)
        dsn = clones.server.dsn_for(plain.name, user="cli_login_test")
        await SupabaseCli(dsn, folder, role="uvian_migrator").push()
        assert await found(plain) == expected
    finally:
        await superuser.execute("drop role cli_login_test")
        await superuser.close()


async def test_after_migrate_a_push_only_enters_the_clis_own_ledger(
    plain: CleanDatabase, folder: Path, expected: tuple[Dump, list[tuple[Any, ...]]]
) -> None:
    """A team that begins with the CLI later; ours keeps its times, and each file says why it did nothing."""
    await migrate(plain.dsn)
    times = "select array_agg(applied_at order by name) from uvian.schema_migrations"
    before = await ask(plain.dsn, times)
    export(folder)
    cli = SupabaseCli(plain.dsn, folder)
    assert len(await cli.push()) == len(STEPS)
    assert cli.heard == [f"NOTICE (00000): {label} is applied already." for label in LABELS]
    assert await ask(plain.dsn, times) == before
    assert await found(plain) == expected
    count = "select count(*) from supabase_migrations.schema_migrations"
    assert await ask(plain.dsn, count) == len(STEPS)


async def test_after_a_push_migrate_has_nothing_to_do(plain: CleanDatabase, folder: Path) -> None:
    """And the status is for either route the same."""
    export(folder)
    await SupabaseCli(plain.dsn, folder).push()
    report = await migrate(plain.dsn)
    assert (report.applied, report.already, report.notices) == ((), LABELS, ())
    looked = await status(plain.dsn)
    assert (looked.pending, looked.changed, looked.unknown) == ((), (), ())


async def test_migrate_never_writes_the_clis_ledger(plain: CleanDatabase) -> None:
    """It does not even make it: the CLI would miss the files of versions that it finds there."""
    await migrate(plain.dsn)
    assert await ask(plain.dsn, "select to_regnamespace('supabase_migrations')") is None


async def test_a_fresh_database_is_built_from_the_teams_folder(
    new_database: Callable[[], Awaitable[CleanDatabase]],
    folder: Path,
    release: Callable[[int], Path],
    expected: tuple[Dump, list[tuple[Any, ...]]],
) -> None:
    """`supabase db reset` and preview branches: what two releases exported, with the team's own between."""
    export(folder, directory=release(6))
    newest = max(path.name for path in folder.iterdir())
    (folder / f"{newest[:14]}0_orders.sql").write_text(
        "create table public.orders (id int primary key, job_id uuid references uvian.jobs (id));"
    )
    export(folder)
    for _ in range(2):
        database = await new_database()
        await bootstrap(database.superuser_dsn)
        connection = await asyncpg.connect(database.superuser_dsn)
        await connection.execute("grant create on schema public to uvian_migrator")
        await connection.close()
        await SupabaseCli(database.dsn, folder).push()
        assert await found(database) == expected
        assert await ask(database.dsn, "select to_regclass('public.orders') is not null")


@pytest.mark.parametrize("mode", MODES)
async def test_both_routes_at_once_apply_each_file_once(
    plain: CleanDatabase,
    folder: Path,
    expected: tuple[Dump, list[tuple[Any, ...]]],
    mode: Mode,
) -> None:
    """A deploy and a colleague: whoever comes second waits for the lock and finds it done."""
    export(folder)
    cli = SupabaseCli(plain.dsn, folder, mode=mode)
    pushed, first, second = await asyncio.gather(cli.push(), migrate(plain.dsn), migrate(plain.dsn))
    assert len(pushed) == len(STEPS)
    applied = [label for report in (first, second) for label in report.applied]
    skipped = [line for line in cli.heard if line.endswith("is applied already.")]
    assert len(applied) == len(set(applied)) == len(skipped)
    assert await found(plain) == expected


@pytest.mark.parametrize("mode", ["transaction", "single"])
async def test_nothing_of_ours_leaks_into_the_teams_own_statements(
    plain: CleanDatabase, folder: Path, mode: Mode
) -> None:
    """In the same transaction, after our file, their search path, timeouts and verbosity are theirs."""
    report = export(folder)
    with (folder / report.written[-1]).open("a", encoding="utf-8") as file:
        file.write(
            "\ncreate table extensions.seen as select current_setting('search_path') as path, "
            "current_setting('lock_timeout') as lock, current_setting('client_min_messages') as said;\n"
        )
    connection = await asyncpg.connect(plain.superuser_dsn)
    await connection.execute(
        f"create schema extensions authorization uvian_migrator;"
        f"alter database {plain.name} set search_path = '$user', public, extensions;"
        f"alter database {plain.name} set lock_timeout = '7s';"
        f"alter database {plain.name} set client_min_messages = warning"
    )
    await SupabaseCli(plain.dsn, folder, mode=mode).push()
    row = await connection.fetchrow("select * from extensions.seen")
    await connection.close()
    assert row is not None
    assert tuple(row) == ('"$user", public, extensions', "7s", "warning")


@pytest.fixture
def later(tmp_path: Path) -> Path:
    """A release after this one that has changed a function and the triggers of a table, and nothing else."""
    folder = Path(shutil.copytree(SQL, tmp_path / "later"))
    for label, before, after in (
        (
            "functions/credits",
            "raise exception 'credit_entries is append-only;",
            "raise exception 'append-only;",
        ),
        ("tables/messages", "before insert on", "before insert or update of position on"),
    ):
        path = folder / f"{label}.sql"
        text = path.read_text(encoding="utf-8")
        assert before in text
        path.write_text(text.replace(before, after), encoding="utf-8")
    return folder


CHANGED = ("functions/credits", "tables/messages")


async def test_a_changed_function_ends_alike_by_either_route(
    plain: CleanDatabase,
    folder: Path,
    later: Path,
    new_database: Callable[[], Awaitable[CleanDatabase]],
) -> None:
    """The export writes a new file for it, after those that are there; a fresh database is built from all."""
    export(folder)
    cli = SupabaseCli(plain.dsn, folder)
    await cli.push()
    report = export(folder, directory=later)
    assert [name[15:] for name in report.written] == [
        "uvian_functions_credits.sql",
        "uvian_tables_messages.sql",
    ]
    assert await cli.push() == list(report.written)
    assert export(folder, directory=later).written == ()
    migrated, reset = await new_database(), await new_database()
    for database in (migrated, reset):
        await bootstrap(database.superuser_dsn)
    await migrate(migrated.dsn)
    assert (await migrate(migrated.dsn, directory=later)).applied == CHANGED
    await SupabaseCli(reset.dsn, folder).push()
    assert await found(plain) == await found(migrated) == await found(reset)
    assert "'append-only;" in str(await found(plain))
    (await status(plain.dsn, directory=later)).require_usable()


async def test_a_push_of_what_an_older_release_exported_takes_nothing_back(
    plain: CleanDatabase, folder: Path, later: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`uvian migrate` of the next release was first: the old files say so, and leave its functions."""
    export(folder)
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "99.0.0")
    await migrate(plain.dsn, directory=later)
    before = await found(plain)
    cli = SupabaseCli(plain.dsn, folder)
    await cli.push()
    assert await found(plain) == before
    kept = [line for line in cli.heard if line.endswith("as a newer release has it.")]
    assert [line.split()[2] for line in kept] == list(CHANGED)


async def test_an_older_release_exports_nothing_over_a_newer_one(
    folder: Path, later: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A colleague whose installation is older would otherwise take functions back."""
    with monkeypatch.context() as newer:
        newer.setattr(importlib.metadata, "version", lambda _: "99.0.0")
        export(folder, directory=later)
    assert export(folder).written == ()
