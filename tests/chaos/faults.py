"""What may go wrong: each fault begins, holds for a while, and is over."""

from __future__ import annotations

__all__ = ["FAULTS", "OUTAGES", "Fault"]

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any, Final

import asyncpg
from redis.asyncio import Redis
from redis.exceptions import RedisError

from tests.chaos.place import Place
from tests.chaos.proxy import Proxy

Fault = Callable[[Place], Awaitable[None]]


# ─── Redis ───────────────────────────────────────────────────────────────────────────────────────


async def redis_killed(place: Place) -> None:
    """SIGKILL; it comes back empty."""
    await asyncio.to_thread(place.redis.kill)
    await asyncio.sleep(place.chance.uniform(0.1, 3))
    await asyncio.to_thread(place.redis.start)


async def redis_flushed(place: Place) -> None:
    """All of it forgotten, by a server that goes on."""
    async with _redis(place) as redis:
        await redis.flushall()


async def redis_stopped(place: Place) -> None:
    """It stands still: connections stay open and nothing is answered."""
    await _stopped(place.redis.pid, place.chance.uniform(0.5, 7))


async def redis_readonly(place: Place) -> None:
    """Demoted to a replica of nobody: READONLY."""
    await _commanded(place, ("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE"))


async def redis_out_of_memory(place: Place) -> None:
    """OOM for every write."""
    await _commanded(
        place, ("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0")
    )


async def redis_without_replicas(place: Place) -> None:
    """NOREPLICAS for every write."""
    name = "min-replicas-to-write"
    await _commanded(place, ("CONFIG", "SET", name, "3"), ("CONFIG", "SET", name, "0"))


async def redis_busy(place: Place) -> None:
    """A script that does not end: BUSY."""
    async with _redis(place) as redis:
        await redis.config_set("lua-time-limit", 50)
        spinning = asyncio.create_task(_spin(redis))
        await asyncio.sleep(place.chance.uniform(0.3, 2))
        async with _redis(place) as other:
            await other.script_kill()
        await spinning


async def redis_clients_killed(place: Place) -> None:
    """The server hangs up on everybody."""
    async with _redis(place) as redis:
        await redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")


async def redis_behind_a_dead_proxy(place: Place) -> None:
    """Connections are accepted and closed."""
    async with place.to_redis.behaving("closing"):
        await asyncio.sleep(place.chance.uniform(0.5, 4))


async def redis_unreachable(place: Place) -> None:
    """What is sent goes nowhere."""
    async with place.to_redis.behaving("hole"):
        await asyncio.sleep(place.chance.uniform(0.5, 4))


async def redis_cut(place: Place) -> None:
    """Every connection breaks, in the middle of whatever it carries."""
    place.to_redis.cut()


async def redis_answers_lost(place: Place) -> None:
    """Work is done whose answer is never heard."""
    await _losing(place, place.to_redis)


async def redis_slow(place: Place) -> None:
    """50 ms each way."""
    await _slowed(place, place.to_redis)


# ─── Postgres ────────────────────────────────────────────────────────────────────────────────────


async def postgres_crashes(place: Place) -> None:
    """Without a shutdown; it recovers from its log."""
    await asyncio.to_thread(place.postgres.stop, "immediate")
    await asyncio.sleep(place.chance.uniform(0.1, 3))
    await asyncio.to_thread(place.postgres.start)


async def postgres_restarts(place: Place) -> None:
    """In order."""
    await asyncio.to_thread(place.postgres.restart)


async def postgres_backends_end(place: Place) -> None:
    """An administrator ends every session."""
    await _sql(
        place,
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where pid <> pg_backend_pid() and usename = 'uvian_migrator'",
    )


async def postgres_locked(place: Place) -> None:
    """Somebody's migration holds the table of jobs."""
    seconds = place.chance.uniform(0.5, 3)
    await _sql(
        place, f"begin; lock table uvian.jobs in access exclusive mode; select pg_sleep({seconds})"
    )


async def postgres_unreachable(place: Place) -> None:
    """What is sent goes nowhere."""
    async with place.to_postgres.behaving("hole"):
        await asyncio.sleep(place.chance.uniform(0.5, 5))


async def postgres_refused(place: Place) -> None:
    """Nobody listens."""
    async with place.to_postgres.behaving("refused"):
        await asyncio.sleep(place.chance.uniform(0.5, 5))


async def postgres_cut(place: Place) -> None:
    """Every connection breaks."""
    place.to_postgres.cut()


async def postgres_answers_lost(place: Place) -> None:
    """Transactions are committed whose answer is never heard."""
    await _losing(place, place.to_postgres)


async def postgres_slow(place: Place) -> None:
    """50 ms each way."""
    await _slowed(place, place.to_postgres)


# ─── workers ─────────────────────────────────────────────────────────────────────────────────────


async def worker_killed(place: Place) -> None:
    """SIGKILL of whoever has the most jobs, and another is started."""
    await place.kill(await place.busiest())


async def worker_deployed(place: Place) -> None:
    """SIGTERM, and another is started."""
    await place.deploy(place.chance.choice(place.workers))


async def worker_frozen(place: Place) -> None:
    """It stands still for longer than its leases, and wakes up as a zombie."""
    worker = place.chance.choice(place.workers)
    await _stopped(worker.process.pid, place.chance.choice([1.0, 6.0, 18.0]))


# ─── what they share ─────────────────────────────────────────────────────────────────────────────


@contextlib.asynccontextmanager
async def _redis(place: Place) -> Any:
    redis = Redis.from_url(place.redis.url)
    try:
        yield redis
    finally:
        await redis.aclose()


async def _commanded(place: Place, begin: tuple[str, ...], end: tuple[str, ...]) -> None:
    async with _redis(place) as redis:
        await redis.execute_command(*begin)
        try:
            await asyncio.sleep(place.chance.uniform(0.5, 4))
        finally:
            await redis.execute_command(*end)


async def _spin(redis: Any) -> None:
    with contextlib.suppress(RedisError):
        await redis.execute_command("EVAL", "while true do end", 0)


async def _stopped(pid: int, seconds: float) -> None:
    os.kill(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


async def _slowed(place: Place, proxy: Proxy) -> None:
    proxy.delay = 0.05
    await asyncio.sleep(place.chance.uniform(1, 3))
    proxy.delay = 0.0


async def _losing(place: Place, proxy: Proxy) -> None:
    proxy.losing = 0.2
    await asyncio.sleep(place.chance.uniform(1, 3))
    proxy.losing = 0.0


async def _sql(place: Place, statement: str) -> None:
    connection = await asyncpg.connect(place.postgres.dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


_REDIS: Final = (
    redis_killed,
    redis_flushed,
    redis_stopped,
    redis_readonly,
    redis_out_of_memory,
    redis_without_replicas,
    redis_busy,
    redis_clients_killed,
    redis_behind_a_dead_proxy,
    redis_unreachable,
    redis_cut,
    redis_answers_lost,
    redis_slow,
)
_POSTGRES: Final = (
    postgres_crashes,
    postgres_restarts,
    postgres_backends_end,
    postgres_locked,
    postgres_unreachable,
    postgres_refused,
    postgres_cut,
    postgres_answers_lost,
    postgres_slow,
)
_WORKERS: Final = (worker_killed, worker_deployed, worker_frozen)

#: Each group is a lane of its own: of a group one fault acts at a time, of different groups they overlap.
FAULTS: Final[dict[str, tuple[Fault, ...]]] = {
    "redis": _REDIS,
    "postgres": _POSTGRES,
    "workers": _WORKERS,
}
#: While these act nobody can claim: their time is none of the workers'.
OUTAGES: Final = ("redis", "postgres")
