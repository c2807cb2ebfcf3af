"""The runs that are active in this process, and how each is stopped."""

from __future__ import annotations

__all__ = ["ActiveRun", "ActiveRuns", "StopReason"]

import asyncio
from collections.abc import Iterator
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
from repositories.errors import Misconfigured, RepositoryError, Transient
from repositories.outages import StoreRetries


class StopReason(Enum):
    """Why a run is stopped before its end. Later members override earlier ones."""

    INTERRUPT = 1  #: the worker shuts down
    TIMEOUT = 2
    CANCEL = 3  #: the user or an operator asked for it
    LOST = 4  #: another worker has the job


@dataclass(slots=True, eq=False)
class ActiveRun:
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
    )  #: done when the run was stopped and its task goes on nevertheless
    reported: float = -1.0  #: the progress that the last renewal wrote to the row
    store_retries: StoreRetries = field(default_factory=StoreRetries)
    store_error: RepositoryError | None = None  #: set where the image store made it run out of time

    def comes_back(self, *, last: bool) -> bool:
        """Whether another run follows the one that is stopped; ``last`` burns the last attempt."""
        if self.reason is StopReason.TIMEOUT:
            return not last or isinstance(self.store_error, Transient)
        return self.reason in {StopReason.INTERRUPT, StopReason.LOST}

    def stop(self, reason: StopReason) -> None:
        """Stop the run; a reason that comes before its task exists is noticed when it starts."""
        if self.reason is None or reason.value > self.reason.value:
            self.reason = reason
        if self.task is not None and not self.task.done():
            self.task.cancel()
            # Once is not enough: libraries swallow a cancellation that meets a result.
            asyncio.get_running_loop().call_later(self.grace / 2, self.task.cancel)
            asyncio.get_running_loop().call_later(self.grace, self._give_up)

    def stop_error(self) -> BaseException:  # noqa: PLR0911 - a table
        """The error that a run ends with after it was stopped."""
        match self.reason:
            case None:
                # Nobody stopped it. As an interruption it would be queued again without an end.
                return RuntimeError("the executor cancelled itself")
            case StopReason.CANCEL:
                return Cancelled()
            case StopReason.LOST:
                return LeaseLost()
            case StopReason.TIMEOUT if isinstance(self.store_error, Misconfigured):
                return StorageMisconfigured()
            case StopReason.TIMEOUT if self.store_error is not None:
                return StorageUnavailable()
            case StopReason.TIMEOUT:
                return Timeout()
            case _:
                return asyncio.CancelledError()

    def _give_up(self) -> None:
        if not self.overdue.done():
            self.overdue.set_result(None)


class ActiveRuns:
    """All runs between claim and settlement in this process."""

    def __init__(self) -> None:
        self._runs: dict[tuple[str, int], ActiveRun] = {}
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[ActiveRun]:
        return iter(list(self._runs.values()))

    def add(self, run: ActiveRun) -> bool:
        """Register a run; False where this process has it already: a message came twice."""
        key = (run.job_id, run.run)
        if key in self._runs:
            return False
        self._runs[key] = run
        self._idle.clear()
        return True

    def remove(self, run: ActiveRun) -> None:
        """The run has ended."""
        del self._runs[run.job_id, run.run]
        if not self._runs:
            self._idle.set()

    def interrupt(self) -> None:
        """Stop all of them: each job is queued again and burns no attempt."""
        for run in self:
            run.stop(StopReason.INTERRUPT)

    def cancel(self, job_id: str, run: int | None = None) -> bool:
        """Cancel the runs of a job up to ``run``; whether there are any."""
        cancelled = [
            each for each in self if each.job_id == job_id and (run is None or each.run <= run)
        ]
        for each in cancelled:
            each.stop(StopReason.CANCEL)
        return bool(cancelled)

    async def all_end(self, *, within: float) -> bool:
        """Wait up to ``within`` seconds until no run is active; whether that came true."""
        try:
            async with asyncio.timeout(within):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True
