"""Applies ``repositories/migrations``, each file in one transaction, and says what is applied.

    report = await migrate("postgresql://uvian_migrator@…/app")

A file is named ``NNNN_name.sql`` and begins with ``-- min_code: X.Y.Z``: the oldest release that
still works on the schema after it. The first file creates the ledger ``uvian.schema_migrations``.
Why not a migration tool: ``docs/decisions/0002-our-own-migration-ledger.md``.
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
    "migrate",
    "status",
]

import asyncio
import contextlib
import hashlib
import importlib.metadata
import itertools
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import asyncpg

import repositories
from repositories.dsn import is_transaction_pool
from repositories.errors import (
    Misconfigured,
    NotGranted,
    Permanent,
    SchemaMissing,
    TimedOut,
    Unavailable,
)

_FOLDER = Path(repositories.__file__).parent / "migrations"
_BOOTSTRAP = Path(repositories.__file__).parent / "bootstrap.sql"
_FILE_NAME = re.compile(r"(?P<version>\d{4})_(?P<name>[a-z0-9_]+)\.sql")
_MIN_CODE = re.compile(r"-- min_code: (\d+\.\d+\.\d+)\r?\n")
_ON_SUPABASE = "UV001"  # raised by bootstrap.sql

#: Any number, as long as it is always this one: who migrates this database excludes the others.
_LOCK = 8_234_650_917_312_001

# Never for longer than this behind a running query: everybody else's would queue up behind us.
_LOCK_TIMEOUT = "5s"


class MigrationFailed(Permanent):
    """A migration raised; it was rolled back, and those before it stay applied."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of this release."""

    version: int
    name: str  #: without number and extension
    checksum: str  #: sha256 of the text with unix line endings
    min_code: str
    sql: str

    @property
    def label(self) -> str:
        """The file's name without its extension."""
        return f"{self.version:04d}_{self.name}"


@dataclass(frozen=True, slots=True)
class Applied:
    """One row of the ledger."""

    version: int
    name: str
    checksum: str
    min_code: str
    applied_at: datetime

    @property
    def label(self) -> str:
        """The file's name without its extension."""
        return f"{self.version:04d}_{self.name}"


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


@dataclass(frozen=True, slots=True)
class SchemaStatus:
    """The ledger compared with the files of a release."""

    release: str
    applied: tuple[Applied, ...]
    pending: tuple[Migration, ...]
    changed: tuple[str, ...]  #: labels whose file differs from what was applied
    unknown: tuple[Applied, ...]  #: applied by a newer release

    @property
    def needs_release(self) -> str | None:
        """The release that this database asks for at least; None when this one will do."""
        needed = max((row.min_code for row in self.unknown), key=_numbers, default=self.release)
        return needed if _numbers(needed) > _numbers(self.release) else None

    def require_mergeable(self) -> None:
        """Raise ``Misconfigured`` unless pending files may be applied on top."""
        if self.needs_release is not None:
            raise Misconfigured(
                f"The database was migrated by a newer release and needs uvian-worker "
                f"{self.needs_release} or newer; this is {self.release}. Upgrade this installation."
            )
        if self.changed:
            raise Misconfigured(
                f"{', '.join(self.changed)} differs from what was applied to this database. An "
                "applied migration is never edited: restore the file (reinstall uvian-worker) and "
                "put the change into a new one."
            )

    def require_usable(self) -> None:
        """Raise unless this release can work on the database; what is changed but there will do.

        ``SchemaMissing`` when migrations are missing, ``Misconfigured`` when it is too new.
        """
        if self.pending:
            labels = ", ".join(migration.label for migration in self.pending)
            what = "is too old for this release" if self.applied else "does not exist"
            raise SchemaMissing(f"The schema uvian {what}: run `uvian migrate` ({labels}).")
        if self.needs_release is not None:
            self.require_mergeable()


async def migrate(dsn: str, *, directory: Path | None = None) -> MigrationReport:
    """Apply what is pending, in order; runs at the same time apply each file once.

    ``dsn`` is a direct or session-mode connection as the role that shall own the schema.
    Raises ``MigrationFailed`` (that file is rolled back, those before it stay), ``NotGranted``,
    ``TimedOut`` (a table is in use), ``Misconfigured`` or ``Unavailable``.
    """
    _refuse_transaction_pool(dsn)
    migrations = load(directory)
    applied: list[str] = []
    async with _connection(dsn) as connection:
        with _notices(connection) as notices:
            while (migration := await _apply_next(connection, migrations)) is not None:
                await asyncio.sleep(0)  # asyncpg hands notices over in the next turn of the loop
                applied.append(migration.label)
                notices.labelled(migration.label)
    already = (migration.label for migration in migrations if migration.label not in applied)
    return MigrationReport(tuple(applied), tuple(already), tuple(notices.kept))


async def status(dsn: str, *, directory: Path | None = None) -> SchemaStatus:
    """Compare the database with the files of this release; changes nothing, and needs no session.

    Raises ``NotGranted`` (this role may not read the ledger), ``Misconfigured``, ``Unavailable``.
    """
    migrations = load(directory)
    async with _connection(dsn) as connection:
        with _translated("The ledger"):
            return compare(await _ledger(connection), migrations)


async def bootstrap(superuser_dsn: str, *, old_defaults: bool = False) -> None:
    """Supply what Supabase brings to a plain Postgres; doing it again is fine.

    ``old_defaults`` grants every new object to everybody, as projects made before 30 October 2026
    do. Raises ``NotGranted`` without a superuser and ``Misconfigured`` on a Supabase project.
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
                defaults = "on" if old_defaults else "off"
                await connection.execute(
                    "select set_config('uvian.old_defaults', $1, true)", defaults
                )
                await connection.execute(_BOOTSTRAP.read_text(encoding="utf-8"))


def load(directory: Path | None = None) -> tuple[Migration, ...]:
    """The migrations of a folder (by default this release's), ordered by version.

    Raises ``ValueError`` for a misnamed file, a number used twice or a header without ``min_code``.
    """
    files = sorted((directory or _FOLDER).glob("*.sql"))
    migrations = tuple(_read(path) for path in files)
    for one, other in itertools.pairwise(migrations):
        if one.version == other.version:
            raise ValueError(f"{one.label} and {other.label} have the same number.")
    return migrations


def compare(
    ledger: Sequence[Applied], migrations: Sequence[Migration], *, release: str | None = None
) -> SchemaStatus:
    """Judge a ledger (read over any transport) against the files of a release."""
    rows = {row.version: row for row in ledger}
    known = {migration.version for migration in migrations}
    return SchemaStatus(
        release=release or importlib.metadata.version("uvian-worker"),
        applied=tuple(sorted(ledger, key=lambda row: row.version)),
        pending=tuple(migration for migration in migrations if migration.version not in rows),
        changed=tuple(
            migration.label
            for migration in migrations
            if migration.version in rows and rows[migration.version].checksum != migration.checksum
        ),
        unknown=tuple(row for row in ledger if row.version not in known),
    )


def _read(path: Path) -> Migration:
    named = _FILE_NAME.fullmatch(path.name)
    if named is None:
        raise ValueError(f"{path.name}: a migration is named NNNN_name.sql, in lower case.")
    sql = path.read_text(encoding="utf-8").replace("\r\n", "\n")
    header = _MIN_CODE.match(sql)
    if header is None:
        raise ValueError(f"{path.name}: the first line must read `-- min_code: X.Y.Z`.")
    checksum = hashlib.sha256(sql.encode()).hexdigest()
    return Migration(int(named["version"]), named["name"], checksum, header[1], sql)


async def _apply_next(
    connection: asyncpg.Connection[Any], migrations: Sequence[Migration]
) -> Migration | None:
    """Apply the first pending migration; None when there is none (left)."""
    async with connection.transaction():
        await _lock(connection)
        with _translated("The ledger"):
            compared = compare(await _ledger(connection), migrations)
        compared.require_mergeable()
        if not compared.pending:
            return None
        migration = compared.pending[0]
        with _translated(migration.label, migration.sql):
            await connection.execute(migration.sql)
            await _record(connection, migration)
        return migration


async def _lock(connection: asyncpg.Connection[Any]) -> None:
    # A session's advisory lock would exclude nobody through a pooler.
    await connection.execute("set local statement_timeout = 0; set local lock_timeout = 0")
    await connection.execute("select pg_advisory_xact_lock($1)", _LOCK)
    await connection.execute(f"set local lock_timeout = '{_LOCK_TIMEOUT}'")
    # Names must say their schema: the Supabase CLI runs the same files under another search path.
    await connection.execute("set local search_path = ''")


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
            "Port 6543 is the transaction pooler, which cannot run migrations: use the direct "
            "connection string or the session pooler's (port 5432), from Connect in the dashboard."
        )


async def _connect(dsn: str) -> asyncpg.Connection[Any]:
    try:
        return await asyncpg.connect(dsn, timeout=15, statement_cache_size=0)
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
    except asyncpg.LockNotAvailableError as error:
        raise TimedOut(
            f"{what} was rolled back: a table it changes was in use for {_LOCK_TIMEOUT}. "
            "Run it again, at a quieter moment or after ending long transactions."
        ) from error
    except asyncpg.PostgresConnectionError:
        raise
    except asyncpg.PostgresError as error:
        if error.sqlstate == _ON_SUPABASE:
            raise Misconfigured(
                "This is a Supabase project: it has all that the bootstrap brings. "
                "Run `uvian migrate` alone."
            ) from error
        reason = f"{_said(error)}{_place(error, sql)}"
        raise MigrationFailed(f"{what} was rolled back: {reason}.") from error


def _said(error: asyncpg.PostgresError) -> str:
    """The server's sentences, on one line and without a full stop."""
    parts = (error.args[0], getattr(error, "detail", None), getattr(error, "hint", None))
    return ". ".join(str(part).rstrip(".") for part in parts if part)


def _place(error: asyncpg.PostgresError, sql: str) -> str:
    position = getattr(error, "position", None)
    return f" (line {sql[: int(position)].count(chr(10)) + 1})" if position and sql else ""


def _numbers(release: str) -> tuple[int, ...]:
    """``1.10.0rc1`` → (1, 10, 0): enough to order the releases a ledger names."""
    return tuple(int(number) for number in re.findall(r"\d+", release)[:3])
