"""Clients of Redis: what a URL becomes, and for how long a client repeats a command."""

from __future__ import annotations

__all__ = ["PatientRetry", "address_of", "pool_from_url", "redis_from_url", "sibling", "state_of"]

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Self, TypeVar

from redis import exceptions
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from uvian_common.backoff import pause_before
from uvian_worker.redis.errors import RedisState, RedisUnusable
from uvian_worker.redis.transport import CONNECTION_CLASSES, TlsConnection, TranslatingConnection

_T = TypeVar("_T")


class PatientRetry(Retry):
    """Repeats a command until ``patience`` seconds have passed, or ``give_up`` was called.

    redis-py counts retries, and counts them anew in every layer (command, connect): twelve of each
    turned ten seconds into two minutes.
    """

    def __init__(self, patience: float) -> None:
        super().__init__(NoBackoff(), 0)
        self.patience = patience
        self._given_up = False

    def __deepcopy__(self, memo: object) -> Self:
        # redis-py copies it for each connection; giving up is for all of them.
        return self

    def give_up(self) -> None:
        """From now on the first fault is final: a process that ends does not wait for Redis."""
        self._given_up = True

    async def call_with_retry(
        self, do: Callable[[], Awaitable[_T]], fail: Callable[[Any], Any]
    ) -> _T:
        """redis-py's hook: call ``do`` again after faults; ``fail`` disconnects in between."""
        deadline = time.monotonic() + self.patience
        tries = 0
        while True:
            try:
                return await do()
            except self._supported_errors as error:
                await fail(error)
                if self._given_up or time.monotonic() >= deadline:
                    raise
            await asyncio.sleep(pause_before(tries, first=0.02))
            tries += 1


def redis_from_url(url: str, *, patience: float = 10.0, **options: Any) -> Redis:
    """A client for ``redis://``, ``rediss://`` (TLS) or ``unix://``, with ACL user and database.

    A command is repeated for ``patience`` seconds while Redis is away; a Redis that does not answer
    counts as away after 10 s. The URL's query wins over ``options``, and those over the defaults.
    """
    return Redis.from_pool(pool_from_url(url, patience, **options))


def pool_from_url(url: str, patience: float, **options: Any) -> ConnectionPool:
    """The pool behind ``redis_from_url``; raises ``ValueError`` for what is no URL of a Redis."""
    pool = _Pool.from_url(url, **_options(url, patience) | options)
    pool.connection_class = CONNECTION_CLASSES[pool.connection_class]
    if pool.connection_class is TlsConnection:
        _check_certificates(pool.connection_kwargs)
    return pool


def sibling(redis: Redis, *, single: bool = False, **options: Any) -> Redis:
    """A client of the same server on connections of its own, which repeats no command by itself.

    ``single`` keeps one connection. A pool replaces a closed connection silently, before it hands it
    out.
    """
    pool = redis.connection_pool
    kwargs = pool.connection_kwargs | {
        "retry": Retry(NoBackoff(), 0),
        "retry_on_error": [],
        "retry_on_timeout": False,
        "health_check_interval": 0,
    }
    own = type(pool)(connection_class=pool.connection_class, **kwargs | options)
    return Redis(connection_pool=own, single_connection_client=single)


def state_of(redis: Redis) -> RedisState:
    """What is known of the server behind a client; nothing is known of a client that others made."""
    state: RedisState | None = redis.connection_pool.connection_kwargs.get("state")
    return state or RedisState()


def address_of(redis: Redis) -> str:
    """Where a client's server is, without secrets."""
    kwargs = redis.connection_pool.connection_kwargs
    return str(kwargs.get("path") or f"{kwargs.get('host')}:{kwargs.get('port', 6379)}")


class _Pool(ConnectionPool):
    """A pool that opens a connection with the patience of a command."""

    async def ensure_connection(self, connection: AbstractConnection) -> None:
        """redis-py's hook: a connection that is handed out is open, and has no unread reply."""
        assert isinstance(connection, TranslatingConnection)  # noqa: S101 - pool_from_url sees to it
        await connection.make_ready()


def _options(url: str, patience: float) -> dict[str, Any]:
    options: dict[str, Any] = {
        "socket_connect_timeout": 5.0,
        "socket_timeout": 10.0,
        "health_check_interval": 30,
        "state": RedisState(),
        "retry": PatientRetry(patience),
        "retry_on_error": [RedisUnusable, exceptions.ConnectionError, OSError],
    }
    if not url.startswith("unix:"):
        options["socket_keepalive"] = True
    return options


def _check_certificates(kwargs: dict[str, Any]) -> None:
    """Check the host name of a certificate, which redis-py does only on request.

    ``ssl_cert_reqs=none`` in the URL (Heroku's certificates are self-signed) checks nothing, and
    ``ssl_check_hostname=false`` does not check the name. Celery's words (CERT_NONE) are understood.
    """
    wants = str(kwargs.get("ssl_cert_reqs", "required")).removeprefix("CERT_").lower()
    if wants not in ("none", "optional", "required"):
        raise ValueError(f"ssl_cert_reqs is none, optional or required, not {wants!r}")
    kwargs["ssl_cert_reqs"] = wants
    kwargs.setdefault("ssl_check_hostname", wants != "none")
    if wants == "none":
        kwargs["ssl_check_hostname"] = False  # OpenSSL cannot check the name alone
