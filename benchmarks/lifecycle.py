"""No-op jobs from the first insert to the last settlement: created, dispatched, run, settled."""

from __future__ import annotations

__all__ = ["BATCH", "jobs_per_second"]

import asyncio
import time
import uuid
from collections.abc import Mapping
from contextlib import AsyncExitStack

import asyncpg

from benchmarks.site import Site
from repositories.database import Database
from uvian_worker.config import Config
from uvian_worker.process.stores import Stores
from uvian_worker.queue.dispatch import Dispatch, Dispatcher
from uvian_worker.redis.connection import redis_from_url

BATCH = 200


async def jobs_per_second(servers: Site, count: int, settings: Mapping[str, str]) -> float:
    """``count`` jobs through the worker that runs; ``settings`` say how they are created."""
    names = {name.removeprefix("UVIAN_").lower(): value for name, value in settings.items()}
    config = Config.load({}, redis_url=servers.redis.url, **names)
    async with AsyncExitStack() as stack:
        database = await Stores(config, stack).database()
        redis = redis_from_url(servers.redis.url)
        stack.push_async_callback(redis.aclose)
        dispatcher = Dispatcher(redis, config.namespace)
        stack.push_async_callback(dispatcher.close)
        watcher = await asyncpg.connect(servers.postgres.migrator_dsn)
        stack.push_async_callback(watcher.close)
        done = await _completed(watcher, at_least=0)
        await _create(database, dispatcher, servers.user_id, BATCH)  # warms everything up
        await _completed(watcher, at_least=done + BATCH)
        began = time.perf_counter()
        for _ in range(count // BATCH):
            await _create(database, dispatcher, servers.user_id, BATCH)
        await _completed(watcher, at_least=done + BATCH + count)
        return count / (time.perf_counter() - began)


async def _create(database: Database, dispatcher: Dispatcher, user_id: str, count: int) -> None:
    jobs = [
        {"id": str(uuid.uuid4()), "user_id": user_id, "type": "noop", "input": {}}
        for _ in range(count)
    ]
    answer = await database.call("create_jobs", request={"jobs": jobs})
    rows = [made["job"] | {"delayed": made["delayed"]} for made in answer["jobs"]]
    await dispatcher.dispatch([Dispatch.of(row) for row in rows])


async def _completed(watcher: asyncpg.Connection, *, at_least: int) -> int:
    query = "select count(*) from uvian.jobs where status = 'completed'"
    while (count := await watcher.fetchval(query)) < at_least:
        await asyncio.sleep(0.05)
    return int(count)
