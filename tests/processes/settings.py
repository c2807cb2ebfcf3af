"""What the workers of these tests run: the real settings, with executors that do what a test needs."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta
from typing import Any

from pydantic import BaseModel
from redis.asyncio import Redis

from executors.base import BaseExecutor, JobContext, JobInput
from executors.providers.base import GeneratedImage
from executors.providers.local import LocalImageModel
from executors.registry import BUILT_IN
from uvian_worker import services
from uvian_worker.worker import WorkerSettings

__all__ = ["CountedModel", "EmptyOutput", "NoopExecutor", "WaitExecutor", "WorkerSettings"]


class NoInput(JobInput):
    """Nothing is asked."""

    seconds: float = 0


class EmptyOutput(BaseModel):
    """Nothing is answered."""


class NoopExecutor(BaseExecutor[NoInput, EmptyOutput]):
    """Does nothing."""

    type = "noop"
    Input = NoInput
    Output = EmptyOutput

    async def execute(self, job: JobContext[NoInput]) -> EmptyOutput:
        return EmptyOutput()


class WaitExecutor(BaseExecutor[NoInput, EmptyOutput]):
    """Waits as long as it is told."""

    type = "wait"
    Input = NoInput
    Output = EmptyOutput
    timeout = timedelta(minutes=10)

    async def execute(self, job: JobContext[NoInput]) -> EmptyOutput:
        async with job.stage("waiting", weight=1):
            await asyncio.sleep(job.input.seconds)
        return EmptyOutput()


class PoisonExecutor(BaseExecutor[NoInput, EmptyOutput]):
    """Takes its worker down with it."""

    type = "poison"
    Input = NoInput
    Output = EmptyOutput

    async def execute(self, job: JobContext[NoInput]) -> EmptyOutput:
        os.kill(os.getpid(), 9)
        return EmptyOutput()


class CountedModel(LocalImageModel):
    """The local provider; every question is counted in Redis, so that a test can read the bill."""

    async def generate(self, **asked: Any) -> GeneratedImage:
        redis = Redis.from_url(os.environ["UVIAN_REDIS_URL"])
        await redis.incr("test:provider-calls")
        await redis.aclose()
        return await super().generate(**asked)


WorkerSettings.executors = (*BUILT_IN, NoopExecutor, WaitExecutor, PoisonExecutor)
services._image_model = lambda config: CountedModel()
