"""Whether a process can do its work, part by part, and the worker's own endpoint that says so."""

from __future__ import annotations

__all__ = ["Checks", "HealthServer", "Shared", "postgres_state", "redis_state", "sweep_state"]

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import orjson
from aiohttp import web
from redis.exceptions import ResponseError

from repositories.database import Database
from repositories.errors import RepositoryError
from uvian_common.scrubbing import scrubbed
from uvian_worker.process.listening import listeners
from uvian_worker.queue.dispatch import Dispatcher
from uvian_worker.redis.errors import FAULTS, RedisAway

Checks = Callable[[], Awaitable[Mapping[str, str]]]

CHECK_SECONDS: Final = 2.0  #: an orchestrator's probe does not wait longer
_IDLE_SECONDS: Final = 15.0  #: after which a connection that asks nothing is closed
_OLDEST_SWEEP: Final = 10.0  #: seconds; an older one means that lost jobs are not found


async def redis_state(dispatcher: Dispatcher) -> str:
    """``ok``, or a sentence: whether it takes writes, and not only answers."""
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            denied = await dispatcher.prove()
            await dispatcher.depth()
    except RedisAway as away:
        return f"Redis {away}"
    except ResponseError as error:
        return f"Redis refuses what it is asked: {error}"
    except FAULTS:
        return f"Redis {dispatcher.away or 'does not answer'}"
    return f"Redis {denied}" if denied else "ok"


async def postgres_state(database: Database) -> str:
    """``ok``, or a sentence."""
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await database.select("schema_migrations", columns=("name",), limit=1)
    except RepositoryError as error:
        return scrubbed(str(error))
    except TimeoutError:
        return "Postgres does not answer"
    return "ok"


def sweep_state(age: float | None) -> str:
    """``ok``, or a sentence; ``age`` is the sweeper's."""
    if age is None or age > _OLDEST_SWEEP:
        return "no sweep yet" if age is None else f"the last sweep is {age:.0f} s old"
    return "ok"


class Shared:
    """Checks that any number of strangers may ask for at once: looked at one at a time, told to all."""

    def __init__(self, checks: Checks) -> None:
        self._checks = checks
        self._looking: asyncio.Task[Mapping[str, str]] | None = None

    async def __call__(self) -> Mapping[str, str]:
        """What the checks answer, whoever asked for them."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.ensure_future(self._look())
        return await asyncio.shield(self._looking)

    async def _look(self) -> Mapping[str, str]:
        return await self._checks()


class HealthServer:
    """``GET /health/live``: the event loop answers. ``GET /health/ready``: so does everything else.

    ``checks`` answers a sentence per part, ``"ok"`` when it is; ready is 200 when all are, else 503.
    """

    def __init__(self, host: str, port: int, checks: Checks) -> None:
        self._host = host
        self._port = port
        self._checks: Checks = Shared(checks)
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
