"""The worker's health endpoint while the parts that it checks hang."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from uvian_worker.process import health
from uvian_worker.queue.dispatch import Dispatcher
from uvian_worker.redis.connection import redis_from_url
from uvian_worker.worker import health as worker_health
from uvian_worker.worker.health import HealthServer


@pytest.fixture
async def mute() -> AsyncIterator[str]:
    """The URL of a server that accepts and never answers."""
    accepted: list[asyncio.StreamWriter] = []

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(writer)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    server.close()
    for writer in accepted:
        writer.close()


class MuteDatabase:
    """Hangs."""

    async def select(self, *_: object, **__: object) -> Any:
        await asyncio.Event().wait()


async def test_a_probe_is_answered_though_everything_hangs(
    mute: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis and Postgres accept and never answer: 503 with a sentence for each, before a probe gives up."""
    monkeypatch.setattr(health, "CHECK_SECONDS", 0.2)
    redis = redis_from_url(mute, patience=3)
    dispatcher = Dispatcher(redis, "uvian")

    async def checks() -> dict[str, str]:
        database: Any = MuteDatabase()
        return {
            "redis": await health.redis_state(dispatcher),
            "postgres": await health.postgres_state(database),
        }

    server = HealthServer("127.0.0.1", 0, checks)
    await server.start()
    url = f"http://127.0.0.1:{server.port}/health"
    async with asyncio.timeout(3), aiohttp.ClientSession() as session:
        async with session.get(f"{url}/ready") as response:
            assert response.status == 503
            assert (await response.json())["checks"] == {
                "redis": "Redis does not answer",
                "postgres": "Postgres does not answer",
            }
        async with session.get(f"{url}/live") as response:
            assert response.status == 200
    await server.close()
    await server.close()
    await dispatcher.close()
    await redis.aclose()


async def test_the_worker_answers_on_both_families_and_waits_for_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``::`` is what containers listen on; a connection without a request is closed."""
    monkeypatch.setattr(worker_health, "_IDLE_SECONDS", 0.2)

    async def checks() -> dict[str, str]:
        return {}

    server = HealthServer("::", 0, checks)
    await server.start()
    async with asyncio.timeout(10), aiohttp.ClientSession() as session:
        for host in ("127.0.0.1", "[::1]"):
            async with session.get(f"http://{host}:{server.port}/health/ready") as response:
                assert response.status == 200
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        assert await reader.read() == b""
        writer.close()
    await server.close()


async def test_many_requests_at_once_are_one_check() -> None:
    """A hundred requests at once get the result of one check; a later request starts a new one."""
    looks = 0

    async def checks() -> dict[str, str]:
        nonlocal looks
        looks += 1
        await asyncio.sleep(0.05)
        if looks == 3:
            raise ValueError("broken")
        return {"redis": str(looks)}

    shared = health.SharedChecks(checks)
    assert set(map(str, await asyncio.gather(*(shared() for _ in range(100))))) == {
        "{'redis': '1'}"
    }
    leaving = asyncio.create_task(shared())
    await asyncio.sleep(0.01)
    staying = asyncio.create_task(shared())
    leaving.cancel()
    assert await staying == {"redis": "2"}
    with pytest.raises(ValueError, match="broken"):
        await shared()
    assert (await shared())["redis"] == "4"
