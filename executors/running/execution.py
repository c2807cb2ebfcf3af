"""From a claimed run to its outcome: the executor runs under the deadline of its type."""

from __future__ import annotations

__all__ = ["Execution"]

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

from executors import failure_log
from executors.base import BaseExecutor, JobContext
from executors.errors import Cancelled, LeaseLost
from executors.events import JobStarted
from executors.partial_result import PartialResult
from executors.registry import Registry
from executors.running import outcomes
from executors.running.active_runs import ActiveRun, StopReason
from executors.running.context import Contexts
from executors.running.outcomes import Outcome
from executors.running.retry import cause_of, outcome_of
from repositories.jobs import ClaimedJob

log = logging.getLogger("uvian.runner")

AnyExecutor = BaseExecutor[Any, Any]


@dataclass(frozen=True, slots=True)
class Execution:
    """Executes claimed runs; whatever an executor raises becomes an outcome."""

    registry: Registry
    contexts: Contexts

    async def outcome(self, claimed: ClaimedJob, run: ActiveRun) -> Outcome | None:
        """How the run ends; None when its lease is lost: then another worker settles the job."""
        executor = self.registry.find(claimed.type)
        if executor is None:
            return outcomes.NotMine()
        try:
            return await self._execute(executor, claimed, run)
        except asyncio.CancelledError:
            return outcomes.Interrupted()
        except Exception as error:  # noqa: BLE001 - every error becomes an outcome
            match cause_of(error):
                case LeaseLost():
                    log.warning(
                        "job %s run %s: lease lost, nothing is settled", claimed.id, claimed.run
                    )
                    return None
                case Cancelled():
                    return outcomes.Cancelled(_partial_result(run))
            _log_failure(claimed, error)
            return outcome_of(error, claimed.attempt)

    async def _execute(
        self, executor: AnyExecutor, claimed: ClaimedJob, run: ActiveRun
    ) -> outcomes.Completed:
        context = self.contexts.context(executor, claimed, run)
        context.emit(JobStarted(job_type=claimed.type, worker=self.contexts.jobs.worker))
        run.task = asyncio.create_task(_executed(executor, context), name=f"job {claimed.id}")
        if run.reason is not None:  # it was stopped between its claim and now
            run.task.cancel()
        result = await _until_done(run.task, run, executor.timeout.total_seconds())
        output = executor.Output.model_validate(result, from_attributes=True)
        document = output.model_dump(mode="json")
        if run.track.warnings:
            document["warnings"] = [*document.get("warnings", ()), *run.track.warnings]
        partial = run.track.partial_result()
        return outcomes.Completed(
            document, executor.result_id(result), partial.message, partial.delivered
        )


async def _until_done(task: asyncio.Task[Any], run: ActiveRun, seconds: float) -> Any:
    """The executor's result; raises the error of a run that was stopped, also by its deadline."""
    ends = {task, run.overdue}
    done, _ = await asyncio.wait(ends, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    if not done:
        run.store_error = run.store_retries.blame(seconds)
        run.stop(StopReason.TIMEOUT)
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    if not task.done():
        log.error("job %s run %s did not stop; abandoned", run.job_id, run.run)
        task.add_done_callback(_ignore_result)
        raise run.stop_error()
    if task.cancelled():
        raise run.stop_error()
    return task.result()


async def _executed(executor: AnyExecutor, context: JobContext[Any]) -> Any:
    try:
        return await executor.execute(context)
    except SystemExit as error:
        raise RuntimeError("an executor may not end the process") from error


def _partial_result(run: ActiveRun) -> PartialResult:
    """What a cancelled run leaves behind; an executor that cannot say leaves nothing."""
    try:
        return run.track.partial_result()
    except Exception:
        log.exception("job %s run %s: its partial result is lost", run.job_id, run.run)
        return PartialResult()


def _log_failure(claimed: ClaimedJob, error: Exception) -> None:
    line, trace = failure_log.line_of(error)
    log.warning(
        "job %s run %s (%s) failed: %s",
        claimed.id,
        claimed.run,
        claimed.type,
        line,
        exc_info=trace,
    )


def _ignore_result(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()
