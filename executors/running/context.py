"""What an executor gets: the job, its validated input, and the services of its user."""

from __future__ import annotations

__all__ = ["Contexts"]

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from executors.base import BaseExecutor, EventSink, Job, JobContext, JobServices, complaint
from executors.errors import InvalidInput, LeaseLost
from executors.events import Appended, Event
from executors.running.active_runs import ActiveRun
from executors.running.allowances import within
from repositories.images import UserImages
from repositories.jobs import ClaimedJob, JobRepository
from repositories.outages import Outage, StoreRetries


@dataclass(frozen=True, slots=True)
class Contexts:
    """Makes the context of each run. ``services_of`` makes the services bound to a user."""

    jobs: JobRepository
    sink: EventSink
    services_of: Callable[[str], JobServices]
    outage: Outage  #: of the one image store, whichever job notices it

    def context(
        self, executor: BaseExecutor[Any, Any], claimed: ClaimedJob, run: ActiveRun
    ) -> JobContext[Any]:
        """The context of a claimed run. Raises ``InvalidInput``."""
        job = _job(claimed)

        def emit(event: Event) -> asyncio.Future[Appended]:
            return self.sink.emit(job.ref(run.track.conversation_id), event)

        def on_wait() -> None:
            context.progress(run.track.progress, "Waiting for the storage of pictures")

        run.store_retries = StoreRetries(self.outage, on_wait)
        context: JobContext[Any] = JobContext(
            job=job,
            input=_input(executor, claimed),
            services=self._services(claimed, run.store_retries),
            checkpoints=claimed.checkpoints,
            track=run.track,
            _emit=emit,
            _save=lambda values: self.jobs.checkpoint(job.id, job.run, values),
            comes_back=lambda: run.comes_back(last=job.attempt + 1 >= job.max_attempts),
        )
        return context

    def _services(self, claimed: ClaimedJob, retries: StoreRetries) -> JobServices:
        """The services of one run: its files are registered, and their store is waited for."""
        services = self.services_of(claimed.user_id)
        images = getattr(services, "images", None)  # some executors are given no services at all
        if not isinstance(images, UserImages):
            return services

        async def register(path: str) -> None:
            if not await self.jobs.register_file(claimed.id, claimed.run, path):
                raise LeaseLost

        return replace(services, images=replace(images, retries=retries, register=register))


def _job(claimed: ClaimedJob) -> Job:
    return Job(
        id=claimed.id,
        user_id=claimed.user_id,
        type=claimed.type,
        run=claimed.run,
        attempt=claimed.attempt,
        max_attempts=claimed.max_attempts,
        created_at=claimed.created_at,
        parent_id=claimed.parent_id,
    )


def _input(executor: BaseExecutor[Any, Any], claimed: ClaimedJob) -> Any:
    try:
        return within(executor.Input.model_validate(claimed.input), claimed)
    except ValidationError as error:
        raise InvalidInput(complaint(error)) from error
