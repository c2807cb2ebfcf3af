"""A worker on port 6543, end to end, while the pooler and its connections come and go."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections import Counter

import pytest

from tests.pooler.pgbouncer import PgBouncer
from tests.processes.site import ROOT, Site

pytestmark = pytest.mark.e2e

SLOW_SWEEP = {"UVIAN_SWEEP_EVERY": "5"}


async def _by_hand(site: Site) -> float:
    """Insert a row in the SQL editor; seconds until its job has ended."""
    began = time.monotonic()
    statement = (
        "insert into uvian.jobs (user_id, type, input) values ($1, 'noop', '{}') returning id"
    )
    (row,) = await site.execute(statement, site.user_id)
    await site.ended(str(row["id"]))
    return time.monotonic() - began


async def test_a_job_from_submit_to_completed(site: Site) -> None:
    """Client, claim, checkpoints, settlement: a whole generation; and a lease that is renewed."""
    await site.price("generation", "3", balance="10")
    worker = await site.worker(UVIAN_LEASE="1.5", UVIAN_RENEW_EVERY="0.4", UVIAN_SWEEP_EVERY="0.5")
    longer_than_its_lease = await site.submit("wait", seconds=3)
    job_id = await site.submit(
        "generation",
        logo_description="a mountain and the sun",
        theme_description="alpine morning",
        size=512,
    )
    rows = await site.ended(job_id, longer_than_its_lease)
    assert {(row["status"], row["run"]) for row in rows} == {("completed", 1)}, worker.said
    assert len(await site.database.select("concept_variations")) == 7
    assert await site.entries() == [("grant", "10.0"), ("reserve", "3.0"), ("charge", "3.0")]


async def test_without_a_session_rows_made_by_hand_wait_for_the_sweep(site: Site) -> None:
    """Within 3 s; the worker says at its start what does not work here and what changes it."""
    worker = await site.worker()
    (said,) = [line for line in worker.said.splitlines() if "manual edit" in line]
    assert "submit_job" in said
    assert "UVIAN_DATABASE_DIRECT_URL" in said
    assert max([await _by_hand(site) for _ in range(3)]) < 3
    assert "LISTEN uvian_jobs" not in worker.said, "nothing is tried that cannot work"


async def test_with_a_direct_connection_they_run_at_once(site: Site, direct_dsn: str) -> None:
    """No sweep is due for seconds: the notification alone explains it."""
    worker = await site.worker(UVIAN_DATABASE_DIRECT_URL=direct_dsn, **SLOW_SWEEP)
    assert "manual edit" not in worker.said
    assert max([await _by_hand(site) for _ in range(4)]) < 2


async def test_the_pooler_restarts_under_load(site: Site, pgbouncer: PgBouncer) -> None:
    """It is killed, and stopped in order, while jobs run: all end, and are charged, once."""
    await site.price("wait", "1", balance="1000")
    worker = await site.worker()
    jobs: list[str] = []
    for end in (pgbouncer.kill, pgbouncer.stop):
        jobs += [await site.submit("wait", seconds=0.2) for _ in range(40)]
        await asyncio.to_thread(end)
        await asyncio.sleep(1.5)  # longer than any retry waits
        await asyncio.to_thread(pgbouncer.start)
    await _all_ended_once(site, jobs)
    assert worker.process.poll() is None


async def test_the_poolers_connections_are_cut_under_load(site: Site) -> None:
    """Every server connection is terminated several times: calls are repeated, nothing is lost."""
    await site.price("wait", "1", balance="1000")
    worker = await site.worker()
    jobs = [await site.submit("wait", seconds=0.05) for _ in range(80)]
    for _ in range(5):
        await site.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where datname = current_database() and pid <> pg_backend_pid()"
        )
        await asyncio.sleep(0.1)
    await _all_ended_once(site, jobs)
    assert worker.process.poll() is None


async def test_two_workers_and_a_kill_on_one_pooler(site: Site) -> None:
    """Fences and leases hold though both share their connections: each job ends once."""
    await site.price("wait", "1", balance="1000")
    short = {"UVIAN_LEASE": "3", "UVIAN_RENEW_EVERY": "1", "UVIAN_SWEEP_EVERY": "0.5"}
    jobs = [await site.submit("wait", seconds=0.2) for _ in range(60)]
    victim, _ = await site.worker(**short), await site.worker(**short)
    victim.kill()
    await _all_ended_once(site, jobs)


async def test_uvian_migrate_names_the_connection_it_needs(site: Site) -> None:
    """The command ends with the exit code of wrong settings, and a sentence."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "uvian_worker.cli", "migrate"],
        cwd=ROOT,
        env=site.environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert "6543" in done.stderr
    assert "session pooler" in done.stderr


async def _all_ended_once(site: Site, jobs: list[str]) -> None:
    rows = await site.ended(*jobs, within=60)
    assert Counter(row["status"] for row in rows) == {"completed": len(jobs)}
    kinds = Counter(kind for kind, _ in await site.entries())
    assert kinds == {"grant": 1, "reserve": len(jobs), "charge": len(jobs)}
