"""Leases of active runs: one call renews all of them, and its answer names those that are lost."""

from __future__ import annotations

__all__ = ["LeaseKeeper"]

import asyncio
import logging
import time
from collections.abc import Iterable
from typing import Any

from executors.running.active_runs import ActiveRun, StopReason
from repositories.errors import DataError, RepositoryError
from repositories.jobs import JobRepository
from uvian_common.tasks import cancel_until_done

log = logging.getLogger("uvian.leases")


class LeaseKeeper:
    """Renews the leases of all active runs in one call, and stops those that are lost or cancelled.

    The call comes every ``interval`` seconds, sooner (``eager``) when progress has changed: it
    carries stage and progress to the rows.
    """

    def __init__(
        self,
        jobs: JobRepository,
        runs: Iterable[ActiveRun],
        *,
        interval: float,
        eager: float = 2.0,
    ) -> None:
        self._jobs = jobs
        self._runs = runs
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
        return any(r.claimed and r.track.progress != r.reported for r in self._runs)

    async def renew(self) -> None:
        """One renewal of everything that runs."""
        held = self._latest_claimed()
        try:
            lost, cancel = await self._jobs.renew([_renewal(r) for r in held])
        except DataError as error:
            # The progress message of one job must not cost all of them their leases.
            log.error("progress cannot be stored, leases are renewed without it: %s", error)  # noqa: TRY400
            lost, cancel = await self._jobs.renew([{"id": r.job_id, "run": r.run} for r in held])
        for r in held:
            r.reported = r.track.progress
            if r.job_id in lost:
                _lose(r)
            elif r.job_id in cancel and not r.settling:
                r.stop(StopReason.CANCEL)

    def _latest_claimed(self) -> list[ActiveRun]:
        """The runs whose leases are ours, one of each job.

        A job is claimed again only when its earlier run has lost the lease. That run may still be
        active here. It is stopped at once and not renewed, because the database answers by the job.
        """
        latest: dict[str, ActiveRun] = {}
        for r in sorted((r for r in self._runs if r.claimed), key=lambda r: r.run):
            if (overtaken := latest.get(r.job_id)) is not None:
                _lose(overtaken)
            latest[r.job_id] = r
        return list(latest.values())


def _lose(r: ActiveRun) -> None:
    if r.settling or r.reason is StopReason.LOST:
        return  # the run has ended, or its settlement will notice it
    log.warning("job %s run %s: the lease is lost", r.job_id, r.run)
    r.stop(StopReason.LOST)


async def _sleep(seconds: float) -> float:
    """Sleep; how long it took. A longer time means that some code blocked the event loop, and renewals."""
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


def _renewal(r: ActiveRun) -> dict[str, Any]:
    return {
        "id": r.job_id,
        "run": r.run,
        "stage": r.track.stage,
        "progress": round(r.track.progress, 4),
        "message": r.track.message,
        "stages": r.track.stages,
    }
