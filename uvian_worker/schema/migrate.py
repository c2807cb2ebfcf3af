"""Applies what is pending of ``repositories/sql``, step by step, and says what is applied.

    report = await migrate("postgresql://uvian_migrator@…/app")

A step is one transaction (``order.txt`` says which files share one). The other route is the Supabase
CLI, for which ``uvian_worker.schema.export`` writes the same steps: both end alike. What a file and
the history are stands in ``uvian_worker.schema.history``. Why not a migration tool:
``docs/decisions/0002-our-own-migration-history.md`` and ``0021-one-schema.md``.
"""

from __future__ import annotations

__all__ = ["MigrationFailed", "MigrationReport", "bootstrap", "look", "migrate", "status"]

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import orjson

import repositories
from repositories.errors import NotGranted, TimedOut
from uvian_worker.schema.connection import (
    MigrationFailed,
    Notice,
    Notices,
    collected_notices,
    connected,
    lock,
    refuse_transaction_pool,
    require_welcome,
    translated,
    who_is_in_the_way,
)
from uvian_worker.schema.history import (
    COLUMNS,
    Applied,
    Finding,
    Migration,
    Release,
    Repeatable,
    SchemaStatus,
    Setup,
    Step,
    compare,
    findings,
    load,
)

_BOOTSTRAP = Path(repositories.__file__).parent / "sql" / "bootstrap.sql"
_HISTORY = "The migration history"


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

    Pending is a migration that was not applied, and whatever else has another text than it had.

    Then make what the project lacks beside the schema (bucket, policy, publication), as far as the
    platform lets this role: also when nothing was pending.

    ``dsn`` is a direct or session-mode connection as the role that shall own the schema.
    Raises ``MigrationFailed`` (that step is rolled back, those before it stay), ``NotGranted``,
    ``TimedOut`` (a table is in use), ``Misconfigured`` or ``Unavailable``.
    """
    refuse_transaction_pool(dsn)
    release = load(directory)
    applied: list[str] = []
    async with connected(dsn) as connection:
        try:
            with collected_notices(connection) as notices:
                while step := await _apply_next(connection, release, notices):
                    applied += (file.label for file in step)
        except TimedOut as error:
            raise TimedOut(f"{error} {await who_is_in_the_way(connection)}".rstrip()) from error
        before, missing = await _set_up(connection)
    already = (file.label for file in release.files if file.label not in applied)
    left = {finding.part for finding in missing}
    made = tuple(finding.part for finding in before if finding.part not in left)
    return MigrationReport(tuple(applied), tuple(already), tuple(notices.received), made, missing)


async def status(dsn: str, *, directory: Path | None = None) -> SchemaStatus:
    """Compare the database with the files of this release; changes nothing, and needs no session.

    Raises ``NotGranted`` (this role may not read the history), ``Misconfigured``, ``Unavailable``.
    """
    release = load(directory)
    async with connected(dsn) as connection:
        with translated(_HISTORY):
            return compare(await _history(connection), release)


async def look(dsn: str) -> Setup:
    """What ``status`` says, and what the project lacks beside the schema; changes nothing."""
    release = load()
    async with connected(dsn) as connection:
        with translated(_HISTORY):
            found = compare(await _history(connection), release)
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
    refuse_transaction_pool(superuser_dsn)
    async with connected(superuser_dsn) as connection:
        if not await connection.fetchval("select current_setting('is_superuser')::boolean"):
            raise NotGranted(
                "The bootstrap creates roles: connect as a superuser of this Postgres."
            )
        with translated("The bootstrap"):
            async with connection.transaction():
                await lock(connection)
                await connection.execute(
                    "select set_config('uvian.old_defaults', $1, true),"
                    " set_config('uvian.storage_policies', $2, true)",
                    "on" if old_defaults else "off",
                    "on" if storage_policies else "off",
                )
                await connection.execute(_BOOTSTRAP.read_text(encoding="utf-8"))


async def _apply_next(
    connection: asyncpg.Connection[Any], release: Release, notices: Notices
) -> Step:
    """Apply the first step that is pending, whole; empty when there is none (left)."""
    # Not the role's default: in an older snapshot the history would lack what we waited for.
    async with connection.transaction(isolation="read_committed"):
        await lock(connection)
        with translated(_HISTORY):
            compared = compare(await _history(connection), release)
        compared.require_mergeable()
        if not compared.steps:
            return ()
        step = compared.steps[0]
        await require_welcome(connection)
        for file in step:
            with translated(file.label, file.sql):
                await connection.execute(file.sql)
                await _record(connection, file, release.version)
            await asyncio.sleep(0)  # asyncpg hands notices over in the loop's next turn
            notices.labelled(file.label)
        return step


async def _set_up(
    connection: asyncpg.Connection[Any],
) -> tuple[tuple[Finding, ...], tuple[Finding, ...]]:
    """Make what the project lacks beside the schema; what that was, and what it still is."""
    before = await _missing(connection)
    if not before:
        return before, before
    with translated("The platform's part"):
        async with connection.transaction(isolation="read_committed"):
            await lock(connection)
            await connection.execute(
                "set local client_min_messages = error"
            )  # what is left is told
            await connection.execute("select uvian._set_up_platform()")
    return before, await _missing(connection)


async def _missing(connection: asyncpg.Connection[Any]) -> tuple[Finding, ...]:
    with translated("The platform's part"):
        if await connection.fetchval("select to_regproc('uvian.platform_state')") is None:
            return ()
        return findings(orjson.loads(await connection.fetchval("select uvian.platform_state()")))


async def _history(connection: asyncpg.Connection[Any]) -> list[Applied]:
    if await connection.fetchval("select to_regclass('uvian.schema_migrations')") is None:
        return []
    rows = await connection.fetch("select * from uvian.schema_migrations")
    return [Applied(**{column: row[column] for column in COLUMNS}) for row in rows]


async def _record(
    connection: asyncpg.Connection[Any], file: Migration | Repeatable, release: str
) -> None:
    version, min_code = (
        (file.version, file.min_code) if isinstance(file, Migration) else (None, None)
    )
    await connection.execute(
        "insert into uvian.schema_migrations as h (name, version, checksum, min_code, release)"
        " values ($1, $2, $3, $4, $5)"
        " on conflict (name) do update"
        " set checksum = excluded.checksum, release = excluded.release, applied_at = now()",
        file.label,
        version,
        file.checksum,
        min_code,
        release,
    )
