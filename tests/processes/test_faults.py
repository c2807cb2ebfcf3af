"""Whatever is killed when: nothing lost, nothing twice."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import Counter

import asyncpg
import pytest
from redis.asyncio import Redis

from tests.adapters import over_postgres_only
from tests.processes.site import Site
from uvian_worker.events.envelope import Envelope
from uvian_worker.local.embedded import EmbeddedPostgres

pytestmark = pytest.mark.processes


async def test_kill_in_the_middle_of_a_generation(site: Site) -> None:
    """Another worker finishes it within 20 s: one concept, one charge, the provider asked once."""
    await site.price("generation", "3", balance="10")
    workers = [await site.worker(), await site.worker()]
    job_id = await site.submit(
        "generation",
        logo_description="a mountain and the sun",
        theme_description="alpine morning, pine green and gold",
        size=1024,
    )
    async for event in site.client.follow(job_id):
        if getattr(event, "type", "") == "image.ready":
            break
    ((name,),) = await site.execute("select worker from uvian.job_leases")
    (victim,) = [worker for worker in workers if f"worker {name}:" in worker.said]
    victim.kill()
    assert (await site.row(job_id))["status"] == "processing"
    (row,) = await site.ended(job_id, within=20)
    assert (row["status"], row["run"]) == ("completed", 2)
    concepts = await site.database.select("concepts")
    assert [concept["id"] for concept in concepts] == [row["result_id"]]
    assert len(await site.database.select("concept_variations")) == 7
    assert await site.entries() == [("grant", "10.0"), ("reserve", "3.0"), ("charge", "3.0")]
    redis = Redis.from_url(site.redis.url)
    assert await redis.get("test:provider-calls") == b"1"
    await redis.aclose()


@over_postgres_only
async def test_kill_between_a_stop_and_its_settlement(site: Site) -> None:
    """Nobody can say what was delivered: it is free, and all of its pictures are removed."""
    fast = {"UVIAN_LEASE": "2", "UVIAN_RENEW_EVERY": "0.5", "UVIAN_SWEEP_EVERY": "0.5"}
    await site.price("generation", "8", balance="10")
    workers = [await site.worker(**fast), await site.worker(**fast)]
    job_id = await site.submit(
        "generation", logo_description="a fox", theme_description="autumn", size=1024
    )
    told = 0
    async for event in site.client.follow(job_id):
        told += getattr(event, "type", "") == "image.ready"
        if told == 2:
            break
    ((name,),) = await site.execute("select worker from uvian.job_leases")
    (victim,) = [worker for worker in workers if f"worker {name}:" in worker.said]
    victim.process.send_signal(signal.SIGSTOP)  # it cannot hear of the stop
    await site.database.call("cancel_job", job_id=job_id, user_id=site.user_id)
    victim.kill()

    async def stored() -> int:
        """On the disk or in the bucket."""
        objects = await site.execute("select from storage.objects")
        return len(objects) + len(list((site.folder / "images").rglob("*.png")))

    assert await stored() >= 2
    (row,) = await site.ended(job_id, within=20)
    assert (row["status"], row["result_id"]) == ("cancelled", None)
    assert await site.entries() == [("grant", "10.0"), ("reserve", "8.0"), ("release", "8.0")]
    deadline = time.monotonic() + 20
    while await stored():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)
    assert await site.execute("select path from uvian.files") == []


@over_postgres_only
async def test_a_second_crash_is_made_good_as_fast_as_the_first(site: Site) -> None:
    """Each costs a lease, a sweep and a moment: with the defaults 15 s, 2 s and less than 3 s."""
    lease, sweep = 2.0, 0.5
    settings = {"UVIAN_LEASE": "2", "UVIAN_RENEW_EVERY": "0.5", "UVIAN_SWEEP_EVERY": "0.5"}
    for _ in range(3):
        await site.worker(**settings)
    job_id = await site.submit("wait", seconds=2)
    for run in (1, 2):
        while not (found := await site.execute("select worker from uvian.job_leases")):
            await asyncio.sleep(0.01)
        ((name,),) = found
        (holder,) = [worker for worker in site.workers if f"worker {name}:" in worker.said]
        holder.kill()
        killed = time.monotonic()
        while (await site.row(job_id))["run"] == run or not await site.execute(
            "select from uvian.job_leases"
        ):
            await asyncio.sleep(0.01)
        assert time.monotonic() - killed < lease + sweep + 1.5
    (row,) = await site.ended(job_id)
    assert (row["status"], row["run"]) == ("completed", 3)


@over_postgres_only
async def test_flushall_loses_no_job(site: Site) -> None:
    """Redis is emptied under a hundred queued jobs: all run."""
    jobs = [await site.submit("noop") for _ in range(100)]
    redis = Redis.from_url(site.redis.url)
    await redis.flushall()
    await redis.aclose()
    await site.worker()
    rows = await site.ended(*jobs)
    assert Counter(row["status"] for row in rows) == {"completed": 100}


@over_postgres_only
async def test_redis_restarts_under_load(site: Site) -> None:
    """Redis is killed and comes back empty while jobs are created and run: all end, once."""
    worker = await site.worker()
    jobs = [await site.submit("wait", seconds=0.05) for _ in range(60)]
    site.redis.restart(lose_data=True)
    jobs += [await site.submit("wait", seconds=0.05) for _ in range(60)]
    rows = await site.ended(*jobs)
    assert Counter(row["status"] for row in rows) == {"completed": 120}
    assert worker.process.poll() is None


async def test_connections_to_postgres_are_cut_under_load(site: Site) -> None:
    """Every backend is terminated several times: calls are repeated, all jobs end, charged once."""
    await site.price("wait", "1", balance="1000")
    await site.worker()
    jobs = [await site.submit("wait", seconds=0.05) for _ in range(60)]
    for _ in range(5):
        await site.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where datname = current_database() and pid <> pg_backend_pid()"
        )
        await asyncio.sleep(0.1)
    rows = await site.ended(*jobs)
    assert Counter(row["status"] for row in rows) == {"completed": 60}, "\n".join(
        worker.said for worker in site.workers
    )
    kinds = Counter(kind for kind, _ in await site.entries())
    assert kinds == {"grant": 1, "reserve": 60, "charge": 60}


@over_postgres_only
async def test_a_password_that_was_changed_costs_no_work(
    site: Site, own_postgres: EmbeddedPostgres
) -> None:
    """What was done meanwhile waits until the worker is let in again, and is settled then: run once."""
    await site.worker()
    jobs = [await site.submit("wait", seconds=1) for _ in range(5)]
    await site.reaches(jobs[-1], "processing")
    administrator = await asyncpg.connect(own_postgres.dsn)
    await administrator.execute("alter role uvian_migrator nologin")
    await administrator.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'uvian_migrator'"
    )
    await asyncio.sleep(3)
    await administrator.execute("alter role uvian_migrator login")
    await administrator.close()
    rows = await site.ended(*jobs)
    assert {(row["status"], row["run"], row["attempt"]) for row in rows} == {("completed", 1, 0)}


async def test_postgres_crashes_under_load(site: Site, own_postgres: EmbeddedPostgres) -> None:
    """Postgres stops without a goodbye for some seconds, twice: all jobs end, charged once."""
    await site.price("wait", "1", balance="1000")
    worker = await site.worker()
    jobs: list[str] = []
    for _ in range(2):
        jobs += [await site.submit("wait", seconds=0.2) for _ in range(40)]
        await asyncio.to_thread(own_postgres.stop, "immediate")
        await asyncio.sleep(1.5)  # longer than any retry waits
        await asyncio.to_thread(own_postgres.start)
    rows = await site.ended(*jobs, within=40)
    assert Counter(row["status"] for row in rows) == {"completed": 80}
    kinds = Counter(kind for kind, _ in await site.entries())
    assert kinds == {"grant": 1, "reserve": 80, "charge": 80}
    assert worker.process.poll() is None


@over_postgres_only
async def test_a_worker_that_was_frozen_wakes_up_as_a_zombie(site: Site) -> None:
    """Its job has long been another's: it settles nothing, and nobody hears of its run any more."""
    await site.price("wait", "1", balance="10")
    short = {"UVIAN_LEASE": "2.5", "UVIAN_RENEW_EVERY": "1", "UVIAN_SWEEP_EVERY": "0.5"}
    first = await site.worker(**short)
    job_id = await site.submit("wait", seconds=1.5)
    await site.reaches(job_id, "processing")
    first.process.send_signal(signal.SIGSTOP)
    second = await site.worker(**short)
    await site.until(lambda: f"job {job_id} run 2: completed" in second.said, second)
    first.process.send_signal(signal.SIGCONT)
    await site.until(lambda: f"job {job_id} run 1" in first.said, first)
    row = await site.row(job_id)
    assert (row["status"], row["run"]) == ("completed", 2)
    assert await site.entries() == [("grant", "10.0"), ("reserve", "1.0"), ("charge", "1.0")]
    events = [event async for event in site.client.follow(job_id)]
    runs = [event.run for event in events if isinstance(event, Envelope)]
    assert runs == sorted(runs)
    assert [e.type for e in events if isinstance(e, Envelope)].count("job.completed") == 1


@over_postgres_only
async def test_workers_come_and_go_in_good_order(site: Site) -> None:
    """Deploy after deploy under load: each worker ends with 0 and promptly, no attempt is burned."""
    jobs = [await site.submit("wait", seconds=random.uniform(0, 0.2)) for _ in range(150)]
    for _ in range(5):
        worker = await site.worker(UVIAN_DRAIN_GRACE="0.05")
        await asyncio.sleep(random.uniform(0, 0.3))
        asked = time.monotonic()
        assert await asyncio.to_thread(worker.terminate) == 0, worker.said
        assert time.monotonic() - asked < 10
    await site.worker()
    rows = await site.ended(*jobs)
    assert Counter(row["status"] for row in rows) == {"completed": 150}
    assert {row["attempt"] for row in rows} == {0}


async def test_workers_are_killed_at_random(site: Site) -> None:
    """Workers die at any moment, again and again: every job ends once and is charged once."""
    await site.price("wait", "1", balance="1000")
    jobs = [await site.submit("wait", seconds=random.uniform(0, 0.3)) for _ in range(80)]
    survivor = await site.worker(UVIAN_MAX_JOBS="5")
    for _ in range(3):
        victim = await site.worker(UVIAN_MAX_JOBS="10")
        await asyncio.sleep(random.uniform(0.05, 0.4))
        victim.kill()
    rows = await site.ended(*jobs, within=60)
    assert Counter(row["status"] for row in rows) == {"completed": 80}
    assert max(row["attempt"] for row in rows) <= 1
    kinds = Counter(kind for kind, _ in await site.entries())
    assert kinds == {"grant": 1, "reserve": 80, "charge": 80}
    assert survivor.process.poll() is None


@over_postgres_only
@pytest.mark.timeout(200)  # it takes five workers, one after the other
async def test_a_poisonous_job_ends_and_its_neighbours_do_not_burn(site: Site) -> None:
    """A job that kills its workers is given up in the end; who ran beside it keeps its attempts."""
    settings = {"UVIAN_LEASE": "1.5", "UVIAN_RENEW_EVERY": "0.5", "UVIAN_SWEEP_EVERY": "0.5"}
    neighbour = await site.submit("wait", seconds=1)
    poison = await site.submit("poison")
    deadline = time.monotonic() + 150
    worker = await site.worker(**settings)
    while (await site.row(poison))["status"] != "failed" and time.monotonic() < deadline:
        if worker.process.poll() is not None:
            worker = site.start(**settings)
        await asyncio.sleep(0.05)
    row = await site.row(poison)
    assert (row["status"], row["error"]["code"]) == ("failed", "worker_lost")
    (beside,) = await site.ended(neighbour)
    assert (beside["status"], beside["attempt"]) == ("completed", 0)
