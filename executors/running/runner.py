"""claim → run → settle: every ending of a run becomes one Outcome, and every Outcome is settled."""

from __future__ import annotations

__all__ = ["Runner"]

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from executors import events, failures, outcomes
from executors.base import BaseExecutor, EventSink, Job, JobContext, JobServices, complaint
from executors.errors import Cancelled, InvalidInput, LeaseLost
from executors.outcomes import Outcome
from executors.registry import Registry
from executors.running.allowances import within
from executors.running.leases import LeaseKeeper, Running, StopReason
from executors.running.retry import cause_of, outcome_of
from executors.running.terminal_events import endings_of, told_answer
from repositories.errors import DataError, RepositoryError, StatementTooSlow
from repositories.images import UserImages
from repositories.jobs import ClaimedJob, JobRepository, Settlement
from repositories.outages import Outage, Patience
from uvian_common.backoff import pause_before

log = logging.getLogger("uvian.runner")

AnyExecutor = BaseExecutor[Any, Any]

#: Seconds that what has stopped may take to be settled when the worker ends.
LAST_WORDS = 5.0


class Runner:
    """Runs jobs of one worker process. Knows neither queue nor transport of events."""

    def __init__(
        self,
        *,
        jobs: JobRepository,
        registry: Registry,
        sink: EventSink,
        services_of: Callable[[str], JobServices],
        on_claim_answered: Callable[[str, int], None] = lambda _job, _run: None,
        renew_every: float = 5.0,
        stop_grace: float = 10.0,
    ) -> None:
        """``services_of`` makes the services bound to a user; times are in seconds.

        ``on_claim_answered`` hears of each claim, whatever the answer was: the queue need no longer
        watch that run.
        ``stop_grace``: how long an executor that was told to stop may take to do so.
        """
        self._jobs = jobs
        self._registry = registry
        self._sink = sink
        self._services_of = services_of
        self._on_claim_answered = on_claim_answered
        self._stop_grace = stop_grace
        self._running: dict[tuple[str, int], Running] = {}
        self._outage = Outage()  #: one image store, whichever job meets it
        self._marks: set[asyncio.Task[None]] = set()
        self._opened: list[AnyExecutor] = []
        self._idle = asyncio.Event()
        self._idle.set()
        self.leases = LeaseKeeper(jobs, self._running.values(), interval=renew_every)

    @property
    def active(self) -> int:
        """How many runs are between claim and settlement."""
        return len(self._running)

    async def open(self) -> None:
        """Open the executors and begin to keep leases."""
        for executor in self._registry:
            await executor.open()
            self._opened.append(executor)
        self.leases.start()

    async def close(self) -> None:
        """Interrupt what runs, settle it, close the executors that are open. Twice is fine."""
        await self.drain(grace=0)
        await self.leases.close()
        if self._marks:
            await asyncio.wait(self._marks, timeout=self._stop_grace)
        while self._opened:
            executor = self._opened.pop()
            try:
                await executor.close()
            except Exception:
                log.exception("the executor of %s was not closed", executor.type)

    async def drain(self, grace: float) -> None:
        """Wait ``grace`` seconds for what runs; interrupt and settle what is left.

        While the database is away nothing can be settled: then the leases are left to expire.
        """
        if await self._is_idle(within=grace):
            return
        self.interrupt()
        if await self._is_idle(within=self._stop_grace + LAST_WORDS):
            return
        log.error("%d runs cannot be settled; the sweep will find them", self.active)
        await asyncio.wait([asyncio.ensure_future(self._jobs.close())], timeout=LAST_WORDS)
        await self._is_idle(within=LAST_WORDS)

    async def _is_idle(self, *, within: float) -> bool:
        try:
            async with asyncio.timeout(within):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def interrupt(self) -> None:
        """Stop what runs, now: each job is queued again and burns no attempt."""
        for running in list(self._running.values()):
            running.stop(StopReason.INTERRUPT)

    def cancel(self, job_id: str, run: int | None = None) -> bool:
        """Cancel a job if it runs here (or is being claimed); whether it does.

        With ``run`` no later run is cancelled: the word may come late, when the job runs once more.
        """
        hits = [
            r
            for r in self._running.values()
            if r.job_id == job_id and (run is None or r.run <= run)
        ]
        for running in hits:
            running.stop(StopReason.CANCEL)
        return bool(hits)

    async def run(self, job_id: str, run: int) -> None:
        """Run one job to its settlement. Raises nothing: what goes wrong is settled or logged."""
        key = (job_id, run)
        if key in self._running:
            return  # the same message twice, in one process
        # Registered before the claim is sent, so that no cancellation is missed in between.
        # The queue may have the id in capitals; rows, leases and control messages do not.
        running = self._running[key] = Running(job_id.lower(), run, self._stop_grace)
        self._idle.clear()
        try:
            work = asyncio.ensure_future(self._claim_run_settle(running, job_id))
            while not work.done():
                try:
                    await asyncio.wait([work])
                except asyncio.CancelledError:
                    # Whoever runs us is being torn down: end the run in good order all the same.
                    running.stop(StopReason.INTERRUPT)
            work.result()
        except RepositoryError as error:
            # Nothing was settled: the lease expires and the sweep gives the job to another.
            log.error("job %s run %s: not settled: %s", job_id, run, error)  # noqa: TRY400
        except Exception:
            log.exception("job %s run %s: not settled", job_id, run)
        finally:
            del self._running[key]
            if not self._running:
                self._idle.set()

    async def _claim_run_settle(self, running: Running, queued_as: str) -> None:
        try:
            claim = await self._jobs.claim(running.job_id, running.run)
        except DataError:  # no job has such an id: nobody need look for it
            self._on_claim_answered(queued_as, running.run)
            raise
        self._on_claim_answered(queued_as, running.run)
        if isinstance(claim, str):
            log.info("job %s run %s: not claimed: %s", running.job_id, running.run, claim)
            return
        await self.run_claimed(claim, running)

    async def run_claimed(self, claim: ClaimedJob, running: Running) -> None:
        """What follows a claim, however it came about."""
        running.claimed = True
        if claim.cancel_requested:
            running.stop(StopReason.CANCEL)
        outcome = await self._outcome(claim, running)
        running.settling = True
        if outcome is not None:
            await self._settle(claim, running, outcome)
        running.claimed = False

    async def _outcome(self, claim: ClaimedJob, running: Running) -> Outcome | None:
        """How the run ends; None when it is no longer ours to end."""
        executor = self._registry.find(claim.type)
        if executor is None:
            return outcomes.NotMine()
        try:
            return await self._execute(executor, claim, running)
        except asyncio.CancelledError:
            return outcomes.Interrupted()
        except Exception as error:
            match cause_of(error):
                case LeaseLost():
                    log.warning(
                        "job %s run %s: lease lost, nothing is settled", claim.id, claim.run
                    )
                    return None
                case Cancelled():
                    return outcomes.Cancelled(_kept(running))
            outcome = outcome_of(error, claim.attempt)
            line, trace = failures.told(error)
            log.warning(
                "job %s run %s (%s) failed: %s",
                claim.id,
                claim.run,
                claim.type,
                line,
                exc_info=trace,
            )
            return outcome

    async def _execute(
        self, executor: AnyExecutor, claim: ClaimedJob, running: Running
    ) -> outcomes.Completed:
        context = self._context(executor, claim, running)
        context.emit(events.JobStarted(job_type=claim.type, worker=self._jobs.worker))
        running.task = asyncio.create_task(_executed(executor, context), name=f"job {claim.id}")
        if running.reason is not None:
            running.task.cancel()
        result = await self._until_done(executor, running)
        output = executor.Output.model_validate(result, from_attributes=True)
        document = output.model_dump(mode="json")
        if running.track.warnings:
            document["warnings"] = [*document.get("warnings", ()), *running.track.warnings]
        kept = running.track.kept()
        result_id = executor.result_id(result)
        return outcomes.Completed(document, result_id, kept.message, kept.delivered)

    async def _until_done(self, executor: AnyExecutor, running: Running) -> Any:
        """The executor's result, or the reason why it was stopped as an error."""
        task = running.task
        assert task is not None  # noqa: S101 - set by the caller
        ended = {task, running.overdue}
        seconds = executor.timeout.total_seconds()
        done, _ = await asyncio.wait(ended, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            running.excuse = running.patience.excuse(seconds)
            running.stop(StopReason.TIMEOUT)
            await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            log.error("job %s run %s did not stop; abandoned", running.job_id, running.run)
            task.add_done_callback(_swallow)
            raise running.stopped()
        if task.cancelled():
            raise running.stopped()
        return task.result()

    def _context(
        self, executor: AnyExecutor, claim: ClaimedJob, running: Running
    ) -> JobContext[Any]:
        job = Job(
            id=claim.id,
            user_id=claim.user_id,
            type=claim.type,
            run=claim.run,
            attempt=claim.attempt,
            max_attempts=claim.max_attempts,
            created_at=claim.created_at,
            parent_id=claim.parent_id,
        )
        try:
            asked = within(executor.Input.model_validate(claim.input), claim)
        except ValidationError as error:
            raise InvalidInput(complaint(error)) from error

        def emit(event: events.Event) -> asyncio.Future[events.Appended]:
            return self._sink.emit(job.ref(running.track.conversation_id), event)

        def waits() -> None:
            context.progress(running.track.progress, "Waiting for the storage of pictures")

        running.patience = Patience(self._outage, waits)
        context: JobContext[Any] = JobContext(
            job=job,
            input=asked,
            services=self._services(claim, running.patience),
            checkpoints=claim.checkpoints,
            track=running.track,
            _emit=emit,
            _save=lambda values: self._jobs.checkpoint(job.id, job.run, values),
            comes_back=lambda: running.comes_back(last=job.attempt + 1 >= job.max_attempts),
        )
        return context

    def _services(self, claim: ClaimedJob, patience: Patience) -> JobServices:
        """The services of one run: its files are registered, and their store is waited for."""
        services = self._services_of(claim.user_id)
        images = getattr(services, "images", None)  # some executors are given no services at all
        if not isinstance(images, UserImages):
            return services

        async def register(path: str) -> None:
            if not await self._jobs.register_file(claim.id, claim.run, path):
                raise LeaseLost

        return replace(services, images=replace(images, patience=patience, register=register))

    async def _settle(self, claim: ClaimedJob, running: Running, outcome: Outcome) -> None:
        item = {
            "id": claim.id,
            "run": claim.run,
            "stages": running.track.stages,
            **outcome.item(),
        }
        try:
            settlement = await self._settled(item)
        except DataError as error:
            log.error("job %s run %s: settlement refused: %s", claim.id, claim.run, error)  # noqa: TRY400
            failure = outcomes.unstorable(claim.attempt)
            settlement = await self._settled({"id": claim.id, "run": claim.run, **failure.item()})
            outcome = failure
        if not settlement.settled:
            log.warning("job %s run %s: settled by another", claim.id, claim.run)
            return
        log.info("job %s run %s: %s", claim.id, claim.run, settlement.status)
        self._tell(claim, running, outcome, settlement)

    def _tell(
        self, claim: ClaimedJob, running: Running, outcome: Outcome, settlement: Settlement
    ) -> None:
        """Announce the ending, if it is one; all of it goes to the log in one call."""
        if settlement.status == "queued":
            return
        conversation = running.track.conversation_id
        ref = events.JobRef(claim.id, claim.user_id, claim.run, settlement.attempt, conversation)
        row = _row(claim, running, outcome, settlement)
        told = [self._sink.emit(ref, ending) for ending in endings_of(row)]
        told[-1].add_done_callback(lambda f: self._mark(claim, f))

    async def _settled(self, item: dict[str, Any]) -> Settlement:
        """The answer; a database too busy to settle in time is asked again: the work is done."""
        for tries in range(4):
            try:
                return await self._jobs.settle(item)
            except StatementTooSlow as error:
                log.warning("job %s run %s: settling again: %s", item["id"], item["run"], error)
                await asyncio.sleep(pause_before(tries, first=0.5, longest=4.0))
        return await self._jobs.settle(item)

    def _mark(self, claim: ClaimedJob, told: asyncio.Future[events.Appended]) -> None:
        """Once the ending is in the log the sweep need not announce it."""
        if told.cancelled() or told.result() is events.Appended.LOST:
            return
        task = asyncio.ensure_future(self._announced(claim))
        self._marks.add(task)
        task.add_done_callback(self._marks.discard)

    async def _announced(self, claim: ClaimedJob) -> None:
        try:
            await self._jobs.announced(claim.id, claim.run)
        except RepositoryError as error:
            log.debug("job %s: mark lost, the sweep repeats it: %s", claim.id, error)


def _row(
    claim: ClaimedJob, running: Running, outcome: Outcome, settlement: Settlement
) -> dict[str, Any]:
    """The ended job as the database tells of it, by what it made of the outcome."""
    item = outcome.item()
    return {
        "id": claim.id,
        "status": settlement.status,
        "conversation_id": running.track.conversation_id,
        "stages": running.track.stages,
        "cost": settlement.cost,
        "output": None,
        "result_id": None,
        "error": None,
        "error_message": None,
        **item,
        "message": told_answer(settlement.message, item.get("message", {}).get("content")),
    }


def _kept(running: Running) -> outcomes.Kept:
    """What a cancelled run leaves behind; that it ends matters more than what it leaves."""
    try:
        return running.track.kept()
    except Exception:
        log.exception("job %s run %s: nothing is kept", running.job_id, running.run)
        return outcomes.Kept()


async def _executed(executor: AnyExecutor, context: JobContext[Any]) -> Any:
    try:
        return await executor.execute(context)
    except SystemExit as error:
        raise RuntimeError("an executor may not end the process") from error


def _swallow(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()
