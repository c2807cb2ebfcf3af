"""What the workers of these tests run: the real settings, with executors that do what a test needs."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from datetime import timedelta
from typing import Any

from pydantic import BaseModel
from redis.asyncio import Redis

from executors.base import BaseExecutor, JobContext, JobInput
from executors.providers.base import GeneratedImage
from executors.providers.offline.images import LocalImageModel
from executors.registry import BUILT_IN
from tests.processes.talking import TalkingModel
from uvian_worker.worker import models as providers
from uvian_worker.worker.settings import WorkerSettings

log = logging.getLogger("uvian.tests")

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


class BlockingExecutor(BaseExecutor[NoInput, EmptyOutput]):
    """Sits on the event loop: what an author forgets, and no framework can prevent."""

    type = "blocking"
    Input = NoInput
    Output = EmptyOutput

    async def execute(self, job: JobContext[NoInput]) -> EmptyOutput:
        time.sleep(job.input.seconds)
        return EmptyOutput()


class ThreadExecutor(BaseExecutor[NoInput, EmptyOutput]):
    """Waits in a thread, which nobody can cancel."""

    type = "thread"
    Input = NoInput
    Output = EmptyOutput

    async def execute(self, job: JobContext[NoInput]) -> EmptyOutput:
        await asyncio.to_thread(time.sleep, job.input.seconds)
        return EmptyOutput()


class SlowToOpen(NoopExecutor):
    """Opens as the environment says."""

    type = "opened"

    async def open(self) -> None:
        match os.environ.get("TEST_OPEN"):
            case "fails":
                raise RuntimeError("no licence")
            case "hangs":
                log.warning("opening")
                await asyncio.sleep(60)
            case _:
                pass

    async def close(self) -> None:
        log.warning("closed")


class CountedModel(LocalImageModel):
    """The local provider; every question is counted in Redis, so that a test can read the bill."""

    async def generate(self, **asked: Any) -> GeneratedImage:
        redis = Redis.from_url(os.environ["UVIAN_REDIS_URL"])
        await redis.incr("test:provider-calls")
        await redis.aclose()
        return await super().generate(**asked)


WorkerSettings.executors = (
    *BUILT_IN,
    NoopExecutor,
    WaitExecutor,
    PoisonExecutor,
    BlockingExecutor,
    ThreadExecutor,
    SlowToOpen,
)
providers._Vendors.image = lambda self, name: CountedModel()  # type: ignore[method-assign]
providers._Vendors.chat = lambda self, name: TalkingModel()  # type: ignore[method-assign]
