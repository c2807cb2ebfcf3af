"""The asyncpg adapter: the contract, its errors, its connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import get_args

import asyncpg
import psutil
import pytest

from repositories import errors
from repositories.database import KEYS, SIGNATURES, Function, Table
from repositories.postgres import PostgresDatabase
from repositories.postgres import database as postgres
from repositories.postgres.errors import translated
from tests.contracts.database import DatabaseContract, job
from tests.servers import POSTGRES_BINARIES, CleanDatabase
from uvian_worker.local.embedded import EmbeddedPostgres
from uvian_worker.schema.migrate import bootstrap, migrate


async def _new_user(clean_dsn: str) -> str:
    connection = await asyncpg.connect(clean_dsn)
    try:
        return str(await connection.fetchval("insert into auth.users default values returning id"))
    finally:
        await connection.close()


@pytest.fixture
async def user(superuser_dsn: str) -> str:
    """A user who exists."""
    return await _new_user(superuser_dsn)


@pytest.fixture
async def port(database_dsn: str) -> AsyncIterator[PostgresDatabase]:
    """The adapter on a migrated database without rows."""
    port = await PostgresDatabase.connect(database_dsn, listen_dsn=database_dsn)
    yield port
    await port.close()


@pytest.mark.database
class TestPostgresDatabase(DatabaseContract):
    """It keeps the promises of the port."""

    @pytest.fixture
    async def port(self, database_dsn: str) -> AsyncIterator[PostgresDatabase]:
        port = await PostgresDatabase.connect(database_dsn, listen_dsn=database_dsn)
        yield port
        await port.close()

    @pytest.fixture
    async def user(self, superuser_dsn: str) -> str:
        return await _new_user(superuser_dsn)


# ─── signatures ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.database
async def test_signatures_are_those_of_the_catalog(superuser_dsn: str) -> None:
    """Every public function that answers one value, with its arguments; every table and its key.

    What answers rows (``my_conversations``, for policies) is none of the port's.
    """
    connection = await asyncpg.connect(superuser_dsn)
    try:
        rows = await connection.fetch(
            "select p.proname, p.proargnames as names, "
            "array(select format_type(t, null) from unnest(p.proargtypes) t) as types "
            "from pg_proc p where p.pronamespace = 'uvian'::regnamespace and p.proname not like '\\_%' "
            "and not p.proretset"
        )
        tables = await connection.fetch(
            "select relname from pg_class where relnamespace = 'uvian'::regnamespace and relkind = 'r'"
        )
        keys = await connection.fetch(
            "select i.indrelid::regclass::text as table, array(select a.attname::text from pg_attribute a "
            "where a.attrelid = i.indrelid and a.attnum = any (i.indkey) "
            "order by array_position(i.indkey::int[], a.attnum::int)) as columns "
            "from pg_index i join pg_class c on c.oid = i.indrelid "
            "where i.indisprimary and c.relnamespace = 'uvian'::regnamespace"
        )
    finally:
        await connection.close()
    catalog = {row["proname"]: dict(zip(row["names"], row["types"], strict=True)) for row in rows}
    assert {name: dict(arguments) for name, arguments in SIGNATURES.items()} == catalog
    assert set(get_args(Function)) == set(SIGNATURES)
    assert set(get_args(Table)) == {row["relname"] for row in tables}
    assert {f"uvian.{table}": key for table, key in KEYS.items()} == {
        row["table"]: tuple(row["columns"]) for row in keys
    }


# ─── errors ──────────────────────────────────────────────────────────────────────────────────────


def _with_state(
    state: str, message: str = "said", detail: str | None = None
) -> asyncpg.PostgresError:
    error = asyncpg.PostgresError(message)
    error.sqlstate = state
    error.detail = detail
    return error


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (("08000", "08003", "08006", "08P01"), errors.Unavailable),
        (("57P01", "57P02", "57P03", "57P05"), errors.Unavailable),
        (("53300", "53200", "53100", "58030"), errors.Unavailable),
        (("40001", "40003", "40P01", "55006", "25006", "42804"), errors.Unavailable),
        (("55P03",), errors.TimedOut),
        (("57014",), errors.StatementTooSlow),
        (("3F000", "42883", "42P01", "42703"), errors.SchemaMissing),
        (("42501", "28P01", "28000"), errors.NotGranted),
        (("3D000", "57P04"), errors.Misconfigured),
        (("PT404", "PT402", "P0001"), errors.Refused),
        (("23505",), errors.Conflict),
        (("22P02", "22021", "22003", "23502", "23503", "23514", "54001"), errors.DataError),
        (("XX000", "42601", "0A000"), errors.Permanent),
    ],
)
def test_a_state_has_one_meaning(states: tuple[str, ...], expected: type[Exception]) -> None:
    """From SQLSTATE to the error tree, exactly."""
    for state in states:
        assert type(translated(_with_state(state))) is expected, state


def test_every_error_that_postgres_can_name_is_one_of_ours() -> None:
    """Whatever asyncpg raises, the repositories raise only their own."""
    kinds = [
        k
        for k in vars(asyncpg.exceptions).values()
        if isinstance(k, type) and issubclass(k, Exception)
    ]
    assert len(kinds) > 200
    for kind in kinds:
        assert isinstance(translated(kind("said")), errors.RepositoryError), kind


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TimeoutError(), errors.TimedOut),
        (ConnectionResetError("reset"), errors.Unavailable),
        (OSError(), errors.Unavailable),
        (asyncpg.InterfaceError("closed"), errors.Unavailable),
        (asyncpg.ClientConfigurationError("no such sslmode"), errors.Misconfigured),
        (errors.Conflict("ours"), errors.Conflict),
        (ValueError("a bug"), errors.Permanent),
    ],
)
def test_what_is_not_postgres_has_its_meaning_too(
    error: Exception, expected: type[Exception]
) -> None:
    """Sockets, deadlines, and bugs, which are not repeated."""
    assert type(translated(error)) is expected


def test_messages_tell_the_operator_the_next_move() -> None:
    """Which command, which setting."""
    assert "uvian migrate" in str(translated(_with_state("42883")))
    assert "UVIAN_DATABASE_URL" in str(translated(_with_state("42501")))
    refused = translated(_with_state("PT402", "insufficient_credits", "It costs 5."))
    assert isinstance(refused, errors.Refused)
    assert (refused.code, str(refused)) == ("insufficient_credits", "It costs 5.")


@pytest.mark.database
async def test_a_database_without_the_schema_says_so(blank_database: CleanDatabase) -> None:
    """Before the first job, with the command that helps."""
    with pytest.raises(errors.SchemaMissing, match="uvian migrate"):
        await PostgresDatabase.connect(blank_database.superuser_dsn)


@pytest.mark.database
async def test_a_role_without_rights_says_so(database: CleanDatabase) -> None:
    """The API's login role is not the service."""
    with pytest.raises(errors.NotGranted, match="UVIAN_DATABASE_URL"):
        await PostgresDatabase.connect(database.authenticator_dsn)


@pytest.mark.database
async def test_a_database_that_does_not_exist_says_so(database: CleanDatabase) -> None:
    """A typing error in the connection string is not retried for ever."""
    with pytest.raises(errors.Misconfigured, match="does not exist"):
        await PostgresDatabase.connect(database.dsn.replace(database.name, "nowhere"))


async def test_a_server_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    """It may come: transient."""
    with pytest.raises(errors.Unavailable):
        await PostgresDatabase.connect(f"postgresql://x@/x?host={tmp_path}", timeout=1)


@pytest.mark.database
async def test_a_statement_beyond_the_servers_timeout_is_not_tried_again(
    database: CleanDatabase, user: str
) -> None:
    """57014: the same statement would run into it once more; only a smaller one may not."""
    hand = await asyncpg.connect(database.superuser_dsn)
    await hand.execute(f"alter database {database.name} set statement_timeout = '500ms'")
    port = await PostgresDatabase.connect(database.dsn)
    try:
        (made,) = await port.insert("jobs", [job(user)])
        async with hand.transaction():
            await hand.execute("select from uvian.jobs for update")
            with pytest.raises(errors.StatementTooSlow):
                await port.call("cancel_job", job_id=made["id"])
    finally:
        await hand.close()
        await port.close()


@pytest.mark.database
async def test_a_lock_is_waited_for_a_second_at_most(database: CleanDatabase, user: str) -> None:
    """A migration or a hand that holds a row does not tie up the worker's connections."""
    hand = await asyncpg.connect(database.superuser_dsn)
    port = await PostgresDatabase.connect(database.dsn)
    try:
        (made,) = await port.insert("jobs", [job(user)])
        async with hand.transaction():
            await hand.execute("select from uvian.jobs for update")
            with pytest.raises(errors.TimedOut, match="lock"):
                await port.call("cancel_job", job_id=made["id"])
    finally:
        await hand.close()
        await port.close()


@pytest.mark.database
async def test_a_call_has_a_deadline_of_our_own(database: CleanDatabase, user: str) -> None:
    """A server that does not answer is not waited for: transient, the work may have happened."""
    port = await PostgresDatabase.connect(database.dsn, timeout=1)
    (made,) = await port.insert("jobs", [job(user)])
    frozen = [psutil.Process(pid) for pid in await _sessions(database)]
    try:
        assert frozen
        for process in frozen:
            process.suspend()
        with pytest.raises(errors.TimedOut, match="did not answer in time"):
            await port.call("cancel_job", job_id=made["id"])
        assert (await port.call("cancel_job", job_id=made["id"]))["cancelled"]
    finally:
        for process in frozen:
            process.resume()
        await port.close()


async def _sessions(database: CleanDatabase) -> list[int]:
    """The processes that serve it, but for the one that looks."""
    hand = await asyncpg.connect(database.superuser_dsn)
    try:
        rows = await hand.fetch(
            "select pid from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        )
    finally:
        await hand.close()
    return [row["pid"] for row in rows]


# ─── connections ─────────────────────────────────────────────────────────────────────────────────


async def _kill_sessions(dsn: str, name: str) -> None:
    hand = await asyncpg.connect(dsn)
    try:
        await hand.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where datname = $1 and pid <> pg_backend_pid()",
            name,
        )
    finally:
        await hand.close()


@pytest.mark.database
async def test_a_killed_connection_is_transient_and_replaced(
    port: PostgresDatabase, database: CleanDatabase
) -> None:
    """In the middle of a call, and while it lay idle in the pool."""
    hand = await asyncpg.connect(database.superuser_dsn)
    try:
        async with hand.transaction():
            await hand.execute("lock table uvian.workers")
            calls = [asyncio.create_task(port.select("workers")) for _ in range(3)]
            while await hand.fetchval("select count(*) from pg_locks where not granted") < 3:
                await asyncio.sleep(0)
            await hand.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where datname = current_database() and pid <> pg_backend_pid()"
            )
            for call in calls:
                with pytest.raises(errors.Transient):
                    await call
    finally:
        await hand.close()
    await port.select("workers")
    await _kill_sessions(database.superuser_dsn, database.name)
    for _ in range(10):  # each connection of the pool learns of it once
        try:
            assert await port.select("workers") == []
            break
        except errors.Transient:
            continue
    else:
        raise AssertionError("the pool never recovered")


@pytest.mark.database
async def test_renewals_do_not_queue_behind_other_calls(database: CleanDatabase) -> None:
    """They have a connection of their own: a busy pool must not cost the leases."""
    hand = await asyncpg.connect(database.superuser_dsn)
    port = await PostgresDatabase.connect(database.dsn, connections=3)
    try:
        async with hand.transaction():
            await hand.execute("lock table uvian.credit_accounts")
            busy = [asyncio.create_task(port.select("credit_accounts")) for _ in range(6)]
            while await hand.fetchval("select count(*) from pg_locks where not granted") < 2:
                await asyncio.sleep(0)
            answer = await port.call("renew_leases", request={"worker": "w", "jobs": []})
            assert answer == {"lost": [], "cancel": []}
        await asyncio.gather(*busy)
    finally:
        await hand.close()
        await port.close()


@pytest.mark.database
async def test_no_more_connections_than_allowed(database: CleanDatabase) -> None:
    """Few per process: renewals included, LISTEN beside them."""
    port = await PostgresDatabase.connect(database.dsn, connections=4)
    hand = await asyncpg.connect(database.superuser_dsn)
    try:
        renewal = {"worker": "w", "jobs": []}
        await asyncio.gather(
            *(port.select("jobs") for _ in range(30)),
            *(port.call("renew_leases", request=renewal) for _ in range(30)),
        )
        sessions = "select count(*) from pg_stat_activity where datname = $1 and usename = 'uvian_migrator'"
        assert await hand.fetchval(sessions, database.name) <= 4
    finally:
        await hand.close()
        await port.close()


@pytest.mark.database
async def test_without_a_session_nobody_listens(database_dsn: str) -> None:
    """Through a transaction pooler the answer is no, and nothing is started."""
    port = await PostgresDatabase.connect(database_dsn)
    assert not await port.listen("uvian_jobs", lambda _: None)
    await port.close()


@pytest.mark.processes
async def test_a_server_that_stops_and_comes_back(tmp_path: Path) -> None:
    """While it is away every call is transient; once it is back the same adapter works."""
    with EmbeddedPostgres(tmp_path, durable=False, binaries=POSTGRES_BINARIES) as server:
        await bootstrap(server.dsn)
        await migrate(server.migrator_dsn)
        port = await PostgresDatabase.connect(server.migrator_dsn)
        try:
            assert await port.select("jobs") == []
            server.stop("immediate")
            for _ in range(3):
                with pytest.raises(errors.Transient):
                    await port.select("jobs")
            server.start()
            for _ in range(5):
                try:
                    assert await port.select("jobs") == []
                    break
                except errors.Transient:
                    continue
            else:
                raise AssertionError("never came back")
        finally:
            await port.close()


async def test_what_is_no_cast_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only ::text is one."""
    with pytest.raises(errors.DataError, match="only ::text"):
        postgres._output("balance::int")
