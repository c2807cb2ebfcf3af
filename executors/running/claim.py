"""Where a run is claimed: from now on the job is this worker's, or somebody else's."""

from __future__ import annotations

__all__ = ["ClaimAnswered", "claim"]

import logging
from collections.abc import Callable

from repositories.errors import DataError
from repositories.jobs import ClaimedJob, JobRepository

log = logging.getLogger("uvian.runner")

#: Called with the job's id as it was queued, and the run.
ClaimAnswered = Callable[[str, int], None]


async def claim(
    jobs: JobRepository, job_id: str, run: int, *, queued_as: str, on_answer: ClaimAnswered
) -> ClaimedJob | None:
    """The job with its lease; None when the database gives it to nobody, or gave it to another.

    ``on_answer`` is called whatever the answer is: the queue need no longer watch that run.
    """
    try:
        answer = await jobs.claim(job_id, run)
    except DataError:  # no job has such an id: the queue may forget it
        on_answer(queued_as, run)
        raise
    on_answer(queued_as, run)
    if isinstance(answer, str):
        log.info("job %s run %s: not claimed: %s", job_id, run, answer)
        return None
    return answer
