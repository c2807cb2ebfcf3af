"""Everything goes wrong in one run over the API, and the books add up."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter

import pytest
from redis.asyncio import Redis

from tests.lifecycle.invariants import INVARIANTS
from tests.processes.site import Site
from tests.supabase.faults import lose_reply
from tests.supabase.platform import Platform
from uvian_worker.client.calls import DatabaseAway
from uvian_worker.events.envelope import Envelope
from uvian_worker.local.embedded import EmbeddedPostgres
from uvian_worker.redis.keys import Keys, job_topic, user_topic

pytestmark = [
    pytest.mark.processes,
    pytest.mark.parametrize("adapter", ["supabase"], indirect=True),
]

JOBS = 200
KEYS = Keys("uvian")
AWAY = 20.0  #: seconds that PostgREST is away: longer than a lease
#: Seconds for all of it: twice the 60 that the outages, the hold after each and a lease take by themselves.
WITHIN = 120.0


@pytest.mark.timeout(240)
async def test_two_hundred_paid_jobs_while_everything_fails(
    site: Site, own_postgres: EmbeddedPostgres, platform: Platform
) -> None:
    """Every third write loses its reply, Postgres crashes twice, the API is away for 20 s.

    All jobs end; each is settled, charged and announced once.
    """
    await site.price("wait", "1", balance="1000")
    workers = [await site.worker(), await site.worker()]
    platform.faults.add(lose_reply, writes=True, every=3)
    began = time.monotonic()
    submitting = asyncio.create_task(_submit(site, over=AWAY + 12))
    try:
        await asyncio.sleep(3)
        await _crash(own_postgres)
        await asyncio.sleep(3)
        platform.faults.down("rest")
        await asyncio.sleep(AWAY)
        platform.faults.up("rest")
        await asyncio.sleep(1)
        await _crash(own_postgres)
        jobs = await submitting
    finally:
        submitting.cancel()
    assert len(set(jobs)) == JOBS
    await _all_completed(site, within=WITHIN - (time.monotonic() - began))
    lost = platform.faults.rules[0].hits
    assert lost > 50, "the run met its faults"
    assert [worker.process.poll() for worker in workers] == [None, None]
    await _each_is_settled_and_charged_once(site)
    await _each_is_told_once(site, jobs)


async def _submit(site: Site, *, over: float) -> list[str]:
    """The ids of the jobs, evenly in time; a request without an answer is sent again."""

    async def one(number: int) -> str:
        await asyncio.sleep(over * number / JOBS)
        wanted = {"seconds": random.uniform(0, 2)}
        while True:
            try:
                job = await site.client.submit(
                    site.user_id, "wait", wanted, idempotency_key=f"order {number}"
                )
            except DatabaseAway:
                await asyncio.sleep(0.5)
            else:
                return job.id

    return list(await asyncio.gather(*(one(number) for number in range(JOBS))))


async def _crash(postgres: EmbeddedPostgres) -> None:
    await asyncio.to_thread(postgres.stop, "immediate")
    await asyncio.sleep(1.5)  # longer than any retry waits
    await asyncio.to_thread(postgres.start)


async def _all_completed(site: Site, *, within: float) -> None:
    """Looked at past the API, whose faults are for the workers."""
    statement = "select status, count(*) from uvian.jobs group by 1"
    deadline = time.monotonic() + within
    while (found := dict(await site.execute(statement))) != {"completed": JOBS}:
        if time.monotonic() > deadline:
            pytest.fail(f"after {WITHIN:.0f} s: {found}\n{await _circumstances(site)}")
        await asyncio.sleep(0.2)


async def _circumstances(site: Site) -> str:
    """What Postgres, Redis and the workers know, for whoever must find out why."""
    queries = (
        """select now() as now, s.* from uvian.job_state s join uvian.jobs j on j.id = s.job_id
           where j.status <> 'completed' limit 5""",
        """select now() - xact_start as since, state, wait_event, pid, left(query, 150) as query
           from pg_stat_activity where datname = current_database()""",
        "select pid, mode, granted from pg_locks where locktype = 'advisory'",
        "select * from uvian.sweeps",
    )
    known = [str(dict(row)) for query in queries for row in await site.execute(query)]
    redis = Redis.from_url(site.redis.url)
    queues = [await redis.zrange(key, 0, 5, withscores=True) for key in (KEYS.queue, KEYS.claiming)]
    await redis.aclose()
    said = [worker.said[-2500:] for worker in site.workers]
    return "\n".join([*known, str(queues), *said])


async def _each_is_settled_and_charged_once(site: Site) -> None:
    settled = await site.execute(
        "select job_id from uvian.job_runs where status = 'completed' group by 1 having count(*) = 1"
    )
    assert len(settled) == JOBS
    kinds = Counter(kind for kind, _ in await site.entries())
    assert kinds == {"grant": 1, "reserve": JOBS, "charge": JOBS}
    (account,) = await site.execute("select balance, reserved from uvian.credit_accounts")
    assert tuple(account) == (1000 - JOBS, 0)
    for sentence, statement in INVARIANTS.items():
        assert not await site.execute(statement), sentence


async def _each_is_told_once(site: Site, jobs: list[str]) -> None:
    """In the topic of every job and in the user's: one ending, and no gap before it."""
    async with asyncio.timeout(20):
        while await site.execute("select from uvian.job_state where announce_at is not null"):
            await asyncio.sleep(0.05)
    redis = Redis.from_url(site.redis.url)
    try:
        for job in jobs:
            told = await _log(redis, job_topic(job))
            assert [e.type for e in told if e.ends_job] == ["job.completed"], job
            assert told[-1].ends_job
        told = await _log(redis, user_topic(site.user_id))
        endings = Counter(e.job_id for e in told if e.ends_job)
        assert endings == dict.fromkeys(jobs, 1)
    finally:
        await redis.aclose()


async def _log(redis: Redis, topic: str) -> list[Envelope]:
    entries = await redis.xrange(KEYS.log(topic))
    told = [Envelope.parse(fields[b"e"]) for _, fields in entries]
    assert [e.seq for e in told] == list(range(1, len(told) + 1)), topic
    return told
