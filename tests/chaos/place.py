"""Servers behind proxies, workers that are replaced when they are killed, and how long that takes."""

from __future__ import annotations

__all__ = ["Place", "opened"]

import asyncio
import contextlib
import dataclasses
import random
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg

from tests.adapters import OverPostgres
from tests.chaos.proxy import Proxy
from tests.processes.site import Site, Worker
from tests.processes.site import opened as opened_site
from tests.servers import CleanDatabase
from uvian_worker.local.embedded import EmbeddedPostgres, EmbeddedRedis
from uvian_worker.schema.migrate import bootstrap, migrate

WORKERS = 3
_GIVE_UP = 60.0  #: seconds after which a job that a killed worker had counts as lost


@dataclasses.dataclass
class Recovery:
    """How long the jobs of a killed worker waited for another."""

    jobs: int
    seconds: float  #: until the last of them was claimed again or had ended
    outage: float  #: of those, seconds in which Redis or Postgres was away


@dataclasses.dataclass
class Place:
    """Everything that may fail."""

    site: Site
    postgres: EmbeddedPostgres
    redis: EmbeddedRedis
    to_postgres: Proxy
    to_redis: Proxy
    chance: random.Random
    recoveries: list[Recovery] = dataclasses.field(default_factory=list)
    ended_by_themselves: list[str] = dataclasses.field(default_factory=list)
    outages: list[tuple[float, float]] = dataclasses.field(default_factory=list)
    _expected: set[int] = dataclasses.field(default_factory=set)
    _watching: set[asyncio.Task[None]] = dataclasses.field(default_factory=set)

    @property
    def workers(self) -> list[Worker]:
        """Those that run."""
        return [worker for worker in self.site.workers if worker.process.poll() is None]

    @property
    def redis_url(self) -> str:
        """Through the proxy."""
        return f"{self.redis.url.partition('@')[0]}@127.0.0.1:{self.to_redis.port}/0"

    def start_worker(self) -> Worker:
        """One more, which reaches its servers through the proxies."""
        return self.site.start(UVIAN_REDIS_URL=self.redis_url)

    async def busiest(self) -> Worker:
        """Who has the most jobs, as far as Postgres knows."""
        rows = await self._ask("select worker, count(*) from uvian.job_leases group by 1")
        held = {row["worker"]: row["count"] for row in rows}
        return max(self.workers, key=lambda worker: held.get(_name(worker), 0))

    async def kill(self, worker: Worker) -> None:
        """SIGKILL; what it had is watched until somebody else has it."""
        self._expected.add(worker.process.pid)
        began = time.monotonic()
        await asyncio.to_thread(worker.kill)
        self.start_worker()
        if name := _name(worker):
            self._watch(self._recovered(name, began))

    async def deploy(self, worker: Worker) -> None:
        """SIGTERM; it has to end by itself, with 0."""
        self._expected.add(worker.process.pid)
        self.start_worker()
        has_begun = "at a time" in worker.said
        code = await asyncio.to_thread(worker.terminate)
        if code != 0 and has_begun:  # before that it has nothing, and Python's own way to end
            self.ended_by_themselves.append(f"{worker.log.name}: {code} after SIGTERM")

    def look_after(self) -> None:
        """Note who ended and was not meant to, and start another."""
        for worker in self.site.workers:
            pid, code = worker.process.pid, worker.process.poll()
            if code is not None and pid not in self._expected:
                self._expected.add(pid)
                self.ended_by_themselves.append(f"{worker.log.name}: {code}\n{worker.said[-1500:]}")
                self.start_worker()

    async def settled(self) -> None:
        """Wait for every recovery that is watched."""
        await asyncio.gather(*self._watching)

    def _watch(self, recovery: Any) -> None:
        task = asyncio.create_task(recovery)
        self._watching.add(task)
        task.add_done_callback(self._watching.discard)

    async def _recovered(self, name: str, began: float) -> None:
        held = await self._ask("select job_id, run from uvian.job_leases where worker = $1", name)
        if not held:
            return
        runs = {row["job_id"]: row["run"] for row in held}
        while time.monotonic() < began + _GIVE_UP:
            rows = await self._ask(
                "select id, run, status from uvian.jobs where id = any($1)", list(runs)
            )
            # What it had settled with its last call has ended in the run that it had.
            if all(
                row["status"] not in ("queued", "processing")
                or (row["status"] == "processing" and row["run"] > runs[row["id"]])
                for row in rows
            ):
                break
            await asyncio.sleep(0.2)
        now = time.monotonic()
        away = _overlap(self.outages, began, now)
        self.recoveries.append(Recovery(len(held), now - began, away))

    async def _ask(self, statement: str, *values: Any) -> list[Any]:
        """Past the proxy; Postgres may be away."""
        while True:
            try:
                return await self.site.execute(statement, *values)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await asyncio.sleep(0.2)


@contextlib.asynccontextmanager
async def opened(folder: Path, chance: random.Random) -> AsyncIterator[Place]:
    """Servers, proxies and workers; all of them end with it."""
    folder.chmod(0o755)
    async with (
        EmbeddedPostgres(folder / "postgres") as postgres,
        EmbeddedRedis(folder / "redis") as redis,
    ):
        await bootstrap(postgres.dsn)
        await migrate(postgres.migrator_dsn)
        socket = str(postgres.socket_folder / ".s.PGSQL.5432")
        async with (
            Proxy(lambda: asyncio.open_unix_connection(socket), chance) as to_postgres,
            Proxy(lambda: asyncio.open_connection("127.0.0.1", redis.port), chance) as to_redis,
        ):
            through = f"postgresql://uvian_migrator@127.0.0.1:{to_postgres.port}/postgres"
            authenticator = postgres.dsn_for(user="authenticator")
            clean = CleanDatabase("postgres", through, postgres.dsn, authenticator)
            async with opened_site(OverPostgres(clean), redis, folder) as site:
                place = Place(site, postgres, redis, to_postgres, to_redis, chance)
                for _ in range(WORKERS):
                    place.start_worker()
                await site.until(lambda: all("at a time" in w.said for w in site.workers))
                yield place


def _name(worker: Worker) -> str | None:
    said = re.search(r"worker (\S+): ", worker.said)
    return said[1] if said else None


def _overlap(spans: list[tuple[float, float]], begin: float, end: float) -> float:
    """Seconds of ``spans``, which may overlap, between two moments."""
    total, reached = 0.0, begin
    for span in sorted(spans):
        first, last = max(span[0], reached), min(span[1], end)
        if last > first:
            total += last - first
            reached = last
    return total
