"""From the user's stop to the provider's closed socket, while other answers are being written.

The provider is a small server in the process that measures: one clock. What is counted is the call of
``Client.stop``, the row in Postgres, the message to the worker, the executor that ends, and the
connection as the server sees it close.
"""

from __future__ import annotations

__all__ = ["run"]

import asyncio
import contextlib
import random
import socket
import time
from collections.abc import AsyncIterator

import orjson
from aiohttp import web

from benchmarks.result import Result
from benchmarks.site import Site, median, quantile, site
from uvian_worker.client import Client

STOPS = 60
BESIDE = 20  # answers that go on meanwhile
PAUSE = 0.02  # seconds between tokens


class Provider:
    """Writes tokens until whoever asked hangs up; knows when each did."""

    def __init__(self) -> None:
        self.speaking: dict[str, asyncio.Event] = {}
        self.closed: dict[str, asyncio.Future[float]] = {}

    def expect(self, name: str) -> None:
        """Somebody will ask for this."""
        self.speaking[name] = asyncio.Event()
        self.closed[name] = asyncio.get_running_loop().create_future()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """One request."""
        name = await request.text()
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        try:
            while True:
                await response.write(b"data: " + orjson.dumps("token ") + b"\n\n")
                self.speaking[name].set()
                await asyncio.sleep(PAUSE)
        except (asyncio.CancelledError, ConnectionError):
            if not self.closed[name].done():
                self.closed[name].set_result(time.perf_counter())
            raise


@contextlib.asynccontextmanager
async def serving(provider: Provider, listening: socket.socket) -> AsyncIterator[None]:
    """The provider on a socket of this machine."""
    app = web.Application()
    app.router.add_post("/", provider.answer)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    await web.SockSite(runner, listening).start()
    try:
        yield
    finally:
        await runner.cleanup()


def run() -> list[Result]:
    """p50 and p95 of ``STOPS`` answers, each stopped at a random moment."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        site() as servers,
        servers.worker(
            "benchmarks.settings_sse.WorkerSettings",
            UVIAN_MAX_JOBS=str(BESIDE + 5),
            BENCH_MODEL_URL=f"http://127.0.0.1:{listening.getsockname()[1]}/",
        ),
    ):
        took = asyncio.run(_stop_all(servers, listening))
    label = f"stop → provider's socket closed, {BESIDE} answers beside"
    return [
        Result(f"{label}, p95", quantile(took, 0.95), "ms", 250),
        Result("… p50", median(took), "ms"),
        Result("… longest", max(took), "ms"),
    ]


async def _stop_all(servers: Site, listening: socket.socket) -> list[float]:
    provider = Provider()
    client = await Client.connect(
        database_url=servers.postgres.migrator_dsn, redis_url=servers.redis.url
    )
    async with serving(provider, listening), client:
        beside = [await _begin(servers, client, provider, f"beside-{n}") for n in range(BESIDE)]
        took = []
        for number in range(STOPS):
            name = f"stop-{number}"
            conversation = await _begin(servers, client, provider, name)
            await asyncio.sleep(random.uniform(0, 0.2))
            began = time.perf_counter()
            await client.stop(conversation, user_id=servers.user_id)
            took.append((await provider.closed[name] - began) * 1000)
        for conversation in beside:
            await client.stop(conversation)
    return took


async def _begin(servers: Site, client: Client, provider: Provider, name: str) -> str:
    """A conversation in which an answer is being written."""
    provider.expect(name)
    conversation = await client.create_conversation(servers.user_id)
    await client.post_message(servers.user_id, conversation, name)
    async with asyncio.timeout(60):
        await provider.speaking[name].wait()
    return conversation
