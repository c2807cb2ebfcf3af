"""What ``uvian dev`` keeps running: servers, a gateway, and a worker that is started again."""

from __future__ import annotations

__all__ = ["Development", "run_dev"]

import asyncio
import hashlib
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt

from uvian_common.backoff import pause_before
from uvian_worker.config import Config
from uvian_worker.config.environment import PREFIX
from uvian_worker.gateway.serving import serving
from uvian_worker.local.servers import FOLDER, LocalServers, local_servers
from uvian_worker.local.worker_process import WorkerProcess
from uvian_worker.process import logs

log = logging.getLogger("uvian.dev")

_STABLE_SECONDS = 5.0  # a worker that lived this long was all right
_LONGEST_PAUSE = 30.0
_SIGNED_IN_SECONDS = 12 * 3600


@dataclass(frozen=True, slots=True)
class Development:
    """What is up."""

    servers: LocalServers
    env_file: Path
    page_url: str  #: with the development user signed in
    health_url: str


async def run_dev(
    *,
    folder: Path = FOLDER,
    report: Callable[[str], None] = lambda _: None,
    show: Callable[[Development], None] = lambda _: None,
) -> None:
    """Start everything, ``show`` it, and keep the worker alive until cancelled.

    Raises ``ConfigError``, ``EmbeddedError``, ``RepositoryError``, and ``WorkerEnded`` when the
    worker does not start at all.
    """
    async with AsyncExitStack() as stack:
        servers = await stack.enter_async_context(local_servers(folder, report))
        secret = _secret(servers.folder / "secret")
        port = _port()
        url = f"http://127.0.0.1:{port}"
        settings = servers.settings() | _gateway_settings(secret, port, url)
        token = _token(secret, servers.user_id)
        env_file = stack.enter_context(
            servers.written_down({**settings, "DEV_GATEWAY_URL": url, "DEV_TOKEN": token})
        )
        report("Starting a worker")
        worker = WorkerProcess(_environment(settings), folder=Path.cwd())
        await stack.enter_async_context(worker)
        report("Starting the gateway")
        config = _gateway_config(settings)
        logs.configure(config.log_level, config.log_format)
        await stack.enter_async_context(serving(config))
        await worker.ready()
        await servers.open_types()  # the worker has made its own known
        page = f"{url}/#access_token={token}"
        show(Development(servers, _from_here(env_file), page, worker.health_url))
        await _keep_alive(worker)


async def _keep_alive(worker: WorkerProcess) -> None:
    """Start the worker again whenever it ends: at once, and slower when it keeps dying."""
    deaths = 0
    while True:
        began = time.monotonic()
        code = await worker.ended()
        lived = time.monotonic() - began
        deaths = 0 if lived > _STABLE_SECONDS else deaths + 1
        pause = pause_before(deaths, first=0.5, longest=_LONGEST_PAUSE)
        log.warning("The worker has ended (exit code %s); starting it again in %.1f s", code, pause)
        await worker.stop()
        await asyncio.sleep(pause)
        await worker.start()


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    """The developer's own settings, and these. Whoever presses Ctrl-C does not wait long."""
    return {"UVIAN_DRAIN_GRACE": "2", **os.environ, **settings}


def _gateway_settings(secret: str, port: int, url: str) -> dict[str, str]:
    return {
        "UVIAN_GATEWAY_HOST": "127.0.0.1",
        "UVIAN_GATEWAY_PORT": str(port),
        "UVIAN_JWT_SECRETS": secret,
        "UVIAN_IMAGES_URL": f"{url}/v1/files",
        "UVIAN_IMAGES_SECRET": hashlib.sha256(f"images {secret}".encode()).hexdigest(),
    }


def _gateway_config(settings: Mapping[str, str]) -> Config:
    """The developer's own settings, and these. A project in .env has users of its own, not this one."""
    ours: dict[str, Any] = {
        name.removeprefix(PREFIX).lower(): value for name, value in settings.items()
    }
    return Config.load(**ours, supabase_url=None, jwks_url=None, jwt_issuer=None)


def _secret(file: Path) -> str:
    """The folder's own, the same for ever: a page that is open goes on when all is started again."""
    if not file.exists():
        file.touch(mode=0o600)
        file.write_text(secrets.token_hex(32))
    return file.read_text()


def _token(secret: str, user_id: str) -> str:
    """What Supabase Auth gives a user who signs in."""
    now = int(time.time())
    claims = {
        "sub": user_id,
        "role": "authenticated",
        "aud": "authenticated",
        "iat": now,
        "exp": now + _SIGNED_IN_SECONDS,
    }
    return jwt.encode(claims, secret, algorithm="HS256")


def _port() -> int:
    """The usual one; another when somebody has it, unless it was given. 0 is any free one."""
    config = Config.load()
    if "gateway_port" in config.model_fields_set and config.gateway_port:
        return config.gateway_port
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", config.gateway_port))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _from_here(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
