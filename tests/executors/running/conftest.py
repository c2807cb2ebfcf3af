"""A runner on the real database, with a sink that remembers."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest

from executors.base import JobServices
from executors.events import Appended, Event, JobRef
from executors.registry import Registry
from executors.running.runner import Runner
from repositories.database import Database, Filter, Row
from repositories.jobs import Followups, JobRepository
from tests.adapters import Adapter
from tests.executors.running.executors import HastyExecutor, ScriptedExecutor


class MemorySink:
    """An EventSink that keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[JobRef, Event]] = []
        self.answer = Appended.APPENDED

    def emit(self, job: JobRef, event: Event) -> asyncio.Future[Appended]:
        self.told.append((job, event))
        future: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        future.set_result(self.answer)
        return future

    @property
    def types(self) -> list[str]:
        """The types of what was told, in order."""
        return [event.type for _, event in self.told]


@dataclass
class Bench:
    """Everything a test of the runner needs."""

    database: Database
    jobs: JobRepository
    runner: Runner
    sink: MemorySink
    scripted: ScriptedExecutor
    user_id: str
    superuser_dsn: str
    followups: list[Followups] = field(default_factory=list)

    async def create(self, type_: str = "scripted", **input_: Any) -> str:
        """A queued job's id."""
        answer = await self.database.call(
            "create_jobs",
            request={"jobs": [{"user_id": self.user_id, "type": type_, "input": input_}]},
        )
        return str(answer["jobs"][0]["job"]["id"])

    async def row(self, job_id: str) -> Row:
        """The job's row."""
        rows = await self.database.select("jobs", where=[Filter("id", "eq", job_id)])
        return rows[0]

    async def run(self, type_: str = "scripted", **input_: Any) -> Row:
        """Create a job, run it once, answer its row."""
        job_id = await self.create(type_, **input_)
        await self.runner.run(job_id, 1)
        return await self.row(job_id)

    async def execute(self, statement: str, *values: Any) -> None:
        """SQL as a superuser."""
        connection = await asyncpg.connect(self.superuser_dsn)
        try:
            await connection.execute(statement, *values)
        finally:
            await connection.close()


def _no_services(_: str) -> JobServices:
    return None  # type: ignore[return-value] # scripted executors use none


@pytest.fixture
async def port(adapter: Adapter) -> AsyncIterator[Database]:
    """The database, over each adapter."""
    async with adapter.database() as database:
        yield database


@pytest.fixture
async def bench(port: Database, superuser_dsn: str) -> AsyncIterator[Bench]:
    """A runner with scripted executors, and a user."""
    database = port
    followups: list[Followups] = []
    jobs = JobRepository(database, "worker-1", followups.append)
    registry = Registry([ScriptedExecutor, HastyExecutor])
    await jobs.register("0.1.0", registry.descriptions())
    sink = MemorySink()
    runner = Runner(
        jobs=jobs, registry=registry, sink=sink, services_of=_no_services, stop_grace=0.2
    )
    scripted = registry.find("scripted")
    assert isinstance(scripted, ScriptedExecutor)
    bench = Bench(
        database, jobs, runner, sink, scripted, str(uuid.uuid4()), superuser_dsn, followups
    )
    await bench.execute("insert into auth.users (id) values ($1)", uuid.UUID(bench.user_id))
    await runner.open()
    yield bench
    await runner.close()
    await jobs.close()
