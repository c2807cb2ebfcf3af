"""``run_job``: the one function arq calls."""

from __future__ import annotations

__all__ = ["run_job"]

import time
from typing import Any, Final

from uvian_worker.queue.arq_adapter.source import ArqWorkSource
from uvian_worker.worker.services import Services

#: After this a loop goes back to arq, whose locks and timeouts are for jobs, not for loops.
LOOP_SECONDS: Final = 600.0


async def run_job(ctx: dict[str, Any], job_id: str, run: int) -> None:
    """Run a job, then further due ones, so that arq's six round trips are paid once for many.

    What arq calls a job is therefore one of ``max_jobs`` loops; each has one job at a time.
    """
    services: Services = ctx["services"]
    source: ArqWorkSource = ctx["source"]
    until = time.monotonic() + LOOP_SECONDS
    following = await source.picked(job_id, run)
    while following is not None:
        await services.runner.run(*following)
        following = await source.next() if time.monotonic() < until else None
