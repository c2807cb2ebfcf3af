"""Where a run is settled: its outcome is written once, then its terminal event is published."""

from __future__ import annotations

__all__ = ["Settler"]

import asyncio
import logging
from typing import Any

from executors.base import EventSink
from executors.events import Appended, JobRef, requeued
from executors.running import outcomes
from executors.running.active_runs import ActiveRun
from executors.running.outcomes import Outcome
from executors.running.terminal_events import terminal_events_of
from repositories.errors import DataError, RepositoryError, StatementTooSlow
from repositories.jobs import ClaimedJob, JobRepository, Settlement
from uvian_common.answers import published_answer
from uvian_common.backoff import retry

log = logging.getLogger("uvian.runner")


class Settler:
    """Settles runs and announces those whose job has ended."""

    def __init__(self, jobs: JobRepository, sink: EventSink) -> None:
        self._jobs = jobs
        self._sink = sink
        self._marks: set[asyncio.Task[None]] = set()

    async def settle(self, claimed: ClaimedJob, run: ActiveRun, outcome: Outcome) -> None:
        """Write the outcome; a result that the database refuses fails the job instead."""
        fence = {"id": claimed.id, "run": claimed.run}
        try:
            settlement = await self._write({**fence, "stages": run.track.stages, **outcome.item()})
        except DataError as error:
            log.error(  # noqa: TRY400
                "job %s run %s: settlement refused: %s", claimed.id, claimed.run, error
            )
            outcome = outcomes.unstorable(claimed.attempt)
            settlement = await self._write({**fence, **outcome.item()})
        if not settlement.settled:
            log.warning("job %s run %s: settled by another", claimed.id, claimed.run)
            return
        log.info("job %s run %s: %s", claimed.id, claimed.run, settlement.status)
        if settlement.status != "queued":
            self._announce(claimed, run, outcome, settlement)
        elif settlement.next is not None and not isinstance(outcome, outcomes.Interrupted):
            self._sink.emit(*requeued(settlement.next))

    async def close(self, within: float) -> None:
        """Wait up to ``within`` seconds for the marks that are under way."""
        if self._marks:
            await asyncio.wait(self._marks, timeout=within)

    async def _write(self, item: dict[str, Any]) -> Settlement:
        """Repeated while the database is too busy to settle in time: the work is done."""
        return await retry(
            lambda: self._jobs.settle(item),
            StatementTooSlow,
            tries=5,
            first=0.5,
            longest=4.0,
            on_failure=lambda error: log.warning(
                "job %s run %s: settling again: %s", item["id"], item["run"], error
            ),
        )

    def _announce(
        self, claimed: ClaimedJob, run: ActiveRun, outcome: Outcome, settlement: Settlement
    ) -> None:
        """Publish the terminal events; the event log takes them in one call."""
        conversation = run.track.conversation_id
        ref = JobRef(claimed.id, claimed.user_id, claimed.run, settlement.attempt, conversation)
        row = _row(claimed, run, outcome, settlement)
        published = [self._sink.emit(ref, event) for event in terminal_events_of(row)]
        published[-1].add_done_callback(lambda future: self._mark(claimed, future))

    def _mark(self, claimed: ClaimedJob, published: asyncio.Future[Appended]) -> None:
        """Once the terminal event is in the log the sweep need not announce it."""
        if published.cancelled() or published.result() is Appended.LOST:
            return
        task = asyncio.ensure_future(self._announced(claimed))
        self._marks.add(task)
        task.add_done_callback(self._marks.discard)

    async def _announced(self, claimed: ClaimedJob) -> None:
        try:
            await self._jobs.announced(claimed.id, claimed.run)
        except RepositoryError as error:
            log.debug("job %s: mark lost, the sweep repeats it: %s", claimed.id, error)


def _row(
    claimed: ClaimedJob, run: ActiveRun, outcome: Outcome, settlement: Settlement
) -> dict[str, Any]:
    """The settled job as the database describes it, by what it made of the outcome."""
    item = outcome.item()
    return {
        "id": claimed.id,
        "status": settlement.status,
        "conversation_id": run.track.conversation_id,
        "stages": run.track.stages,
        "cost": settlement.cost,
        "output": None,
        "result_id": None,
        "error": None,
        "error_message": None,
        **item,
        "message": published_answer(settlement.message, item.get("message", {}).get("content")),
    }
