"""What a database of a release looks like: dumped with rows in it, kept, and restored to be upgraded.

    python -m tests.migrations.dumps        (make dump-release)

writes ``releases/X.Y.Z.sql`` for this release. It is made once, when the release is tagged, and never
changed: from then on every later schema is tried on it (``test_under_load.py``).
"""

from __future__ import annotations

__all__ = ["FOLDER", "busy_rows", "dumped", "kept", "restore"]

import asyncio
import importlib.metadata
import re
import subprocess
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg

from tests.adapters import OverPostgres
from tests.lifecycle.test_storm import Worker
from tests.lifecycle.world import World, opened
from tests.servers import POSTGRES_BINARIES, CleanDatabase, Clones, server_folder
from uvian_worker.local.embedded import EmbeddedPostgres, _postgres_binaries
from uvian_worker.schema.migrate import bootstrap, migrate

FOLDER = Path(__file__).with_name("releases")

#: Of a newer pg_dump, and of psql alone.
_FOREIGN = re.compile(r"^(\\.*|SET transaction_timeout.*)\n", re.MULTILINE)


def kept() -> list[Path]:
    """The dumps of all releases, the oldest first."""
    return sorted(
        FOLDER.glob("*.sql"), key=lambda path: [int(n) for n in re.findall(r"\d+", path.stem)]
    )


def dumped(database: CleanDatabase) -> str:
    """The schema uvian with its rows, and the users that these belong to, as SQL."""
    tool = str((Path(POSTGRES_BINARIES) if POSTGRES_BINARIES else _postgres_binaries()) / "pg_dump")
    common = [tool, "--column-inserts", f"--dbname={database.superuser_dsn}"]
    users = _run(*common, "--table=auth.users", "--data-only")
    return _FOREIGN.sub("", users + _run(*common, "--schema=uvian"))


async def restore(database: CleanDatabase, dump: str) -> None:
    """Into a bootstrapped database without the schema."""
    connection = await asyncpg.connect(database.superuser_dsn)
    try:
        await connection.execute(dump)
    finally:
        await connection.close()


async def busy_rows(world: World) -> None:
    """Jobs in every state, chats, concepts and credits, by calls in a random order that repeats."""
    await world.type("paid", price=1)
    await world.type("limited", price=2, max_running_per_user=3)
    users = [await world.user(1_000) for _ in range(4)]
    conversations = [await world.conversation(*users[n:], *users[:n]) for n in range(4)]
    async with AsyncExitStack() as stack:
        workers = [
            Worker(
                f"of-a-release-{seed}",
                await stack.enter_async_context(world.adapter.database()),
                users,
                conversations,
                seed,
            )
            for seed in range(2)
        ]
        for worker in workers:
            await worker.rounds(12, [])


def _run(*command: str) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout


async def _made(database: CleanDatabase) -> str:
    await bootstrap(database.superuser_dsn)
    await migrate(database.dsn)
    async with opened(OverPostgres(database)) as world:
        await busy_rows(world)
    return await asyncio.to_thread(dumped, database)


def main() -> None:
    """Write the dump of this release, unless it is there."""
    path = FOLDER / f"{importlib.metadata.version('uvian-worker')}.sql"
    if path.exists():
        raise SystemExit(f"{path} is there: a release is dumped once, when it is tagged.")
    with (
        server_folder() as folder,
        EmbeddedPostgres(folder / "postgres", durable=False, binaries=POSTGRES_BINARIES) as server,
    ):
        clones = Clones(server)
        path.write_text(asyncio.run(_made(clones.blank())), encoding="utf-8")
        clones.close()
    print(f"{path} written")  # noqa: T201


if __name__ == "__main__":
    main()
