"""How soon an idle worker begins, and what it costs to be idle."""

from __future__ import annotations

__all__ = ["run"]

import asyncio
import random
import subprocess
import time
import uuid
from typing import Any

import psutil
from arq.connections import ArqRedis, RedisSettings, create_pool
from redis import Redis

from benchmarks.result import Result
from benchmarks.site import Site, median, quantile, site, wait_until
from uvian_worker.queue.dispatch import Dispatch, Dispatcher
from uvian_worker.redis.connection import redis_from_url

JOBS = 150
IDLE_SECONDS = 10.0


def run() -> list[Result]:
    """Latency from dispatch to the first line of the job, and CPU and commands while idle."""
    with site() as servers:
        ours, our_cpu, our_commands = _measure(servers, "benchmarks.settings_uvian.WorkerSettings")
        arq, arq_cpu, arq_commands = _measure(servers, "benchmarks.settings_arq.WorkerSettings")
    return [
        Result(
            "pickup, idle worker, p50", median(ours), "ms", 2.5, peer=median(arq), peer_name="arq"
        ),
        Result(
            "pickup, idle worker, p99",
            quantile(ours, 0.99),
            "ms",
            10,
            peer=quantile(arq, 0.99),
            peer_name="arq",
        ),
        Result("idle, CPU per 10 s", our_cpu, "CPU-s", 0.05, peer=arq_cpu, peer_name="arq"),
        Result("idle, Redis commands", our_commands, "/s", 5, peer=arq_commands, peer_name="arq"),
    ]


def _measure(servers: Site, settings: str) -> tuple[list[float], float, float]:
    ours = "uvian" in settings
    with servers.worker(settings, BENCH_STAMP="1") as process:
        latencies = asyncio.run(_latencies(servers, ours=ours))
        time.sleep(1)
        cpu, commands = _idle(servers, process)
    return latencies, cpu, commands


async def _latencies(servers: Site, *, ours: bool) -> list[float]:
    """Milliseconds of ``JOBS`` jobs, one at a time, at random moments."""
    connection = servers.connection()
    redis = redis_from_url(servers.redis.url)
    dispatcher = Dispatcher(redis, "uvian")
    pool: ArqRedis = await create_pool(RedisSettings.from_dsn(servers.redis.url))
    latencies: list[float] = []
    for number in range(JOBS + 5):
        await asyncio.sleep(random.uniform(0.05, 0.15))
        began = time.time()
        if ours:
            await dispatcher.dispatch([Dispatch(str(uuid.uuid4()), 1, servers.user_id, "noop")])
        else:
            await pool.enqueue_job("stamped")
        entered = await asyncio.to_thread(_entered, connection)
        if number >= 5:  # the first ones meet a worker that is still starting
            latencies.append((float(entered) - began) * 1000)
    await dispatcher.close()
    await redis.aclose()
    await pool.aclose()
    connection.close()
    return latencies


def _idle(servers: Site, process: subprocess.Popen[bytes]) -> tuple[float, float]:
    """CPU seconds per 10 s, and Redis commands per second."""
    worker = psutil.Process(process.pid)
    connection = servers.connection()
    wait_until(worker.is_running)
    cpu, commands = _cpu(worker), _commands(connection)
    time.sleep(IDLE_SECONDS)
    spent, asked = _cpu(worker) - cpu, _commands(connection) - commands - 1
    connection.close()
    return spent * 10 / IDLE_SECONDS, asked / IDLE_SECONDS


def _entered(connection: Redis) -> float:
    """When the job was entered, seconds since the epoch."""
    reply: Any = connection.blpop(["bench:entered"], 60)
    return float(reply[1])


def _cpu(worker: psutil.Process) -> float:
    times = worker.cpu_times()
    return float(times.user + times.system)


def _commands(connection: Redis) -> int:
    info: Any = connection.info("stats")
    return int(info["total_commands_processed"])
