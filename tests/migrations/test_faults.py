"""What goes wrong while migrating, by either route: nothing half done, and a sentence for who is paged."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from typer.testing import CliRunner

from repositories.errors import Misconfigured, TimedOut, Unavailable
from tests.migrations.supabase_cli import SupabaseCli
from tests.servers import POSTGRES_BINARIES, CleanDatabase, server_folder
from uvian_worker.cli import app
from uvian_worker.cli.errors import ExitCode
from uvian_worker.local.embedded import EmbeddedPostgres
from uvian_worker.schema import connection as connection_module
from uvian_worker.schema import export as export_module
from uvian_worker.schema import history as history_module
from uvian_worker.schema.export import export
from uvian_worker.schema.history import LOCK, load
from uvian_worker.schema.migrate import MigrationFailed, bootstrap, migrate, status

pytestmark = pytest.mark.database

LABELS = tuple(file.label for file in load().files)
PATIENCE = 60.0  #: seconds until a test gives up; nothing waits this long when it works


async def run(dsn: str, statements: str) -> None:
    """Run SQL."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statements)
    finally:
        await connection.close()


async def ask(dsn: str, statement: str, *values: Any) -> Any:
    """The first value that a statement answers."""
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(statement, *values)
    finally:
        await connection.close()


async def versions(dsn: str) -> list[int]:
    """The migrations that our history has."""
    found = await ask(
        dsn,
        "select coalesce(array_agg(version order by version), '{}') from uvian.schema_migrations"
        " where version is not null",
    )
    return list(found)


@asynccontextmanager
async def transaction_on(dsn: str, statement: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    """Somebody who is in the middle of something."""
    connection = await asyncpg.connect(dsn, server_settings={"application_name": "report"})
    transaction = connection.transaction()
    await transaction.start()
    await connection.fetch(statement)
    try:
        yield connection
    finally:
        await transaction.rollback()
        await connection.close()


async def until_waiting(dsn: str, number: int = 1) -> None:
    """Return once so many sessions of this database wait for a lock."""
    async with asyncio.timeout(PATIENCE):
        while (
            await ask(
                dsn,
                "select count(*) from pg_stat_activity where datname = current_database() "
                "and wait_event_type = 'Lock'",
            )
            < number
        ):
            await asyncio.sleep(0.02)


@pytest.fixture
def altered(release: Callable[[int], Path], tmp_path: Path) -> Path:
    """A release whose last migration alters a table that is in use."""
    folder = Path(shutil.copytree(release(2), tmp_path / "altered"))
    (folder / "migrations" / "0003_alter.sql").write_text(
        "-- min_code: 0.1.0\nalter table uvian.jobs add column colour text;\n"
    )
    return folder


class TestATableInUse:
    """Nobody queues up behind a migration for longer than its lock time out."""

    async def test_migrate_gives_up_and_says_who_is_in_the_way(
        self,
        plain: CleanDatabase,
        release: Callable[[int], Path],
        altered: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Process, role, program and query of the longest transaction, and how to end it."""
        monkeypatch.setattr(connection_module, "LOCK_TIMEOUT", "100ms")
        await migrate(plain.dsn, directory=release(2))
        async with transaction_on(plain.dsn, "select count(*) from uvian.jobs") as other:
            pid = other.get_server_pid()
            with pytest.raises(TimedOut, match="0003_alter was rolled back: a table") as caught:
                await migrate(plain.dsn, directory=altered)
        assert f"Longest there: process {pid} (uvian_migrator, report), for " in str(caught.value)
        assert "`select count(*) from uvian.jobs`" in str(caught.value)
        assert f"select pg_terminate_backend({pid});" in str(caught.value)
        assert (await migrate(plain.dsn, directory=altered)).applied == ("0003_alter",)

    async def test_the_command_says_no_more_than_that(
        self,
        plain: CleanDatabase,
        release: Callable[[int], Path],
        altered: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Not that the database may be down: it answered."""
        await migrate(plain.dsn, directory=release(2))
        monkeypatch.setattr(connection_module, "LOCK_TIMEOUT", "100ms")
        monkeypatch.setattr(history_module, "_FOLDER", altered)
        async with transaction_on(plain.dsn, "select count(*) from uvian.jobs"):
            result = await asyncio.to_thread(
                CliRunner().invoke, app, ["migrate", "--url", plain.dsn]
            )
        assert result.exit_code == ExitCode.UNREACHABLE
        assert "0003_alter was rolled back" in result.stderr
        assert "pg_terminate_backend" in result.stderr
        assert "→" not in result.stderr

    async def test_a_push_gives_up_as_well(
        self,
        plain: CleanDatabase,
        folder: Path,
        release: Callable[[int], Path],
        altered: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The exported file brings the time out with it, whatever the CLI's session has."""
        monkeypatch.setattr(export_module, "LOCK_TIMEOUT", "100ms")
        cli = SupabaseCli(plain.dsn, folder)
        export(folder, directory=release(2))
        await cli.push()
        export(folder, directory=altered)
        async with transaction_on(plain.dsn, "select count(*) from uvian.jobs"):
            with pytest.raises(asyncpg.LockNotAvailableError):
                await cli.push()
        assert await versions(plain.dsn) == [1, 2]
        assert len(await cli.push()) == 1
        assert await versions(plain.dsn) == [1, 2, 3]

    async def test_the_other_route_is_waited_for_however_long_it_takes(
        self,
        plain: CleanDatabase,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The lock time out is for tables; a long migration of a colleague is no failure."""
        monkeypatch.setattr(connection_module, "LOCK_TIMEOUT", "1ms")
        monkeypatch.setattr(export_module, "LOCK_TIMEOUT", "1ms")
        export(folder)
        cli = SupabaseCli(plain.dsn, folder)
        async with transaction_on(plain.dsn, f"select pg_advisory_xact_lock({LOCK})"):
            both = asyncio.gather(migrate(plain.dsn), cli.push())
            await until_waiting(plain.superuser_dsn, 2)
        await both
        assert await versions(plain.dsn) == [migration.version for migration in load().migrations]


class TestACrash:
    """What was not committed is not there, and running it again goes on."""

    async def test_a_push_that_is_cut_off_leaves_neither_table_nor_row(
        self, plain: CleanDatabase, folder: Path, release: Callable[[int], Path]
    ) -> None:
        """Neither in our history nor in the CLI's; the next push and migrate both go on."""
        broken = release(2)
        (broken / "migrations" / "0003_dies.sql").write_text(
            "-- min_code: 0.1.0\ncreate table uvian.half (id int);\n"
            "select pg_terminate_backend(pg_backend_pid());\n"
        )
        export(folder, directory=broken)
        cli = SupabaseCli(plain.dsn, folder)
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await cli.push()
        assert await versions(plain.dsn) == [1, 2]
        assert await ask(plain.dsn, "select to_regclass('uvian.half')") is None
        count = "select count(*) from supabase_migrations.schema_migrations"
        assert await ask(plain.dsn, count) == 2
        assert (await migrate(plain.dsn)).applied == LABELS[2:]

    async def test_a_migrator_that_is_killed_while_it_waits_lets_the_next_one_through(
        self, plain: CleanDatabase
    ) -> None:
        """The lock goes with its transaction: no session, no file and no row keeps it."""
        async with transaction_on(plain.dsn, f"select pg_advisory_xact_lock({LOCK})"):
            first = asyncio.create_task(migrate(plain.dsn))
            await until_waiting(plain.superuser_dsn)
            await run(
                plain.superuser_dsn,
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where datname = current_database() and wait_event_type = 'Lock'",
            )
            with pytest.raises(Unavailable, match="run it again"):
                await first
        assert (await migrate(plain.dsn)).applied == LABELS


class TestAnError:
    """Where it was, in the file that everybody knows."""

    async def test_its_line_is_that_of_the_release(
        self, plain: CleanDatabase, folder: Path, release: Callable[[int], Path]
    ) -> None:
        """`psql` and editors show the line within the migration, as `uvian migrate` does."""
        broken = release(1)
        (broken / "migrations" / "0002_bad.sql").write_text(
            "-- min_code: 0.1.0\n\nselect 1;\nselect nope;\n"
        )
        with pytest.raises(MigrationFailed, match=r"\(line 4\)"):
            await migrate(plain.dsn, directory=broken)
        export(folder, directory=broken)
        with pytest.raises(asyncpg.UndefinedColumnError) as caught:
            await SupabaseCli(plain.dsn, folder).push()
        query, position = caught.value.internal_query, int(caught.value.internal_position)
        assert query[:position].count("\n") + 1 == 4


class TestWhatAFileRefuses:
    """An exported file looks at the database before it touches it."""

    async def refused(self, plain: CleanDatabase, folder: Path, match: str) -> None:
        """A push is refused with a message (the CLI shows no more), and leaves the history as it was."""
        before = await ask(plain.superuser_dsn, "select to_regclass('uvian.schema_migrations')")
        rows = await versions(plain.superuser_dsn) if before else []
        with pytest.raises(asyncpg.RaiseError, match=match):
            await SupabaseCli(plain.dsn, folder).push()
        after = await versions(plain.superuser_dsn) if before else []
        assert after == rows

    async def test_an_edited_text(self, plain: CleanDatabase, folder: Path) -> None:
        """The checksum in the history would lie."""
        path = folder / export(folder).written[0]
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace("create schema uvian;", "create schema uvian ;"))
        await self.refused(plain, folder, "0001_jobs was edited after its export. Restore the file")

    async def test_a_text_that_the_database_has_differently(
        self, plain: CleanDatabase, folder: Path, release: Callable[[int], Path]
    ) -> None:
        """Another version of that file was applied by the other route."""
        other = release(2)
        path = other / "migrations" / "0002_credits.sql"
        path.write_text(path.read_text(encoding="utf-8") + "-- \n", encoding="utf-8")
        await migrate(plain.dsn, directory=other)
        export(folder)
        await self.refused(
            plain, folder, "0002_credits was applied to this database with another text"
        )

    async def test_a_file_whose_predecessor_is_missing(
        self, plain: CleanDatabase, folder: Path
    ) -> None:
        """Somebody deleted one of ours from the folder."""
        report = export(folder)
        (folder / report.written[0]).unlink()
        await self.refused(plain, folder, "0002_credits comes after 0001_jobs, which this database")

    async def test_another_role_than_the_owner(
        self, plain: CleanDatabase, folder: Path, release: Callable[[int], Path]
    ) -> None:
        """Half of the schema would belong to somebody else; a superuser would not even notice."""
        await migrate(plain.dsn, directory=release(2))
        export(folder)
        expected = (
            "belongs to uvian_migrator, and this connection is postgres: connect as uvian_migrator"
        )
        with pytest.raises(Misconfigured, match=expected):
            await migrate(plain.superuser_dsn)
        with pytest.raises(asyncpg.RaiseError, match=expected):
            await SupabaseCli(plain.superuser_dsn, folder).push()
        assert await versions(plain.dsn) == [1, 2]

    async def test_who_is_not_the_owner_may_run_it_when_nothing_is_pending(
        self, plain: CleanDatabase, folder: Path
    ) -> None:
        """Every deploy runs it, and most have nothing to do."""
        await migrate(plain.dsn)
        assert (await migrate(plain.superuser_dsn)).applied == ()
        export(folder)
        assert len(await SupabaseCli(plain.superuser_dsn, folder).push()) == len(load().steps)

    @pytest.mark.parametrize("line_end", ["\r\n", "\n"])
    async def test_windows_line_ends_are_no_edit(
        self, plain: CleanDatabase, folder: Path, line_end: str
    ) -> None:
        """A checkout on Windows leaves the same history."""
        for name in export(folder).written:
            text = (folder / name).read_text(encoding="utf-8")
            (folder / name).write_text(text, encoding="utf-8", newline=line_end)
        await SupabaseCli(plain.dsn, folder).push()
        assert (await migrate(plain.dsn)).applied == ()
        bodies = "select count(*) from pg_proc where prosrc like '%' || chr(13) || '%'"
        assert await ask(plain.superuser_dsn, bodies) == 0


class TestASchemaThatIsNotOurs:
    """The name is taken, or the history was lost."""

    async def test_a_schema_without_a_ledger(self, plain: CleanDatabase) -> None:
        """It is left alone."""
        await run(plain.dsn, "create schema uvian")
        with pytest.raises(Misconfigured, match=r"does not know 0001_jobs.*rename the schema"):
            await migrate(plain.dsn)

    async def test_a_ledger_without_rows(self, plain: CleanDatabase) -> None:
        """`supabase migration squash` keeps tables and forgets what is in them: the message says so."""
        await migrate(plain.dsn)
        await run(plain.dsn, "delete from uvian.schema_migrations")
        with pytest.raises(
            Misconfigured, match=r"history's rows were lost \(`supabase migration squash`"
        ):
            await migrate(plain.dsn)


class TestSessions:
    """Settings of a role or a database do not change what a migration does."""

    async def test_a_serializable_role_sees_what_it_waited_for(self, plain: CleanDatabase) -> None:
        """In a snapshot from before the lock, the history would lack what the other one did."""
        await run(
            plain.superuser_dsn,
            f"alter role uvian_migrator in database {plain.name} "
            "set default_transaction_isolation = 'serializable'",
        )
        reports = await asyncio.gather(*(migrate(plain.dsn) for _ in range(4)))
        assert sorted(label for report in reports for label in report.applied) == sorted(LABELS)

    async def test_a_quiet_role_hears_the_notices(self, plain: CleanDatabase) -> None:
        """`client_min_messages` of the role hides neither steps nor warnings."""
        await bootstrap(plain.superuser_dsn, storage_policies=False)
        await run(
            plain.superuser_dsn,
            f"alter role uvian_migrator in database {plain.name} set client_min_messages = 'error'",
        )
        assert len((await migrate(plain.dsn)).notices) == 2

    async def test_a_read_only_database_says_why(self, plain: CleanDatabase) -> None:
        """Supabase makes a project read-only when its disk is full."""
        await run(
            plain.superuser_dsn,
            f"alter database {plain.name} set default_transaction_read_only = on",
        )
        with pytest.raises(Misconfigured, match=r"takes no writes: .* disk is full.* make room"):
            await migrate(plain.dsn)
        assert len((await status(plain.dsn)).pending) == len(LABELS)


@pytest.fixture
def replica() -> Iterator[tuple[EmbeddedPostgres, EmbeddedPostgres]]:
    """A migrated primary that was stopped, and a copy of it that follows: read-only for ever."""
    with server_folder() as folder:
        primary = EmbeddedPostgres(folder / "primary", durable=False, binaries=POSTGRES_BINARIES)
        with primary:
            asyncio.run(bootstrap(primary.dsn))
            asyncio.run(migrate(primary.migrator_dsn))
        shutil.copytree(folder / "primary", folder / "replica", ignore=_sockets)
        for path in [folder / "replica", *(folder / "replica").rglob("*")]:
            original = (folder / "primary" / path.relative_to(folder / "replica")).stat()
            shutil.chown(path, original.st_uid, original.st_gid)
        signal = folder / "replica" / "data" / "standby.signal"
        signal.touch()
        owner = signal.parent.stat()
        shutil.chown(signal, owner.st_uid, owner.st_gid)
        second = EmbeddedPostgres(folder / "replica", durable=False, binaries=POSTGRES_BINARIES)
        with second:
            yield primary, second


def _sockets(_: str, names: list[str]) -> list[str]:
    return [name for name in names if re.search(r"socket|\.pid$|\.lock$", name)]


def test_a_replica_answers_the_status_and_refuses_the_rest(
    replica: tuple[EmbeddedPostgres, EmbeddedPostgres], release: Callable[[int], Path]
) -> None:
    """What is there is told; what is pending belongs on the primary."""
    _, second = replica
    asyncio.run(status(second.migrator_dsn)).require_usable()
    assert asyncio.run(migrate(second.migrator_dsn)).applied == ()
    newer = release(len(load().steps))
    (newer / "migrations" / "9999_newer.sql").write_text("-- min_code: 0.1.0\nselect 1;\n")
    with pytest.raises(Misconfigured, match=r"read replica.*Connect to the primary"):
        asyncio.run(migrate(second.migrator_dsn, directory=newer))
