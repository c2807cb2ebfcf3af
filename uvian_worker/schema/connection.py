"""The connection of whoever changes the schema: one at a time, with errors in this project's words."""

from __future__ import annotations

__all__ = [
    "MigrationFailed",
    "Notice",
    "Notices",
    "collected_notices",
    "connected",
    "lock",
    "refuse_transaction_pool",
    "require_welcome",
    "translated",
    "who_is_in_the_way",
]

import contextlib
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import asyncpg

from repositories.errors import Misconfigured, NotGranted, Permanent, TimedOut, Unavailable
from uvian_common.dsn import BadConnectionString, is_transaction_pool, read
from uvian_worker.schema.history import LOCK, LOCK_TIMEOUT

_ON_SUPABASE = "UV001"  # raised by bootstrap.sql
_FOREIGN_FUNCTION = re.compile(r"PL/pgSQL function (?!inline_code_block)(\S+) line")


class MigrationFailed(Permanent):
    """A migration raised; it was rolled back, and those before it stay applied."""


@dataclass(frozen=True, slots=True)
class Notice:
    """What the server had to say while a migration ran."""

    migration: str  #: label of the file
    severity: str  #: NOTICE or WARNING
    message: str
    hint: str | None


async def lock(connection: asyncpg.Connection[Any]) -> None:
    """Exclude every other change of this schema, of either route, until the transaction ends."""
    # A session's advisory lock would exclude nobody through a pooler.
    await connection.execute("set local statement_timeout = 0; set local lock_timeout = 0")
    await connection.execute("select pg_advisory_xact_lock($1)", LOCK)
    await connection.execute(f"set local lock_timeout = '{LOCK_TIMEOUT}'")
    # Names must say their schema: nothing of a team's may stand in for what a file means.
    await connection.execute("set local search_path = ''; set local client_min_messages = notice")


async def require_welcome(connection: asyncpg.Connection[Any]) -> None:
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


async def who_is_in_the_way(connection: asyncpg.Connection[Any]) -> str:
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


class Notices:
    """Collects what the server says, and files it under the file that was running."""

    def __init__(self) -> None:
        self.received: list[Notice] = []
        self._unfiled: list[asyncpg.PostgresLogMessage] = []

    def receive(self, _: object, message: asyncpg.PostgresLogMessage) -> None:
        """Keep a message; asyncpg calls it."""
        self._unfiled.append(message)

    def labelled(self, label: str) -> None:
        """What was received since the last call came of this file."""
        for said in self._unfiled:
            self.received.append(Notice(label, said.severity, said.message, said.hint))
        self._unfiled.clear()


@contextlib.contextmanager
def collected_notices(connection: asyncpg.Connection[Any]) -> Iterator[Notices]:
    """What the server says on this connection, until the block ends."""
    notices = Notices()
    connection.add_log_listener(notices.receive)
    try:
        yield notices
    finally:
        connection.remove_log_listener(notices.receive)


@contextlib.asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A connection; raises ``Misconfigured`` or ``Unavailable`` where there is none (any more)."""
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


def refuse_transaction_pool(dsn: str) -> None:
    """Raise ``Misconfigured`` for what cannot run migrations."""
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
def translated(what: str, sql: str = "") -> Iterator[None]:
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
            f"The schema uvian is there, but its history uvian.schema_migrations does not know {what}. "
            "Either it is not ours, or the history's rows were lost (`supabase migration squash` does "
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
