"""What ``uvian dev`` keeps running: the servers of a folder, and a worker that is started again."""

from __future__ import annotations

__all__ = ["Development", "run_dev"]

import asyncio
import logging
import os
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from uvian_worker.local_servers import FOLDER, LocalServers, local_servers
from uvian_worker.worker_process import WorkerProcess

log = logging.getLogger("uvian.dev")

_STABLE_SECONDS = 5.0  # a worker that lived this long was all right
_LONGEST_PAUSE = 30.0


@dataclass(frozen=True, slots=True)
class Development:
    """What is up."""

    servers: LocalServers
    env_file: Path
    health_url: str


async def run_dev(
    *,
    folder: Path = FOLDER,
    tell: Callable[[str], None] = lambda _: None,
    show: Callable[[Development], None] = lambda _: None,
) -> None:
    """Start everything, ``show`` it, and keep the worker alive until cancelled.

    Raises ``EmbeddedError``, ``RepositoryError``, and ``WorkerEnded`` when the worker does not
    start in the first place.
    """
    async with AsyncExitStack() as stack:
        servers = await stack.enter_async_context(local_servers(folder, tell))
        env_file = stack.enter_context(servers.written_down())
        tell("Starting a worker")
        worker = WorkerProcess(_environment(servers), folder=Path.cwd())
        await stack.enter_async_context(worker)
        await worker.ready()
        show(Development(servers, _from_here(env_file), worker.health_url))
        await _keep_alive(worker)


async def _keep_alive(worker: WorkerProcess) -> None:
    """Start the worker again whenever it ends: at once, and slower when it keeps dying."""
    pause = 0.5
    while True:
        began = time.monotonic()
        code = await worker.ended()
        lived = time.monotonic() - began
        pause = 0.5 if lived > _STABLE_SECONDS else min(pause * 2, _LONGEST_PAUSE)
        log.warning("The worker has ended (exit code %s); starting it again in %.1f s", code, pause)
        await worker.stop()
        await asyncio.sleep(pause)
        await worker.start()


def _environment(servers: LocalServers) -> dict[str, str]:
    """The developer's own settings, and these servers. Whoever presses Ctrl-C does not wait long."""
    return {"UVIAN_DRAIN_GRACE": "2", **os.environ, **servers.settings()}


def _from_here(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
