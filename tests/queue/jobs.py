"""Dispatches and workers for the tests of the queue."""

from __future__ import annotations

__all__ = ["QUEUE", "RunningWorker", "dispatch_of", "soon"]

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from arq.typing import WorkerCoroutine
from arq.worker import Worker, func

from uvian_common.tasks import cancel_until_done
from uvian_worker.queue.arq_adapter.pool import WakingArqRedis, deserialize, serialize
from uvian_worker.queue.dispatch import Dispatch
from uvian_worker.redis.keys import Keys

QUEUE = Keys("uvian").queue
_numbers = itertools.count(1)


def dispatch_of(job_id: str | None = None, run: int = 1, **fields: Any) -> Dispatch:
    """A job that is due."""
    name = job_id or f"d{next(_numbers)}"
    return Dispatch(name, run, f"u-{name}", "chat", **fields)


def soon(seconds: float) -> datetime:
    """So many seconds from now."""
    return datetime.now(UTC) + timedelta(seconds=seconds)


class RunningWorker:
    """A stock arq worker on our pool, in this process, with a function that gets each job."""

    def __init__(
        self,
        pool: WakingArqRedis,
        run: Callable[[str, int], Awaitable[None]],
        *,
        queue_name: str = QUEUE,
        **options: Any,
    ) -> None:
        async def run_job(_ctx: dict[str, Any], job_id: str, run_number: int) -> None:
            await run(job_id, run_number)

        self.worker = Worker(
            [func(cast("WorkerCoroutine", run_job), name="run_job")],
            redis_pool=pool,
            queue_name=queue_name,
            handle_signals=False,
            poll_delay=0.005,
            keep_result=0,
            max_tries=1000,
            job_serializer=serialize,
            job_deserializer=deserialize,
            **options,
        )
        self.task = asyncio.create_task(self.worker.async_run())

    async def close(self) -> None:
        """End it, as arq's command would."""
        await cancel_until_done(self.task)
        await asyncio.gather(*self.worker.tasks.values(), return_exceptions=True)
        self.worker.tasks.clear()
        await self.worker.close()
