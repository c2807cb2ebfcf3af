"""The port of the worker: where the runs come from that it claims."""

from __future__ import annotations

__all__ = ["WorkSource"]

from typing import Protocol


class WorkSource(Protocol):
    """Hands out runs that are due, each to one worker as far as it knows; the claim in Postgres decides.

    All loops of a worker share one source.
    """

    async def next(self) -> tuple[str, int] | None:
        """The next job and run; None when there is none now, or after ``pause``."""
        ...

    def claim_answered(self, job_id: str, run: int) -> None:
        """The claim of this run was answered, whatever the answer was: nobody has to look after it."""
        ...

    def pause(self) -> None:
        """From now on hand out nothing. What was handed out already continues."""
        ...

    def resume(self) -> None:
        """Take back ``pause``."""
        ...

    async def handed_out(self) -> None:
        """After ``pause``: wait until every run that was on its way to a loop has reached one."""
        ...

    async def finished(self) -> bool:
        """After the last run: wait, for a few seconds, until the source needs this process no more.

        Whether that was reached.
        """
        ...

    async def close(self) -> None:
        """Send what is left. Closing twice is fine."""
        ...
