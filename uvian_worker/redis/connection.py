"""Scripts, and the dedicated connection on which a process runs those that append.

A dedicated connection knows the identity of its server. A pooled connection, which reconnects by
itself, does not.
"""

from __future__ import annotations

__all__ = [
    "FAULTS",
    "DedicatedConnection",
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
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from redis import exceptions
from redis.asyncio import Redis

from uvian_worker.redis.clients import (
    PatientRetry,
    address_of,
    pool_from_url,
    redis_from_url,
    sibling,
    state_of,
)
from uvian_worker.redis.errors import (
    FAULTS,
    RedisAway,
    RedisDenied,
    RedisUnusable,
    away_of_error,
)
from uvian_worker.redis.keys import Keys


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script made of files, one after the other: so scripts share their first parts."""

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
    """Call a script by its hash, or by its text where the server does not have it.

    Raises ``RedisAway`` while Redis is away, whoever made the client. A refusal is logged and raised.
    """
    try:
        try:
            return await redis.execute_command("EVALSHA", script.sha, 0, *arguments)
        except exceptions.NoScriptError:
            return await redis.execute_command("EVAL", script.text, 0, *arguments)
    except exceptions.RedisError as error:
        away: Exception | None = away_of_error(error)
        if isinstance(away, RedisDenied):
            state_of(redis).note(away, address_of(redis))
        elif away is None:
            state_of(redis).refused(error, address_of(redis))
        if away is None or away is error:
            raise
        raise away from error


class DedicatedConnection:
    """One connection, and the identity of the server behind it.

    The identity (``run_id:master_replid``) is read once per connection, and again every 30 s: a
    master that lost its last replica changes its replication id without breaking a connection.
    Nothing is repeated here: a repetition on a new connection has to read the identity again, so
    callers repeat.
    """

    _REFRESH = 30.0

    def __init__(self, redis: Redis, namespace: str, *, timeout: float = 5.0) -> None:
        self._client = sibling(redis, single=True, socket_timeout=timeout)
        self._state = state_of(redis)
        self._namespace = namespace
        self._lock = asyncio.Lock()
        self._server: str | None = None
        self._read_at = 0.0

    async def call(self, script: Script, *arguments: Any) -> Any:
        """Run a script with ``namespace, server, random, *arguments``.

        Raises ``RedisAway`` while Redis is away, ``ResponseError`` for what it refuses.
        """
        async with self._lock, self._faults():
            server = await self._identify()
            head = (self._namespace, server, secrets.token_hex(8))
            answer = await run_script(self._client, script, *head, *arguments)
            if self._state.away is not None:
                await self._test_write()
            return answer

    async def request(self, *command: Any) -> tuple[str, Any]:
        """The server's identity (empty where Redis does not have one) and its answer to a command.

        Both come from one connection: an identity that was read before a restart says nothing about
        an answer after it. Raises ``RedisAway`` on any fault.
        """
        async with self._lock, self._faults():
            server = await self._identify()
            client: Any = self._client
            return server, await client.execute_command(*command)

    async def require_write(self) -> None:
        """Write something; raises ``RedisAway`` on any fault."""
        async with self._lock:
            try:
                async with self._faults():
                    await self._write()
            except RedisUnusable:  # the old connection may have been closed meanwhile
                async with self._faults():
                    await self._write()

    @property
    def away(self) -> RedisAway | None:
        """Why Redis does not serve this process, as far as the process knows."""
        return self._state.away

    @property
    def serves_for(self) -> float:
        """Seconds for which it has served this process without a break."""
        return self._state.serves_for

    @property
    def denied(self) -> RedisAway | None:
        """What Redis has denied in the last minute, though it serves this process otherwise."""
        return self._state.denied

    async def close(self) -> None:
        """Close the connection; closing twice is fine."""
        with contextlib.suppress(*FAULTS):
            await self._client.aclose(close_connection_pool=True)

    @contextlib.asynccontextmanager
    async def _faults(self) -> AsyncIterator[None]:
        try:
            yield
        except BaseException as error:
            # The next connection may reach another server at the same address.
            self._server = None
            await self._disconnect()
            away = away_of_error(error)
            if away is not None:
                self._state.note(away, address_of(self._client))
            if away is None or away is error:
                raise
            raise away from error

    async def _test_write(self) -> None:
        """A script may have had nothing to write, so its answer does not show that writes work."""
        with contextlib.suppress(*FAULTS):
            await self._write()

    async def _write(self) -> None:
        await self._client.set(Keys(self._namespace).probe, "1", px=60_000)
        self._state.works()

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
    """Empty for servers without INFO (test doubles, and users whose ACL forbids it)."""
    try:
        server = await redis.info("server")
        replication = await redis.info("replication")
    except exceptions.ResponseError:
        return ""
    return f"{server.get('run_id', '')}:{replication.get('master_replid', '')}".strip(":")
