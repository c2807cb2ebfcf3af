"""The worker's health endpoint: ``GET /health/live`` and ``GET /health/ready``."""

from __future__ import annotations

__all__ = ["HealthServer", "WorkerHealth", "open_health"]

import asyncio
import logging
from contextlib import AsyncExitStack
from typing import Final

import orjson
from aiohttp import web

from repositories.database import Database
from uvian_worker.config import Config, ConfigError
from uvian_worker.process.health import (
    Checks,
    SharedChecks,
    postgres_state,
    redis_state,
    sweep_state,
)
from uvian_worker.process.listening import listeners
from uvian_worker.queue.dispatch import Dispatcher
from uvian_worker.sweep.sweeper import Sweeper

log = logging.getLogger("uvian.worker")

_IDLE_SECONDS: Final = 15.0  #: after which an idle connection is closed


class WorkerHealth:
    """The checks of a worker: first that it waits for its servers, then the state of each part."""

    def __init__(self) -> None:
        self._parts: tuple[Dispatcher, Database, Sweeper] | None = None

    def begin(self, dispatcher: Dispatcher, database: Database, sweeper: Sweeper) -> None:
        """From now on there are parts to check."""
        self._parts = dispatcher, database, sweeper

    async def __call__(self) -> dict[str, str]:
        """A sentence for each part, ``ok`` when it works."""
        if self._parts is None:
            return {"start": "waiting for the servers"}
        dispatcher, database, sweeper = self._parts
        redis, postgres = await asyncio.gather(redis_state(dispatcher), postgres_state(database))
        return {"redis": redis, "postgres": postgres, "sweep": sweep_state(sweeper.age)}


async def open_health(config: Config, stack: AsyncExitStack) -> WorkerHealth:
    """Listen, if the settings want it. Raises ``ConfigError`` for an address that cannot be used.

    This comes before anything that may have to wait: a worker that waits is alive.
    """
    health = WorkerHealth()
    if config.health_port is None:
        return health
    server = HealthServer(config.health_host, config.health_port, health)
    stack.push_async_callback(server.close)
    try:
        await server.start()
    except OSError as error:
        raise ConfigError(
            f"UVIAN_HEALTH_HOST and UVIAN_HEALTH_PORT: {error.strerror or error}"
        ) from error
    log.info("health on http://%s:%d/health/ready", config.health_host, server.port)
    return health


class HealthServer:
    """``/health/live``: the event loop answers. ``/health/ready``: so does everything else.

    ``checks`` returns a sentence for each part, ``"ok"`` when it works. Ready is 200 when all parts
    work, else 503.
    """

    def __init__(self, host: str, port: int, checks: Checks) -> None:
        self._host = host
        self._port = port
        self._checks: Checks = SharedChecks(checks)
        self._runner: web.AppRunner | None = None
        self._listened_on = 0

    @property
    def port(self) -> int:
        """The port it listens on, once started."""
        assert self._listened_on  # noqa: S101 - a mistake of the caller
        return self._listened_on

    async def start(self) -> None:
        """Listen; raises ``OSError`` when the port is taken."""
        app = web.Application()
        app.router.add_get("/health/live", self._live)
        app.router.add_get("/health/ready", self._ready)
        self._runner = web.AppRunner(
            app, access_log=None, handle_signals=False, keepalive_timeout=_IDLE_SECONDS
        )
        await self._runner.setup()
        sockets = listeners(self._host, self._port)
        self._listened_on = int(sockets[0].getsockname()[1])
        for listener in sockets:
            await web.SockSite(self._runner, listener).start()

    async def close(self) -> None:
        """Stop listening; closing twice, or unstarted, is fine."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _live(self, _: web.Request) -> web.Response:
        return _json({"status": "ok"}, 200)

    async def _ready(self, _: web.Request) -> web.Response:
        parts = dict(await self._checks())
        ready = all(state == "ok" for state in parts.values())
        return _json(
            {"status": "ok" if ready else "unavailable", "checks": parts}, 200 if ready else 503
        )


def _json(document: object, status: int) -> web.Response:
    return web.Response(body=orjson.dumps(document), status=status, content_type="application/json")
