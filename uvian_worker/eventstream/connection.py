"""Connections to Redis: how long they are patient, and what server is behind them.

``redis_from_url`` makes the ordinary client. A ``Line`` is one connection of its own for scripts
that append: it knows the server it speaks to, which a pooled connection that reconnects by itself
does not. All that redis-py may raise while a server is away is translated here, to ``RedisAway``.
"""

from __future__ import annotations

__all__ = [
    "FAULTS",
    "Line",
    "PatientRetry",
    "RedisAway",
    "Script",
    "pool_from_url",
    "redis_from_url",
    "run_script",
    "sibling",
]

import asyncio
import contextlib
import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

from redis import exceptions
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.connection import HiredisRespSerializer

from uvian_worker.backoff import pause_before

_T = TypeVar("_T")

#: What redis-py raises when the server is away, restarts, loads its data or fails over.
FAULTS: tuple[type[Exception], ...] = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    OSError,
    exceptions.ReadOnlyError,
    exceptions.MasterDownError,
    exceptions.OutOfMemoryError,
    exceptions.TryAgainError,
)
#: … and what it leaves as a plain ResponseError.
_FAULT_PREFIXES = ("MISCONF", "BUSY", "NOREPLICAS", "UNKILLABLE")


class RedisAway(Exception):
    """Redis does not answer at the moment. Whether it carried out the call is not known."""


class PatientRetry(Retry):
    """Retries a command until ``patience`` seconds have passed, and no longer once told to give up.

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
        """Redis-py's hook: call ``do`` again after faults, ``fail`` disconnects in between."""
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

    A command whose connection breaks is repeated for ``patience`` seconds; a server that accepts
    the connection and then says nothing counts as broken after 10 s. What the URL says in its
    query (``?ssl_ca_certs=/path&ssl_cert_reqs=required``) wins over ``options``, and those over
    the defaults.
    """
    return Redis.from_pool(pool_from_url(url, patience, **options))


def pool_from_url(url: str, patience: float, **options: Any) -> ConnectionPool:
    """The pool behind ``redis_from_url``."""
    pool: ConnectionPool = ConnectionPool.from_url(url, **_options(url, patience) | options)
    pool.connection_class = _CANCELLABLE[pool.connection_class]
    return pool


class _CancellableSend(AbstractConnection):
    """redis-py sends through ``asyncio.wait_for``, which in Python 3.11 swallows a cancellation that
    meets its result: a task that speaks to Redis could not be cancelled reliably. And it packs commands
    in Python, which is half the cost of an event.
    """

    def pack_command(self, *args: Any) -> list[bytes]:
        packed: list[bytes] = _PACKER.pack(*args)
        return packed

    async def send_packed_command(
        self, command: bytes | str | Iterable[bytes], check_health: bool = True
    ) -> None:
        base: Any = self
        if not self.is_connected:
            await base.connect()
        elif check_health:
            await base.check_health()
        if isinstance(command, str):
            command = command.encode()
        try:
            async with asyncio.timeout(self.socket_timeout):
                await self._send_packed_command(
                    [command] if isinstance(command, bytes) else command
                )
        except TimeoutError:
            await self.disconnect(nowait=True)
            raise exceptions.TimeoutError("Timeout writing to socket") from None
        except OSError as error:
            await self.disconnect(nowait=True)
            raise exceptions.ConnectionError(f"{error} while writing to socket") from error
        except BaseException:
            # Half a command may be on its way: nothing else can follow it.
            await self.disconnect(nowait=True)
            raise


class _Connection(_CancellableSend, Connection):
    pass


class _SSLConnection(_CancellableSend, SSLConnection):
    pass


class _UnixDomainSocketConnection(_CancellableSend, UnixDomainSocketConnection):
    pass


_PACKER: Any = HiredisRespSerializer()

_CANCELLABLE: dict[type[AbstractConnection], type[AbstractConnection]] = {
    Connection: _Connection,
    SSLConnection: _SSLConnection,
    UnixDomainSocketConnection: _UnixDomainSocketConnection,
}


def _options(url: str, patience: float) -> dict[str, Any]:
    options: dict[str, Any] = {
        "socket_connect_timeout": 5.0,
        "socket_timeout": 10.0,
        "health_check_interval": 30,
        "retry": PatientRetry(patience),
        "retry_on_error": [exceptions.ConnectionError, exceptions.TimeoutError, OSError],
    }
    if not url.startswith("unix:"):
        options["socket_keepalive"] = True
    return options


def sibling(redis: Redis, *, single: bool = False, **options: Any) -> Redis:
    """A client of the same server on connections of its own, which repeats no command by itself.

    ``single`` holds on to one connection. A pool checks a connection before it hands it out, and
    replaces a closed one without a word.
    """
    pool = redis.connection_pool
    kwargs = pool.connection_kwargs | {
        "retry": Retry(NoBackoff(), 0),
        "retry_on_error": [],
        "retry_on_timeout": False,
        "health_check_interval": 0,
    }
    own = ConnectionPool(connection_class=pool.connection_class, **kwargs | options)
    return Redis(connection_pool=own, single_connection_client=single)


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script: some files one after the other, so that scripts share their first parts."""

    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", digest)

    @classmethod
    def of(cls, *paths: Path) -> Self:
        """The script made of these files."""
        return cls("\n".join(path.read_text(encoding="utf-8") for path in paths))


async def run_script(redis: Any, script: Script, *arguments: Any) -> Any:
    """Call a script by its hash; a server that has forgotten it is sent the text."""
    try:
        return await redis.execute_command("EVALSHA", script.sha, 0, *arguments)
    except exceptions.NoScriptError:
        return await redis.execute_command("EVAL", script.text, 0, *arguments)


class Line:
    """One connection for scripts that append, and the identity of the server behind it.

    The identity (``run_id:master_replid``) is read once per connection, and again every 30 s: a
    master that lost its last replica changes its replication id without breaking a connection.
    Nothing is repeated here, since a repetition on another connection needs the identity anew:
    callers retry.
    """

    _REFRESH = 30.0

    def __init__(self, redis: Redis, namespace: str, *, timeout: float = 5.0) -> None:
        self._client = sibling(redis, single=True, socket_timeout=timeout)
        self._namespace = namespace
        self._lock = asyncio.Lock()
        self._server: str | None = None
        self._read_at = 0.0

    async def call(self, script: Script, *arguments: Any) -> Any:
        """Run a script with ``namespace, server, random, *arguments``; ``RedisAway`` on a fault."""
        async with self._lock, self._faults():
            server = await self._identify()
            head = (self._namespace, server, secrets.token_hex(8))
            return await run_script(self._client, script, *head, *arguments)

    async def ask(self, *command: Any) -> tuple[str, Any]:
        """The server's identity (empty where Redis does not tell) and what it answered.

        Both from one connection: a name that was read before a restart says nothing about an answer
        that came after it. ``RedisAway`` on any fault.
        """
        async with self._lock, self._faults():
            server = await self._identify()
            client: Any = self._client
            return server, await client.execute_command(*command)

    async def close(self) -> None:
        """Close the connection; closing twice is fine."""
        with contextlib.suppress(*FAULTS):
            await self._client.aclose(close_connection_pool=True)

    @contextlib.asynccontextmanager
    async def _faults(self) -> AsyncIterator[None]:
        try:
            yield
        except BaseException as error:
            # Whoever connects next may find another server at the same address.
            self._server = None
            await self._disconnect()
            if isinstance(error, FAULTS) or _is_fault(error):
                raise RedisAway(f"{type(error).__name__}: {error}") from error
            raise

    async def _disconnect(self) -> None:
        with contextlib.suppress(*FAULTS):
            if self._client.connection is not None:
                await self._client.connection.disconnect(nowait=True)

    async def _identify(self) -> str:
        now = time.monotonic()
        if self._server is None or now - self._read_at > self._REFRESH:
            self._server = await _identity(self._client)
            self._read_at = now
        return self._server


async def _identity(redis: Redis) -> str:
    """The one place that knows servers without INFO (doubles, and users whose ACL forbids it)."""
    try:
        server = await redis.info("server")
        replication = await redis.info("replication")
    except exceptions.ResponseError:
        return ""
    return f"{server.get('run_id', '')}:{replication.get('master_replid', '')}".strip(":")


def _is_fault(error: BaseException) -> bool:
    return isinstance(error, exceptions.ResponseError) and str(error).startswith(_FAULT_PREFIXES)
