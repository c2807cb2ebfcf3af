"""Executors that do on command what real ones do by accident."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

from pydantic import BaseModel

from executors import errors
from executors.base import BaseExecutor, JobContext, JobInput, PartialResult


class ScriptInput(JobInput):
    """What the job shall do."""

    do: str = "complete"
    seconds: float = 0


class ScriptOutput(BaseModel):
    """What it says at the end."""

    said: str
    result_id: str | None = None


class ScriptedExecutor(BaseExecutor[ScriptInput, ScriptOutput]):
    """Ends as its input says; ``entered`` is set when it runs, ``release`` lets it go on."""

    type = "scripted"
    Input = ScriptInput
    Output = ScriptOutput
    timeout = timedelta(seconds=30)
    max_attempts = 3

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.release = asyncio.Event()
        self.contexts: list[JobContext[Any]] = []
        self.stopped: list[str] = []

    async def execute(self, job: JobContext[ScriptInput]) -> ScriptOutput:
        self.contexts.append(job)
        self.entered.set()
        return await getattr(self, "_" + job.input.do)(job)  # type: ignore[no-any-return]

    async def _complete(self, job: JobContext[ScriptInput]) -> ScriptOutput:
        async with job.stage("first_half", weight=0.5):
            pass
        async with job.stage("second_half", weight=0.5) as stage:
            stage.progress(0.5, "nearly there")
        return ScriptOutput(said="done")

    async def _wait(self, job: JobContext[ScriptInput]) -> ScriptOutput:
        async with job.stage("waiting", weight=1):
            await self.release.wait()
        return ScriptOutput(said="released")

    async def _keep(self, job: JobContext[ScriptInput]) -> ScriptOutput:
        job.set_partial_result(lambda: PartialResult(charge=0.25))
        return await self._wait(job)

    async def _keep_badly(self, job: JobContext[ScriptInput]) -> ScriptOutput:
        def fail() -> PartialResult:
            raise ZeroDivisionError

        job.set_partial_result(fail)
        return await self._wait(job)

    async def _ignore_cancellation(self, _: JobContext[ScriptInput]) -> ScriptOutput:
        while not self.release.is_set():
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                continue
        return ScriptOutput(said="stubborn")

    async def _finish_though_cancelled(self, _: JobContext[ScriptInput]) -> ScriptOutput:
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            return ScriptOutput(said="it was nearly done")
        return ScriptOutput(said="released")

    async def _crash(self, job: JobContext[ScriptInput]) -> ScriptOutput:
        async with job.stage("risky_business", weight=1):
            raise ZeroDivisionError("secret detail")

    async def _reject(self, job: JobContext[ScriptInput]) -> ScriptOutput:
        async with job.stage("asking", weight=1, label="Asking the oracle"):
            raise errors.ProviderRejected("the oracle refuses to answer.")

    async def _rate_limit(self, _: JobContext[ScriptInput]) -> ScriptOutput:
        raise errors.RateLimited(120)

    async def _unavailable(self, _: JobContext[ScriptInput]) -> ScriptOutput:
        raise errors.ProviderUnavailable

    async def _warn(self, job: JobContext[ScriptInput]) -> ScriptOutput:
        job.warn("half_done", "One of two parts failed.", part=2)
        return ScriptOutput(said="partly")

    async def _checkpoint(self, job: JobContext[ScriptInput]) -> ScriptOutput:
        if "step" in job.checkpoints:
            return ScriptOutput(said=f"resumed at {job.checkpoints['step']}")
        await job.checkpoint(step=7)
        raise errors.ProviderUnavailable

    async def _cancel_itself(self, _: JobContext[ScriptInput]) -> ScriptOutput:
        raise asyncio.CancelledError

    async def _exit(self, _: JobContext[ScriptInput]) -> ScriptOutput:
        raise SystemExit(3)

    async def _lose_in_group(self, job: JobContext[ScriptInput]) -> ScriptOutput:
        async def lose() -> None:
            raise errors.LeaseLost

        return await self._in_group(job, lose())

    async def _cancel_in_group(self, job: JobContext[ScriptInput]) -> ScriptOutput:
        async def cancel() -> None:
            raise errors.Cancelled

        return await self._in_group(job, cancel())

    async def _in_group(
        self, job: JobContext[ScriptInput], work: Coroutine[Any, Any, None]
    ) -> ScriptOutput:
        async def fail() -> None:
            raise ZeroDivisionError

        async with job.stage("together", weight=1), asyncio.TaskGroup() as group:
            group.create_task(fail())
            group.create_task(work)
        return ScriptOutput(said="never")

    async def _swallow_once(self, _: JobContext[ScriptInput]) -> ScriptOutput:
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.stopped.append("swallowed")
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.stopped.append("stopped")
            raise
        return ScriptOutput(said="never")

    async def _bad_stage(self, job: JobContext[ScriptInput]) -> ScriptOutput:
        async with job.stage("a\x00b", weight=1):
            return ScriptOutput(said="fine")

    async def _nul(self, _: JobContext[ScriptInput]) -> ScriptOutput:
        return ScriptOutput(said="a\x00b")


class HastyExecutor(ScriptedExecutor):
    """Has no time."""

    type = "hasty"
    timeout = timedelta(milliseconds=20)
