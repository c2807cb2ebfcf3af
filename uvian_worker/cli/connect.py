"""The way from a command to Postgres and Redis: settings, and checks that name what is wrong."""

from __future__ import annotations

__all__ = ["Site", "load_config", "open_site", "require_redis_url", "require_usable"]

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from redis.exceptions import RedisError, ResponseError

from repositories.database import Database
from repositories.errors import Transient, Unavailable
from uvian_worker.cli.errors import ExitCode, Fault
from uvian_worker.client import Client
from uvian_worker.config import Config
from uvian_worker.local.servers import DEVELOPMENT_USER, ENV_FILE, FOLDER
from uvian_worker.process.stores import Stores, calls_over, database_address
from uvian_worker.redis.connection import redis_from_url
from uvian_worker.redis.errors import RedisAway, RedisState
from uvian_worker.redis.permissions import missing_permissions

log = logging.getLogger("uvian.cli")

_SECONDS = 3.0  #: to wait for a server that does not answer


@dataclass(frozen=True, slots=True)
class Site:
    """What a command works on."""

    config: Config
    database: Database
    client: Client
    default_user: str | None  #: of ``uvian dev``, when it is its servers that we use


def load_config() -> tuple[Config, str | None]:
    """The settings; where there is no database in them but ``uvian dev`` runs here, its servers.

    The second is the user to act for when none is named. Raises ``ConfigError``.
    """
    config = Config.load()
    running = FOLDER / ENV_FILE
    if config.database == "postgres" and config.database_url is None and running.exists():
        return Config.load(_env_file=(".env", running)), DEVELOPMENT_USER
    return config, None


@asynccontextmanager
async def open_site(*, redis: bool = True) -> AsyncIterator[Site]:
    """Connections that were tried: the database with a usable schema and, if needed, Redis.

    Raises ``Fault`` and ``RepositoryError``.
    """
    config, user = load_config()
    config.require_database()
    async with AsyncExitStack() as stack:
        if redis:
            await _require_redis(config)
        database = await _open_database(config, stack)
        client = Client.over(
            calls_over(database),
            config.redis_url.get_secret_value(),
            namespace=config.namespace,
        )
        await stack.enter_async_context(client)
        yield Site(config, database, client, user)


async def require_usable(config: Config) -> None:
    """Raise ``Fault`` or ``RepositoryError`` for what must be set right before a worker can start.

    What is away is the worker's to wait for: it says so meanwhile, and in its health.
    """
    config.require_database()
    with contextlib.suppress(Transient, TimeoutError):
        async with asyncio.timeout(_SECONDS), AsyncExitStack() as stack:
            await _redis_away(config)
            await Stores(config, stack).database()


async def require_redis_url(config: Config) -> None:
    """Raise ``Fault`` for a setting that is wrong; a Redis that is away may come back."""
    if (fault := await _redis_away(config)) is not None:
        log.warning("%s Jobs are taken all the same, and run when it is back.", fault.message)


async def _open_database(config: Config, stack: AsyncExitStack) -> Database:
    try:
        return await Stores(config, stack).database()
    except Unavailable as error:
        raise Fault(str(error), ExitCode.UNREACHABLE, hint=_next_step(config)) from error


async def _redis_away(config: Config) -> Fault | None:
    """What makes Redis unreachable, if that is all that is wrong with it."""
    try:
        await _require_redis(config)
    except Fault as fault:
        if fault.code is not ExitCode.UNREACHABLE:
            raise
        return fault
    return None


async def _require_redis(config: Config) -> None:
    """Raise ``Fault``, with setting and host and without the password, unless Redis serves us."""
    url = config.redis_url.get_secret_value()
    where = f"at {database_address(url)} (UVIAN_REDIS_URL)"
    quick = {"socket_connect_timeout": _SECONDS, "socket_timeout": _SECONDS}
    try:
        redis = redis_from_url(url, patience=0, state=RedisState(logs=False), **quick)
    except ValueError as error:
        raise Fault(
            f"UVIAN_REDIS_URL is not a Redis URL: {error}.",
            ExitCode.USAGE,
            hint="It reads redis://[user:password@]host:port/db, or rediss://… for TLS.",
        ) from error
    try:
        lacks = await missing_permissions(redis, config.namespace)
    except RedisAway as away:
        raise _fault_of(away, where) from away
    except ResponseError as error:
        raise Fault(f"Redis {where} refuses us: {error}", ExitCode.USAGE) from error
    except (RedisError, OSError) as error:
        raise Fault(f"Redis does not answer {where}.", ExitCode.UNREACHABLE, hint=_START) from error
    finally:
        await redis.aclose()
    if lacks is not None:
        raise Fault(f"Redis {where} does not let us work: {lacks}.", ExitCode.USAGE)


_START = "Start it or correct the setting; `uvian dev` brings one of its own."


def _fault_of(away: RedisAway, where: str) -> Fault:
    if away.passes:
        hint = _START if away.is_gone else "It may come back."
        return Fault(f"Redis {where} {away}.", ExitCode.UNREACHABLE, hint=hint)
    form = "It reads redis://user:password@host:port/db, or rediss://… for TLS."
    return Fault(f"Redis {where} {away}.", ExitCode.USAGE, hint=form)


def _next_step(config: Config) -> str:
    url = config.database_url.get_secret_value() if config.database_url else ""
    if str(Path(FOLDER).absolute()) in unquote(url):
        return "It is the one of `uvian dev`: is that still running?"
    return _START
