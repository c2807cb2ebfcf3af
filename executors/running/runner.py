"""Claim, execute, settle: the path of each run through this process, and the end of the process."""

from __future__ import annotations

__all__ = ["Runner"]

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from executors.base import BaseExecutor, EventSink, JobServices
from executors.registry import Registry
from executors.running.active_runs import ActiveRun, ActiveRuns, StopReason
from executors.running.claim import ClaimAnswered, claim
from executors.running.context import Contexts
from executors.running.execution import Execution
from executors.running.leases import LeaseKeeper
from executors.running.settlement import Settler
from repositories.errors import RepositoryError
from repositories.jobs import ClaimedJob, JobRepository
from repositories.outages import Outage

log = logging.getLogger("uvian.runner")

#: Seconds in which stopped runs are settled before the worker ends.
FINAL_SETTLEMENT: Final = 5.0


class Runner:
    """Runs jobs of one worker process. Knows neither queue nor transport of events."""

    def __init__(
        self,
        *,
        jobs: JobRepository,
        registry: Registry,
        sink: EventSink,
        services_of: Callable[[str], JobServices],
        on_claim_answered: ClaimAnswered = lambda _job, _run: None,
        renew_every: float = 5.0,
        stop_grace: float = 10.0,
        outage: Outage | None = None,
    ) -> None:
        """``services_of`` makes the services bound to a user; times are in seconds.

        ``on_claim_answered`` is called for each claim, whatever the answer was: the queue need no
        longer watch that run.
        ``stop_grace``: how long an executor may take to stop after it was cancelled.
        """
        self._jobs = jobs
        self._registry = registry
        self._on_claim_answered = on_claim_answered
        self._stop_grace = stop_grace
        self._runs = ActiveRuns()
        contexts = Contexts(jobs, sink, services_of, outage or Outage())
        self._execution = Execution(registry, contexts)
        self._settler = Settler(jobs, sink)
        self._opened: list[BaseExecutor[Any, Any]] = []
        self.leases = LeaseKeeper(jobs, self._runs, interval=renew_every)

    @property
    def active(self) -> int:
        """How many runs are between claim and settlement."""
        return len(self._runs)

    async def open(self) -> None:
        """Open the executors and begin to renew leases."""
        for executor in self._registry:
            await executor.open()
            self._opened.append(executor)
        self.leases.start()

    async def run(self, job_id: str, run: int) -> None:
        """Run one job to its settlement. Raises nothing: what goes wrong is settled or logged."""
        # Registered before the claim is sent, so that no cancellation is missed in between.
        # The queue may have the id in capitals; rows, leases and control messages do not.
        active = ActiveRun(job_id.lower(), run, self._stop_grace)
        if not self._runs.add(active):
            return
        try:
            await self._shielded(active, queued_as=job_id)
        except RepositoryError as error:
            # Nothing was settled: the lease expires and the sweep gives the job to another.
            log.error("job %s run %s: not settled: %s", job_id, run, error)  # noqa: TRY400
        except Exception:
            log.exception("job %s run %s: not settled", job_id, run)
        finally:
            self._runs.remove(active)

    async def run_claimed(self, claimed: ClaimedJob, active: ActiveRun) -> None:
        """What follows a claim, however it came about."""
        active.claimed = True
        if claimed.cancel_requested:
            active.stop(StopReason.CANCEL)
        outcome = await self._execution.outcome(claimed, active)
        active.settling = True
        if outcome is not None:
            await self._settler.settle(claimed, active, outcome)
        active.claimed = False

    def cancel(self, job_id: str, run: int | None = None) -> bool:
        """Cancel a job if it runs here (or is being claimed); whether it does.

        With ``run`` no later run is cancelled: the message may come late, when the job runs again.
        """
        return self._runs.cancel(job_id, run)

    def interrupt(self) -> None:
        """Stop what runs, now: each job is queued again and burns no attempt."""
        self._runs.interrupt()

    async def drain(self, grace: float) -> None:
        """Wait ``grace`` seconds for what runs; interrupt and settle what is left.

        While the database is away nothing can be settled: then the leases are left to expire.
        """
        if await self._runs.all_end(within=grace):
            return
        self.interrupt()
        if await self._runs.all_end(within=self._stop_grace + FINAL_SETTLEMENT):
            return
        log.error("%d runs cannot be settled; the sweep will find them", self.active)
        await asyncio.wait([asyncio.ensure_future(self._jobs.close())], timeout=FINAL_SETTLEMENT)
        await self._runs.all_end(within=FINAL_SETTLEMENT)

    async def close(self) -> None:
        """Interrupt what runs, settle it, close the executors that are open. Twice is fine."""
        await self.drain(grace=0)
        await self.leases.close()
        await self._settler.close(within=self._stop_grace)
        while self._opened:
            executor = self._opened.pop()
            try:
                await executor.close()
            except Exception:
                log.exception("the executor of %s was not closed", executor.type)

    async def _shielded(self, active: ActiveRun, *, queued_as: str) -> None:
        """Claim, execute and settle; a cancellation from outside interrupts the run in good order."""
        work = asyncio.ensure_future(self._claim_and_run(active, queued_as))
        while not work.done():
            try:
                await asyncio.wait([work])
            except asyncio.CancelledError:
                active.stop(StopReason.INTERRUPT)
        work.result()

    async def _claim_and_run(self, active: ActiveRun, queued_as: str) -> None:
        claimed = await claim(
            self._jobs,
            active.job_id,
            active.run,
            queued_as=queued_as,
            on_answer=self._on_claim_answered,
        )
        if claimed is not None:
            await self.run_claimed(claimed, active)
