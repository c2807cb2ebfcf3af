"""Servers and worker processes to measure."""

from __future__ import annotations

__all__ = ["Site", "median", "quantile", "site"]

import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg
from redis import Redis

from uvian_worker.local.embedded import EmbeddedPostgres, EmbeddedRedis
from uvian_worker.schema.migrate import bootstrap, migrate

ROOT = Path(__file__).parents[1]
#: As for the tests: a folder with `initdb` and `postgres`, of a server that compiles plans for instance.
POSTGRES = os.environ.get("UVIAN_TEST_POSTGRES")


@dataclass(frozen=True, slots=True)
class Site:
    """A migrated Postgres, a Redis, a user."""

    folder: Path
    postgres: EmbeddedPostgres
    redis: EmbeddedRedis
    user_id: str

    @contextlib.contextmanager
    def worker(self, settings: str, **env: str) -> Iterator[subprocess.Popen[bytes]]:
        """A worker process under the ``arq`` command, until the block ends."""
        environment = {
            **os.environ,
            "UVIAN_DATABASE_URL": self.postgres.migrator_dsn,
            "UVIAN_REDIS_URL": self.redis.url,
            "UVIAN_IMAGES_DIR": str(self.folder / "images"),
            **env,
        }
        log = self.folder / "worker.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "arq", settings],
                cwd=ROOT,
                env=environment,
                stdout=out,
                stderr=out,
            )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)

    def connection(self) -> Redis:
        """A blocking client."""
        return Redis.from_url(self.redis.url)


@contextlib.contextmanager
def site() -> Iterator[Site]:
    """Servers for one measurement, durable as in production (fsync on)."""
    with tempfile.TemporaryDirectory(prefix="uvian-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        postgres_server = EmbeddedPostgres(folder / "pg", binaries=POSTGRES)
        with postgres_server as postgres, EmbeddedRedis(folder / "redis") as server:
            user_id = str(uuid.uuid4())
            asyncio.run(_prepare(postgres, user_id))
            yield Site(folder, postgres, server, user_id)


async def _prepare(postgres: EmbeddedPostgres, user_id: str) -> None:
    await bootstrap(postgres.dsn)
    await migrate(postgres.migrator_dsn)
    connection = await asyncpg.connect(postgres.dsn)
    await connection.execute("insert into auth.users (id) values ($1)", uuid.UUID(user_id))
    await connection.execute("insert into uvian.job_types (type) values ('noop'), ('naive')")
    await connection.execute(  # one user has all the jobs
        "update uvian.job_types set max_queued_per_user = null, max_running_per_user = null"
    )
    await connection.close()


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Poll a condition; raises when it takes too long."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the measurement did not get going")
        time.sleep(0.005)


def median(values: Sequence[float]) -> float:
    """The middle one."""
    return statistics.median(values)


def quantile(values: Sequence[float], q: float) -> float:
    """The value below which a fraction ``q`` lies."""
    ordered = sorted(values)
    return ordered[min(int(q * len(ordered)), len(ordered) - 1)]
