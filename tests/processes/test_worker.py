"""A worker as operators know it: started, asked, paused, stopped, killed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import aiohttp
import orjson
import pytest
from redis.asyncio import Redis

from tests.adapters import over_postgres_only
from tests.processes.site import ROOT, Site
from uvian_worker.events.control import Control, DrainWorker, PauseWorker, ResumeWorker

pytestmark = pytest.mark.processes


@over_postgres_only
async def test_a_plain_subscriber_sees_a_job_from_start_to_end(site: Site) -> None:
    """Any Redis client hears job.started … job.completed in order, seq without gaps."""
    await site.worker()
    redis = Redis.from_url(site.redis.url)
    async with redis.pubsub() as pubsub:
        await pubsub.psubscribe("uvian:*")
        job_id = await site.submit("wait", seconds=0.1)
        seen = []
        async for message in pubsub.listen():
            if message["type"] != "pmessage":
                continue
            event = orjson.loads(message["data"])
            if event.get("topic") == f"job:{job_id}":
                seen.append(event)
                if event["type"] == "job.completed":
                    break
    await redis.aclose()
    types = [event["type"] for event in seen]
    assert types[:3] == ["job.queued", "job.started", "stage.started"]
    assert types[-1] == "job.completed"
    assert [event["seq"] for event in seen] == list(range(1, len(seen) + 1))


@over_postgres_only
async def test_check_says_whether_a_worker_lives(site: Site) -> None:
    """``arq --check`` is 0 with a worker and 1 without."""
    command = [sys.executable, "-m", "arq", "uvian_worker.WorkerSettings", "--check"]
    env = site.environment()
    check = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, env=env, capture_output=True)
    assert check.returncode == 1
    await site.worker()
    check = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, env=env, capture_output=True)
    assert check.returncode == 0, check.stderr


@over_postgres_only
async def test_burst_runs_what_waits_and_ends(site: Site) -> None:
    """``arq --burst`` empties the queue and exits with 0."""
    jobs = [await site.submit("noop") for _ in range(20)]
    worker = site.start("--burst")
    assert await asyncio.to_thread(worker.process.wait, 30) == 0, worker.said
    rows = await site.ended(*jobs, within=1)
    assert {row["status"] for row in rows} == {"completed"}


@over_postgres_only
async def test_watch_reloads_and_goes_on(site: Site) -> None:
    """``arq --watch`` starts again when a file changes, and runs jobs before and after."""
    watched = site.folder / "watched"
    watched.mkdir()
    worker = await site.worker("--watch", str(watched))
    await site.ended(await site.submit("noop"))
    (watched / "changed.py").write_text("x = 1")
    await site.until(lambda: worker.said.count("at a time") == 2, worker)
    await site.ended(await site.submit("noop"))
    assert await asyncio.to_thread(worker.terminate) == 0, worker.said


async def test_sigterm_gives_jobs_back_without_burning_an_attempt(site: Site) -> None:
    """A deploy costs nothing: the job is queued again at once and the worker ends with 0."""
    worker = await site.worker(UVIAN_DRAIN_GRACE="0.1")
    job_id = await site.submit("wait", seconds=60)
    await site.reaches(job_id, "processing")
    assert await asyncio.to_thread(worker.terminate) == 0, worker.said
    row = await site.row(job_id)
    assert (row["status"], row["run"], row["attempt"]) == ("queued", 2, 0)
    await site.worker()
    await site.reaches(job_id, "processing")


@over_postgres_only
async def test_sigterm_lets_short_jobs_finish(site: Site) -> None:
    """Within the grace a running job completes, and no new one is begun."""
    worker = await site.worker(UVIAN_MAX_JOBS="1")
    running = await site.submit("wait", seconds=1)
    await site.reaches(running, "processing")
    waiting = await site.submit("noop")
    assert await asyncio.to_thread(worker.terminate) == 0, worker.said
    assert (await site.row(running))["status"] == "completed"
    assert (await site.row(waiting))["status"] == "queued"


async def test_cancel_ends_a_running_job_within_a_second(site: Site) -> None:
    """The worker is told at once; what was reserved is released."""
    await site.price("wait", "2", balance="10")
    await site.worker()
    job_id = await site.submit("wait", seconds=60)
    await site.reaches(job_id, "processing")
    asked = time.monotonic()
    await site.client.cancel(job_id)
    await site.ended(job_id)
    assert time.monotonic() - asked < 1
    assert (await site.row(job_id))["status"] == "cancelled"
    assert await site.entries() == [("grant", "10.0"), ("reserve", "2.0"), ("release", "2.0")]


@over_postgres_only
async def test_pause_resume_and_drain_by_message(site: Site) -> None:
    """Operators speak to workers over Redis."""
    worker = await site.worker()
    redis = Redis.from_url(site.redis.url)
    control = Control(redis, "uvian")
    await control.send(PauseWorker())
    await site.until(lambda: "paused" in worker.said, worker)
    job_id = await site.submit("noop")
    await asyncio.sleep(0.5)  # nothing may happen: there is no signal to wait for
    assert (await site.row(job_id))["status"] == "queued"
    await control.send(ResumeWorker())
    await site.ended(job_id)
    await control.send(DrainWorker())
    assert await asyncio.to_thread(worker.process.wait, 30) == 0
    await control.close()
    await redis.aclose()


async def test_a_row_of_a_manual_edit_runs_within_three_seconds(site: Site) -> None:
    """An insert in the SQL editor is enough."""
    await site.worker()
    rows = await site.execute(
        "insert into uvian.jobs (user_id, type, input) values ($1, 'noop', '{}') returning id",
        site.user_id,
    )
    await site.ended(str(rows[0]["id"]), within=3)


@over_postgres_only
async def test_rubbish_in_the_queue_harms_nobody(site: Site) -> None:
    """Malformed ids and payloads are dropped; the worker goes on."""
    worker = await site.worker()
    redis = Redis.from_url(site.redis.url)
    await redis.set("uvian:arq:job:rubbish", b"\x80\x04not json")
    await redis.set(
        "uvian:arq:job:no-such-job:1",
        orjson.dumps({"t": 1, "f": "run_job", "a": ["x", "y"], "k": {}, "et": 1}),
    )
    await redis.set(
        "uvian:arq:job:unknown:1", orjson.dumps({"t": 1, "f": "other", "a": [], "k": {}, "et": 1})
    )
    await redis.zadd(
        "uvian:queue", {"rubbish": 1, "no-such-job:1": 1, "unknown:1": 1, "lonely:1": 1}
    )
    await redis.lpush("uvian:wake", "1")
    await site.ended(await site.submit("noop"))
    await redis.aclose()
    assert worker.process.poll() is None


@over_postgres_only
async def test_the_health_endpoint_tells_the_truth(site: Site) -> None:
    """Ready with everything, unavailable without Redis, live all the time."""
    worker = await site.worker(UVIAN_HEALTH_PORT="0")
    await site.until(lambda: "health on " in worker.said, worker)
    url = worker.said.split("health on ")[1].split()[0]
    async with aiohttp.ClientSession() as session:

        async def status(path: str = url) -> int:
            async with session.get(path) as response:
                return response.status

        deadline = time.monotonic() + 10
        while await status() != 200 and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        assert await status() == 200
        site.redis.kill()
        while await status() != 503 and time.monotonic() < deadline + 10:
            await asyncio.sleep(0.05)
        assert await status() == 503
        assert await status(url.replace("ready", "live")) == 200


@pytest.mark.parametrize(
    ("adapter", "settings", "sentence"),
    [
        ("postgres", {"UVIAN_REDIS_ULR": "x"}, "Did you mean UVIAN_REDIS_URL?"),
        ("postgres", {"UVIAN_DATABASE_URL": ""}, "UVIAN_DATABASE_URL is not set"),
        ("supabase", {"UVIAN_SUPABASE_KEY": "sb_secret_hidden"}, "UVIAN_SUPABASE_KEY"),
    ],
    indirect=["adapter"],
)
async def test_a_failed_start_is_one_critical_line(
    site: Site, settings: dict[str, str], sentence: str
) -> None:
    """What is wrong is said once, and no job is consumed."""
    job_id = await site.submit("noop")
    worker = site.start(**settings)
    code = await asyncio.to_thread(worker.process.wait, 30)
    assert code == 2, worker.said
    critical = [line for line in worker.said.splitlines() if "CRITICAL" in line]
    assert len(critical) == 1
    assert sentence in critical[0]
    assert "hidden" not in worker.said
    assert "Traceback" not in worker.said
    assert (await site.row(job_id))["status"] == "queued"


@over_postgres_only
async def test_a_missing_schema_names_the_command(site: Site, blank_database: object) -> None:
    """A worker on a database without the schema says what to run."""
    dsn = blank_database.superuser_dsn  # type: ignore[attr-defined]
    worker = site.start(UVIAN_DATABASE_URL=dsn)
    assert await asyncio.to_thread(worker.process.wait, 30) != 0
    assert "uvian migrate" in worker.said
    assert "Traceback" not in worker.said


def test_every_setting_is_one_that_arq_knows() -> None:
    """arq ignores attributes it does not know, so a typing error would pass in silence."""
    code = (
        "import inspect, arq.worker as w, uvian_worker as u\n"
        "known = set(inspect.signature(w.Worker).parameters) | {'executors'}\n"
        "names = {n for n in vars(u.WorkerSettings) if not n.startswith('__')}\n"
        "assert names <= known, names - known\n"
        "assert u.WorkerSettings.__bases__ == (object,)\n"
    )
    env = {"UVIAN_DATABASE_URL": "postgresql://nobody@127.0.0.1/none", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_importing_the_package_reads_no_environment() -> None:
    """Only who asks for WorkerSettings needs settings."""
    code = (
        "import uvian_worker, sys; assert 'arq' not in sys.modules and 'numpy' not in sys.modules"
    )
    env = {"UVIAN_NONSENSE": "1", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_three_packages_share_a_parent() -> None:
    """A stranger's ``executors`` on the path would run instead of ours."""
    import executors
    import repositories
    import uvian_worker

    parents = {Path(str(p.__file__)).parents[1] for p in (executors, repositories, uvian_worker)}
    assert len(parents) == 1
