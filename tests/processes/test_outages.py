"""A worker that is started while something is away: it waits as a running one does, and begins."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Callable

import aiohttp
import asyncpg
import pytest

from tests.adapters import Adapter, OverSupabase, over_postgres_only
from tests.processes.site import Site
from tests.redis.sick import SickRedis
from tests.supabase.faults import html_502
from uvian_worker.local.embedded import EmbeddedPostgres

pytestmark = pytest.mark.processes

_WAITS = "The worker waits for it, and begins when it is back."


def _warnings(said: str) -> list[str]:
    return [line for line in said.splitlines() if "WARNING" in line and _WAITS in line]


async def _status(port: int, path: str) -> int:
    async with aiohttp.ClientSession() as session:
        answer = await session.get(f"http://127.0.0.1:{port}/health/{path}")
        return answer.status


@over_postgres_only
async def test_started_while_postgres_is_away_it_waits_and_begins(
    site: Site, own_postgres: EmbeddedPostgres, unused_tcp_port: int
) -> None:
    """One line says what it waits for; it is alive and not ready; then it runs what is queued."""
    job_id = await site.submit("noop")
    own_postgres.stop("immediate")
    worker = site.start(UVIAN_HEALTH_PORT=str(unused_tcp_port))
    await site.until(lambda: _warnings(worker.said), worker)
    assert await _status(unused_tcp_port, "live") == 200
    assert await _status(unused_tcp_port, "ready") == 503
    await asyncio.sleep(1.5)  # several tries
    (line,) = _warnings(worker.said)
    assert "Postgres does not answer at" in line
    assert "(UVIAN_DATABASE_URL)" in line
    assert "Traceback" not in worker.said
    own_postgres.start()
    (row,) = await site.ended(job_id)
    assert (row["status"], row["run"], row["attempt"]) == ("completed", 1, 0)
    assert await _status(unused_tcp_port, "ready") == 200
    assert "It answers again" in worker.said


@pytest.mark.parametrize("adapter", ["supabase"], indirect=True)
async def test_started_while_the_api_is_away_it_waits_and_begins(site: Site) -> None:
    """Of database and bucket, behind one address, only a proxy is there."""
    assert isinstance(site.adapter, OverSupabase)
    job_id = await site.submit("noop")
    faults = site.adapter.platform.faults
    faults.add(html_502)
    worker = site.start(UVIAN_IMAGES="supabase")
    await site.until(lambda: _warnings(worker.said), worker)
    faults.clear()
    (row,) = await site.ended(job_id)
    assert (row["status"], row["attempt"]) == ("completed", 0)
    assert "html" not in worker.said


@over_postgres_only
async def test_one_that_waits_ends_when_it_is_told_to(site: Site) -> None:
    """SIGTERM during the outage: at once, with 0. A name that nobody knows may be known later."""
    worker = site.start(UVIAN_DATABASE_URL="postgresql://x@nobody.invalid/x")
    await site.until(lambda: _warnings(worker.said), worker)
    assert "nobody.invalid/x (UVIAN_DATABASE_URL)" in worker.said
    began = time.monotonic()
    worker.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(worker.process.wait, 20) == 0, worker.said
    assert time.monotonic() - began < 5
    assert "Traceback" not in worker.said


@over_postgres_only
@pytest.mark.parametrize(
    ("away", "sentence"),
    [
        ("refused", "is not reachable"),
        ("silence", "does not answer"),
        ("close", "closes connections without an answer"),
    ],
)
async def test_started_while_redis_is_away_it_waits_and_begins(
    site: Site, unused_tcp_port_factory: Callable[[], int], away: str, sentence: str
) -> None:
    """One line says so; it is alive and not ready; then it runs what is queued. Another ends when told."""
    port, health = unused_tcp_port_factory(), unused_tcp_port_factory()
    url = f"{site.redis.url.rpartition('@')[0]}@127.0.0.1:{port}/0"
    proxy = SickRedis(site.redis.port)
    async with proxy.struck(lambda _: True, away):
        if away != "refused":
            await proxy.start(port)
        worker = site.start(UVIAN_REDIS_URL=url, UVIAN_HEALTH_PORT=str(health))
        other = site.start(UVIAN_REDIS_URL=url)
        await site.until(lambda: sentence in worker.said and "at a time" in other.said, worker)
        assert await _status(health, "live") == 200
        assert await _status(health, "ready") == 503
        began = time.monotonic()
        assert await asyncio.to_thread(other.terminate) == 0, other.said
        assert time.monotonic() - began < 10
    if away == "refused":
        await proxy.start(port)
    (row,) = await site.ended(await site.submit("noop"))
    assert (row["status"], row["attempt"]) == ("completed", 0)
    assert worker.said.count("jobs and events wait until it is back") == 1, worker.said
    assert "Traceback" not in worker.said + other.said
    worker.kill()
    await proxy.close()


@over_postgres_only
async def test_the_command_waits_as_arqs_does(site: Site, unused_tcp_port: int) -> None:
    """``uvian worker`` where nobody is, neither Redis nor database: it waits, and ends with 0."""
    worker = site.command(
        "worker",
        UVIAN_REDIS_URL="redis://127.0.0.1:1/0",
        UVIAN_DATABASE_URL="postgresql://x@127.0.0.1:1/x",
        UVIAN_HEALTH_PORT=str(unused_tcp_port),
    )
    await site.until(lambda: _warnings(worker.said), worker)
    assert await _status(unused_tcp_port, "live") == 200
    assert await asyncio.to_thread(worker.terminate) == 0, worker.said


@over_postgres_only
@pytest.mark.parametrize("command", ["worker", "gateway"])
async def test_told_to_end_while_it_asks_for_the_first_time(site: Site, command: str) -> None:
    """Nobody says a word, and the command has only begun to ask: it ends at once, with 0."""
    proxy = SickRedis(site.redis.port)
    await proxy.start()
    async with proxy.struck(lambda _: True, "silence") as strike:
        url = f"redis://127.0.0.1:{proxy.port}/0"
        started = site.command(command, UVIAN_REDIS_URL=url, UVIAN_JWT_SECRETS="s" * 32)
        async with asyncio.timeout(20):
            await strike.hit.wait()
        assert await asyncio.to_thread(started.terminate) == 0, started.said
    assert started.said == ""
    await proxy.close()


@over_postgres_only
@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [("role", 'role "nobody" does not exist'), ("database", 'database "nowhere" does not exist')],
)
async def test_what_is_wrong_ends_it_at_once(site: Site, wrong: str, sentence: str) -> None:
    """A role or a database that is not there is no outage: one critical line, and 2."""
    dsn, name = site.adapter.clean.dsn, site.adapter.clean.name
    dsn = (
        dsn.replace("uvian_migrator@", "nobody@")
        if wrong == "role"
        else dsn.replace(f"/{name}?", "/nowhere?")
    )
    worker = site.start(UVIAN_DATABASE_URL=dsn)
    assert await asyncio.to_thread(worker.process.wait, 20) == 2, worker.said
    (line,) = [line for line in worker.said.splitlines() if "CRITICAL" in line]
    assert sentence in line
    assert "UVIAN_DATABASE_URL" in line


@pytest.mark.parametrize("adapter", ["postgres", "supabase"], indirect=True)
async def test_six_seconds_without_the_database_lose_burn_and_charge_nothing_twice(
    site: Site, adapter: Adapter
) -> None:
    """Jobs before, in the middle and behind: each once, at the first attempt, one charge each."""
    await site.price("wait", "1", balance="100")
    worker = await site.worker()
    jobs = [await site.submit("wait", seconds=seconds) for seconds in (0, 0.5, 2, 4, 8) * 4]
    await asyncio.sleep(0.3)
    if isinstance(adapter, OverSupabase):
        adapter.platform.faults.add(html_502)
        await asyncio.sleep(6)
        adapter.platform.faults.clear()
    else:
        dsn = site.adapter.clean.superuser_dsn
        await _refusing(dsn, site.adapter.clean.name, seconds=6)
    rows = await site.ended(*jobs, within=60)
    assert Counter((row["status"], row["attempt"]) for row in rows) == {("completed", 0): 20}
    kinds = Counter(kind for kind, _ in await site.entries())
    assert kinds == {"grant": 1, "reserve": 20, "charge": 20}
    assert worker.process.poll() is None


async def _refusing(dsn: str, name: str, *, seconds: float) -> None:
    """The database takes no connection, and ends those it has."""
    hand = await asyncpg.connect(dsn.replace(f"/{name}?", "/postgres?"))
    await hand.execute(f'alter database "{name}" connection limit 0')
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        await hand.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1", name
        )
        await asyncio.sleep(0.05)
    await hand.execute(f'alter database "{name}" connection limit -1')
    await hand.close()
