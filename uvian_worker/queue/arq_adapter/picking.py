"""The pipeline in which arq picks a job, in one round trip instead of three."""

from __future__ import annotations

__all__ = ["PickingPipeline"]

import asyncio
import contextlib
from typing import Any, Final

from redis.asyncio.client import Pipeline
from redis.exceptions import ResponseError

from uvian_worker.queue.arq_adapter.names import ARQ_IN_PROGRESS, arq_key, with_namespace
from uvian_worker.redis.clock import StoreClock
from uvian_worker.redis.errors import FAULTS
from uvian_worker.redis.keys import Keys

_LOG_SECONDS: Final = 0.5  #: for what arq only needs for a line of its log


class PickingPipeline(Pipeline):
    """WATCH, EXISTS and ZSCORE of arq's pick go to Redis together.

    This is faster. It also keeps what arq expects: that only EXEC fails. When the connection breaks
    between the three commands, redis-py raises ``WatchError``, which would end the worker.
    """

    def __init__(self, keys: Keys, clock: StoreClock, *options: Any) -> None:
        super().__init__(*options)
        self._keys = keys
        self._clock = clock
        self._locks = arq_key(keys.namespace, ARQ_IN_PROGRESS)
        self._answers: dict[tuple[Any, ...], Any] = {}

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Any command; arq's keys get the namespace."""
        return super().execute_command(*with_namespace(args, self._keys.namespace), **options)

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """redis-py's. What arq requests at its start only for its log may fail, and has little time."""
        base: Any = super()
        commands = [args[0] for args, _ in self.command_stack]
        if not commands or not set(commands) <= {"INFO", "DBSIZE"}:
            answers: list[Any] = await base.execute(raise_on_error)
            return answers
        answers = [{} for _ in commands]
        with contextlib.suppress(*FAULTS):
            async with asyncio.timeout(_LOG_SECONDS):
                answers = await base.execute(raise_on_error=False)
        return [{} if isinstance(answer, ResponseError) else answer for answer in answers]

    async def reset(self) -> None:
        """redis-py's end of a pipeline; also a cancelled one gives its connection back to the pool."""
        base: Any = super()
        try:
            await base.reset()
        except BaseException as error:
            connection, self.connection = self.connection, None
            if connection is not None:
                await connection.disconnect(nowait=True)
                await self.connection_pool.release(connection)
            if not isinstance(error, FAULTS):
                raise
            self.watching = self.explicit_transaction = False

    async def _send_command_parse_response(
        self, conn: Any, command_name: Any, *args: Any, **options: Any
    ) -> Any:
        if args in self._answers:
            return self._answers.pop(args)
        base: Any = super()
        if command_name != "WATCH" or not args[1].startswith(self._locks):
            return await base._send_command_parse_response(  # noqa: SLF001 - our own base
                conn, command_name, *args, **options
            )
        lock = args[1]
        follow = [
            ("EXISTS", lock),
            ("ZSCORE", self._keys.queue, lock.removeprefix(self._locks)),
        ]
        await conn.send_packed_command(conn.pack_commands([args, *follow]))
        try:
            watched = await self.parse_response(conn, command_name, **options)
            exists, score = [await self.parse_response(conn, command[0]) for command in follow]
        except BaseException:
            # Unread answers are on their way. Nothing was picked yet, so arq can try all of it again.
            self.watching = False
            await conn.disconnect(nowait=True)
            raise
        self._answers = {
            follow[0]: exists,
            follow[1]: None if score is None else self._clock.as_ours(score),
        }
        return watched
