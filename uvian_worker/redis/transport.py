"""Connections to Redis that tell in one word what is wrong with them, and pools that are patient.

Every reply and every failure of a connection passes here, whoever asked: redis-py's commands, its
pipelines and subscriptions, arq. What means that Redis is away leaves as ``RedisAway``, and a
connection that is of no more use has been closed by then.
"""

from __future__ import annotations

__all__ = [
    "PatientRetry",
    "StubbornParser",
    "place_of",
    "pool_from_url",
    "redis_from_url",
    "sibling",
    "state_of",
]

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, Self, TypeVar

from redis import exceptions
from redis._parsers import _AsyncHiredisParser
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

from uvian_common.backoff import pause_before
from uvian_worker.redis.errors import (
    RedisAway,
    RedisDenied,
    RedisRefuses,
    RedisState,
    RedisUnusable,
    away_of_failure,
    away_of_reply,
)

_T = TypeVar("_T")

_CLOSING_SECONDS: Final = 1.0  #: that the other side may take to say goodbye


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

    A command is repeated for ``patience`` seconds while Redis is away; one that says nothing is, after
    10 s. What the URL says in its query wins over ``options``, and those over the defaults.
    """
    return Redis.from_pool(pool_from_url(url, patience, **options))


def pool_from_url(url: str, patience: float, **options: Any) -> ConnectionPool:
    """The pool behind ``redis_from_url``; ``ValueError`` for what is no URL of a Redis."""
    pool = _Pool.from_url(url, **_options(url, patience) | options)
    pool.connection_class = _OURS[pool.connection_class]
    if pool.connection_class is _TlsConnection:
        _check_certificates(pool.connection_kwargs)
    return pool


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
    own = type(pool)(connection_class=pool.connection_class, **kwargs | options)
    return Redis(connection_pool=own, single_connection_client=single)


def state_of(redis: Redis) -> RedisState:
    """What is known of the server behind a client; of one that others made, nothing is."""
    state: RedisState | None = redis.connection_pool.connection_kwargs.get("state")
    return state or RedisState()


def place_of(redis: Redis) -> str:
    """Where a client's server is, without secrets."""
    kwargs = redis.connection_pool.connection_kwargs
    return str(kwargs.get("path") or f"{kwargs.get('host')}:{kwargs.get('port', 6379)}")


class _Parser(_AsyncHiredisParser):
    """Reads replies; errors become what they mean."""

    @classmethod
    def parse_error(cls, response: str) -> Exception:
        """redis-py's hook: the exception of an error reply, also of one inside another reply."""
        return away_of_reply(response) or _ordinary_error(response)


class StubbornParser(_Parser):
    """… for arq, whose loop ends with any error: what Redis refuses it is waited for as well."""

    @classmethod
    def parse_error(cls, response: str) -> Exception:
        """Also a refusal is ``RedisAway``, and still a ``ResponseError``: arq expects that of EXEC."""
        error = super().parse_error(response)
        if isinstance(error, exceptions.ResponseError) and not isinstance(error, RedisAway):
            return RedisRefuses(f"refuses what it is asked: {response[:160]}", "REFUSED")
        return error


def _ordinary_error(response: str) -> Exception:
    parser: Any = _AsyncHiredisParser
    error: Exception = parser.parse_error(response)
    return error


class _OurConnection(AbstractConnection):
    """redis-py's connection with three holes closed.

    It translates at one seam. It sends without ``asyncio.wait_for``, which in Python 3.11 swallows
    a cancellation that meets its result: a task that speaks to Redis could not be cancelled
    reliably. And it makes no new connection while it makes one: a proxy that accepts and closes
    would end in a ``RecursionError``.
    """

    def __init__(self, *, state: RedisState | None = None, **options: Any) -> None:
        # What redis-py would tell of itself costs two replies a connection, and a right.
        options |= {"lib_name": None, "lib_version": None}
        options.setdefault("parser_class", _Parser)
        super().__init__(**options)
        self._stubborn = options["parser_class"] is StubbornParser
        self._state = state or RedisState()
        self._opening = False
        self._greeted = False

    async def connect(self) -> None:
        """Connect, with the patience of this connection's retry."""
        if not self.is_connected:
            await self.retry.call_with_retry(self._open, self._close_after)

    async def make_ready(self) -> None:
        """… and make sure that it is one on which a command may be sent."""
        await self.retry.call_with_retry(self._make_ready, self._close_after)

    def pack_command(self, *args: Any) -> list[bytes]:
        """redis-py packs in Python, which is half the cost of an event."""
        packed: list[bytes] = _PACKER.pack(*args)
        return packed

    async def send_packed_command(
        self, command: bytes | str | Iterable[bytes], check_health: bool = True
    ) -> None:
        """Send; whoever repeats it after a fault stands above us."""
        if self._opening and not self.is_connected:
            raise self._unusable(exceptions.ConnectionError("closed while it was made"))
        if not self.is_connected:
            await self._open()
        elif check_health and not self._opening:
            await self.check_health()
        if isinstance(command, str):
            command = command.encode()
        try:
            async with asyncio.timeout(self.socket_timeout):
                await self._send_packed_command(
                    [command] if isinstance(command, bytes) else command
                )
        except BaseException as error:
            # Half a command may be on its way: nothing else can follow it.
            await self.disconnect(nowait=True)
            if isinstance(error, Exception):
                raise self._unusable(error) from error
            raise

    async def read_response(self, *args: Any, **options: Any) -> Any:
        """Read a reply; one that says that Redis is away, or holds one, is raised."""
        base: Any = super()
        try:
            response = await base.read_response(*args, **options)
        except (RedisDenied, RedisRefuses) as error:
            if self._stubborn:  # nobody above us will say it
                self._note(error)
            raise
        except exceptions.ResponseError:
            self._greeted = True
            raise
        except Exception as error:
            raise self._unusable(error) from error
        self._greeted = True
        if isinstance(response, list):
            for part in response:
                if isinstance(part, RedisAway):
                    await self.disconnect(nowait=True)
                    raise self._unusable(part)
        return response

    async def check_health(self) -> None:
        """After a silence: is somebody there? Once; who repeats stands above us."""
        now = asyncio.get_running_loop().time()
        if self.health_check_interval and now > self.next_health_check:
            await self._ping()

    async def can_read_destructive(self) -> bool:
        """Whether something waits to be read."""
        base: Any = super()
        try:
            return bool(await base.can_read_destructive())
        except Exception as error:
            raise self._unusable(error) from error

    async def disconnect(self, nowait: bool = False) -> None:
        """Close; never fails, and waits for nobody who does not answer."""
        parser: Any = self._parser
        parser.on_disconnect()
        writer, self._reader, self._writer = self._writer, None, None
        if writer is None:
            return
        with contextlib.suppress(Exception):
            writer.close()
            if nowait:
                # What was not sent will not be; uvloop would wait for a server that has stopped.
                writer.transport.abort()
                return
            async with asyncio.timeout(_CLOSING_SECONDS):
                await writer.wait_closed()
        with contextlib.suppress(Exception):
            writer.transport.abort()

    async def _open(self) -> None:
        if self.is_connected:
            return
        self._opening, self._greeted = True, False
        base: Any = self
        try:
            await base._connect()  # noqa: SLF001 - our own base
            await self.on_connect()
            await self._greet()
            self._opening = False
            for reference in self._connect_callbacks:
                if (callback := reference()) is not None:
                    subscribes: Any = callback(self)
                    await subscribes
        except BaseException as error:
            await self.disconnect(nowait=True)
            if isinstance(error, exceptions.ResponseError) or not isinstance(error, Exception):
                raise
            raise self._unusable(error) from error
        finally:
            self._opening = False

    async def _greet(self) -> None:
        """Does somebody answer who serves us? A user may lack the right to ask."""
        with contextlib.suppress(RedisDenied):
            await self._ping()

    async def _ping(self) -> None:
        await self.send_command("PING", check_health=False)
        await self.read_response()

    async def _make_ready(self) -> None:
        await self._open()
        if not await self.can_read_destructive():
            return
        # A farewell (maxclients), or an answer that somebody did not wait for.
        try:
            await self.read_response(timeout=0.05)
        except RedisAway:
            raise
        except exceptions.RedisError as error:
            raise self._unusable(error) from error
        raise self._unusable(exceptions.ConnectionError("it has data"))

    async def _close_after(self, _: BaseException) -> None:
        await self.disconnect(nowait=True)

    def _unusable(self, error: BaseException) -> RedisAway:
        away = away_of_failure(error, greeted=self._greeted)
        self._note(away)
        return away

    def _note(self, away: RedisAway) -> None:
        self._state.note(away, self._host_error())


class _TcpConnection(_OurConnection, Connection):
    pass


class _TlsConnection(_OurConnection, SSLConnection):
    pass


class _SocketConnection(_OurConnection, UnixDomainSocketConnection):
    async def _connect(self) -> None:
        async with asyncio.timeout(self.socket_connect_timeout):
            self._reader, self._writer = await asyncio.open_unix_connection(path=self.path)


_PACKER: Any = HiredisRespSerializer()

_OURS: dict[type[AbstractConnection], type[AbstractConnection]] = {
    Connection: _TcpConnection,
    SSLConnection: _TlsConnection,
    UnixDomainSocketConnection: _SocketConnection,
}


class _Pool(ConnectionPool):
    """A pool that is as patient about a connection as about a command."""

    async def ensure_connection(self, connection: AbstractConnection) -> None:
        """redis-py's hook: what is handed out is connected, and nothing waits on it."""
        assert isinstance(connection, _OurConnection)  # noqa: S101 - pool_from_url sees to it
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
    """A certificate is somebody's: redis-py takes that of any host, unless it is told to look.

    ``ssl_cert_reqs=none`` in the URL (Heroku's are self-signed) looks at nothing, and
    ``ssl_check_hostname=false`` at the name alone. Celery's words (CERT_NONE) are understood.
    """
    wants = str(kwargs.get("ssl_cert_reqs", "required")).removeprefix("CERT_").lower()
    if wants not in ("none", "optional", "required"):
        raise ValueError(f"ssl_cert_reqs is none, optional or required, not {wants!r}")
    kwargs["ssl_cert_reqs"] = wants
    kwargs.setdefault("ssl_check_hostname", wants != "none")
    if wants == "none":
        kwargs["ssl_check_hostname"] = False  # OpenSSL cannot look at the name alone
