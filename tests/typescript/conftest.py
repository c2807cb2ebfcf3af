"""A whole installation for a client in another language, and controls for what only we can do."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from tests.adapters import OverPostgres
from tests.e2e.site import Site, opened
from tests.gateway.tokens import claims_of, signed
from tests.processes.site import opened as opened_workers
from tests.servers import REDIS_BINARY, CleanDatabase
from uvian_worker.local.embedded import EmbeddedRedis


@pytest.fixture
async def site(database: CleanDatabase, tmp_path: Path) -> AsyncIterator[Site]:
    """Gateway and worker on a real Postgres, and a Redis that may be flushed."""
    with EmbeddedRedis(tmp_path / "redis", binary=REDIS_BINARY) as redis:
        async with (
            opened_workers(OverPostgres(database), redis, tmp_path) as workers,
            opened(workers, tmp_path) as site,
        ):
            yield site


@pytest.fixture
async def controls(site: Site) -> AsyncIterator[str]:
    """The address where the tests over there ask for people and tokens, and end the gateway."""

    async def do(request: web.Request) -> web.Response:
        match request.match_info["what"]:
            case "person":
                person = await site.person("100")
                return web.json_response({"id": person.id, "token": person.token})
            case "token":
                expires = time.time() + float(request.query["seconds"])
                token = signed(claims_of(request.query["user"], exp=expires))
                return web.json_response({"token": token})
            case "kill":
                site.kill_gateway()
            case "stop":
                site.stop_gateway()
            case "start":
                await site.start_gateway()
            case _:
                raise web.HTTPNotFound
        return web.json_response({})

    app = web.Application()
    app.router.add_post("/{what}", do)
    runner = web.AppRunner(app)
    await runner.setup()
    listener = web.TCPSite(runner, "127.0.0.1", 0)
    await listener.start()
    host, port = runner.addresses[0][:2]
    yield f"http://{host}:{port}"
    await runner.cleanup()
