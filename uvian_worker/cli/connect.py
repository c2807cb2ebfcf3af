"""The way from a command to Postgres and Redis: settings, and checks that name what is wrong."""

from __future__ import annotations

__all__ = ["Site", "load_config", "open_site", "place", "require_usable"]

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from repositories.errors import Misconfigured, Unavailable
from repositories.postgres import PostgresDatabase
from uvian_worker.cli.endings import ExitCode, Fault
from uvian_worker.client import Client
from uvian_worker.config import Config
from uvian_worker.local_servers import DEVELOPMENT_USER, ENV_FILE, FOLDER
from uvian_worker.migrate import Applied, compare, load

_SECONDS = 3.0  #: to wait for a server that does not answer


@dataclass(frozen=True, slots=True)
class Site:
    """What a command works on."""

    config: Config
    database: PostgresDatabase
    client: Client
    default_user: str | None  #: of ``uvian dev``, when it is its servers that we use


def load_config() -> tuple[Config, str | None]:
    """The settings; where there is no database in them but ``uvian dev`` runs here, its servers.

    The second is the user to act for when none is named. Raises ``ConfigError``.
    """
    config = Config.load()
    running = FOLDER / ENV_FILE
    if config.database_url is None and running.exists():
        return Config.load(_env_file=(".env", running)), DEVELOPMENT_USER
    return config, None


@asynccontextmanager
async def open_site(*, redis: bool = True) -> AsyncIterator[Site]:
    """Connections that were tried: Postgres with a usable schema and, if needed, Redis.

    Raises ``Fault`` and ``RepositoryError``.
    """
    config, user = load_config()
    url = config.require_database_url()
    async with AsyncExitStack() as stack:
        if redis:
            await _require_redis(config)
        database = await _open_database(config, url)
        stack.push_async_callback(database.close)
        client = await Client.connect(
            database_url=url,
            redis_url=config.redis_url.get_secret_value(),
            namespace=config.namespace,
        )
        await stack.enter_async_context(client)
        yield Site(config, database, client, user)


async def require_usable(config: Config) -> None:
    """Raise ``Fault`` or ``RepositoryError`` unless Redis answers and the schema is usable."""
    url = config.require_database_url()
    await _require_redis(config)
    await (await _open_database(config, url)).close()


async def _require_redis(config: Config) -> None:
    """Raise ``Fault``, with setting and host and without the password, unless Redis answers."""
    url = config.redis_url.get_secret_value()
    where = f"at {place(url)} (UVIAN_REDIS_URL)"
    try:
        connection = Redis.from_url(
            url,
            socket_connect_timeout=_SECONDS,
            socket_timeout=_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
    except ValueError as error:
        raise Fault(
            "UVIAN_REDIS_URL is not a Redis URL.",
            ExitCode.USAGE,
            hint="It reads redis://[user:password@]host:port/db, or rediss://… for TLS.",
        ) from error
    try:
        await connection.ping()
    except (AuthenticationError, ResponseError) as error:
        raise Fault(
            f"Redis {where} refuses us: {error}",
            ExitCode.USAGE,
            hint="Give user and password in UVIAN_REDIS_URL: redis://user:password@host:port/db",
        ) from error
    except (RedisError, OSError) as error:
        raise Fault(
            f"Redis does not answer {where}.",
            ExitCode.UNREACHABLE,
            hint="Start it or correct the setting; `uvian dev` brings one of its own.",
        ) from error
    finally:
        await connection.aclose()


def place(url: str) -> str:
    """Host, port and database of a URL: never user or password."""
    parts = urlsplit(url)
    try:
        host, port = parts.hostname or "", parts.port
    except ValueError:  # a port that is no number
        host, port = "an address that cannot be read", None
    sockets = parse_qs(parts.query).get("host")
    host = host or (unquote(sockets[0]) if sockets else "localhost")
    return f"{host}{f':{port}' if port else ''}{parts.path.rstrip('/')}"


async def _open_database(config: Config, url: str) -> PostgresDatabase:
    try:
        database = await PostgresDatabase.connect(url, connections=2, timeout=config.call_timeout)
    except Unavailable as error:
        raise Fault(
            f"Postgres does not answer at {place(url)} (UVIAN_DATABASE_URL).",
            ExitCode.UNREACHABLE,
            hint=_next_step(url),
        ) from error
    except ValueError as error:  # asyncpg's, for what is no connection string
        raise Misconfigured(
            "UVIAN_DATABASE_URL is not valid: it reads postgresql://user:password@host:5432/name."
        ) from error
    try:
        rows = await database.select(
            "schema_migrations",
            columns=("version", "name", "checksum", "min_code", "applied_at"),
        )
        compare([Applied(**row) for row in rows], load()).require_usable()
    except BaseException:
        await database.close()
        raise
    return database


def _next_step(url: str) -> str:
    if str(Path(FOLDER).absolute()) in unquote(url):
        return "It is the one of `uvian dev`: is that still running?"
    return "Start it or correct the setting; `uvian dev` brings one of its own."
