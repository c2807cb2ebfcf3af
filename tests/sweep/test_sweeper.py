"""The loop that heals, while what it heals with is away, lies or forgets."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from repositories.database import Database, Filter, Row
from repositories.jobs import JobRepository
from tests.adapters import Adapter
from tests.executors.running.faults import Fault, FaultyDatabase
from tests.redis_servers import eventually, own_redis
from uvian_worker.events.publisher import Publisher
from uvian_worker.events.reader import Reader
from uvian_worker.local.embedded import EmbeddedRedis
from uvian_worker.queue.dispatch import Dispatcher
from uvian_worker.redis.connection import redis_from_url
from uvian_worker.redis.keys import Keys, job_topic
from uvian_worker.sweep.outbox import Outbox
from uvian_worker.sweep.sweeper import SETTLED, Sweeper

__all__ = ["own_redis"]

pytestmark = pytest.mark.database
KEYS = Keys("uvian")


@dataclass
class Healer:
    """One process that sweeps."""

    faulty: FaultyDatabase
    redis: Redis
    publisher: Publisher
    dispatcher: Dispatcher
    sweeper: Sweeper

    async def close(self) -> None:
        """What a worker does at its end."""
        await self.sweeper.close()
        await self.dispatcher.close()
        await self.publisher.close(0)
        await self.redis.aclose()


@dataclass
class Ward:
    """Jobs, and those who heal them."""

    database: Database
    superuser_dsn: str
    user_id: str
    healers: list[Healer]

    def healer(self, url: str, *, interval: float = 60.0) -> Healer:
        """One more process that sweeps; it is not started."""
        redis = redis_from_url(url, patience=0.5)
        faulty = FaultyDatabase(self.database, iter(()))
        publisher = Publisher(redis, "uvian")
        dispatcher = Dispatcher(redis, "uvian", patience=0.5)
        sweeper = Sweeper(
            database=faulty,
            dispatcher=dispatcher,
            outbox=Outbox(dispatcher, publisher),
            interval=interval,
        )
        healer = Healer(faulty, redis, publisher, dispatcher, sweeper)
        self.healers.append(healer)
        return healer

    async def create(self, count: int = 1) -> list[str]:
        """Ids of jobs that nobody has dispatched."""
        items = [{"user_id": self.user_id, "type": "noop", "input": {}} for _ in range(count)]
        answer = await self.database.call("create_jobs", request={"jobs": items})
        return [made["job"]["id"] for made in answer["jobs"]]

    async def execute(self, statement: str, *values: Any) -> list[Any]:
        """SQL as a superuser."""
        connection = await asyncpg.connect(self.superuser_dsn)
        try:
            return list(await connection.fetch(statement, *values))
        finally:
            await connection.close()

    async def is_due(self) -> None:
        """Everything that waits for its time is due."""
        await self.execute(
            "update uvian.job_state set redispatch_at = now() where redispatch_at > now()"
        )
        await self.execute(
            "update uvian.job_state set announce_at = now() where announce_at > now()"
        )

    async def row(self, job_id: str) -> Row:
        """A job's row."""
        (row,) = await self.database.select("jobs", where=[Filter("id", "eq", job_id)])
        return row


@pytest.fixture
async def ward(adapter: Adapter) -> AsyncIterator[Ward]:
    """A database with a user and a type."""
    async with adapter.database(listen=True) as database:
        ward = Ward(database, adapter.clean.superuser_dsn, str(uuid.uuid4()), [])
        await ward.execute("insert into auth.users (id) values ($1)", uuid.UUID(ward.user_id))
        jobs = JobRepository(database, "worker-1", lambda _: None)
        await jobs.register("0.1.0", [{"type": "noop"}])
        yield ward
        for healer in ward.healers:
            await healer.close()


@pytest.fixture
async def mute() -> AsyncIterator[str]:
    """The URL of a server that accepts and never answers."""
    waiting: list[asyncio.StreamWriter] = []

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        waiting.append(writer)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    server.close()
    for writer in waiting:
        writer.close()


async def test_a_mute_redis_does_not_slow_the_sweep(ward: Ward, mute: str) -> None:
    """Leases expire on time while Redis accepts and never answers, with jobs to dispatch or without."""
    healer = ward.healer(mute)
    await ward.create()
    began = time.monotonic()
    for _ in range(2):
        await ward.is_due()
        await healer.sweeper.sweep()
    assert time.monotonic() - began < 2 * 4
    assert healer.sweeper.age is not None


async def test_terminal_events_wait_until_the_workers_have_published_the_rest(
    ward: Ward, own_redis: EmbeddedRedis
) -> None:
    """A terminal event seals its run: published by a sweeper as soon as Redis is back, it would refuse the
    worker's events that waited as long. Sweep after sweep finds it: none piles up, none is lost.
    """
    url = own_redis.url
    own_redis.kill()
    healer = ward.healer(url)
    ids = await ward.create(3)
    for job_id in ids:
        await ward.database.call("cancel_job", job_id=job_id)
    for _ in range(5):
        await ward.is_due()
        await healer.sweeper.sweep()
    assert healer.publisher.waiting == 0
    own_redis.restart()
    await ward.is_due()
    await healer.sweeper.sweep()
    assert healer.dispatcher.away is None
    assert healer.publisher.waiting == 0
    healer.redis.connection_pool.connection_kwargs["state"]._served_since -= SETTLED
    await ward.is_due()
    while await healer.sweeper.sweep():
        pass
    await asyncio.wait_for(healer.publisher.flush(), 10)
    await healer.sweeper.sweep()
    await ward.is_due()
    assert not await ward.execute("select from uvian.job_state where announce_at is not null")
    reader = Reader(healer.redis, "uvian")
    for job_id in ids:
        assert (await reader.read(job_topic(job_id))).ended
    await reader.close()


@pytest.mark.parametrize(
    "rubbish", ["rubbish", "no-uuid:1", f"{uuid.UUID(int=1)}:x", f"{uuid.UUID(int=1)}:{10**30}"]
)
async def test_rubbish_between_queue_and_claim_stops_no_healing(
    ward: Ward, redis_url: str, rubbish: str
) -> None:
    """An id that no job can have is thrown out; the next sweep does its work."""
    healer = ward.healer(redis_url)
    await healer.redis.zadd(KEYS.claiming, {rubbish: 1})
    (job_id,) = await ward.create()
    await ward.is_due()
    for _ in range(3):
        await healer.sweeper._sweep_safely()
    assert await healer.redis.zrange(KEYS.queue, 0, -1) == [f"{job_id}:1".encode()]
    assert await healer.redis.zcard(KEYS.claiming) == 0


async def test_a_row_made_by_hand_is_dispatched_at_once(ward: Ward, redis_url: str) -> None:
    """Where LISTEN works nobody waits for the next sweep, also after the connection was cut."""
    healer = ward.healer(redis_url)
    healer.sweeper.start()
    await eventually(lambda: healer.sweeper.age is not None)

    async def is_dispatched() -> None:
        rows = await ward.execute(
            "insert into uvian.jobs (user_id, type) values ($1, 'noop') returning id::text",
            uuid.UUID(ward.user_id),
        )
        began = time.monotonic()
        while await healer.redis.zscore(KEYS.queue, f"{rows[0]['id']}:1") is None:
            assert time.monotonic() - began < 3, "nobody was woken"
            await asyncio.sleep(0.01)

    await is_dispatched()
    await ward.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity "
        "where query like 'LISTEN%' and datname = current_database()"
    )
    await is_dispatched()


async def test_two_processes_heal_a_flushed_redis(ward: Ward, redis_url: str) -> None:
    """Both notice, both work, one is interrupted half way: every job is in the queue, once."""
    first, second = ward.healer(redis_url), ward.healer(redis_url)
    ids = await ward.create(1200)
    await ward.is_due()
    while await first.sweeper.sweep():
        pass
    assert await first.redis.zcard(KEYS.queue) == 1200
    await first.redis.flushall()
    assert await first.sweeper.sweep()  # noticed
    assert await first.sweeper.sweep()  # a page; then it is killed
    while await second.sweeper.sweep():
        pass
    assert await second.redis.zcard(KEYS.queue) == len(ids)
    assert not await second.dispatcher.redis_lost()
    # Who was interrupted comes back: nothing is left to do, and the mark stays true.
    while await first.sweeper.sweep():
        pass
    assert await first.redis.zcard(KEYS.queue) == len(ids)
    assert not await first.dispatcher.redis_lost()


async def test_a_second_flush_while_healing_is_healed_too(ward: Ward, redis_url: str) -> None:
    """What was dispatched by the first healing and is lost again is dispatched again."""
    healer = ward.healer(redis_url)
    ids = await ward.create(700)
    await ward.is_due()
    while await healer.sweeper.sweep():
        pass
    await healer.redis.flushall()
    await healer.sweeper.sweep()
    await healer.sweeper.sweep()
    await healer.redis.flushall()
    while await healer.sweeper.sweep():
        pass
    while await healer.sweeper.sweep():
        pass
    assert await healer.redis.zcard(KEYS.queue) == len(ids)
    assert not await healer.dispatcher.redis_lost()


async def test_everything_away_and_back(ward: Ward, own_redis: EmbeddedRedis) -> None:
    """Redis and Postgres fail in every order while the loop runs: it goes on, and heals in the end."""
    healer = ward.healer(own_redis.url, interval=0.05)
    healer.sweeper.start()
    healer.faulty.script = iter(
        [Fault.REFUSED, Fault.REPLY_LOST, Fault.SLOW, Fault.REPLY_LOST, Fault.REFUSED] * 4
    )
    ids = await ward.create(20)
    own_redis.kill()
    await eventually(lambda: healer.faulty.calls.count("sweep_jobs") > 20)
    own_redis.restart()
    await ward.is_due()

    async def all_wait() -> bool:
        return int(await healer.redis.zcard(KEYS.queue)) == len(ids)

    await eventually(all_wait, within=20)


async def test_the_loop_survives_what_nobody_expected(
    ward: Ward, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug in one sweep is logged, and the next sweep comes."""
    healer = ward.healer(redis_url, interval=0.02)
    errors: Iterator[Exception] = iter([ZeroDivisionError(), KeyError("x"), ValueError()])
    look = healer.dispatcher.redis_lost

    async def stumble() -> bool:
        if (error := next(errors, None)) is not None:
            raise error
        return await look()

    monkeypatch.setattr(healer.dispatcher, "redis_lost", stumble)
    healer.sweeper.start()
    await eventually(lambda: healer.sweeper.age is not None)


async def test_closing_is_prompt_whatever_hangs(ward: Ward, mute: str, tmp_path: Path) -> None:
    """A sweep that waits for Redis or Postgres is cut off."""
    del tmp_path
    healer = ward.healer(mute)
    entered, _ = healer.faulty.hold("sweep_jobs")
    healer.sweeper.start()
    await entered.wait()
    async with asyncio.timeout(1):
        await healer.sweeper.close()


async def test_a_first_start_warns_of_nothing(
    ward: Ward, own_redis: EmbeddedRedis, caplog: pytest.LogCaptureFixture
) -> None:
    """A Redis that nobody has marked is new, with jobs or without; one that was marked has lost its data."""
    healer = ward.healer(own_redis.url)
    await ward.create(3)
    with caplog.at_level(logging.INFO, logger="uvian.sweeper"):
        while await healer.sweeper.sweep():
            pass
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    client: Any = Redis.from_url(own_redis.url)
    assert await client.zcard(KEYS.queue) == 3
    await client.flushall()
    with caplog.at_level(logging.INFO, logger="uvian.sweeper"):
        while await healer.sweeper.sweep():
            pass
    assert await client.zcard(KEYS.queue) == 3
    await client.aclose()
    (warning,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "3 queued jobs are dispatched again" in warning.getMessage()


async def test_a_database_that_is_away_is_one_line_in_the_log(
    ward: Ward, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One when the sweeps begin to fail, one when they no longer do; every two seconds was a flood."""
    healer = ward.healer(redis_url, interval=0.02)
    healer.faulty.script = iter([Fault.REFUSED] * 6)
    with caplog.at_level(logging.INFO, logger="uvian.sweeper"):
        healer.sweeper.start()
        await eventually(lambda: "sweeps again, after" in caplog.text)
    assert caplog.text.count("sweep failed, trying again: the call did not arrive") == 1
