"""A third party's executor: found by its entry point, run like ours, closed to browsers at first."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest

from executors.base import JobServices
from executors.registry import BUILT_IN, Registry
from executors.running.runner import Runner
from repositories.database import Filter, Row
from repositories.jobs import JobRepository
from tests.adapters import Adapter, OverPostgres, over_postgres_only
from tests.cli.conftest import Programs, Uvian
from tests.examples.conftest import EXAMPLE
from tests.executors.running.conftest import MemorySink
from tests.servers import CleanDatabase

ROOT = Path(__file__).parents[2]


def test_the_registry_finds_what_is_installed(installed: Path) -> None:
    """Beside ours, by the entry point alone."""
    ours = {executor.type for executor in BUILT_IN}
    assert set(Registry.load().types) == ours | {"greeting"}


def test_without_the_package_the_type_is_unknown() -> None:
    """Nothing of the example is in the product."""
    assert "greeting" not in Registry.load().types


def test_the_documentation_shows_the_code_that_is_tested() -> None:
    """Word for word, as Python."""
    code = (EXAMPLE / "uvian_greeting.py").read_text()
    page = (ROOT / "docs" / "adding-an-executor.md").read_text()
    assert f"```python\n{code}```" in page


@asynccontextmanager
async def a_worker(adapter: Adapter) -> AsyncIterator[tuple[Runner, JobRepository, MemorySink]]:
    """A runner with every executor that is installed, registered with the database."""
    async with adapter.database() as database:
        jobs = JobRepository(database, "worker-1", lambda _: None)
        registry = Registry.load()
        await jobs.register("0.1.0", registry.descriptions())
        sink = MemorySink()
        runner = Runner(jobs=jobs, registry=registry, sink=sink, services_of=_no_services)
        await runner.open()
        try:
            yield runner, jobs, sink
        finally:
            await runner.close()
            await jobs.close()


def _no_services(_: str) -> JobServices:
    return None  # type: ignore[return-value] # a greeting needs none


async def a_user(dsn: str) -> str:
    """The id of a new user."""
    user_id = uuid.uuid4()
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("insert into auth.users (id) values ($1)", user_id)
    finally:
        await connection.close()
    return str(user_id)


async def create(jobs: JobRepository, user_id: str, **input_: Any) -> str:
    """A queued greeting's id."""
    job = {"user_id": user_id, "type": "greeting", "input": input_}
    answer = await jobs.database.call("create_jobs", request={"jobs": [job]})
    return str(answer["jobs"][0]["job"]["id"])


async def row_of(jobs: JobRepository, job_id: str) -> Row:
    """The job's row."""
    rows = await jobs.database.select("jobs", where=[Filter("id", "eq", job_id)])
    return rows[0]


@pytest.mark.database
async def test_its_job_completes_on_the_real_database(installed: Path, adapter: Adapter) -> None:
    """Claimed, run and settled like any other; what a user may not ask for ends as a sentence."""
    user_id = await a_user(adapter.clean.superuser_dsn)
    async with a_worker(adapter) as (runner, jobs, sink):
        good = await create(jobs, user_id, name="Ada", language="de", lines=2)
        await runner.run(good, 1)
        row = await row_of(jobs, good)
        assert (row["status"], row["output"]) == ("completed", {"lines": ["Hallo, Ada!"] * 2})
        assert [stage["label"] for stage in row["stages"]] == ["Writing the greeting"]
        assert (sink.types[0], sink.types[-1]) == ("job.started", "job.completed")
        bad = await create(jobs, user_id, name="Ada", language="tlh")
        await runner.run(bad, 1)
        row = await row_of(jobs, bad)
        assert (row["status"], row["error"]["code"]) == ("failed", "invalid_input")
        assert row["attempt"] <= 1


@pytest.mark.database
async def test_browsers_may_not_submit_it_until_the_operator_says_so(
    installed: Path, database: CleanDatabase
) -> None:
    """A new type is known as soon as a worker starts, and open when `job_types.browser` is true."""
    user_id = await a_user(database.superuser_dsn)
    async with a_worker(OverPostgres(database)):
        browser = await asyncpg.connect(database.authenticator_dsn)
        operator = await asyncpg.connect(database.superuser_dsn)
        try:
            with pytest.raises(asyncpg.PostgresError, match="type_not_open"):
                await submit(browser, user_id)
            await operator.execute(
                "update uvian.job_types set browser = true where type = 'greeting'"
            )
            assert (await submit(browser, user_id))["created"]
        finally:
            await browser.close()
            await operator.close()


async def submit(browser: asyncpg.Connection[Any], user_id: str) -> Any:
    """As supabase-js does for a signed-in user."""
    claims = orjson.dumps({"sub": user_id, "role": "authenticated"}).decode()
    async with browser.transaction():
        await browser.execute("set local role authenticated")
        await browser.execute("select set_config('request.jwt.claims', $1, true)", claims)
        answer = await browser.fetchval(
            """select uvian.submit_job('greeting', '{"name": "Ada"}')::text"""
        )
    return orjson.loads(answer)


@over_postgres_only
@pytest.mark.processes
def test_a_worker_takes_its_jobs_without_a_word_of_configuration(
    installed: Path, uvian: Uvian, programs: Programs
) -> None:
    """Installing the package is all: `uvian worker` has the type, `uvian submit` knows its fields."""
    worker = programs.uvian("worker", PYTHONPATH=str(installed))
    worker.says("generation, greeting")
    wrong = uvian("submit", "greeting", "nam=Ada", "--user", uvian.user_id)
    assert "Did you mean name?" in wrong.stderr
    words = ("submit", "greeting", "name=Ada", "lines=3", "--user", uvian.user_id, "--watch")
    watched = programs.uvian(*words)
    assert watched.ends() == 0, watched.output
    assert "✓ Writing the greeting" in watched.output
