"""What an answer of the database asks of Redis: cancellations, terminal events, balances, dispatches.

The worker, the sweep and the client use the same. Whatever gets lost on the way is found by the sweep,
or, for a cancellation, by the next renewal of leases.
"""

from __future__ import annotations

__all__ = ["Outbox"]

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol

from uvian_worker.events.append import credits_changed
from uvian_worker.events.control import CancelJob, Control
from uvian_worker.events.log import EventLog
from uvian_worker.events.terminal_events import terminal_appends
from uvian_worker.queue.dispatch import Dispatch, Dispatched, Dispatcher
from uvian_worker.redis.errors import FAULTS

log = logging.getLogger("uvian.outbox")

Row = Mapping[str, Any]

#: Seconds that a caller waits for Redis, and once Redis is known to be away.
_PATIENCE = 1.0
_PATIENCE_AWAY = 0.1


class Followups(Protocol):
    """What a settlement asks of Redis (``repositories.jobs.Followups``)."""

    @property
    def dispatch(self) -> Sequence[Row]:
        """Jobs to dispatch."""

    @property
    def accounts(self) -> Sequence[Row]:
        """Accounts whose balance has changed."""


class Outbox:
    """Carries answers of the database to Redis. Nothing here raises because Redis is away."""

    def __init__(
        self, dispatcher: Dispatcher, events: EventLog[Any], control: Control | None = None
    ) -> None:
        """``control`` is needed where answers may ask for cancellations (``deliver``)."""
        self._dispatcher = dispatcher
        self._events = events
        self._control = control
        self._tasks: set[asyncio.Task[Any]] = set()
        self._announcing: set[tuple[str, int]] = set()

    async def close(self) -> None:
        """Finish what is under way. Closing twice is fine."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)

    async def deliver(self, answer: Row) -> None:
        """All that an answer asks for; it waits about a second for Redis, once for each kind."""
        for running in answer.get("cancel", ()):
            await self.cancel(running)
        self.announce(answer.get("terminal_events", ()))
        self.publish_balances(answer["accounts"])
        await self.dispatch_patiently(answer["dispatch"])

    def deliver_later(self, followups: Followups) -> None:
        """What a settlement asks for, in the background."""
        self.publish_balances(followups.accounts)
        if followups.dispatch:
            self._spawn(self.dispatch(followups.dispatch))

    async def dispatch(self, rows: Sequence[Row]) -> list[Row]:
        """Dispatch rows; returns those that Redis has taken."""
        answers = await self._dispatcher.dispatch([Dispatch.of(row) for row in rows])
        lost = answers.count(Dispatched.LOST)
        if lost:
            log.debug("%d jobs were not dispatched: Redis is away", lost)
        return [row for row, answer in zip(rows, answers, strict=True) if answer != "lost"]

    async def dispatch_patiently(self, rows: Sequence[Row]) -> None:
        """Dispatch rows for a caller who waits; the dispatcher goes on with what takes longer."""
        if not rows:
            return
        try:
            async with asyncio.timeout(self._patience):
                await self.dispatch(rows)
        except TimeoutError:
            log.debug("%d jobs are not dispatched yet: Redis does not answer", len(rows))

    async def cancel(self, running: Row) -> None:
        """Ask the job's worker to stop it. The request stands in the row as well."""
        if self._control is None:
            raise RuntimeError("This outbox was made without control: it cannot cancel.")
        try:
            async with asyncio.timeout(self._patience):
                await self._control.send(CancelJob(running["id"], running["run"]))
        except FAULTS as error:
            log.debug("job %s: its worker is asked with the next renewal: %s", running["id"], error)

    def publish_balances(self, accounts: Sequence[Row]) -> None:
        """Tell users of their new balances."""
        for account in accounts:
            self._events.submit(credits_changed(account))

    def announce(
        self, ended: Sequence[Row], announced: Callable[[Row], None] | None = None
    ) -> None:
        """Publish the terminal events of jobs; ``announced`` is called for each that is in the log.

        One that still waits for Redis since an earlier call is not published beside it.
        """
        for row in ended:
            key = (row["id"], row["run"])
            if key in self._announcing:
                continue
            self._announcing.add(key)
            answers = [self._events.submit(item) for item in terminal_appends(row)]
            answers[-1].add_done_callback(self._done(row, key, announced))

    def _done(
        self, row: Row, key: tuple[str, int], announced: Callable[[Row], None] | None
    ) -> Callable[[asyncio.Future[Any]], None]:
        def done(answer: asyncio.Future[Any]) -> None:
            self._announcing.discard(key)
            if announced is not None and not answer.cancelled() and answer.result() != "lost":
                announced(row)

        return done

    @property
    def _patience(self) -> float:
        return _PATIENCE if self._dispatcher.away is None else _PATIENCE_AWAY

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
