"""One suite, two servers: the double has to pass what the real Redis passes.

``backend`` runs a test on fakeredis (a unit test) and on the session's real Redis (``database``);
``own_redis`` is a real one that a test may kill.
"""

from __future__ import annotations

__all__ = ["Backend", "backend", "client", "eventually", "own_redis"]

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import arq.worker
import fakeredis
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from tests.servers import REDIS_BINARY
from uvian_worker.local.embedded import EmbeddedRedis
from uvian_worker.queue.arq_adapter.pool import WakingArqRedis, arq_redis_from_url
from uvian_worker.redis.connection import redis_from_url


class Backend:
    """An empty Redis, real or not, and clients of it that are closed after the test."""

    def __init__(self, url: str | None) -> None:
        self.url = url
        self.real = url is not None
        self._server = fakeredis.FakeServer()
        self._stack = AsyncExitStack()

    def client(self, **options: Any) -> Redis:
        """A client as the product makes it."""
        if self.url is not None:
            client: Redis = redis_from_url(self.url, **options)
        else:
            client = fakeredis.FakeAsyncRedis(server=self._server)
        self._stack.push_async_callback(client.aclose)
        return client

    def arq_client(self, namespace: str = "uvian", **options: Any) -> WakingArqRedis:
        """A client as arq's worker gets it."""
        if self.url is not None:
            client = arq_redis_from_url(self.url, namespace, **options)
        else:
            pool = fakeredis.FakeAsyncRedis(server=self._server).connection_pool
            client = WakingArqRedis(pool, namespace=namespace)
        self._stack.push_async_callback(client.aclose, True)
        return client

    def defer(self, close: Callable[[], Awaitable[None]]) -> None:
        """Close something after the test, before the clients made so far."""
        self._stack.push_async_callback(close)

    async def close(self) -> None:
        """Close the clients."""
        await self._stack.aclose()


@pytest_asyncio.fixture(params=["fake", pytest.param("real", marks=pytest.mark.database)])
async def backend(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Backend]:
    """fakeredis, then the real one."""
    real = request.param == "real"
    if not real:
        # fakeredis knows no INFO, which arq logs when it starts.
        async def silent(*_: object) -> None: ...

        monkeypatch.setattr(arq.worker, "log_redis_info", silent)
    backend = Backend(request.getfixturevalue("redis_url") if real else None)
    yield backend
    await backend.close()


@pytest.fixture
def client(backend: Backend) -> Redis:
    """A client of ``backend``."""
    return backend.client()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    """A real Redis of this test alone."""
    with EmbeddedRedis(tmp_path / "redis", binary=REDIS_BINARY) as server:
        yield server


async def eventually(
    holds: Callable[[], Awaitable[object]] | Callable[[], object], *, within: float = 30.0
) -> None:
    """Wait until something holds, for what has no signal."""
    async with asyncio.timeout(within):
        while True:
            answer = holds()
            if asyncio.iscoroutine(answer):
                answer = await answer
            if answer:
                return
            await asyncio.sleep(0.005)
