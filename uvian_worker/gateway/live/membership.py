"""Who is removed from a conversation receives no more of it, within moments.

Two sources say whose members have changed, and each has what the other lacks: NOTIFY has every change
in Postgres, where there is a session with it; a channel in Redis has what a ``Client`` did.
Either is only a reason to look: what counts are the rows.
"""

from __future__ import annotations

__all__ = ["Membership"]

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from repositories.database import Database, Filter
from repositories.errors import RepositoryError
from uvian_common.tasks import cancel_until_done
from uvian_worker.events.subscriptions import STALE, Subscriptions
from uvian_worker.redis.keys import Keys, conversation_topic

log = logging.getLogger("uvian.gateway.live")

_PAGE: Final = 50  #: conversations in one query
_AGAIN_AFTER: Final = 1.0  #: seconds, while the database is away
_SILENCE: Final = (
    3600.0  #: seconds; nothing follows from silence, because sessions check by themselves
)


@dataclass(frozen=True, slots=True, eq=False)
class _Watch:
    """One who listens to a conversation."""

    topic: str
    user_id: str
    gone: Callable[[], None]


class Membership:
    """Notifies listeners of a conversation who take part no more.

    A conversation is looked up once, however many listen to it and however often it has changed
    meanwhile, and only while somebody listens here.
    """

    def __init__(self, database: Database, subscriptions: Subscriptions, namespace: str) -> None:
        self._database = database
        self._channel = Keys(namespace).members
        self._subscriptions = subscriptions
        self._watches: dict[str, set[_Watch]] = {}
        self._doubted: set[str] = set()
        self._doubt = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.changes = 0  #: received so far, of whichever conversation

    def start(self) -> None:
        """Begin to receive and to check."""
        for part in (self._receive, self._look):
            self._tasks.append(asyncio.create_task(_for_ever(part), name="live membership"))

    async def close(self) -> None:
        """Stop; closing twice, or unstarted, is fine."""
        tasks, self._tasks = self._tasks, []
        await cancel_until_done(*tasks)

    def watch(
        self, topic: str, user_id: str, gone: Callable[[], None], *, since: int
    ) -> Callable[[], None]:
        """Call ``gone`` when this user takes part no more; answers what ends it (twice is fine).

        ``since`` is what ``changes`` was before the user was let in: who was removed in between is
        looked for at once.
        """
        watch = _Watch(topic, user_id, gone)
        watches = self._watches.setdefault(topic, set())
        watches.add(watch)
        if since != self.changes:
            self.look_at(topic)

        def leave() -> None:
            watches.discard(watch)
            if not watches and self._watches.get(topic) is watches:
                del self._watches[topic]

        return leave

    def look_at(self, *topics: str) -> None:
        """Look up who takes part in these, of those that somebody listens to."""
        self._doubted.update(topic for topic in topics if topic in self._watches)
        if self._doubted:
            self._doubt.set()

    def _changed(self, conversation_id: str) -> None:
        """Somebody was removed from this one, or, when it is empty, maybe from any."""
        self.changes += 1
        self.look_at(*([conversation_topic(conversation_id)] if conversation_id else self._watches))

    async def _receive(self) -> None:
        async with self._subscriptions.listen(self._channel) as inbox:
            while True:
                received = await inbox.get(_SILENCE)
                self._changed("" if received is STALE else received.decode(errors="replace"))

    async def _look(self) -> None:
        await self._database.listen("uvian_members", self._changed)
        while True:
            await self._doubt.wait()
            page = sorted(self._doubted)[:_PAGE]
            self._doubted.difference_update(page)
            try:
                await self._look_up(page)
            except RepositoryError as error:  # not known now: listeners go on until it is
                log.debug("members are looked at later: %s", error)
                self._doubted.update(page)
                await asyncio.sleep(_AGAIN_AFTER)
            except Exception:
                log.exception("members could not be looked at")
                await asyncio.sleep(_AGAIN_AFTER)
            if not self._doubted:
                self._doubt.clear()

    async def _look_up(self, topics: list[str]) -> None:
        # Who begins to listen during the query may have been let in after its rows were read.
        watches = [watch for topic in topics for watch in self._watches.get(topic, ())]
        if not watches:
            return
        ids = [topic.removeprefix(conversation_topic("")) for topic in topics]
        rows = await self._database.select(
            "conversation_members",
            columns=("conversation_id", "user_id"),
            where=[Filter("conversation_id", "in", ids)],
        )
        members = {(conversation_topic(row["conversation_id"]), row["user_id"]) for row in rows}
        for watch in watches:
            if (watch.topic, watch.user_id) not in members:
                watch.gone()


async def _for_ever(part: Callable[[], Awaitable[None]]) -> None:
    """Begin again after whatever went wrong: nothing else reports removals."""
    while True:
        try:
            await part()
        except Exception:
            log.exception("changes of members cannot be received; it is tried again")
        await asyncio.sleep(_AGAIN_AFTER)
