"""What an answer of the database asks of Redis: jobs to dispatch, balances to tell, endings to announce."""

from __future__ import annotations

__all__ = ["Messenger"]

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from executors.events import Appended, CreditsChanged, JobRef
from executors.running.terminal_events import endings_of
from repositories.database import Row
from repositories.jobs import Followups
from uvian_worker.events.publisher import Publisher
from uvian_worker.queue.dispatch import Dispatch, Dispatched, Dispatcher

log = logging.getLogger("uvian.messenger")


class Messenger:
    """Carries followups to Redis in the background. What gets lost, the sweep finds."""

    def __init__(self, dispatcher: Dispatcher, publisher: Publisher) -> None:
        self._dispatcher = dispatcher
        self._publisher = publisher
        self._tasks: set[asyncio.Task[Any]] = set()
        self._announcing: set[tuple[str, int]] = set()

    def __call__(self, followups: Followups) -> None:
        """Dispatch and tell, without waiting."""
        self.tell_accounts(followups.accounts)
        if followups.dispatch:
            self._spawn(self.dispatch(followups.dispatch))

    async def dispatch(self, rows: Sequence[Row]) -> list[Row]:
        """Dispatch rows; answers those that Redis has taken."""
        answers = await self._dispatcher.dispatch([Dispatch.of(row) for row in rows])
        lost = answers.count(Dispatched.LOST)
        if lost:
            log.debug("%d jobs were not dispatched: Redis is away", lost)
        return [row for row, answer in zip(rows, answers, strict=True) if answer != "lost"]

    def tell_accounts(self, accounts: Sequence[Row]) -> None:
        """Tell users of their new balances."""
        for account in accounts:
            self._publisher.emit(
                JobRef("", account["user_id"], 0, 0),
                CreditsChanged(
                    balance=account["balance"],
                    reserved=account["reserved"],
                    version=account["version"],
                ),
            )

    def announce(self, endings: Sequence[Row], told: Callable[[Row], None]) -> None:
        """Publish endings as ``_ending`` in SQL gives them; ``told`` hears of each that is in the log.

        One that still waits for Redis since an earlier call is not published beside it.
        """
        for row in endings:
            key = (row["id"], row["run"])
            if key in self._announcing:
                continue
            self._announcing.add(key)
            ref = JobRef(
                row["id"], row["user_id"], row["run"], row["attempt"], row["conversation_id"]
            )
            answers = [self._publisher.emit(ref, ending) for ending in endings_of(row)]

            def hear(
                future: asyncio.Future[Appended], row: Row = row, key: tuple[str, int] = key
            ) -> None:
                self._announcing.discard(key)
                if not future.cancelled() and future.result() is not Appended.LOST:
                    told(row)

            answers[-1].add_done_callback(hear)

    async def close(self) -> None:
        """Finish what is under way. Closing twice is fine."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
