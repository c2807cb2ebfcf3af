"""The client that arq works with: ``redis_pool`` of its settings.

arq is neither patched nor forked: it calls methods of the client that it was given.
"""

from __future__ import annotations

__all__ = ["WakingArqRedis", "arq_redis_from_url", "deserialize", "serialize"]

import asyncio
import contextlib
import math
from typing import Any, Final

import orjson
from arq.connections import ArqRedis
from redis import exceptions
from redis.asyncio.client import Pipeline
from redis.asyncio.connection import ConnectionPool

from uvian_worker.queue.arq_adapter.names import with_namespace
from uvian_worker.queue.arq_adapter.picking import PickingPipeline
from uvian_worker.queue.arq_adapter.waiting import QueueReader
from uvian_worker.redis.clients import PatientRetry, pool_from_url, state_of
from uvian_worker.redis.clock import StoreClock
from uvian_worker.redis.errors import FAULTS, RedisAway, RedisRefuses, RedisState
from uvian_worker.redis.keys import Keys
from uvian_worker.redis.transport import Parser

_LAST_COMMAND_SECONDS: Final = 1.0  #: for arq's last command, once the process ends


def serialize(document: dict[str, Any]) -> bytes:
    """``job_serializer`` for arq: JSON, because whoever can write pickle to Redis runs code here.

    arq also serialises what it makes of a failure, which may hold an exception; nothing reads that.
    """
    return orjson.dumps(document, default=repr)


def deserialize(document: bytes) -> dict[str, Any]:
    """``job_deserializer`` for arq."""
    parsed: dict[str, Any] = orjson.loads(document)
    return parsed


def arq_redis_from_url(url: str, namespace: str, **options: Any) -> WakingArqRedis:
    """The client for ``WorkerSettings.redis_pool``; nothing connects before its first use.

    It waits without limit for a Redis that is away, because any error in arq's loop ends the worker.
    Call ``give_up`` when the process ends.
    """
    defaults = {
        "retry": PatientRetry(math.inf),
        "retry_on_error": [RedisAway, exceptions.ConnectionError, OSError],
        "parser_class": RefusalParser,
    }
    pool = pool_from_url(url, math.inf, **defaults | options)
    return WakingArqRedis(pool, namespace=namespace)


class RefusalParser(Parser):
    """For arq, whose loop ends with any error: a command that Redis refuses is repeated as well."""

    logs_refusals = True  # no code above arq would

    @classmethod
    def parse_error(cls, response: str) -> Exception:
        """A refusal is ``RedisAway`` too, and still a ``ResponseError``: arq expects that of EXEC."""
        error = super().parse_error(response)
        if isinstance(error, exceptions.ResponseError) and not isinstance(error, RedisAway):
            return RedisRefuses(f"refuses a command: {response[:160]}", "REFUSED")
        return error


class WakingArqRedis(ArqRedis):
    """arq's client in one namespace: its read of the queue waits, and its commands outlast an outage."""

    def __init__(
        self,
        pool_or_conn: ConnectionPool | None = None,
        *,
        namespace: str = "uvian",
        **options: Any,
    ) -> None:
        self._keys = Keys(namespace)
        options.setdefault("job_serializer", serialize)
        options.setdefault("job_deserializer", deserialize)
        options.setdefault("default_queue_name", self._keys.queue)
        super().__init__(pool_or_conn, **options)
        self.state: RedisState = state_of(self)
        self.clock = StoreClock()
        self.reader = QueueReader(self, self._keys, self.clock)
        self._process_ends = False

    def give_up(self) -> None:
        """From now on no command waits for a Redis that is away: the process ends."""
        self._process_ends = True
        retry = self.connection_pool.connection_kwargs.get("retry")
        if isinstance(retry, PatientRetry):
            retry.give_up()

    def zrangebyscore(self, name: Any, min: Any, max: Any, *rest: Any, **options: Any) -> Any:  # noqa: A002 — redis-py's names
        """arq's read of the queue waits for work; any other is redis-py's."""
        if name != self._keys.queue or rest or options.get("withscores"):
            return super().zrangebyscore(name, min, max, *rest, **options)
        return self.reader.read(options["num"])

    async def delete(self, *names: Any) -> Any:
        """redis-py's. arq's last command is one; its failure must not change the exit code."""
        if not self._process_ends:
            return await super().delete(*names)
        with contextlib.suppress(*FAULTS):  # a TimeoutError is an OSError
            async with asyncio.timeout(_LAST_COMMAND_SECONDS):
                return await super().delete(*names)
        return 0

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Any command; arq's keys get the namespace."""
        base: Any = super()
        return base.execute_command(*with_namespace(args, self._keys.namespace), **options)

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        """A pipeline in which arq picks a job."""
        return PickingPipeline(
            self._keys,
            self.clock,
            self.connection_pool,
            self.response_callbacks,
            transaction,
            shard_hint,
        )

    async def close(self, close_connection_pool: bool | None = None) -> None:
        """What arq calls."""
        await self.aclose(close_connection_pool)

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Close all connections, the one that waits included. Closing twice is fine."""
        self.give_up()
        await self.reader.close()
        await super().aclose(close_connection_pool)
