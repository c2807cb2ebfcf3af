"""How a worker ends when what it needs for that is not there, and how it does not start."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time

import pytest
from redis.asyncio import Redis

from tests.adapters import over_postgres_only
from tests.processes.site import Site, Worker
from uvian_worker.local.embedded import EmbeddedPostgres

pytestmark = pytest.mark.processes

SHORT = {"UVIAN_DRAIN_GRACE": "0.2", "UVIAN_STOP_GRACE": "1"}


async def _ends(worker: Worker, *, within: float, number: int = signal.SIGTERM) -> int:
    """Send a signal; the exit code."""
    asked = time.monotonic()
    worker.process.send_signal(number)
    code = await asyncio.to_thread(worker.process.wait, 60)
    took = time.monotonic() - asked
    assert took < within, f"it took {took:.1f} s\n{worker.said}"
    return code


@over_postgres_only
@pytest.mark.parametrize("how", ["killed", "frozen"])
@pytest.mark.parametrize("busy", [True, False])
async def test_sigterm_while_redis_is_away(site: Site, how: str, busy: bool) -> None:
    """A deploy in the middle of an outage: jobs are settled, the process ends with 0, in seconds."""
    worker = await site.worker(**SHORT)
    job_id = await site.submit("wait", seconds=60)
    await site.reaches(job_id, "processing")
    if not busy:
        await site.client.cancel(job_id)
        await site.ended(job_id)
    if how == "killed":
        site.redis.kill()
    else:
        os.kill(site.redis.pid, signal.SIGSTOP)
    try:
        code = await _ends(worker, within=15)
    finally:
        if how == "frozen":
            os.kill(site.redis.pid, signal.SIGCONT)
    assert code == 0, worker.said
    assert "Traceback" not in worker.said
    row = await site.row(job_id)
    assert (row["status"], row["attempt"]) == ("queued" if busy else "cancelled", 0)
    assert not await site.execute("select from uvian.workers")


async def test_sigterm_while_postgres_is_away(site: Site, own_postgres: EmbeddedPostgres) -> None:
    """Nothing can be settled: the process ends all the same, and the next worker runs the job."""
    worker = await site.worker(**SHORT)
    job_id = await site.submit("wait", seconds=0.3)
    await site.reaches(job_id, "processing")
    await asyncio.to_thread(own_postgres.stop, "immediate")
    assert await _ends(worker, within=15) == 0, worker.said
    await asyncio.to_thread(own_postgres.start)
    await site.worker(UVIAN_LEASE="3", UVIAN_RENEW_EVERY="1", UVIAN_SWEEP_EVERY="0.5")
    (row,) = await site.ended(job_id)
    assert row["status"] == "completed"


@over_postgres_only
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_second_signal_ends_the_grace(site: Site, number: int) -> None:
    """Ctrl-C twice: what runs is given back at once."""
    worker = await site.worker(UVIAN_DRAIN_GRACE="60")
    job_id = await site.submit("wait", seconds=60)
    await site.reaches(job_id, "processing")
    worker.process.send_signal(number)
    await site.until(lambda: "draining: 1 jobs" in worker.said, worker)
    assert await _ends(worker, within=8, number=number) == 0, worker.said
    row = await site.row(job_id)
    assert (row["status"], row["attempt"]) == ("queued", 0)


@over_postgres_only
async def test_sigterm_while_it_starts(site: Site) -> None:
    """Told to end before it is ready, it closes what it has opened, takes no job, and ends with 0."""
    job_id = await site.submit("noop")
    worker = site.start(TEST_OPEN="hangs")
    await site.until(lambda: "opening" in worker.said, worker)
    assert await _ends(worker, within=5) == 0, worker.said
    assert "Traceback" not in worker.said
    assert (await site.row(job_id))["status"] == "queued"
    assert not await site.execute("select from uvian.workers")


@over_postgres_only
async def test_an_executor_that_does_not_open_ends_the_start(site: Site) -> None:
    """One critical line says which error; nothing is consumed, nothing is left behind."""
    job_id = await site.submit("noop")
    worker = site.start(TEST_OPEN="fails")
    assert await asyncio.to_thread(worker.process.wait, 30) == 70
    critical = [line for line in worker.said.splitlines() if "CRITICAL" in line]
    assert len(critical) == 1
    assert "no licence" in critical[0]
    assert "closed" not in worker.said, "it was never open"
    assert (await site.row(job_id))["status"] == "queued"
    assert not await site.execute("select from uvian.workers")


@over_postgres_only
async def test_a_health_port_that_is_taken_ends_the_start(site: Site) -> None:
    """It is served before anything is waited for: nothing was opened yet."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        worker = site.start(UVIAN_HEALTH_PORT=str(taken.getsockname()[1]))
        assert await asyncio.to_thread(worker.process.wait, 30) == 2
    assert worker.said.count("CRITICAL") == 1
    assert "UVIAN_HEALTH_PORT" in worker.said
    assert "Traceback" not in worker.said
    assert "closed" not in worker.said
    assert not await site.execute("select from uvian.workers")


@over_postgres_only
async def test_a_thread_that_does_not_end_does_not_keep_the_process(site: Site) -> None:
    """Threads cannot be stopped; their jobs are given back and the worker ends."""
    worker = await site.worker(**SHORT)
    job_id = await site.submit("thread", seconds=60)
    await site.reaches(job_id, "processing")
    assert await _ends(worker, within=10) == 0, worker.said
    assert (await site.row(job_id))["status"] == "queued"


@over_postgres_only
async def test_a_blocked_event_loop_costs_its_job_and_no_money(site: Site) -> None:
    """Code that blocks longer than the lease is told so; its job ends once, and nobody pays for it."""
    await site.price("blocking", "1", balance="10")
    short = {"UVIAN_LEASE": "2.5", "UVIAN_RENEW_EVERY": "1", "UVIAN_SWEEP_EVERY": "0.5"}
    workers = [await site.worker(**short), await site.worker(**short)]
    job_id = await site.submit("blocking", seconds=3.2)
    (row,) = await site.ended(job_id)
    assert (row["status"], row["error"]["code"]) == ("failed", "worker_lost")
    await site.until(lambda: sum("event loop was blocked" in w.said for w in workers) == 2)
    assert [kind for kind, _ in await site.entries()] == ["grant", "reserve", "release"]
    await site.ended(await site.submit("noop"))
    assert [worker.process.poll() for worker in workers] == [None, None]


@over_postgres_only
async def test_rubbish_on_the_control_channel_deafens_nobody(site: Site) -> None:
    """Whatever is published there: the next cancellation is heard at once."""
    worker = await site.worker(UVIAN_RENEW_EVERY="6")
    job_id = await site.submit("wait", seconds=60)
    await site.reaches(job_id, "processing")
    redis = Redis.from_url(site.redis.url)
    for rubbish in (
        b"\xff",
        b"[]",
        b'{"type": "worker.pause", "worker": [1]}',
        b'{"type": "worker.pause", "worker": {"a": 1}}',
        b'{"type": "job.cancel", "job_id": ["x"]}',
        b'{"type": ["job.cancel"]}',
    ):
        await redis.publish("uvian:control", rubbish)
    await redis.aclose()
    await asyncio.sleep(0.3)  # they are heard, or nothing happens: there is no signal to wait for
    await site.client.cancel(job_id)
    await site.ended(job_id, within=1.5)
    assert worker.process.poll() is None
