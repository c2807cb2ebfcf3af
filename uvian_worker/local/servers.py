"""Servers, schema and a user in one folder: what ``uvian demo`` and ``uvian dev`` stand on."""

from __future__ import annotations

__all__ = ["DEVELOPMENT_USER", "ENV_FILE", "FOLDER", "LocalServers", "local_servers"]

import contextlib
import os
import shlex
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg

from repositories.errors import Misconfigured
from uvian_worker.local.embedded import EmbeddedError, EmbeddedPostgres, EmbeddedRedis, FolderInUse
from uvian_worker.schema.migrate import bootstrap, migrate

#: Where it all lives, below the working directory.
FOLDER: Final = Path(".uvian")
#: What ``uvian dev`` writes while it runs: settings as lines, for other shells.
ENV_FILE: Final = "dev.env"
#: The same in every folder, so that commands can be copied from one to the next.
DEVELOPMENT_USER: Final = "00000000-0000-4000-8000-000000000001"


_OPEN_ALL: Final = """
    select uvian.configure_types(jsonb_build_object('types', (
      select coalesce(jsonb_agg(jsonb_build_object('type', t.type, 'browser', true)), '[]')
      from uvian.job_types t where not t.browser)))"""


@dataclass(frozen=True, slots=True)
class LocalServers:
    """Where the servers of one folder are reached."""

    folder: Path
    database_url: str
    redis_url: str
    user_id: str

    @property
    def images_dir(self) -> Path:
        """Where the worker keeps its pictures."""
        return self.folder / "images"

    def settings(self) -> dict[str, str]:
        """What sends a process to these servers, and to no others."""
        return {
            # All named: what the developer's .env says of them is about other servers.
            "UVIAN_DATABASE": "postgres",
            "UVIAN_DATABASE_URL": self.database_url,
            "UVIAN_DATABASE_DIRECT_URL": self.database_url,
            "UVIAN_REDIS_URL": self.redis_url,
            "UVIAN_NAMESPACE": "uvian",
            "UVIAN_IMAGES": "local",
            "UVIAN_IMAGES_DIR": str(self.images_dir),
        }

    async def open_types(self) -> None:
        """Open every type that is known to the user of this machine, free and with the limits there are.

        Elsewhere types are closed until the operator opens them.
        """
        connection = await asyncpg.connect(self.database_url)
        try:
            await connection.execute(_OPEN_ALL)
        finally:
            await connection.close()

    @contextlib.contextmanager
    def written_down(self, more: Mapping[str, str]) -> Iterator[Path]:
        """The settings, and more, in a file that only this user can read, for as long as they are true."""
        file = self.folder / ENV_FILE
        file.unlink(missing_ok=True)
        file.touch(mode=0o600)
        facts = {**self.settings(), **more, "DEV_PID": str(os.getpid())}
        # For shells as well, so a folder with blanks in its name needs quotes.
        file.write_text("".join(f"{name}={_quoted(value)}\n" for name, value in facts.items()))
        try:
            yield file
        finally:
            file.unlink(missing_ok=True)


@asynccontextmanager
async def local_servers(
    folder: Path, report: Callable[[str], None] = lambda _: None
) -> AsyncIterator[LocalServers]:
    """Start what a folder has (what a killed run left is taken over), migrate it, make the user.

    ``report`` gets each step. Raises ``EmbeddedError`` and ``RepositoryError``.
    """
    folder = Path.cwd() / folder
    async with AsyncExitStack() as stack:
        report("Starting Redis")
        try:
            redis = await stack.enter_async_context(EmbeddedRedis(folder / "redis"))
        except FolderInUse as error:
            raise EmbeddedError(_who_has_it(folder, error.owner)) from error
        report("Starting Postgres")
        postgres = await stack.enter_async_context(EmbeddedPostgres(folder / "postgres"))
        report("Migrating the schema")
        await _prepare(postgres)
        yield LocalServers(folder, postgres.migrator_dsn, redis.url, DEVELOPMENT_USER)


def _who_has_it(folder: Path, owner: str) -> str:
    """Who uses the servers of a folder, where they are, and how that ends."""
    lines = _lines_of(folder / ENV_FILE)
    if owner and f"DEV_PID={owner}" in lines:
        where = next(
            (line.partition("=")[2] for line in lines if line.startswith("DEV_GATEWAY_URL=")), ""
        )
        return (
            f"`uvian dev` is running in {folder.parent} already (process {owner}): {where}\n"
            f"Use that one, or stop it first: Ctrl-C in its shell, or: kill {owner}"
        )
    who, stop = (f"Process {owner}", f": kill {owner}") if owner else ("Another process", ".")
    return (
        f"{who} uses the servers of {folder} already: `uvian demo`, or a `uvian dev` that is starting "
        f"or shutting down. Wait for it, or stop it first{stop}"
    )


def _quoted(value: str) -> str:
    """As a shell and a reader of ``.env`` both understand it."""
    if "'" not in value:
        return shlex.quote(value)
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _lines_of(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []


async def _prepare(postgres: EmbeddedPostgres) -> None:
    """Schema and user, unless they are there."""
    await bootstrap(postgres.dsn)
    try:
        await migrate(postgres.migrator_dsn)
    except Misconfigured as error:
        raise Misconfigured(
            f"{error} This database is for development alone: to begin anew, remove {postgres.folder}."
        ) from error
    await _make_user(postgres.dsn)


async def _make_user(superuser_dsn: str) -> None:
    connection = await asyncpg.connect(superuser_dsn)
    try:
        await connection.execute(
            "insert into auth.users (id, email) values ($1, 'dev@localhost') on conflict do nothing",
            uuid.UUID(DEVELOPMENT_USER),
        )
    finally:
        await connection.close()
