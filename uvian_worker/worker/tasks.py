"""``run_job``: the one function arq calls."""

from __future__ import annotations

__all__ = ["run_job"]

import time
from typing import Any, Final

from uvian_worker.worker.services import Services

#: After this a loop goes back to arq, whose locks and timeouts are for jobs, not for loops.
LOOP_SECONDS: Final = 600.0


async def run_job(ctx: dict[str, Any], job_id: str, run: int) -> None:
    """Run a job, then further due ones: arq's six round trips are paid once for many.

    What arq calls a job is therefore one of ``max_jobs`` loops; each has one job at a time. The
    first act is to leave arq's queue, so that the queue holds only what waits.
    """
    services: Services = ctx["services"]
    until = time.monotonic() + LOOP_SECONDS
    following: tuple[str, int] | None = (job_id, run)
    if not await services.taker.enter(job_id, run):
        following = await services.taker.next()
    while following is not None:
        await services.runner.run(*following)
        following = await services.taker.next() if time.monotonic() < until else None
