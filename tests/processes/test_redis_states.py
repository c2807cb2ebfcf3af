"""A Redis that answers and serves nobody: worker, gateway, client and sweep live, and go on after it.

Real servers in real states, which follow one another on the same pair of processes. Every day there is
one state of each kind, for a second; ``make redis`` makes all of them last 45 s, longer than any
timeout, and prints a table. The Redis is ``UVIAN_TEST_REDIS``'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from tests.adapters import over_postgres_only
from tests.gateway.tokens import SECRET, claims_of, signed
from tests.processes.site import Site, Worker
from tests.redis.sick import SickRedis
from tests.redis_servers import eventually
from tests.servers import LONG_STATES
from uvian_worker.client import Client
from uvian_worker.events.envelope import Envelope

pytestmark = pytest.mark.processes

SECONDS = 45.0 if LONG_STATES else 1.2


@dataclass
class Stand:
    """What a state is put on: a Redis behind a proxy, and somebody who may administer it."""

    site: Site
    proxy: SickRedis
    administrator: Any
    client: Client
    url: str  #: of the proxy

    async def do(self, *command: Any) -> Any:
        """An administrator's command."""
        return await self.administrator.execute_command(*command)


State = Callable[[Stand], contextlib.AbstractAsyncContextManager[None]]


@contextlib.asynccontextmanager
async def readonly(stand: Stand) -> AsyncIterator[None]:
    """Demoted: what a failover does, blocked reads included."""
    await stand.do("REPLICAOF", "127.0.0.1", "1")
    yield
    await stand.do("REPLICAOF", "NO", "ONE")


@contextlib.asynccontextmanager
async def stale(stand: Stand) -> AsyncIterator[None]:
    """A replica that serves nothing while its master is gone."""
    await stand.do("CONFIG", "SET", "replica-serve-stale-data", "no")
    await stand.do("REPLICAOF", "127.0.0.1", "1")
    yield
    await stand.do("REPLICAOF", "NO", "ONE")


@contextlib.asynccontextmanager
async def full(stand: Stand) -> AsyncIterator[None]:
    """Its memory is used up."""
    await stand.do("CONFIG", "SET", "maxmemory", "1")
    yield
    await stand.do("CONFIG", "SET", "maxmemory", "0")


@contextlib.asynccontextmanager
async def cannot_save(stand: Stand) -> AsyncIterator[None]:
    """Its snapshots fail: the folder they go to is gone."""
    folder, copy = stand.site.redis.folder, stand.site.folder / "redis-copy"
    shutil.copytree(folder, copy)
    shutil.rmtree(folder)
    await stand.do("CONFIG", "SET", "stop-writes-on-bgsave-error", "yes")
    await stand.do("CONFIG", "SET", "save", "3600 1")
    with contextlib.suppress(RedisError):
        await stand.do("BGSAVE")
    yield
    await stand.do("CONFIG", "SET", "save", "")
    await stand.do("CONFIG", "SET", "stop-writes-on-bgsave-error", "no")
    shutil.copytree(copy, folder)


@contextlib.asynccontextmanager
async def busy(stand: Stand) -> AsyncIterator[None]:
    """A script does not end."""
    await stand.do("CONFIG", "SET", "lua-time-limit", "100")
    forever = Redis.from_url(stand.site.redis.url)
    script = asyncio.ensure_future(forever.eval("while true do end", 0))
    await asyncio.sleep(0.3)
    yield
    await stand.do("SCRIPT", "KILL")
    with contextlib.suppress(RedisError):
        await script
    await forever.aclose()


@contextlib.asynccontextmanager
async def no_replicas(stand: Stand) -> AsyncIterator[None]:
    """It wants to be copied before it writes."""
    await stand.do("CONFIG", "SET", "min-replicas-to-write", "1")
    yield
    await stand.do("CONFIG", "SET", "min-replicas-to-write", "0")


@contextlib.asynccontextmanager
async def at_its_limit(stand: Stand) -> AsyncIterator[None]:
    """No connection is left; those there were are cut."""
    ours = [Redis.from_url(stand.site.redis.url, single_connection_client=True) for _ in range(4)]
    for one in ours:
        await one.ping()
    await stand.do("CONFIG", "SET", "maxclients", str(len(ours) + 1))
    stand.proxy.cut()
    yield
    await stand.do("CONFIG", "SET", "maxclients", "1000")
    for one in ours:
        await one.aclose()


@contextlib.asynccontextmanager
async def another_password(stand: Stand) -> AsyncIterator[None]:
    """Its password was changed, and ours is not it any more."""
    password = stand.site.redis.url.partition("://:")[2].partition("@")[0]
    await stand.do("CONFIG", "SET", "requirepass", "another")
    stand.proxy.cut()
    yield
    await stand.do("CONFIG", "SET", "requirepass", password)


@contextlib.asynccontextmanager
async def accepts_and_closes(stand: Stand) -> AsyncIterator[None]:
    """A proxy before a dead server."""
    stand.proxy.refuses = True
    stand.proxy.cut()
    yield
    stand.proxy.refuses = False


@contextlib.asynccontextmanager
async def loading(stand: Stand) -> AsyncIterator[None]:
    """It says so to every command."""
    async with stand.proxy.struck(lambda _: True, "LOADING Redis is loading the dataset in memory"):
        yield


@contextlib.asynccontextmanager
async def killed(stand: Stand) -> AsyncIterator[None]:
    """It is gone, and comes back without its data."""
    await asyncio.to_thread(stand.site.redis.kill)
    yield
    await asyncio.to_thread(stand.site.redis.start)


@contextlib.asynccontextmanager
async def stopped(stand: Stand) -> AsyncIterator[None]:
    """It accepts and says nothing (SIGSTOP)."""
    pid = stand.site.redis.pid
    os.kill(pid, signal.SIGSTOP)
    yield
    os.kill(pid, signal.SIGCONT)


#: Each state, and what the gateway's readiness says of it.
STATES: dict[str, tuple[State, str]] = {
    "READONLY": (readonly, "read-only replica"),
    "MASTERDOWN": (stale, "replica"),
    "OOM": (full, "is full"),
    "MISCONF": (cannot_save, "cannot save"),
    "BUSY": (busy, "busy with a script"),
    "NOREPLICAS": (no_replicas, "too few replicas"),
    "maxclients": (at_its_limit, "no connection left"),
    "WRONGPASS": (another_password, "refuses this user or password"),
    "LOADING": (loading, "loading its data"),
    "accepts and closes": (accepts_and_closes, "closes connections"),
    "stopped": (stopped, "does not answer"),
    "killed": (killed, ""),
}


#: Of each kind one, for every day: refused writes, no answer to anything, no connection.
QUICK = ("READONLY", "OOM", "BUSY", "maxclients", "accepts and closes")


@pytest.fixture
async def stand(site: Site) -> AsyncIterator[Stand]:
    """The site's Redis behind a proxy, which is what worker and gateway know of it."""
    proxy = SickRedis(site.redis.port)
    await proxy.start()
    administrator: Any = Redis.from_url(site.redis.url, single_connection_client=True)
    url = site.redis.url.replace(str(site.redis.port), str(proxy.port))
    async with site.adapter.client(url) as client:
        yield Stand(site, proxy, administrator, client, url)
    await administrator.aclose()
    await proxy.close()


@dataclass
class Gateway:
    """A gateway of the site, asked over HTTP."""

    process: subprocess.Popen[bytes]
    log: Path
    url: str
    token: str

    async def ask(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        """Status and document."""
        headers = {"Authorization": f"Bearer {self.token}"}
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, self.url + path, headers=headers, **options) as reply,
        ):
            return reply.status, await reply.json(content_type=None)

    async def parts(self) -> dict[str, str]:
        """What its readiness says, part by part."""
        _, document = await self.ask("GET", "/health/ready")
        return dict(document["checks"])


@pytest.fixture
async def gateway(stand: Stand) -> AsyncIterator[Gateway]:
    """A gateway that knows the proxy."""
    log = stand.site.folder / "gateway.log"
    environment = stand.site.environment(
        UVIAN_REDIS_URL=stand.url, UVIAN_JWT_SECRETS=SECRET, UVIAN_GATEWAY_PORT="0"
    )
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "uvian_worker.cli", "gateway"],
            cwd=stand.site.folder,
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        await eventually(lambda: "gateway on http" in log.read_text())
        (url,) = re.findall(r"gateway on (http://\S+)", log.read_text())
        yield Gateway(process, log, url, signed(claims_of(stand.site.user_id)))
    finally:
        process.kill()
        process.wait()


async def _ended(stand: Stand, job_id: str) -> list[str]:
    """The types of a job's events, once it has ended."""
    types = []
    async with asyncio.timeout(20):
        async for event in stand.client.follow(job_id):
            types += [event.type] if isinstance(event, Envelope) else []
    return types


async def _outlive(stand: Stand, gateway: Gateway, worker: Worker, name: str) -> str:
    """Put Redis into a state; a row of the table: how everybody did."""
    site, (state, words) = stand.site, STATES[name]
    running = await site.submit("wait", seconds=1.0)
    await site.reaches(running, "processing")
    async with state(stand):
        began = time.monotonic()
        handle = await stand.client.submit(site.user_id, "noop", {})
        submitted = time.monotonic() - began
        assert submitted < 3, name
        assert (await gateway.ask("GET", "/v1/jobs"))[0] == 200
        assert (await gateway.ask("GET", "/v1/credits"))[0] == 200

        async def is_named() -> bool:
            parts = await gateway.parts()
            assert parts["sweep"] == parts["postgres"] == "ok"
            return words in parts["redis"] and parts["redis"] != "ok"

        await eventually(is_named, within=15)
        await site.ended(running)  # in Postgres: nobody needs Redis for that
        await asyncio.sleep(max(0, SECONDS - (time.monotonic() - began)))
        assert worker.process.poll() is None, worker.said
        assert gateway.process.poll() is None, gateway.log.read_text()
    back = time.monotonic()
    (row,) = await site.ended(handle.id, within=20)
    after = time.monotonic() - back
    assert (row["status"], row["attempt"]) == ("completed", 0)
    if name != "killed":  # then its events are gone with it, by promise
        for job_id in (running, handle.id):
            types = await _ended(stand, job_id)
            assert types[-1] == "job.completed", (name, types)
            assert types.count("job.started") == 1, (name, types)
            # What a client could not announce (it had no Redis) its dispatch announces later.
            assert types[0] == "job.queued", (name, types)

    async def is_ready() -> bool:
        return (await gateway.parts())["redis"] == "ok"

    await eventually(is_ready, within=10)
    return f"{name:20} worker lives, gateway lives, submit {submitted:.2f} s, back in {after:.2f} s"


@over_postgres_only
@pytest.mark.timeout(60 * len(STATES) if LONG_STATES else 120)
async def test_every_state_is_outlived(
    stand: Stand, gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody ends, running jobs end, requests are answered, and what waited runs: nothing is lost."""
    version = (await stand.administrator.info("server"))["redis_version"]
    worker = await stand.site.worker(UVIAN_REDIS_URL=stand.url)
    names = [name for name in STATES if LONG_STATES or name in QUICK]
    table = [await _outlive(stand, gateway, worker, name) for name in names]
    for said in (worker.said, gateway.log.read_text()):
        assert "Traceback" not in said, said
        warnings = [line for line in said.splitlines() if re.search(" WARNING | ERROR ", line)]
        # A state when it begins; MISCONF and its like may be met on the way.
        assert len(warnings) <= 3 * len(names), "\n".join(warnings)
        assert said.count("Redis is back after") <= 2 * len(names)
    if LONG_STATES:  # pragma: no cover - by hand
        with capsys.disabled():
            print("\n".join(["", f"Redis {version}, {SECONDS:g} s each", *table]))  # noqa: T201 - the table is what was asked for
