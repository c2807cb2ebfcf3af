"""A place where workers run as operators start them: what the tests do to it, and see of it."""

from __future__ import annotations

__all__ = ["ROOT", "Site", "Worker", "opened"]

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from repositories.database import Database, Filter, Row
from repositories.errors import Transient
from tests.adapters import Adapter
from uvian_worker.client import Client
from uvian_worker.local.embedded import EmbeddedRedis

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0  #: seconds until a test gives up; nothing waits this long when it works


@dataclass
class Worker:
    """A worker process under the ``arq`` command."""

    process: subprocess.Popen[bytes]
    log: Path

    def kill(self) -> None:
        """SIGKILL: no goodbye."""
        self.process.kill()
        self.process.wait()

    def terminate(self) -> int:
        """SIGTERM; answers the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    @property
    def said(self) -> str:
        """Its log so far."""
        return self.log.read_text()


@dataclass
class Site:
    """A database, a Redis, a user, and the workers a test starts."""

    adapter: Adapter
    redis: EmbeddedRedis
    folder: Path
    database: Database
    client: Client
    user_id: str
    workers: list[Worker] = field(default_factory=list)

    def environment(self, **settings: str) -> dict[str, str]:
        """What a worker of this site has in its environment."""
        return {
            **os.environ,
            **self.adapter.settings,
            "UVIAN_REDIS_URL": self.redis.url,
            "UVIAN_IMAGES_DIR": str(self.folder / "images"),
            "PYTHONUNBUFFERED": "1",
            **settings,
        }

    def start(
        self, *arguments: str, settings: str = "tests.processes.settings.WorkerSettings", **env: str
    ) -> Worker:
        """Start a worker; it need not be ready yet."""
        return self._run("arq", settings, *arguments, **env)

    def command(self, *words: str, **env: str) -> Worker:
        """Start a command of ``uvian`` that stays."""
        return self._run("uvian_worker.cli", *words, **env)

    def _run(self, module: str, *arguments: str, **env: str) -> Worker:
        log = self.folder / f"worker-{len(self.workers)}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=ROOT,
                env=self.environment(**env),
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        worker = Worker(process, log)
        self.workers.append(worker)
        return worker

    async def worker(self, *arguments: str, **env: str) -> Worker:
        """Start a worker and wait until it takes jobs."""
        worker = self.start(*arguments, **env)
        await self.until(lambda: "at a time" in worker.said, worker)
        return worker

    async def until(self, condition: Callable[[], Any], worker: Worker | None = None) -> None:
        """Wait for a condition; fails with the worker's log."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if worker is not None and worker.process.poll() is not None:
                pytest.fail(f"the worker ended:\n{worker.said}")
            if time.monotonic() > deadline:
                logs = "\n".join(w.said for w in self.workers)
                pytest.fail(f"it did not happen in {PATIENCE:.0f} s:\n{logs}")
            await asyncio.sleep(0.02)

    async def submit(self, type_: str, **input_: Any) -> str:
        """A job's id."""
        return (await self.client.submit(self.user_id, type_, input_)).id

    async def row(self, job_id: str) -> Row:
        """The job's row."""
        rows = await self._jobs(job_id)
        return rows[0]

    async def _jobs(self, *job_ids: str) -> list[Row]:
        """The rows; a database that was just stopped may need some seconds before it answers."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return await self.database.select("jobs", where=[Filter("id", "in", job_ids)])
            except Transient:
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(0.1)

    async def ended(self, *job_ids: str, within: float = PATIENCE) -> list[Row]:
        """The rows, once all have ended."""
        deadline = time.monotonic() + within
        while True:
            rows = await self._jobs(*job_ids)
            if all(row["status"] in ("completed", "failed", "cancelled") for row in rows):
                return rows
            if time.monotonic() > deadline:
                states = {row["id"]: (row["status"], row["run"]) for row in rows}
                logs = "\n".join(w.said[-3000:] for w in self.workers)
                pytest.fail(f"not ended after {within:.0f} s: {states}\n{logs}")
            await asyncio.sleep(0.05)

    async def reaches(self, job_id: str, status: str) -> Row:
        """The row, once it has the status."""
        deadline = time.monotonic() + PATIENCE
        while (row := await self.row(job_id))["status"] != status:
            if time.monotonic() > deadline:
                pytest.fail(f"still {row['status']}\n" + "\n".join(w.said for w in self.workers))
            await asyncio.sleep(0.02)
        return row

    async def execute(self, statement: str, *values: Any) -> list[Any]:
        """SQL as a superuser; answers rows."""
        connection = await asyncpg.connect(self.adapter.clean.superuser_dsn)
        try:
            return list(await connection.fetch(statement, *values))
        finally:
            await connection.close()

    async def price(self, type_: str, amount: str, *, balance: str) -> None:
        """A price for a type, and credits for the user."""
        await self.execute(
            "insert into uvian.job_types (type) values ($1) on conflict do nothing", type_
        )
        await self.database.insert("job_prices", [{"type": type_, "amount": amount}])
        await self.database.call(
            "grant_credits", user_id=self.user_id, amount=balance, reference="test"
        )

    async def entries(self) -> list[tuple[str, str]]:
        """The books: kind and amount, in order."""
        rows = await self.execute("select kind, amount::text from uvian.credit_entries order by id")
        return [(row["kind"], str(float(row["amount"]))) for row in rows]


@contextlib.asynccontextmanager
async def opened(adapter: Adapter, redis: EmbeddedRedis, folder: Path) -> AsyncIterator[Site]:
    """Everything but workers; those a test starts are killed after it."""
    user_id = str(uuid.uuid4())
    async with adapter.database() as port, adapter.client(redis.url) as client:
        site = Site(adapter, redis, folder, port, client, user_id)
        try:
            await site.execute("insert into auth.users (id) values ($1)", uuid.UUID(user_id))
            await site.execute(
                "insert into uvian.job_types (type) values ('noop'), ('wait'), ('poison')"
            )
            yield site
        finally:
            for worker in site.workers:
                with contextlib.suppress(ProcessLookupError):
                    worker.kill()
