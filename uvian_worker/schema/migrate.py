"""Applies ``repositories/sql``, each file in one transaction, and says what is applied.

    report = await migrate("postgresql://uvian_migrator@…/app")

The other route is the Supabase CLI, for which ``uvian_worker.schema.export`` writes the same files: both
end alike. What a file and the ledger are stands in ``uvian_worker.schema.history``. Why not a migration
tool: ``docs/decisions/0002-our-own-migration-history.md``.
"""

from __future__ import annotations

__all__ = [
    "Applied",
    "Migration",
    "MigrationFailed",
    "MigrationReport",
    "Notice",
    "SchemaStatus",
    "bootstrap",
    "compare",
    "load",
    "look",
    "migrate",
    "status",
]

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import orjson

import repositories
from repositories.errors import (
    Misconfigured,
    NotGranted,
    Permanent,
    TimedOut,
    Unavailable,
)
from uvian_common.dsn import BadConnectionString, is_transaction_pool, read
from uvian_worker.schema.history import (
    LOCK,
    LOCK_TIMEOUT,
    Applied,
    Finding,
    Migration,
    SchemaStatus,
    Setup,
    compare,
    findings,
    load,
)

_BOOTSTRAP = Path(repositories.__file__).parent / "sql" / "bootstrap.sql"
_ON_SUPABASE = "UV001"  # raised by bootstrap.sql
_FOREIGN_FUNCTION = re.compile(r"PL/pgSQL function (?!inline_code_block)(\S+) line")


class MigrationFailed(Permanent):
    """A migration raised; it was rolled back, and those before it stay applied."""


@dataclass(frozen=True, slots=True)
class Notice:
    """What the server had to say while a migration ran."""

    migration: str  #: label of the migration
    severity: str  #: NOTICE or WARNING
    message: str
    hint: str | None


@dataclass(frozen=True, slots=True)
class MigrationReport:
    """What one run of ``migrate`` did: labels, in order, and what the server said."""

    applied: tuple[str, ...]
    already: tuple[str, ...]
    notices: tuple[Notice, ...]
    made: tuple[str, ...] = ()  #: what the project lacked beside the schema, and has now
    missing: tuple[Finding, ...] = ()  #: what it still lacks


async def migrate(dsn: str, *, directory: Path | None = None) -> MigrationReport:
    """Apply what is pending, in order; runs at the same time apply each file once.

    Then make what the project lacks beside the schema (bucket, policy, publication), as far as the
    platform lets this role: also when nothing was pending.

    ``dsn`` is a direct or session-mode connection as the role that shall own the schema.
    Raises ``MigrationFailed`` (that file is rolled back, those before it stay), ``NotGranted``,
    ``TimedOut`` (a table is in use), ``Misconfigured`` or ``Unavailable``.
    """
    _refuse_transaction_pool(dsn)
    migrations = load(directory)
    applied: list[str] = []
    async with _connection(dsn) as connection:
        try:
            with _notices(connection) as notices:
                while (migration := await _apply_next(connection, migrations)) is not None:
                    await asyncio.sleep(0)  # asyncpg hands notices over in the loop's next turn
                    applied.append(migration.label)
                    notices.labelled(migration.label)
        except TimedOut as error:
            raise TimedOut(f"{error} {await _in_the_way(connection)}".rstrip()) from error
        before, missing = await _set_up(connection)
    already = (migration.label for migration in migrations if migration.label not in applied)
    left = {finding.part for finding in missing}
    made = tuple(finding.part for finding in before if finding.part not in left)
    return MigrationReport(tuple(applied), tuple(already), tuple(notices.kept), made, missing)


async def status(dsn: str, *, directory: Path | None = None) -> SchemaStatus:
    """Compare the database with the files of this release; changes nothing, and needs no session.

    Raises ``NotGranted`` (this role may not read the ledger), ``Misconfigured``, ``Unavailable``.
    """
    migrations = load(directory)
    async with _connection(dsn) as connection:
        with _translated("The ledger"):
            return compare(await _ledger(connection), migrations)


async def look(dsn: str) -> Setup:
    """What ``status`` says, and what the project lacks beside the schema; changes nothing."""
    migrations = load()
    async with _connection(dsn) as connection:
        with _translated("The ledger"):
            found = compare(await _ledger(connection), migrations)
        return Setup(found, () if found.pending else await _missing(connection))


async def bootstrap(
    superuser_dsn: str, *, old_defaults: bool = False, storage_policies: bool = True
) -> None:
    """Supply what Supabase brings to a plain Postgres; doing it again is fine.

    ``old_defaults`` grants every new object to everybody, as projects made before 30 October 2026
    do. Without ``storage_policies`` the migrator is refused buckets and policies in ``storage``, as
    on platforms that lack Supabase's grant. Raises ``NotGranted`` without a superuser and
    ``Misconfigured`` on a Supabase project.
    """
    _refuse_transaction_pool(superuser_dsn)
    async with _connection(superuser_dsn) as connection:
        if not await connection.fetchval("select current_setting('is_superuser')::boolean"):
            raise NotGranted(
                "The bootstrap creates roles: connect as a superuser of this Postgres."
            )
        with _translated("The bootstrap"):
            async with connection.transaction():
                await _lock(connection)
                await connection.execute(
                    "select set_config('uvian.old_defaults', $1, true),"
                    " set_config('uvian.storage_policies', $2, true)",
                    "on" if old_defaults else "off",
                    "on" if storage_policies else "off",
                )
                await connection.execute(_BOOTSTRAP.read_text(encoding="utf-8"))


async def _apply_next(
    connection: asyncpg.Connection[Any], migrations: Sequence[Migration]
) -> Migration | None:
    """Apply the first pending migration; None when there is none (left)."""
    # Not the role's default: in an older snapshot the ledger would lack what we waited for.
    async with connection.transaction(isolation="read_committed"):
        await _lock(connection)
        with _translated("The ledger"):
            compared = compare(await _ledger(connection), migrations)
        compared.require_mergeable()
        if not compared.pending:
            return None
        migration = compared.pending[0]
        await _require_welcome(connection)
        with _translated(migration.label, migration.sql):
            await connection.execute(migration.sql)
            await _record(connection, migration)
        return migration


async def _set_up(
    connection: asyncpg.Connection[Any],
) -> tuple[tuple[Finding, ...], tuple[Finding, ...]]:
    """Make what the project lacks beside the schema; what that was, and what it still is."""
    before = await _missing(connection)
    if not before:
        return before, before
    with _translated("The platform's part"):
        async with connection.transaction(isolation="read_committed"):
            await _lock(connection)
            await connection.execute(
                "set local client_min_messages = error"
            )  # what is left is told
            await connection.execute("select uvian._set_up_platform()")
    return before, await _missing(connection)


async def _missing(connection: asyncpg.Connection[Any]) -> tuple[Finding, ...]:
    with _translated("The platform's part"):
        if await connection.fetchval("select to_regproc('uvian.platform_state')") is None:
            return ()
        return findings(orjson.loads(await connection.fetchval("select uvian.platform_state()")))


async def _lock(connection: asyncpg.Connection[Any]) -> None:
    # A session's advisory lock would exclude nobody through a pooler.
    await connection.execute("set local statement_timeout = 0; set local lock_timeout = 0")
    await connection.execute("select pg_advisory_xact_lock($1)", LOCK)
    await connection.execute(f"set local lock_timeout = '{LOCK_TIMEOUT}'")
    # Names must say their schema: nothing of a team's may stand in for what a file means.
    await connection.execute("set local search_path = ''; set local client_min_messages = notice")


async def _require_welcome(connection: asyncpg.Connection[Any]) -> None:
    """Raise ``Misconfigured`` where files would fail half-way, or leave objects of two owners."""
    here = await connection.fetchrow(
        "select pg_is_in_recovery() or current_setting('transaction_read_only')::boolean as closed,"
        " (select pg_get_userbyid(nspowner) from pg_namespace where nspname = 'uvian') as owner,"
        " current_user as role"
    )
    if here["closed"]:
        raise Misconfigured(
            "This Postgres takes no writes: it is a read replica, or it was made read-only "
            "(Supabase does that when the disk is full). Connect to the primary, or make room first."
        )
    if here["owner"] not in (None, here["role"]):
        raise Misconfigured(
            f"The schema uvian belongs to {here['owner']}, and this connection is "
            f"{here['role']}: connect as {here['owner']}."
        )


async def _in_the_way(connection: asyncpg.Connection[Any]) -> str:
    """Who has been in a transaction on our tables (or the platform's) for longest, and how to end it."""
    found = await connection.fetchrow(
        """
        select a.pid, a.usename, a.application_name as name, left(a.query, 60) as query,
               extract(epoch from now() - a.xact_start)::int as seconds
        from pg_stat_activity a
        where a.datname = current_database() and a.pid <> pg_backend_pid() and a.pid in (
          select l.pid from pg_locks l
          join pg_class c on c.oid = l.relation join pg_namespace n on n.oid = c.relnamespace
          where l.granted and n.nspname in ('uvian', 'auth', 'storage'))
        order by a.xact_start limit 1"""
    )
    if found is None:
        return ""
    name = f", {found['name']}" if found["name"] else ""
    return (
        f"Longest there: process {found['pid']} ({found['usename']}{name}), for {found['seconds']} s "
        f"in a transaction with `{' '.join(found['query'].split())}`; to end it: "
        f"select pg_terminate_backend({found['pid']});"
    )


async def _ledger(connection: asyncpg.Connection[Any]) -> list[Applied]:
    if await connection.fetchval("select to_regclass('uvian.schema_migrations')") is None:
        return []
    rows = await connection.fetch(
        "select version, name, checksum, min_code, applied_at from uvian.schema_migrations"
    )
    return [Applied(**row) for row in rows]


async def _record(connection: asyncpg.Connection[Any], migration: Migration) -> None:
    await connection.execute(
        "insert into uvian.schema_migrations (version, name, checksum, min_code)"
        " values ($1, $2, $3, $4)",
        migration.version,
        migration.name,
        migration.checksum,
        migration.min_code,
    )


class _Notices:
    """Collects what the server says, and files it under the migration that was running."""

    def __init__(self) -> None:
        self.kept: list[Notice] = []
        self._unfiled: list[asyncpg.PostgresLogMessage] = []

    def hear(self, _: object, message: asyncpg.PostgresLogMessage) -> None:
        self._unfiled.append(message)

    def labelled(self, label: str) -> None:
        for said in self._unfiled:
            self.kept.append(Notice(label, said.severity, said.message, said.hint))
        self._unfiled.clear()


@contextlib.contextmanager
def _notices(connection: asyncpg.Connection[Any]) -> Iterator[_Notices]:
    notices = _Notices()
    connection.add_log_listener(notices.hear)
    try:
        yield notices
    finally:
        connection.remove_log_listener(notices.hear)


@contextlib.asynccontextmanager
async def _connection(dsn: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    connection = await _connect(dsn)
    try:
        yield connection
    except (asyncpg.InterfaceError, asyncpg.PostgresConnectionError, OSError) as error:
        raise Unavailable(
            "The connection to Postgres was lost; what was not committed is rolled back: "
            "run it again."
        ) from error
    finally:
        with contextlib.suppress(asyncpg.InterfaceError, asyncpg.PostgresError, OSError):
            await connection.close(timeout=5)  # what matters is committed


def _refuse_transaction_pool(dsn: str) -> None:
    if is_transaction_pool(dsn):
        raise Misconfigured(
            "This leads to a transaction pooler (port 6543, pgbouncer=true, or Neon's -pooler), which cannot "
            "run migrations: use the direct connection string or the session pooler's (port 5432), from "
            "Connect in the dashboard."
        )


async def _connect(dsn: str) -> asyncpg.Connection[Any]:
    try:
        return await asyncpg.connect(**read(dsn).arguments(15), statement_cache_size=0)
    except BadConnectionString as error:
        raise Misconfigured(f"The connection string {error}.") from None
    except (asyncpg.ClientConfigurationError, ValueError) as error:
        # Not the string itself: it holds a password.
        raise Misconfigured(
            "The connection string is not valid: it reads postgresql://user:password@host:5432/name."
        ) from error
    except (
        asyncpg.InvalidAuthorizationSpecificationError,
        asyncpg.InvalidCatalogNameError,
    ) as error:
        raise Misconfigured(f"Postgres refuses the connection string: {_said(error)}.") from error
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise Unavailable(
            f"Postgres does not answer ({error}): check host and port of the connection string, "
            "and that it runs."
        ) from error


@contextlib.contextmanager
def _translated(what: str, sql: str = "") -> Iterator[None]:
    """Say in this project's words what went wrong with ``what``, and what to do next."""
    try:
        yield
    except asyncpg.InsufficientPrivilegeError as error:
        raise NotGranted(
            f"{what}: {_said(error)}. Connect as the role that owns the schema uvian and may create "
            "schemas in this database (on Supabase: postgres)."
        ) from error
    except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError) as error:
        raise TimedOut(
            f"{what} was rolled back: a table it changes was in use for {LOCK_TIMEOUT}. "
            "Run it again, at a quieter moment or after ending long transactions."
        ) from error
    except asyncpg.DuplicateSchemaError as error:
        raise Misconfigured(
            f"The schema uvian is there, but its ledger uvian.schema_migrations does not know {what}. "
            "Either it is not ours, or the ledger's rows were lost (`supabase migration squash` does "
            "that): bring them back, or rename the schema."
        ) from error
    except asyncpg.PostgresConnectionError:
        raise
    except asyncpg.PostgresError as error:
        if error.sqlstate == _ON_SUPABASE:
            raise Misconfigured(
                "This is a Supabase project: it has all that the bootstrap brings. "
                "Run `uvian migrate` alone."
            ) from error
        reason = f"{_said(error)}{_place(error, sql)}{_culprit(error)}"
        raise MigrationFailed(f"{what} was rolled back: {reason}.") from error


def _said(error: asyncpg.PostgresError) -> str:
    """The server's sentences, on one line and without a full stop."""
    parts = (error.args[0], getattr(error, "detail", None), getattr(error, "hint", None))
    return ". ".join(str(part).rstrip(".") for part in parts if part)


def _place(error: asyncpg.PostgresError, sql: str) -> str:
    position = getattr(error, "position", None)
    return f" (line {sql[: int(position)].count(chr(10)) + 1})" if position and sql else ""


def _culprit(error: asyncpg.PostgresError) -> str:
    """The function it happened in: a team's event trigger, say, which runs for our statements too."""
    found = _FOREIGN_FUNCTION.search(getattr(error, "context", None) or "")
    return f" (in the function {found[1]})" if found else ""
