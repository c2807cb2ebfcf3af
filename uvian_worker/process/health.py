"""Whether a process can do its work, part by part: what worker and gateway check alike."""

from __future__ import annotations

__all__ = ["Checks", "SharedChecks", "postgres_state", "redis_state", "sweep_state"]

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from redis.exceptions import ResponseError

from repositories.database import Database
from repositories.errors import RepositoryError
from uvian_common.scrubbing import scrubbed
from uvian_worker.queue.dispatch import Dispatcher
from uvian_worker.redis.errors import FAULTS, RedisAway

Checks = Callable[[], Awaitable[Mapping[str, str]]]

CHECK_SECONDS: Final = 2.0  #: an orchestrator's probe does not wait longer
_OLDEST_SWEEP: Final = 10.0  #: seconds; an older one means that lost jobs are not found


async def redis_state(dispatcher: Dispatcher) -> str:
    """``ok``, or a sentence: whether Redis takes writes, which is more than an answer."""
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            denied = await dispatcher.require_write()
            await dispatcher.depth()
    except RedisAway as away:
        return f"Redis {away}"
    except ResponseError as error:
        return f"Redis refuses a command: {error}"
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


class SharedChecks:
    """Checks that any number of clients may request at once: one check runs, and all get its result."""

    def __init__(self, checks: Checks) -> None:
        self._checks = checks
        self._running: asyncio.Task[Mapping[str, str]] | None = None

    async def __call__(self) -> Mapping[str, str]:
        """The result of the checks, for everybody who waits for it."""
        if self._running is None or self._running.done():
            self._running = asyncio.ensure_future(self._run())
        return await asyncio.shield(self._running)

    async def _run(self) -> Mapping[str, str]:
        return await self._checks()
