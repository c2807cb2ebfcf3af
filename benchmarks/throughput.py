"""No-op jobs through the whole machine, against arq without any row."""

from __future__ import annotations

__all__ = ["run"]

import asyncio
import time

from arq.connections import RedisSettings, create_pool

from benchmarks.lifecycle import BATCH, jobs_per_second
from benchmarks.result import Result
from benchmarks.site import Site, median, site

JOBS = 4000
ROUNDS = 3


def run() -> list[Result]:
    """Jobs per second from the first insert to the last settlement, one worker process."""
    ours: list[float] = []
    arq: list[float] = []
    for _ in range(ROUNDS):
        with site() as servers:
            postgres = {"UVIAN_DATABASE_URL": servers.postgres.migrator_dsn}
            with servers.worker("benchmarks.settings_uvian.WorkerSettings", UVIAN_MAX_JOBS="100"):
                ours.append(asyncio.run(jobs_per_second(servers, JOBS, postgres)))
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
