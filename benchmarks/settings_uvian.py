"""Our worker with a no-op executor, and a stamp when ``run_job`` is entered."""

from __future__ import annotations

import os
import time
from typing import Any

from arq import func
from pydantic import BaseModel

from executors.base import BaseExecutor, JobContext, JobInput
from uvian_worker.worker.settings import WorkerSettings
from uvian_worker.worker.tasks import run_job

__all__ = ["WorkerSettings"]


class NoInput(JobInput):
    """Nothing is asked."""


class EmptyOutput(BaseModel):
    """Nothing is answered."""


class NoopExecutor(BaseExecutor[NoInput, EmptyOutput]):
    """Does nothing."""

    type = "noop"
    Input = NoInput
    Output = EmptyOutput

    async def execute(self, job: JobContext[NoInput]) -> EmptyOutput:
        """Nothing."""
        return EmptyOutput()


async def stamped(ctx: dict[str, Any], job_id: str, run: int) -> None:
    """``run_job``, but first say when it was entered."""
    await ctx["redis"].rpush("bench:entered", time.time())
    await run_job(ctx, job_id, run)


WorkerSettings.executors = (NoopExecutor,)
if "BENCH_STAMP" in os.environ:
    WorkerSettings.functions = (func(stamped, name="run_job"),)
