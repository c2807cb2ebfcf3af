"""The loop that heals: expired leases, rows to dispatch, terminal events that were not published.

A plain loop in every worker and gateway, independent of arq (whose crons do not run while all
slots are taken). The database lets one sweep at a time through; that one does the work for all.
"""

from __future__ import annotations

__all__ = ["Sweeper"]

import asyncio
import contextlib
import logging
import random
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from repositories.database import Database, Row
from repositories.errors import DataError, RepositoryError
from uvian_common.tasks import cancel_until_done
from uvian_worker.queue.dispatch import Dispatcher
from uvian_worker.redis.connection import FAULTS
from uvian_worker.sweep.outbox import Outbox

log = logging.getLogger("uvian.sweeper")

PAGE = 500
#: Seconds that one step waits for Redis: leases expire in Postgres whatever Redis does, and a sweep
#: that is 10 s late counts as an outage, after which nothing expires for a while.
PATIENCE = 1.5
#: Seconds after an outage of Redis in which the sweep announces nothing. The workers publish what waits with
#: them: a terminal event that another process publishes first seals the run, and the earlier events would be
#: refused. What nobody publishes is offered again.
SETTLED = 4.0


class Sweeper:
    """Sweeps every ``interval`` seconds, at once when woken, and again while there is more."""

    def __init__(
        self,
        *,
        database: Database,
        dispatcher: Dispatcher,
        outbox: Outbox,
        interval: float = 2.0,
        lease_seconds: float = 15.0,
    ) -> None:
        self._database = database
        self._dispatcher = dispatcher
        self._outbox = outbox
        self._interval = interval
        self._lease_seconds = lease_seconds
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._announced: list[Mapping[str, Any]] = []
        self._redis_lost_at: str | None = None
        self._brought_back = 0  #: dispatches that a Redis without its data makes necessary again
        self._last: float | None = None
        self._failing: tuple[str, float] | None = None  #: the kind of error, and since when

    def start(self) -> None:
        """Begin; starting twice is fine."""
        if self._task is None:
            self._task = asyncio.create_task(self._loop(), name="sweeper")

    async def close(self) -> None:
        """Stop; closing twice, or unstarted, is fine."""
        if self._task is not None:
            await cancel_until_done(self._task)
            self._task = None

    def wake(self) -> None:
        """Sweep now: there is a new row."""
        self._wake.set()

    @property
    def age(self) -> float | None:
        """Seconds since the last sweep that the database answered; None before the first."""
        return None if self._last is None else time.monotonic() - self._last

    async def _loop(self) -> None:
        await self._database.listen("uvian_jobs", lambda _: self.wake())
        while True:
            self._wake.clear()
            if not await self._sweep_safely():
                with contextlib.suppress(TimeoutError):
                    # Several workers need not call at the same moment.
                    pause = self._interval * random.uniform(0.8, 1)  # noqa: S311 - jitter
                    async with asyncio.timeout(pause):
                        await self._wake.wait()

    async def _sweep_safely(self) -> bool:
        try:
            has_more = await self.sweep()
        except RepositoryError as error:
            self._note_failure(error)
        except FAULTS as error:  # it was logged
            log.debug("sweep failed, trying again: %s", error)
        except Exception:
            log.exception("sweep failed, trying again")
        else:
            self._note_success()
            return has_more
        return False

    def _note_failure(self, error: RepositoryError) -> None:
        """Logs once when it begins to fail in a way, and not again until that changes."""
        kind, since = type(error).__name__, time.monotonic()
        if self._failing is None or self._failing[0] != kind:
            log.warning("sweep failed, trying again: %s", error)
        self._failing = (kind, self._failing[1] if self._failing else since)

    def _note_success(self) -> None:
        if self._failing is not None:
            log.info("sweeps again, after %.1f s", time.monotonic() - self._failing[1])
            self._failing = None

    async def sweep(self) -> bool:
        """One sweep; whether there is more to do at once.

        Raises ``RepositoryError``. Without Redis the database is swept all the same.
        """
        lost, overdue = await self._look_at_redis()
        try:
            answer = await self._database.call(
                "sweep_jobs",
                request={
                    "id": str(uuid.uuid4()),  # a repeated call has it too, and gets the same answer
                    "limit": PAGE,
                    "lease_seconds": self._lease_seconds,
                    "claiming": [{"id": job_id, "run": run} for job_id, run in overdue],
                    "redis_lost_at": self._redis_lost_at,
                },
            )
        except DataError:
            # Somebody wrote ids to Redis that no job can have: they must not stop all healing.
            await self._forget(overdue, [])
            raise
        self._last = time.monotonic()
        if not answer["swept"]:
            return False
        if answer["expired"]:
            log.warning("%d leases had expired", answer["expired"])
        self._outbox.publish_balances(answer["accounts"])
        if lost is not None and self._dispatcher.serves_for > SETTLED:
            self._outbox.announce(answer["announce"], self._note_announced)
        dispatched = await self._dispatch(answer["dispatch"])
        await self._forget(overdue, answer["dispatch"])
        await self._mark(dispatched)
        return await self._heal_redis(answer, lost=lost) or bool(answer["more"])

    async def _look_at_redis(self) -> tuple[bool | None, list[tuple[str, int]]]:
        """Whether Redis has lost its data (None: no answer), and ids taken but not claimed in time."""
        try:
            async with asyncio.timeout(PATIENCE):
                if self._dispatcher.away is not None:
                    await (
                        self._dispatcher.require_write()
                    )  # who else would find out, where nothing happens?
                return await self._dispatcher.redis_lost(), await self._dispatcher.overdue()
        except FAULTS:
            return None, []

    async def _dispatch(self, rows: list[Row]) -> Sequence[Mapping[str, Any]]:
        """Dispatch rows; answers those that Redis has taken in time, the others are offered again."""
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._outbox.dispatch(rows)
        except TimeoutError:
            return []

    async def _forget(self, overdue: list[tuple[str, int]], dispatched: list[Row]) -> None:
        """What was taken, not claimed, and is not queued as that run needs nothing more."""
        again = {(row["id"], row["run"]) for row in dispatched}
        with contextlib.suppress(*FAULTS):
            async with asyncio.timeout(PATIENCE):
                await self._dispatcher.forget(run for run in overdue if run not in again)

    async def _heal_redis(self, answer: dict[str, Any], *, lost: bool | None) -> bool:
        """After a flush or failover bring every dispatch forward, page by page, then set the mark."""
        if lost is None:
            return False  # go on when it is back
        if not lost:
            self._redis_lost_at = None  # another has healed it
            return False
        if self._redis_lost_at is None:
            self._redis_lost_at = answer["now"]
            self._brought_back = 0
            return True
        self._brought_back += answer["forwarded"]
        if answer["forwarded"] < PAGE:
            self._redis_lost_at = None
            # Where nobody has been before there is nothing to warn of.
            known = self._dispatcher.has_known_redis
            await self._dispatcher.mark_redis()
            if self._brought_back:
                log.log(
                    logging.WARNING if known else logging.INFO,
                    "%s: %d queued jobs are dispatched%s",
                    "Redis has lost its data or was replaced" if known else "Redis is new to us",
                    self._brought_back,
                    " again" if known else "",
                )
            return False
        return True

    def _note_announced(self, ended: Mapping[str, Any]) -> None:
        """Published by now, or much later when Redis is back: the next sweep marks it."""
        self._announced.append(ended)

    async def _mark(self, dispatched: Sequence[Mapping[str, Any]]) -> None:
        """Tell the database what was done; a lost mark costs a repeated no-op."""
        announced, self._announced = self._announced, []
        if not dispatched and not announced:
            return
        try:
            await self._database.call(
                "mark_jobs",
                request={
                    "dispatched": [{"id": row["id"], "run": row["run"]} for row in dispatched],
                    "announced": [{"id": row["id"], "run": row["run"]} for row in announced],
                },
            )
        except RepositoryError as error:
            log.debug("marks lost: %s", error)
