"""The jobs that run in this process: how each is told to stop, and how their leases are kept."""

from __future__ import annotations

from uvian_common.tasks import cancel_until_done

__all__ = ["LeaseKeeper", "Running", "StopReason"]

import asyncio
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from executors.base import Track
from executors.errors import (
    Cancelled,
    LeaseLost,
    StorageMisconfigured,
    StorageUnavailable,
    Timeout,
)
from repositories.errors import DataError, Misconfigured, RepositoryError, Transient
from repositories.jobs import JobRepository
from repositories.outages import Patience

log = logging.getLogger("uvian.leases")


class StopReason(Enum):
    """Why a run is told to stop before its end. Later members override earlier ones."""

    INTERRUPT = 1  #: the worker stops
    TIMEOUT = 2
    CANCEL = 3  #: the user asked
    LOST = 4  #: another worker has the job


@dataclass(slots=True, eq=False)
class Running:
    """One run, from before its claim until after its settlement."""

    job_id: str
    run: int
    grace: float  #: seconds it may take to stop
    track: Track = field(default_factory=Track)
    claimed: bool = False  #: its lease is ours to renew, until the settlement is answered
    settling: bool = False
    task: asyncio.Task[Any] | None = None
    reason: StopReason | None = None
    overdue: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )  #: done when it was told to stop and has not
    reported: float = -1.0  #: the progress last carried to the row
    patience: Patience = field(default_factory=Patience)  #: with our own image store
    excuse: RepositoryError | None = None  #: set where it ran out of time because of that

    def comes_back(self, *, last: bool) -> bool:
        """Whether another run follows the one that is told to stop; ``last`` burns the last attempt."""
        if self.reason is StopReason.TIMEOUT:
            return not last or isinstance(self.excuse, Transient)
        return self.reason in {StopReason.INTERRUPT, StopReason.LOST}

    def stopped(self) -> BaseException:  # noqa: PLR0911 - a table
        """What its end is, now that it was told to stop and has."""
        match self.reason:
            case None:
                # Nobody told it to: a cancellation of its own making would be interrupted for ever.
                return RuntimeError("the executor cancelled itself")
            case StopReason.CANCEL:
                return Cancelled()
            case StopReason.LOST:
                return LeaseLost()
            case StopReason.TIMEOUT if isinstance(self.excuse, Misconfigured):
                return StorageMisconfigured()
            case StopReason.TIMEOUT if self.excuse is not None:
                return StorageUnavailable()
            case StopReason.TIMEOUT:
                return Timeout()
            case _:
                return asyncio.CancelledError()

    def stop(self, reason: StopReason) -> None:
        """Tell it to stop; before its task exists, the reason waits for it."""
        if self.reason is None or reason.value > self.reason.value:
            self.reason = reason
        if self.task is not None and not self.task.done():
            self.task.cancel()
            # Once is not enough: libraries swallow a cancellation that meets a result.
            asyncio.get_running_loop().call_later(self.grace / 2, self.task.cancel)
            asyncio.get_running_loop().call_later(self.grace, self._give_up)

    def _give_up(self) -> None:
        if not self.overdue.done():
            self.overdue.set_result(None)


class LeaseKeeper:
    """Renews the leases of all running jobs in one call, and hears who lost or cancels one.

    The call comes every ``interval`` seconds, sooner (``eager``) when progress has changed: it
    carries stage and progress to the rows.
    """

    def __init__(
        self,
        jobs: JobRepository,
        running: Iterable[Running],
        *,
        interval: float,
        eager: float = 2.0,
    ) -> None:
        self._jobs = jobs
        self._running = running
        self._interval = interval
        self._eager = min(eager, interval)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; starting twice is fine."""
        if self._task is None:
            self._task = asyncio.create_task(self._loop(), name="lease keeper")

    async def close(self) -> None:
        """Stop renewing; closing twice, or unstarted, is fine."""
        task, self._task = self._task, None
        if task is not None:
            await cancel_until_done(task)

    async def _loop(self) -> None:
        waited = 0.0
        while self._task is not None:
            slept = await _sleep(self._eager)
            waited += slept
            if waited < self._interval and not self._has_news():
                continue
            waited = 0.0
            try:
                # A call that hangs must leave time for another one before the leases expire.
                async with asyncio.timeout(self._interval):
                    await self.renew()
            except (RepositoryError, TimeoutError) as error:
                # Until the sweep has been there the lease can still be renewed.
                log.warning("leases were not renewed: %s", str(error) or "no answer")
                waited = self._interval
            except Exception:
                log.exception("leases were not renewed")
                waited = self._interval

    def _has_news(self) -> bool:
        return any(r.claimed and r.track.progress != r.reported for r in self._running)

    async def renew(self) -> None:
        """One renewal of everything that runs."""
        held = self._latest_claimed()
        try:
            lost, cancel = await self._jobs.renew([_renewal(r) for r in held])
        except DataError as error:
            # What one job tells of its progress must not cost all of them their leases.
            log.error("progress is not storable, leases are renewed without it: %s", error)  # noqa: TRY400
            lost, cancel = await self._jobs.renew([{"id": r.job_id, "run": r.run} for r in held])
        for r in held:
            r.reported = r.track.progress
            if r.job_id in lost:
                _lose(r)
            elif r.job_id in cancel and not r.settling:
                r.stop(StopReason.CANCEL)

    def _latest_claimed(self) -> list[Running]:
        """The runs whose leases are ours, one of each job.

        A job is claimed again only when its earlier run has lost it. That one may still be here: it is
        told so at once, and not asked about, because the database answers by the job.
        """
        latest: dict[str, Running] = {}
        for r in sorted((r for r in self._running if r.claimed), key=lambda r: r.run):
            if (overtaken := latest.get(r.job_id)) is not None:
                _lose(overtaken)
            latest[r.job_id] = r
        return list(latest.values())


def _lose(r: Running) -> None:
    if r.settling or r.reason is StopReason.LOST:
        return  # it has ended, or its settlement will say so
    log.warning("job %s run %s: the lease is lost", r.job_id, r.run)
    r.stop(StopReason.LOST)


async def _sleep(seconds: float) -> float:
    """Sleep; how long it took. Longer means that some code sat on the event loop: nobody renews then."""
    began = time.monotonic()
    await asyncio.sleep(seconds)
    slept = time.monotonic() - began
    if slept > seconds + 1:
        log.warning(
            "the event loop was blocked for %.1f s: an executor does blocking work outside of a "
            "thread, and longer than the lease it loses its job",
            slept - seconds,
        )
    return slept


def _renewal(r: Running) -> dict[str, Any]:
    return {
        "id": r.job_id,
        "run": r.run,
        "stage": r.track.stage,
        "progress": round(r.track.progress, 4),
        "message": r.track.message,
        "stages": r.track.stages,
    }
