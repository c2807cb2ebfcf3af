"""In a project that was there before us: ours ends the same, and theirs is left as it was."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import asyncpg
import pytest

from tests.migrations.catalog import Dump, history, ours, theirs
from tests.migrations.supabase_cli import PushRefused, SupabaseCli
from tests.servers import CleanDatabase, Clones
from uvian_worker.schema.export import export
from uvian_worker.schema.history import load
from uvian_worker.schema.migrate import MigrationFailed, bootstrap, migrate, status

pytestmark = pytest.mark.database

Publication = Literal["missing", "present", "all tables", "another's"]
Route = Literal["migrate", "cli"]

LIVED_IN = Path(__file__).with_name("lived_in.sql").read_text(encoding="utf-8")
RELEASE = load()
LABELS = tuple(file.label for file in RELEASE.files)

_ROLES = """
do $$ begin
  begin create role analytics nologin; exception when duplicate_object then null; end;
  begin create role realtime_admin nologin; exception when duplicate_object then null; end;
end $$"""

_PUBLICATIONS = {
    "missing": "drop publication supabase_realtime",
    "present": "alter publication supabase_realtime add table public.messages",
    "all tables": "drop publication supabase_realtime; create publication supabase_realtime for all tables",
    "another's": "alter publication supabase_realtime add table public.messages; "
    "grant create on database {database} to realtime_admin; "
    "alter publication supabase_realtime owner to realtime_admin",
}


@pytest.fixture(scope="module")
def expected(clones: Clones) -> Iterator[tuple[Dump, list[tuple[Any, ...]]]]:
    """What an empty, strict project ends with."""
    database = clones.blank()

    async def made() -> tuple[Dump, list[tuple[Any, ...]]]:
        await bootstrap(database.superuser_dsn)
        await migrate(database.dsn)
        return await ours(database.superuser_dsn), await history(database.dsn)

    yield asyncio.run(made())
    clones.drop(database)


async def run(dsn: str, statements: str) -> None:
    """Run SQL."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statements)
    finally:
        await connection.close()


async def ask(dsn: str, statement: str) -> Any:
    """The first value that a statement answers."""
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def live_in(database: CleanDatabase, *, publication: Publication = "present") -> None:
    """A team has been here."""
    await run(database.superuser_dsn, _ROLES)
    await run(database.superuser_dsn, LIVED_IN)
    await run(database.superuser_dsn, _PUBLICATIONS[publication].format(database=database.name))


async def look_at_theirs(database: CleanDatabase) -> Dump:
    """All that is not ours; their log of DDL rightly has our statements in it."""
    return await theirs(database.superuser_dsn, without_rows_of="audit.ddl_log")


def with_the_teams_files(folder: Path) -> Path:
    """The folder has what the CLI's history names."""
    (folder / "20240101000000_init.sql").write_text("create table jobs ();")
    (folder / "20250301120000_messages.sql").write_text("create table messages ();")
    return folder


@pytest.mark.parametrize(
    ("route", "defaults", "publication"),
    [
        ("migrate", "strict", "present"),
        ("migrate", "old", "missing"),
        ("migrate", "old", "another's"),
        ("migrate", "strict", "all tables"),
        ("cli", "old", "present"),
        ("cli", "strict", "missing"),
        ("cli", "strict", "another's"),
        ("cli", "old", "all tables"),
    ],
)
async def test_ours_ends_the_same_and_theirs_stays_as_it_was(
    blank_database: CleanDatabase,
    folder: Path,
    expected: tuple[Dump, list[tuple[Any, ...]]],
    route: Route,
    defaults: str,
    publication: Publication,
) -> None:
    """Tables, functions and types of our names in `public`, default privileges, triggers on DDL, a CLI
    history, any publication: grants, bodies and owners in `uvian` are those of an empty project, to the
    letter, and outside it nothing has changed, rows included.
    """
    await bootstrap(blank_database.superuser_dsn, old_defaults=defaults == "old")
    await live_in(blank_database, publication=publication)
    before = await look_at_theirs(blank_database)
    assert ("public", "jobs") in {row[:2] for row in before["relations"]}
    if route == "migrate":
        report = await migrate(blank_database.dsn)
        said = [f"{notice.migration}: {notice.message}" for notice in report.notices]
    else:
        export(with_the_teams_files(folder))
        cli = SupabaseCli(blank_database.dsn, folder)
        assert len(await cli.push()) == len(RELEASE.steps)
        said = cli.heard
    assert (await ours(blank_database.superuser_dsn), await history(blank_database.dsn)) == expected
    (await status(blank_database.dsn)).require_usable()
    after = await look_at_theirs(blank_database)
    if route == "cli":  # which writes its own history, and nothing else
        rows = "rows of supabase_migrations.schema_migrations"
        assert set(before[rows]) < set(after[rows])
        before.pop(rows), after.pop(rows)
    assert after == before
    if publication == "another's":
        for table, notice in zip(("jobs", "messages"), said, strict=True):
            assert f"uvian.{table} was not added to the publication supabase_realtime" in notice
            assert "Database > Publications" in notice
    else:
        assert said == []


@pytest.mark.parametrize("publication", get_args(Publication))
async def test_jobs_are_published_where_there_is_a_publication(
    plain: CleanDatabase, publication: Publication
) -> None:
    """Added to the list, among all tables, or left to the owner; the team's tables stay in it."""
    await live_in(plain, publication=publication)
    await migrate(plain.dsn)
    connection = await asyncpg.connect(plain.superuser_dsn)
    rows = await connection.fetch(
        "select schemaname || '.' || tablename from pg_publication_tables where pubname = 'supabase_realtime'"
    )
    await connection.close()
    published = {row[0] for row in rows}
    assert ("uvian.jobs" in published) == (publication in ("present", "all tables"))
    assert ("public.messages" in published) == (publication != "missing")


async def test_tables_that_somebody_published_already_are_no_obstacle(
    plain: CleanDatabase, release: Callable[[int], Path]
) -> None:
    """By the dashboard, half-way through our migrations, one by one or the whole schema."""
    await run(plain.superuser_dsn, "drop publication supabase_realtime")
    await migrate(plain.dsn, directory=release(3))
    await run(
        plain.superuser_dsn,
        "create publication supabase_realtime for table uvian.jobs, tables in schema uvian;"
        "alter publication supabase_realtime owner to uvian_migrator",
    )
    assert (await migrate(plain.dsn)).applied == LABELS[3:]


async def test_rows_can_be_changed_where_all_tables_are_published(plain: CleanDatabase) -> None:
    """A published table without a key would refuse every update: all of ours have one."""
    await live_in(plain, publication="all tables")
    await migrate(plain.dsn)
    keyless = await ask(
        plain.superuser_dsn,
        "select array_agg(c.relname) from pg_class c where c.relnamespace = 'uvian'::regnamespace "
        "and c.relkind = 'r' "
        "and not exists (select from pg_index i where i.indrelid = c.oid and i.indisprimary)",
    )
    assert keyless is None
    await run(plain.dsn, "update uvian.sweeps set last_at = now()")


async def test_a_trigger_of_theirs_that_fails_is_named(plain: CleanDatabase) -> None:
    """It runs for our statements, under our empty search path: the message says whose function it was."""
    await live_in(plain)
    await run(
        plain.superuser_dsn,
        "alter event trigger log_ddl disable;"
        "create or replace function audit.log_ddl() returns event_trigger language plpgsql as $$ "
        "begin insert into ddl_log (tag) values ('x'); end $$;"
        "alter event trigger log_ddl enable",
    )
    with pytest.raises(
        MigrationFailed,
        match=r'0001_jobs was rolled back: relation "ddl_log" does not exist.*audit\.log_ddl\(\)',
    ):
        await migrate(plain.dsn)
    assert await ask(plain.dsn, "select to_regnamespace('uvian')") is None


async def test_hands_that_were_given_something_keep_it(plain: CleanDatabase) -> None:
    """What a team grants in `uvian` to a role of its own outlives the migrations to come."""
    await migrate(plain.dsn)
    await run(plain.superuser_dsn, _ROLES)
    await run(
        plain.dsn,
        "grant usage on schema uvian to analytics; grant select on uvian.jobs to analytics;"
        "select uvian._close()",
    )
    granted = "select has_table_privilege('analytics', 'uvian.jobs', 'select')"
    assert await ask(plain.superuser_dsn, granted) is True


async def test_the_cli_is_still_the_teams(plain: CleanDatabase, folder: Path) -> None:
    """After `uvian migrate` alone, the team pushes its own next migration as ever."""
    await live_in(plain)
    await migrate(plain.dsn)
    with_the_teams_files(folder)
    (folder / "20260101000000_more.sql").write_text("create table public.more (id int);")
    assert await SupabaseCli(plain.dsn, folder).push() == ["20260101000000_more.sql"]


async def test_a_push_from_a_folder_that_lost_files_is_the_clis_to_refuse(
    plain: CleanDatabase, folder: Path
) -> None:
    """Nothing of ours was applied by then."""
    await live_in(plain)
    export(folder)
    with pytest.raises(PushRefused, match="20240101000000"):
        await SupabaseCli(plain.dsn, folder).push()
    assert await ask(plain.dsn, "select to_regnamespace('uvian')") is None
