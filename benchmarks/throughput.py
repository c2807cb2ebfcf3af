"""No-op jobs through the whole machine, against arq without any row."""

from __future__ import annotations

__all__ = ["run"]

import asyncio
import time
import uuid

import asyncpg
from arq.connections import RedisSettings, create_pool

from benchmarks.result import Result
from benchmarks.site import Site, median, site
from repositories.postgres import PostgresDatabase
from uvian_worker.dispatch import Dispatch, Dispatcher
from uvian_worker.eventstream.connection import redis_from_url

JOBS = 4000
BATCH = 200
ROUNDS = 3


def run() -> list[Result]:
    """Jobs per second from the first insert to the last settlement, one worker process."""
    ours: list[float] = []
    arq: list[float] = []
    for _ in range(ROUNDS):
        with site() as servers:
            with servers.worker("benchmarks.settings_uvian.WorkerSettings", UVIAN_MAX_JOBS="100"):
                ours.append(asyncio.run(_ours(servers)))
            with servers.worker("benchmarks.settings_arq.WorkerSettings", UVIAN_MAX_JOBS="100"):
                arq.append(asyncio.run(_arq(servers)))
    return [
        Result(
            "full lifecycle, no-op jobs, one process",
            median(ours),
            "jobs/s",
            1000,
            at_least=True,
            peer=median(arq),
            peer_name="arq without rows",
        )
    ]


async def _ours(servers: Site) -> float:
    database = await PostgresDatabase.connect(servers.postgres.migrator_dsn)
    redis = redis_from_url(servers.redis.url)
    dispatcher = Dispatcher(redis, "uvian")
    watcher = await asyncpg.connect(servers.postgres.migrator_dsn)
    await _create(database, dispatcher, servers.user_id, BATCH)  # warms everything up
    await _completed(watcher, BATCH)
    began = time.perf_counter()
    for _ in range(JOBS // BATCH):
        await _create(database, dispatcher, servers.user_id, BATCH)
    await _completed(watcher, BATCH + JOBS)
    seconds = time.perf_counter() - began
    await watcher.close()
    await dispatcher.close()
    await redis.aclose()
    await database.close()
    return JOBS / seconds


async def _create(
    database: PostgresDatabase, dispatcher: Dispatcher, user_id: str, count: int
) -> None:
    jobs = [
        {"id": str(uuid.uuid4()), "user_id": user_id, "type": "noop", "input": {}}
        for _ in range(count)
    ]
    answer = await database.call("create_jobs", request={"jobs": jobs})
    rows = [made["job"] | {"delayed": made["delayed"]} for made in answer["jobs"]]
    await dispatcher.dispatch([Dispatch.of(row) for row in rows])


async def _completed(watcher: asyncpg.Connection, count: int) -> None:
    query = "select count(*) from uvian.jobs where status = 'completed'"
    while await watcher.fetchval(query) < count:
        await asyncio.sleep(0.05)


async def _arq(servers: Site) -> float:
    pool = await create_pool(RedisSettings.from_dsn(servers.redis.url))
    await _enqueue(pool, BATCH)
    await _drained(pool)
    began = time.perf_counter()
    for _ in range(JOBS // BATCH):
        await _enqueue(pool, BATCH)
    await _drained(pool)
    seconds = time.perf_counter() - began
    await pool.aclose()
    return JOBS / seconds


async def _enqueue(pool: object, count: int) -> None:
    await asyncio.gather(*(pool.enqueue_job("noop") for _ in range(count)))  # type: ignore[attr-defined]


async def _drained(pool: object) -> None:
    while await pool.zcard("arq:queue"):  # type: ignore[attr-defined]
        await asyncio.sleep(0.02)
