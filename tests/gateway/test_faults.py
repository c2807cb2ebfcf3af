"""What the gateway does while something is away: it answers, in time, and goes on when it is back."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import psutil
import pytest
from redis.asyncio import Redis

from tests.adapters import OverSupabase, over_postgres_only
from tests.gateway.site import Caller, Reply, Site, config_of, eventually, opened
from tests.gateway.tokens import claims_of, signed
from tests.lifecycle.world import World
from tests.servers import POSTGRES_BINARIES, REDIS_BINARY, CleanDatabase
from tests.supabase.faults import Action, html_502, lose_reply, reset
from uvian_worker.gateway.serving import serving
from uvian_worker.local.embedded import EmbeddedPostgres, EmbeddedRedis
from uvian_worker.redis.keys import Keys
from uvian_worker.schema.migrate import bootstrap, migrate

pytestmark = pytest.mark.database


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    """A Redis that may be killed."""
    with EmbeddedRedis(tmp_path / "redis", binary=REDIS_BINARY) as server:
        yield server


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    """A Postgres that may be stopped, migrated; the ``world`` of such a test is in it."""
    tmp_path.chmod(0o755)
    with EmbeddedPostgres(tmp_path / "postgres", binaries=POSTGRES_BINARIES) as server:
        asyncio.run(bootstrap(server.dsn))
        asyncio.run(migrate(server.migrator_dsn))
        yield server


@pytest.fixture
def database(request: pytest.FixtureRequest) -> CleanDatabase:
    """In the session's Postgres, or the test's own."""
    if "own_postgres" not in request.fixturenames:
        database: CleanDatabase = request.getfixturevalue("database")
        return database
    server: EmbeddedPostgres = request.getfixturevalue("own_postgres")
    return CleanDatabase(
        "postgres", server.migrator_dsn, server.dsn, server.dsn_for(user="authenticator")
    )


async def timed(request: Any) -> tuple[Reply, float]:
    """The answer, and how long it took."""
    began = time.monotonic()
    return await request, time.monotonic() - began


async def state(caller: Caller) -> tuple[int, str]:
    """What an orchestrator is told."""
    reply = await caller.get("/health/ready")
    return reply.status, str(reply.body["status"])


# ─── Redis ───────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def without_redis(
    world: World, own_redis: EmbeddedRedis, tmp_path: Path
) -> AsyncIterator[Site]:
    """A gateway whose Redis has been killed."""
    async with opened(world, config_of(world.adapter, own_redis.url, tmp_path)) as site:
        await site.open()
        await eventually(lambda: _is(site, "ok"))
        own_redis.kill()
        yield site


async def _is(site: Site, status: str) -> bool:
    return (await state(site.nobody))[1] == status


@over_postgres_only
async def test_jobs_are_taken_while_redis_is_away_and_run_when_it_is_back(
    without_redis: Site, own_redis: EmbeddedRedis
) -> None:
    """The database is the truth: 201 within a few seconds, and the job is in the queue of the new Redis."""
    site = without_redis
    user = await site.user()
    reply, seconds = await timed(user.post("/v1/jobs", {"type": "noop"}))
    assert reply.status == 201
    assert seconds < 5
    assert (await user.get(f"/v1/jobs/{reply.body['id']}")).body["status"] == "queued"
    assert await state(site.nobody) == (200, "degraded")
    own_redis.start()
    redis = Redis.from_url(own_redis.url)

    async def is_dispatched() -> bool:
        waiting = await redis.zrange(Keys("uvian").queue, 0, -1)
        return f"{reply.body['id']}:1".encode() in waiting

    await eventually(is_dispatched)
    await redis.aclose()
    await eventually(lambda: _is(site, "ok"))


@over_postgres_only
async def test_nobody_is_limited_while_redis_is_away(without_redis: Site) -> None:
    """Cancelling, retrying, posting and reading go on, each within seconds."""
    site = without_redis
    user = await site.user()
    job = await site.made(user)
    conversation = (await user.post("/v1/conversations", {})).headers["Location"]
    for request in (
        user.post(f"/v1/jobs/{job['id']}/cancel"),
        user.post(f"/v1/jobs/{job['id']}/retry", {"expected_run": 1}),
        user.post(f"{conversation}/messages", {"content": "Why?"}),
        user.post(f"{conversation}/stop"),
        user.get("/v1/jobs"),
        user.get("/v1/credits"),
    ):
        reply, seconds = await timed(request)
        assert reply.status in (200, 201), reply
        assert seconds < 5


# ─── Postgres ────────────────────────────────────────────────────────────────────────────────────


@over_postgres_only
@pytest.mark.parametrize("how", ["stopped", "hanging"])
async def test_while_postgres_is_away_every_answer_is_503_and_says_when_to_come_again(
    own_postgres: EmbeddedPostgres, world: World, redis_url: str, tmp_path: Path, how: str
) -> None:
    """Within the time of a call and its repetitions; tokens are checked all the same; then all is well."""
    config = config_of(world.adapter, redis_url, tmp_path, call_timeout=1)
    async with opened(world, config) as site:
        await site.open()
        user = await site.user()
        job = await site.made(user)
        requests = {
            "/v1/jobs": {"type": "noop"},
            f"/v1/jobs/{job['id']}/cancel": None,
            "/v1/conversations": {},
            "/v1/cost": {"type": "noop"},
        }
        _take_away(own_postgres, how)
        try:
            asked = [user.post(path, body) for path, body in requests.items()]
            asked += [user.get(path) for path in ("/v1/jobs", "/v1/credits", "/v1/concepts")]
            asked += [user.get(f"/v1/jobs/{job['id']}/events")]
            for reply, seconds in await asyncio.gather(*(timed(each) for each in asked)):
                assert (reply.status, reply.code) == (503, "unavailable")
                assert seconds < 20
            assert (await site.nobody.get("/v1/jobs")).status == 401
            assert (await site.nobody.get("/health/live")).status == 200
            reply = await site.nobody.get("/health/ready")
            assert (reply.status, reply.body["checks"]["redis"]) == (503, "ok")
            assert reply.body["checks"]["postgres"] != "ok"
        finally:
            _bring_back(own_postgres, how)
        await eventually(lambda: _is(site, "ok"))
        assert (await user.post("/v1/jobs", {"type": "noop"})).status == 201


@over_postgres_only
@pytest.mark.parametrize("how", ["stopped", "hanging"])
async def test_started_while_postgres_is_away_it_answers_503_and_then_begins(
    own_postgres: EmbeddedPostgres, world: World, redis_url: str, tmp_path: Path, how: str
) -> None:
    """It listens, is alive and not ready; nobody has to start it again."""
    user_id = await world.user()
    await world.type("noop", browser=True)
    _take_away(own_postgres, how)
    try:
        config = config_of(world.adapter, redis_url, tmp_path, call_timeout=1)
        async with serving(config) as url, aiohttp.ClientSession(url) as session:
            token = {"Authorization": f"Bearer {signed(claims_of(user_id))}"}

            async def status(path: str, **more: Any) -> int:
                return await _status(session.request("POST" if more else "GET", path, **more))

            submit = {"json": {"type": "noop"}, "headers": token}
            assert await status("/health/live") == 200
            assert await status("/health/ready") == 503
            assert await status("/v1/jobs", **submit) == 503
            _bring_back(own_postgres, how)

            async def is_ready() -> bool:
                return await status("/health/ready") == 200

            await eventually(is_ready)
            assert await status("/v1/jobs", **submit) == 201
    finally:
        if how == "hanging":
            _bring_back(own_postgres, how)


@over_postgres_only
async def test_a_password_that_was_changed_is_503_until_it_is_set_right(
    own_postgres: EmbeddedPostgres, world: World, redis_url: str, tmp_path: Path
) -> None:
    """It is no client's business, and no fault of the program that a trace would explain."""
    async with opened(world, config_of(world.adapter, redis_url, tmp_path)) as site:
        await site.open()
        user = await site.user()
        async with _administrator(own_postgres) as postgres:
            await postgres.execute("alter role uvian_migrator nologin")
            await postgres.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'uvian_migrator'"
            )
            for path in ("/v1/jobs", "/v1/credits"):
                reply = await user.get(path)
                assert (reply.status, reply.code) == (503, "unavailable")
            await postgres.execute("alter role uvian_migrator login")
        assert (await user.get("/v1/jobs")).status == 200


@contextlib.asynccontextmanager
async def _administrator(server: EmbeddedPostgres) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(server.dsn)
    yield connection
    await connection.close()


def _take_away(server: EmbeddedPostgres, how: str) -> None:
    if how == "stopped":
        server.stop("immediate")
    else:
        for process in _family(server):
            process.suspend()


def _bring_back(server: EmbeddedPostgres, how: str) -> None:
    if how == "stopped":
        server.start()
    else:
        for process in _family(server):
            process.resume()


def _family(server: EmbeddedPostgres) -> list[psutil.Process]:
    postmaster = psutil.Process(server.pid)
    return [postmaster, *postmaster.children(recursive=True)]


@pytest.mark.parametrize("adapter", ["supabase"], indirect=True)
@pytest.mark.parametrize("fault", [lose_reply, reset, html_502])
async def test_an_api_that_strikes_every_third_call_makes_no_job_twice(
    site: Site, fault: Action
) -> None:
    """Lost replies above all: thirty requests, thirty answers, thirty jobs."""
    assert isinstance(site.world.adapter, OverSupabase)
    user = await site.user()
    faults = site.world.adapter.platform.faults
    faults.add(fault, path="/rest/v1/", every=3)
    replies = await asyncio.gather(*(user.post("/v1/jobs", {"type": "noop"}) for _ in range(30)))
    hits = faults.hits
    faults.clear()
    assert hits > 5
    assert {reply.status for reply in replies} == {201}
    assert await site.world.hand.fetchval("select count(*) from uvian.jobs") == 30


@pytest.mark.parametrize("adapter", ["supabase"], indirect=True)
async def test_a_project_that_is_down_is_503(site: Site) -> None:
    """Without a word of the proxy's page."""
    assert isinstance(site.world.adapter, OverSupabase)
    user = await site.user()
    site.world.adapter.platform.faults.add(html_502)
    reply = await user.get("/v1/jobs")
    assert (reply.status, reply.code) == (503, "unavailable")
    assert b"html" not in reply.raw
    site.world.adapter.platform.faults.clear()


# ─── two gateways ────────────────────────────────────────────────────────────────────────────────


@over_postgres_only
async def test_any_gateway_does(world: World, redis_url: str, tmp_path: Path) -> None:
    """A job made at one is followed at the other and stopped at the first; one key is one job at both."""
    configs = [config_of(world.adapter, redis_url, tmp_path) for _ in range(2)]
    async with opened(world, configs[0]) as here, opened(world, configs[1]) as there:
        await here.open()
        user = await here.user()
        elsewhere = there.caller(user.user_id)
        body = {"type": "noop", "idempotency_key": "k"}
        replies = await asyncio.gather(
            *(caller.post("/v1/jobs", body) for caller in (user, elsewhere) * 5)
        )
        assert sorted(reply.status for reply in replies) == [200] * 9 + [201]
        (job_id,) = {reply.body["id"] for reply in replies}
        events = asyncio.create_task(elsewhere.get(f"/v1/jobs/{job_id}/events"))
        assert (await user.post(f"/v1/jobs/{job_id}/cancel")).body["status"] == "cancelled"
        async with asyncio.timeout(20):
            told = (await events).raw.decode()
        assert "event: job.cancelled" in told


async def _status(request: Any) -> int:
    async with request as response:
        return int(response.status)


# ─── the end ─────────────────────────────────────────────────────────────────────────────────────


@over_postgres_only
async def test_whoever_is_connected_when_it_ends_is_asked_to_come_again(
    world: World, redis_url: str, tmp_path: Path
) -> None:
    """A socket hears 1001, a stream ends, a request that was under way is answered; then nothing listens."""
    config = config_of(world.adapter, redis_url, tmp_path)
    gateway = contextlib.AsyncExitStack()
    async with gateway, aiohttp.ClientSession() as session:
        url = await gateway.enter_async_context(serving(config))
        user = await world.user()
        await world.type("chat", browser=True)
        job = await world.create(user)
        token = {"Authorization": f"Bearer {signed(claims_of(user))}"}
        socket = await session.ws_connect(f"{url}/v1/live", headers=token)
        stream = await session.get(f"{url}/v1/jobs/{job['id']}/events", headers=token)
        assert (await stream.content.readline()).startswith(b"retry")
        body = asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            yield b"{"
            await body.wait()
            yield b"}"

        headers = {**token, "Content-Type": "application/json"}
        post = session.post(f"{url}/v1/conversations", data=slowly(), headers=headers)
        under_way = asyncio.create_task(_status(post))
        await asyncio.sleep(0.2)
        ending = asyncio.create_task(gateway.aclose())
        async with asyncio.timeout(8):
            assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
            assert socket.close_code == aiohttp.WSCloseCode.GOING_AWAY
            await stream.read()
            assert not ending.done()
            with pytest.raises(OSError):  # noqa: PT011 - refused, however the system says it
                await asyncio.open_connection("127.0.0.1", config.gateway_port)
            body.set()
            assert await under_way == 201
            await ending
