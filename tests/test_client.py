"""The client where APIs use it: beside packages of theirs, over Redis that comes and goes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import asyncpg
import pytest

from uvian_worker.client import Client, JobRefused
from uvian_worker.embedded import EmbeddedRedis

ROOT = Path(__file__).parents[1]
USER = str(uuid.uuid4())


def _python(code: str, path: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{path}{os.pathsep}{ROOT}"}
    environment["UVIAN_DATABASE_URL"] = "postgresql://nobody@127.0.0.1/none"
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, env=environment, cwd=path, capture_output=True, text=True, check=False
    )


@pytest.fixture
def strangers(tmp_path: Path) -> Path:
    """A folder that comes first on the path, with packages called like ours."""
    for name in ("executors", "repositories"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
    return tmp_path


def test_the_client_works_beside_packages_of_the_same_names(strangers: Path) -> None:
    """A team's API has ``executors`` and ``repositories`` of its own, and imports our client."""
    done = _python(
        "import executors, uvian_worker, sys\n"
        f"assert executors.__file__.startswith({str(strangers)!r})\n"
        "uvian_worker.Client\n"
        "assert 'arq' not in sys.modules and 'numpy' not in sys.modules",
        strangers,
    )
    assert done.returncode == 0, done.stderr


def test_a_worker_among_strangers_says_so(strangers: Path) -> None:
    """Where Python would import somebody else's package, the worker does not start."""
    done = _python("import uvian_worker; uvian_worker.WorkerSettings", strangers)
    assert done.returncode != 0
    assert "the package 'executors' of uvian-worker should be in" in done.stderr


@pytest.fixture
async def client(database_dsn: str, superuser_dsn: str, redis_url: str) -> AsyncIterator[Client]:
    """A client, a user, and a type."""
    connection = await asyncpg.connect(superuser_dsn)
    await connection.execute("insert into auth.users (id) values ($1)", uuid.UUID(USER))
    await connection.execute("insert into uvian.job_types (type) values ('noop')")
    await connection.close()
    async with await Client.connect(database_url=database_dsn, redis_url=redis_url) as client:
        yield client


@pytest.mark.database
async def test_the_same_key_makes_one_job(client: Client) -> None:
    """A request that is sent again is answered with the job it made."""
    first = await client.submit(USER, "noop", {}, idempotency_key="order-1")
    again = await client.submit(USER, "noop", {}, idempotency_key="order-1")
    assert (first.created, again.created) == (True, False)
    assert first.id == again.id
    with pytest.raises(JobRefused, match="idempotency_conflict"):
        await client.submit(USER, "noop", {"other": 1}, idempotency_key="order-1")


@pytest.mark.database
async def test_refusals_have_codes(client: Client) -> None:
    """What the database refuses is an error with a stable code."""
    with pytest.raises(JobRefused, match="unknown_type"):
        await client.submit(USER, "nonsense", {})
    with pytest.raises(JobRefused, match="unknown_user"):
        await client.submit(str(uuid.uuid4()), "noop", {})
    job = await client.submit(USER, "noop", {})
    with pytest.raises(JobRefused, match="not_found"):
        await client.cancel(job.id, user_id=str(uuid.uuid4()))
    with pytest.raises(JobRefused, match="not_retryable"):
        await client.retry(job.id, expected_run=1)


@pytest.mark.database
async def test_cancel_of_a_waiting_job_is_told_at_once(client: Client) -> None:
    """A job that never ran ends with its ending in the log, and can be retried."""
    job = await client.submit(USER, "noop", {})
    cancelled = await client.cancel(job.id, user_id=USER)
    assert cancelled.status == "cancelled"
    types = [getattr(event, "type", event) async for event in client.follow(job.id)]
    assert types == ["job.queued", "job.cancelled"]
    again = await client.retry(job.id, expected_run=cancelled.run, user_id=USER)
    assert (again.status, again.run) == ("queued", 2)


@pytest.mark.database
async def test_submitting_works_without_redis(
    database_dsn: str, superuser_dsn: str, tmp_path: Path
) -> None:
    """The row is the job: while Redis is away it is created all the same."""
    connection = await asyncpg.connect(superuser_dsn)
    await connection.execute("insert into auth.users (id) values ($1)", uuid.UUID(USER))
    with EmbeddedRedis(tmp_path / "redis") as redis:
        url = redis.url
    async with await Client.connect(database_url=database_dsn, redis_url=url) as client:
        job = await asyncio.wait_for(
            client.submit(USER, "generation", {}, max_cost=Decimal(0)), timeout=10
        )
    status = await connection.fetchval("select status from uvian.jobs where id = $1", job.id)
    await connection.close()
    assert status == "queued"


@pytest.mark.database
async def test_a_lost_connection_does_not_make_two_jobs(client: Client, superuser_dsn: str) -> None:
    """Backends are cut while jobs are submitted: each call makes exactly one."""
    connection = await asyncpg.connect(superuser_dsn)

    async def cut() -> None:
        for _ in range(20):
            await connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where datname = current_database() and pid <> pg_backend_pid()"
            )
            await asyncio.sleep(0.01)

    async def submit(number: int) -> str:
        await asyncio.sleep(number * 0.005)
        return (await client.submit(USER, "noop", {"n": number})).id

    ids, _ = await asyncio.gather(asyncio.gather(*(submit(n) for n in range(40))), cut())
    made = await connection.fetch("select id from uvian.jobs")
    await connection.close()
    assert sorted(ids) == sorted(str(row["id"]) for row in made)


@pytest.mark.database
async def test_a_delayed_job_waits_in_the_queue(client: Client, redis_url: str) -> None:
    """``run_at`` is the job's score in the queue."""
    from redis.asyncio import Redis

    later = datetime.now(UTC) + timedelta(hours=1)
    job = await client.submit(USER, "noop", {}, run_at=later)
    redis = Redis.from_url(redis_url)
    score = await redis.zscore("uvian:queue", f"{job.id}:1")
    await redis.aclose()
    assert score == pytest.approx(later.timestamp() * 1000, abs=1)
