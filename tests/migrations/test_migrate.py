"""Migrations apply once, in order, whole or not at all, as a role that owns nothing of Supabase's."""

from __future__ import annotations

import asyncio
import importlib.metadata
import re
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest

from repositories.errors import Misconfigured, NotGranted, SchemaMissing, TimedOut, Unavailable
from tests.servers import CleanDatabase, Clones
from uvian_worker.schema import connection
from uvian_worker.schema.history import Applied, Migration, Release, Repeatable, compare, load
from uvian_worker.schema.migrate import MigrationFailed, bootstrap, migrate, status

database = pytest.mark.database

FIRST = """-- min_code: 0.1.0
create schema uvian;
create table uvian.schema_migrations (
  name text primary key, version bigint unique, checksum text not null, min_code text,
  release text not null, applied_at timestamptz not null default now()
);
"""


@pytest.fixture
async def plain(blank_database: CleanDatabase) -> CleanDatabase:
    """A bootstrapped database without the schema."""
    await bootstrap(blank_database.superuser_dsn)
    return blank_database


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Migrations of a small project: the history, and a table."""
    write(tmp_path, "0001_schema", FIRST)
    write(tmp_path, "0002_things", "create table uvian.things (id bigint primary key);")
    return tmp_path


def write(folder: Path, label: str, sql: str, *, min_code: str = "0.1.0") -> None:
    """Put a migration into the folder."""
    header = "" if sql.startswith("-- min_code") else f"-- min_code: {min_code}\n"
    (folder / "migrations").mkdir(exist_ok=True)
    migration(folder, label).write_text(header + sql)


def migration(folder: Path, label: str) -> Path:
    """Where a migration of the folder is."""
    return folder / "migrations" / f"{label}.sql"


async def ask(dsn: str, statement: str) -> object:
    """The first value that a statement answers."""
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def history(dsn: str) -> list[int]:
    """The versions in the history, in the order they were applied."""
    found = await ask(
        dsn,
        "select array_agg(version order by applied_at) from uvian.schema_migrations"
        " where version is not null",
    )
    assert isinstance(found, list)
    return found


@database
class TestMigrate:
    """`migrate` on a real Postgres."""

    async def test_files_are_applied_in_order(self, plain: CleanDatabase, folder: Path) -> None:
        """The report and the history name every file, oldest first."""
        report = await migrate(plain.dsn, directory=folder)
        assert report.applied == ("0001_schema", "0002_things")
        assert report.already == ()
        assert await history(plain.dsn) == [1, 2]

    async def test_a_second_run_does_nothing(self, plain: CleanDatabase, folder: Path) -> None:
        """Running it at every deploy is fine."""
        await migrate(plain.dsn, directory=folder)
        report = await migrate(plain.dsn, directory=folder)
        assert report.applied == ()
        assert report.already == ("0001_schema", "0002_things")

    async def test_only_what_is_new_is_applied(self, plain: CleanDatabase, folder: Path) -> None:
        """A later release brings its own files on top."""
        await migrate(plain.dsn, directory=folder)
        write(folder, "0003_more", "create table uvian.more (id bigint primary key);")
        report = await migrate(plain.dsn, directory=folder)
        assert report.applied == ("0003_more",)
        assert await history(plain.dsn) == [1, 2, 3]

    async def test_runs_at_the_same_time_apply_each_file_once(
        self, plain: CleanDatabase, folder: Path
    ) -> None:
        """Ten instances that migrate at start do not collide, though no session lock is held."""
        reports = await asyncio.gather(*(migrate(plain.dsn, directory=folder) for _ in range(10)))
        applied = [label for report in reports for label in report.applied]
        assert sorted(applied) == ["0001_schema", "0002_things"]

    async def test_a_failing_file_is_rolled_back(self, plain: CleanDatabase, folder: Path) -> None:
        """It leaves neither a table nor a history row; those before it stay; the line is named."""
        write(folder, "0003_bad", "create table uvian.half (id int);\n\nselect nope;")
        with pytest.raises(MigrationFailed, match=r"0003_bad was rolled back: .*nope.*\(line 4\)"):
            await migrate(plain.dsn, directory=folder)
        write(folder, "0003_bad", "create table uvian.half (id int);\nselect 1 / 0;")
        with pytest.raises(MigrationFailed, match="0003_bad was rolled back: division by zero"):
            await migrate(plain.dsn, directory=folder)
        assert await history(plain.dsn) == [1, 2]
        assert await ask(plain.dsn, "select to_regclass('uvian.half')") is None

    async def test_a_changed_file_is_refused(self, plain: CleanDatabase, folder: Path) -> None:
        """Two databases with the same history have the same schema."""
        await migrate(plain.dsn, directory=folder)
        write(folder, "0002_things", "create table uvian.things (id uuid primary key);")
        write(folder, "0003_more", "create table uvian.more (id int);")
        with pytest.raises(Misconfigured, match="0002_things differs from what was applied"):
            await migrate(plain.dsn, directory=folder)
        assert await history(plain.dsn) == [1, 2]

    async def test_line_endings_are_no_change(self, plain: CleanDatabase, folder: Path) -> None:
        """A checkout on Windows has the same checksums."""
        await migrate(plain.dsn, directory=folder)
        for path in folder.rglob("*.sql"):
            path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
        assert (await migrate(plain.dsn, directory=folder)).applied == ()

    async def test_notices_are_reported(self, plain: CleanDatabase, folder: Path) -> None:
        """What a file could not do on this platform reaches the person who ran it."""
        write(
            folder,
            "0003_says",
            "do $$ begin raise notice 'no bucket' using hint = 'make it'; "
            "raise warning 'careful'; end $$;",
        )
        report = await migrate(plain.dsn, directory=folder)
        assert [(n.migration, n.severity, n.message, n.hint) for n in report.notices] == [
            ("0003_says", "NOTICE", "no bucket", "make it"),
            ("0003_says", "WARNING", "careful", None),
        ]

    async def test_a_name_without_its_schema_fails(
        self, plain: CleanDatabase, folder: Path
    ) -> None:
        """The Supabase CLI has another search path: what works by luck here would differ there."""
        write(folder, "0003_bare", "select count(*) from things;")
        with pytest.raises(MigrationFailed, match="does not exist"):
            await migrate(plain.dsn, directory=folder)

    async def test_a_busy_table_is_not_waited_for(
        self, plain: CleanDatabase, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Behind a long transaction it gives up, before every other query queues up behind it."""
        monkeypatch.setattr(connection, "LOCK_TIMEOUT", "100ms")
        await migrate(plain.dsn, directory=folder)
        write(folder, "0003_alter", "alter table uvian.things add column name text;")
        reader = await asyncpg.connect(plain.dsn)
        try:
            async with reader.transaction():
                await reader.fetch("select * from uvian.things")
                with pytest.raises(TimedOut, match="0003_alter was rolled back"):
                    await migrate(plain.dsn, directory=folder)
        finally:
            await reader.close()
        assert (await migrate(plain.dsn, directory=folder)).applied == ("0003_alter",)

    async def test_a_connection_lost_half_way_leaves_nothing(
        self, plain: CleanDatabase, folder: Path
    ) -> None:
        """The error says that it may be run again, and running it again works."""
        write(folder, "0003_dies", "select pg_terminate_backend(pg_backend_pid());")
        with pytest.raises(Unavailable, match="run it again"):
            await migrate(plain.dsn, directory=folder)
        assert await history(plain.dsn) == [1, 2]
        write(folder, "0003_dies", "select 1;")
        assert (await migrate(plain.dsn, directory=folder)).applied == ("0003_dies",)

    async def test_a_role_without_rights_is_told_which_role(
        self, plain: CleanDatabase, folder: Path
    ) -> None:
        """`permission denied` alone would not say what to do."""
        authenticator = plain.authenticator_dsn
        with pytest.raises(NotGranted, match="0001_schema: permission denied for database"):
            await migrate(authenticator, directory=folder)

    async def test_this_release_migrates_as_a_customer(self, plain: CleanDatabase) -> None:
        """The real files run as a role that is no superuser and owns neither storage nor auth."""
        report = await migrate(plain.dsn)
        assert report.applied == tuple(file.label for file in load().files)
        is_superuser = "select rolsuper from pg_roles where rolname = 'uvian_migrator'"
        assert await ask(plain.superuser_dsn, is_superuser) is False
        assert report.notices == ()
        (await status(plain.dsn)).require_usable()

    async def test_old_default_privileges_do_not_matter(
        self, blank_database: CleanDatabase
    ) -> None:
        """On a project made before 30 October 2026 the files apply all the same."""
        await bootstrap(blank_database.superuser_dsn, old_defaults=True)
        report = await migrate(blank_database.dsn)
        assert report.applied == tuple(file.label for file in load().files)

    async def test_without_the_bootstrap_it_says_what_is_missing(
        self, blank_database: CleanDatabase
    ) -> None:
        """A plain Postgres lacks what Supabase brings."""
        with pytest.raises((MigrationFailed, NotGranted)):
            await migrate(blank_database.dsn)


@pytest.fixture
def current(folder: Path) -> Path:
    """The small project with functions, in two transactions."""
    (folder / "order.txt").write_text(
        "# what follows\nfunctions/one    first\nfunctions/two\n\ntables/things\n"
    )
    repeatable(folder, "functions/one", "select 1")
    repeatable(folder, "functions/two", "select uvian.one() + 1")
    (folder / "tables").mkdir()
    (folder / "tables" / "things.sql").write_text("grant select on uvian.things to service_role;\n")
    return folder


def repeatable(folder: Path, label: str, body: str) -> None:
    """Put a function into the folder, or change it."""
    path = folder / f"{label}.sql"
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        f"create or replace function uvian.{path.stem}() returns int language sql as $$ {body} $$;\n"
    )


@database
class TestWhatIsAppliedAgain:
    """Functions, triggers and grants are the current truth: applied when their text has changed."""

    async def test_first_they_follow_the_migrations(
        self, plain: CleanDatabase, current: Path
    ) -> None:
        """In the order of `order.txt`, and the history knows them by their names."""
        report = await migrate(plain.dsn, directory=current)
        labels = ("0001_schema", "0002_things", "functions/one", "functions/two", "tables/things")
        assert report.applied == labels
        names = "select array_agg(name order by name) from uvian.schema_migrations where version is null"
        assert await ask(plain.dsn, names) == list(labels[2:])
        assert (await migrate(plain.dsn, directory=current)).already == labels

    async def test_a_changed_one_is_applied_again_alone(
        self, plain: CleanDatabase, current: Path
    ) -> None:
        """Its new text is the truth, its row says when and of which checksum."""
        await migrate(plain.dsn, directory=current)
        repeatable(current, "functions/one", "select 41")
        found = await status(plain.dsn, directory=current)
        assert ([file.label for file in found.pending], found.outdated) == (
            ["functions/one"],
            ("functions/one",),
        )
        with pytest.raises(SchemaMissing, match=r"too old .* \(functions/one\)"):
            found.require_usable()
        assert (await migrate(plain.dsn, directory=current)).applied == ("functions/one",)
        assert await ask(plain.dsn, "select uvian.two()") == 42
        (await status(plain.dsn, directory=current)).require_usable()

    async def test_it_shares_the_transaction_of_the_last_migration(
        self, plain: CleanDatabase, current: Path
    ) -> None:
        """A function that uses a new column comes with the column, or both stay away."""
        await migrate(plain.dsn, directory=current)
        write(current, "0003_more", "alter table uvian.things add column size int default 7;")
        repeatable(current, "functions/one", "select nope from uvian.things")
        with pytest.raises(MigrationFailed, match=r"functions/one was rolled back: .*nope"):
            await migrate(plain.dsn, directory=current)
        assert await history(plain.dsn) == [1, 2]
        assert (
            await ask(
                plain.dsn,
                "select count(*) from pg_attribute"
                " where attrelid = 'uvian.things'::regclass and attname = 'size'",
            )
            == 0
        )
        repeatable(current, "functions/one", "select size from uvian.things")
        assert (await migrate(plain.dsn, directory=current)).applied == (
            "0003_more",
            "functions/one",
        )

    async def test_another_paragraph_is_another_transaction(
        self, plain: CleanDatabase, current: Path
    ) -> None:
        """What locks a table may fail behind a long report; the functions stay applied."""
        await migrate(plain.dsn, directory=current)
        repeatable(current, "functions/one", "select 3")
        (current / "tables" / "things.sql").write_text("grant select on uvian.nope to anon;")
        with pytest.raises(MigrationFailed, match="tables/things was rolled back"):
            await migrate(plain.dsn, directory=current)
        assert await ask(plain.dsn, "select uvian.one()") == 3

    async def test_an_older_release_leaves_what_a_newer_one_made(
        self, plain: CleanDatabase, current: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Instances that migrate at start do not take functions back while a deploy is under way."""
        release(monkeypatch, "0.9.0")
        await migrate(plain.dsn, directory=current)
        release(monkeypatch, "0.10.0")
        repeatable(current, "functions/one", "select 10")
        await migrate(plain.dsn, directory=current)
        release(monkeypatch, "0.9.0")
        repeatable(current, "functions/one", "select 9")
        found = await status(plain.dsn, directory=current)
        found.require_usable()
        assert (await migrate(plain.dsn, directory=current)).applied == ()
        assert await ask(plain.dsn, "select uvian.one()") == 10

    async def test_runs_at_the_same_time_apply_it_once(
        self, plain: CleanDatabase, current: Path
    ) -> None:
        """Whoever comes second finds it done."""
        await migrate(plain.dsn, directory=current)
        repeatable(current, "functions/two", "select 5")
        reports = await asyncio.gather(*(migrate(plain.dsn, directory=current) for _ in range(5)))
        assert [label for report in reports for label in report.applied] == ["functions/two"]

    def test_the_order_names_every_file_once(self, current: Path) -> None:
        """A function that nobody applies, or a name without a file, must be noticed."""
        (current / "functions" / "three.sql").write_text("select 1;")
        with pytest.raises(ValueError, match=r"order\.txt does not name: functions/three"):
            load(current)
        (current / "order.txt").write_text("functions/one\nfunctions/two\nfunctions/one\n")
        with pytest.raises(ValueError, match=r"order\.txt names twice: functions/one"):
            load(current)
        (current / "order.txt").write_text(
            "functions/one\nfunctions/two\nfunctions/three\nfunctions/four\ntables/things"
        )
        with pytest.raises(ValueError, match="names functions/four, which is not there"):
            load(current)


def release(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    """This installation is of another release."""
    monkeypatch.setattr(importlib.metadata, "version", lambda _: version)


@database
class TestStatus:
    """`status` reads and changes nothing."""

    async def test_nothing_is_applied_at_first(self, plain: CleanDatabase, folder: Path) -> None:
        """Without a history everything is pending, and the error names the command."""
        found = await status(plain.dsn, directory=folder)
        assert [file.label for file in found.pending] == ["0001_schema", "0002_things"]
        with pytest.raises(SchemaMissing, match="does not exist: run `uvian migrate`"):
            found.require_usable()
        assert await ask(plain.dsn, "select to_regclass('uvian.schema_migrations')") is None

    async def test_an_older_database_is_named_as_such(
        self, plain: CleanDatabase, folder: Path
    ) -> None:
        """A worker that is newer than the schema refuses to start, with the pending files."""
        await migrate(plain.dsn, directory=folder)
        write(folder, "0003_more", "select 1;")
        with pytest.raises(SchemaMissing, match=r"too old .* \(0003_more\)"):
            (await status(plain.dsn, directory=folder)).require_usable()

    async def test_a_newer_database_works_while_it_says_so(
        self, plain: CleanDatabase, folder: Path
    ) -> None:
        """Old and new releases run side by side during a deploy, as far as `min_code` allows."""
        write(folder, "0003_compatible", "select 1;", min_code="0.1.0")
        await migrate(plain.dsn, directory=folder)
        migration(folder, "0003_compatible").unlink()
        (await status(plain.dsn, directory=folder)).require_usable()
        assert (await migrate(plain.dsn, directory=folder)).applied == ()

    async def test_a_database_that_is_too_new_is_refused(
        self, plain: CleanDatabase, folder: Path
    ) -> None:
        """The old release is told to upgrade, by `status` and by `migrate`."""
        write(folder, "0003_breaking", "select 1;", min_code="99.0.0")
        await migrate(plain.dsn, directory=folder)
        migration(folder, "0003_breaking").unlink()
        found = await status(plain.dsn, directory=folder)
        with pytest.raises(Misconfigured, match=r"needs uvian-worker 99\.0\.0 or newer"):
            found.require_usable()
        with pytest.raises(Misconfigured, match="Upgrade this installation"):
            await migrate(plain.dsn, directory=folder)


class TestConnectionStrings:
    """A connection that cannot migrate is refused before anything is touched."""

    @pytest.mark.parametrize(
        "dsn",
        [
            "postgresql://postgres.ref:pw@aws-0-eu.pooler.supabase.com:6543/postgres",
            "postgresql://u:p6543@host:6543/postgres?sslmode=require",
            "postgresql:///postgres?host=/tmp&port=6543",
            "postgresql://u@one:5432,two:6543/postgres",
        ],
    )
    async def test_the_transaction_pooler_is_refused(self, dsn: str) -> None:
        """Port 6543 would migrate without a lock; the error names the strings that work."""
        for connect in (migrate, bootstrap):
            with pytest.raises(Misconfigured, match="session pooler"):
                await connect(dsn)

    @pytest.mark.parametrize(
        "dsn", ["postgresql://u:6543@127.0.0.1:1/x", "postgresql://u@127.0.0.1:1/6543"]
    )
    async def test_nobody_there_says_what_to_check(self, dsn: str) -> None:
        """A password or a name that reads 6543 is no port."""
        with pytest.raises(Unavailable, match="check host and port"):
            await migrate(dsn)

    @pytest.mark.parametrize(
        "dsn", ["mysql://user:secret@host/x", "nonsense", "postgresql://u:secret@host:port/x"]
    )
    async def test_a_wrong_string_is_explained_without_its_password(self, dsn: str) -> None:
        """What is shown is what it should look like."""
        with pytest.raises(Misconfigured, match="postgresql://user:password@host") as caught:
            await migrate(dsn)
        assert "secret" not in str(caught.value)

    @database
    async def test_an_unknown_database_is_the_operators_to_fix(self, clones: Clones) -> None:
        """Waiting would not help, so it is no `Unavailable`."""
        with pytest.raises(Misconfigured, match="does not exist"):
            await migrate(clones.server.dsn_for("nowhere"))


class TestLoad:
    """A folder of migrations is judged before any of it runs."""

    @pytest.mark.parametrize("name", ["1_schema", "0001-schema", "0001_Schema", "schema"])
    def test_a_misnamed_file_is_refused(self, tmp_path: Path, name: str) -> None:
        """A file that would be skipped in silence is worse than an error."""
        write(tmp_path, name, "select 1;")
        with pytest.raises(ValueError, match="NNNN_name"):
            load(tmp_path)

    def test_a_number_is_used_once(self, tmp_path: Path) -> None:
        """Two branches that took the same number must notice."""
        write(tmp_path, "0001_one", "select 1;")
        write(tmp_path, "0001_two", "select 2;")
        with pytest.raises(ValueError, match="0001_one and 0001_two have the same number"):
            load(tmp_path)

    def test_a_file_says_which_release_it_needs(self, tmp_path: Path) -> None:
        """Without `min_code` nobody could tell whether an older worker may go on."""
        write(tmp_path, "0001_one", "-- min_code\nselect 1;")
        with pytest.raises(ValueError, match="min_code"):
            load(tmp_path)

    def test_releases_are_ordered_by_number(self) -> None:
        """0.10.0 is newer than 0.9.0."""
        newer = Migration(1, "0001_x", "c", "0.10.0", "")
        applied = Applied("0001_x", 1, "c", "0.10.0", "0.10.0", datetime.now(UTC))
        assert compare([applied], Release("0.9.0", (), ())).needs_release == "0.10.0"
        assert compare([applied], Release("0.10.0rc1", (), ())).needs_release is None
        assert compare([applied], Release("0.9.0", (newer,), ())).needs_release is None


_FUNCTION = re.compile(
    r"create\s+(?:or\s+replace\s+)?function\s+(\S+?)\s*\(.*?\bas\s+\$", re.DOTALL | re.IGNORECASE
)


@pytest.mark.parametrize("migration", load().files, ids=lambda file: file.label)
class TestFiles:
    """House rules that every file of this release keeps."""

    def test_tables_are_created_or_it_fails(self, migration: Migration | Repeatable) -> None:
        """`if not exists` would accept a table of another shape in silence."""
        assert not re.search(r"create\s+table\s+if\s+not\s+exists", migration.sql, re.IGNORECASE)

    def test_functions_pin_their_search_path(self, migration: Migration | Repeatable) -> None:
        """A `security definer` function without it runs what the caller puts in its way."""
        unpinned = [
            head[1]
            for head in _FUNCTION.finditer(migration.sql)
            if "set search_path = ''" not in head[0]
        ]
        assert not unpinned
        assert len(_FUNCTION.findall(migration.sql)) == len(
            re.findall(
                r"^\s*create\s+(?:or\s+replace\s+)?function",
                migration.sql,
                re.MULTILINE | re.IGNORECASE,
            )
        )

    def test_postgrest_is_told_at_the_end(self, migration: Migration | Repeatable) -> None:
        """PostgREST would serve the old schema until its next restart."""
        assert migration.sql.rstrip().endswith("notify pgrst, 'reload schema';")

    def test_the_transaction_is_the_runners(self, migration: Migration | Repeatable) -> None:
        """A `commit` in a file would leave half of it behind when the rest fails."""
        outside = re.sub(r"\$(\w*)\$.*?\$\1\$", "", migration.sql, flags=re.DOTALL)
        assert not re.search(
            r"^\s*(begin|commit|rollback|start)\b", outside, re.MULTILINE | re.IGNORECASE
        )
        assert not re.search(
            r"\bconcurrently\b|^\s*vacuum\b", outside, re.MULTILINE | re.IGNORECASE
        )


#: Migrations that a fresh database alone gets: until the first release nobody's workers were busy.
_FIRST_RELEASE = 4

_CREATED = re.compile(r"\bcreate table uvian\.(\w+)", re.IGNORECASE)
_LOCKED = re.compile(
    r"\b(?:alter table|drop table|truncate|references|lock table|"
    r"create (?:unique )?index \w+ on|"
    r"(?:create(?: or replace)?|drop) (?:trigger|policy)(?: if exists)? \w+ [^;]*?\bon)\s+uvian\.(\w+)",
    re.IGNORECASE,
)


def tables_in_use(sql: str) -> set[str]:
    """Tables of ours that a file locks, but for those that it makes itself."""
    code = re.sub(r"--[^\n]*", "", sql)
    code = re.sub(
        r"\bcreate (?:or replace )?function.*?\$(\w*)\$.*?\$\1\$", "", code, flags=re.DOTALL
    )
    return set(_LOCKED.findall(code)) - set(_CREATED.findall(code))


class TestOneTableAtATime:
    """Workers lock tables in orders of their own: who holds one and waits for another deadlocks."""

    def test_a_step_changes_one_table_in_use(self) -> None:
        """A second one gets a step of its own, which is a transaction of its own."""
        for step in load().steps:
            if not (isinstance(step[0], Migration) and step[0].version <= _FIRST_RELEASE):
                assert len(tables_in_use("\n".join(file.sql for file in step))) <= 1, step[0].label

    def test_functions_lock_no_table(self) -> None:
        """So that they can come with the last migration, whichever that is."""
        for file in load().repeatable[0]:
            assert tables_in_use(file.sql) == set(), file.label

    def test_what_counts(self) -> None:
        """Columns, indexes, triggers, policies and foreign keys to a table that was there before."""
        assert tables_in_use(
            """
            create table uvian.new (id int references uvian.jobs (id));
            create index new_by_id on uvian.new (id);
            alter table uvian.workers add column x text;
            create unique index y on uvian.job_runs (y);
            create or replace trigger z before update of a, b on uvian.sweeps execute function uvian._z();
            drop policy if exists p on uvian.concepts;
            -- alter table uvian.a_comment
            create function uvian._f() returns void language sql as $$ truncate uvian.job_state $$;
            """
        ) == {"jobs", "workers", "job_runs", "sweeps", "concepts"}


class TestWhatIsNewIsClosed:
    """Default privileges of a team must not hand out what a migration creates."""

    def test_a_file_that_creates_something_ends_with_closing_it(self) -> None:
        """`select uvian._close();` takes back what the owner's defaults gave; functions/callers makes it."""
        for migration in load().files:
            creates = re.search(
                r"^\s*create\s+(?:or\s+replace\s+)?(table|function|view|materialized|sequence|type|domain)\b",
                migration.sql,
                re.MULTILINE | re.IGNORECASE,
            )
            first = isinstance(migration, Migration) and migration.version <= _FIRST_RELEASE
            if creates and not first:
                assert "select uvian._close();" in migration.sql, migration.label
