"""What ``supabase db push`` does to a database, as its sources say: for tests without the CLI.

It splits a file into statements, resets the session's settings, runs the statements in one
transaction and enters the version in a history of its own. It refuses local files that are older
than the newest it applied, and applied versions whose file is gone. Notices of
the server it shows to nobody: ``heard`` is for the tests alone.
"""

from __future__ import annotations

__all__ = ["MODES", "PushRefused", "SupabaseCli", "split"]

import re
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Literal, get_args

import asyncpg

#: How a file's statements reach the server: in one transaction by the extended protocol (the CLI
#: until 2.100) or by the simple one (later), each on its own (psql), or all files in one (psql -1).
Mode = Literal["pipeline", "transaction", "statements", "single"]
MODES: tuple[Mode, ...] = get_args(Mode)

_FILE = re.compile(r"(\d+)_(.*)\.sql")
_TOKEN = re.compile(
    r"""--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|"(?:[^"]|"")*"|(\$\w*\$).*?\1|;|.""", re.DOTALL
)
_HISTORY = (
    "create schema if not exists supabase_migrations",
    "create table if not exists supabase_migrations.schema_migrations (version text not null primary key)",
    "alter table supabase_migrations.schema_migrations add column if not exists statements text[]",
    "alter table supabase_migrations.schema_migrations add column if not exists name text",
)
_RECORD = "insert into supabase_migrations.schema_migrations (version, name, statements) values ($1, $2, $3)"


class PushRefused(Exception):
    """Local files and the CLI's history do not fit."""


def split(sql: str) -> Iterator[str]:
    """The statements of a file, without their semicolons."""
    statement = ""
    for token in _TOKEN.finditer(sql):
        if token[0] == ";":
            if statement.strip():
                yield statement.strip()
            statement = ""
        else:
            statement += token[0]
    if statement.strip():
        yield statement.strip()


class SupabaseCli:
    """The command, linked to one database and one ``supabase/migrations``."""

    def __init__(
        self, dsn: str, folder: Path, *, mode: Mode = "pipeline", role: str | None = None
    ) -> None:
        self.dsn = dsn
        self.folder = folder
        self.mode = mode
        self.role = role  #: that a login of its own steps up to
        self.heard: list[str] = []  #: what the server said, and the CLI keeps to itself

    async def push(self) -> list[str]:
        """Apply what is pending; names of the files. Raises ``PushRefused`` and what Postgres says."""
        connection = await asyncpg.connect(self.dsn)
        connection.add_log_listener(
            lambda _, notice: self.heard.append(
                f"{notice.severity} ({notice.sqlstate}): {notice.message}"
            )
        )
        try:
            if self.role is not None:
                await connection.execute(f"set session role {self.role}")
            pending = await self._pending(connection)
            if pending:
                for statement in _HISTORY:
                    await connection.execute(statement)
            self.heard.clear()
            async with AsyncExitStack() as stack:
                if self.mode == "single":
                    await stack.enter_async_context(connection.transaction())
                for path in pending:
                    await self._apply(connection, path)
            return [path.name for path in pending]
        finally:
            await connection.close()

    async def _pending(self, connection: asyncpg.Connection[Any]) -> list[Path]:
        history = await connection.fetchval(
            "select to_regclass('supabase_migrations.schema_migrations')"
        )
        query = "select version from supabase_migrations.schema_migrations order by version"
        remote = [row[0] for row in await connection.fetch(query)] if history else []
        local = {_named(path)[0]: path for path in sorted(self.folder.iterdir()) if _matches(path)}
        if missing := [version for version in remote if version not in local]:
            raise PushRefused(f"remote versions not found locally: {missing}")
        pending = [version for version in local if version not in remote]
        if remote and (late := [version for version in pending if version < remote[-1]]):
            raise PushRefused(f"to be inserted before the last migration on remote: {late}")
        return [local[version] for version in pending]

    async def _apply(self, connection: asyncpg.Connection[Any], path: Path) -> None:
        if self.mode != "single":
            await connection.execute("reset all")
            if self.role is not None:
                await connection.execute(f"set session role {self.role}")
        statements = list(split(path.read_text(encoding="utf-8")))
        async with AsyncExitStack() as stack:
            if self.mode in ("pipeline", "transaction"):
                await stack.enter_async_context(connection.transaction())
            for statement in statements:
                if self.mode == "pipeline":
                    await connection.fetch(statement)
                else:
                    await connection.execute(statement)
            await connection.execute(_RECORD, *_named(path), statements)


def _matches(path: Path) -> bool:
    return _FILE.fullmatch(path.name) is not None


def _named(path: Path) -> tuple[str, str]:
    match = _FILE.fullmatch(path.name)
    assert match is not None
    return match[1], match[2]
