"""The peer: arq as it comes, with a job that does nothing."""

from __future__ import annotations

import os
import time
from typing import Any, ClassVar

from arq.connections import RedisSettings


async def noop(ctx: dict[str, Any]) -> None:
    """Nothing."""


async def stamped(ctx: dict[str, Any]) -> None:
    """Say when it was entered."""
    await ctx["redis"].rpush("bench:entered", time.time())


class WorkerSettings:
    """Stock, but for the number of jobs at a time."""

    functions: ClassVar[Any] = (noop, stamped)
    max_jobs: ClassVar[int] = int(os.environ.get("UVIAN_MAX_JOBS", "10"))
    redis_settings: ClassVar[Any] = RedisSettings.from_dsn(os.environ["UVIAN_REDIS_URL"])
    keep_result: ClassVar[int] = 0
