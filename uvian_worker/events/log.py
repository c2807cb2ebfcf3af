"""Appends to the event log, whoever writes: below the publisher, and all that an API needs.

It imports nothing of the work, because a team's own code may have a package named ``executors``.
"""

from __future__ import annotations

__all__ = ["LOG_LUA", "Appender", "EventLog"]

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from uvian_common.batching import Batcher, Failure, Verdict
from uvian_worker.events.append import Append
from uvian_worker.events.event_queue import EventQueue
from uvian_worker.redis.connection import DedicatedConnection, RedisAway, Script

log = logging.getLogger(__name__)

#: The first part of every script that appends.
LOG_LUA = Path(__file__).with_name("log.lua")
_APPEND = Script.of(LOG_LUA, Path(__file__).with_name("append.lua"))

#: What the script answers for an event.
_ANSWERS = ("appended", "duplicate", "fenced", "sealed", "mismatch")

AnswerT = TypeVar("AnswerT", bound=str)


class EventLog(Batcher[Append, AnswerT]):
    """Appends in the order of ``submit``, many in one call; ``submit`` never blocks.

    While Redis is away up to ``limit`` events wait (``EventQueue`` says which of them are dropped).
    Futures carry no exceptions. Answers are ``appended``, ``duplicate``, ``fenced``, ``sealed``,
    ``mismatch`` or ``lost``, as ``answer`` (an enum of these) makes them.
    """

    def __init__(
        self,
        redis: Redis,
        namespace: str,
        *,
        answer: Callable[[str], AnswerT],
        limit: int = 20_000,
    ) -> None:
        self._connection = DedicatedConnection(redis, namespace)
        self._answers = {word.encode(): answer(word) for word in _ANSWERS}
        lost = answer("lost")
        super().__init__(
            self._append,
            EventQueue(limit, lost=lost),
            name="event log",
            policy=_policy,
            first_pause=0.02,
            repeated=self._own_duplicate,
            fallback=lambda: lost,
        )

    async def close(self, patience: float | None = 5.0) -> None:
        """Append what waits for up to ``patience`` seconds; the rest is lost. Closing twice is fine."""
        await super().close(patience)
        await self._connection.close()

    async def _append(self, items: list[Append]) -> Sequence[AnswerT]:
        arguments = [value for item in items for value in item]
        answers = await self._connection.call(_APPEND, *arguments)
        return [self._answers[word] for word in answers]

    def _own_duplicate(self, answer: AnswerT) -> AnswerT:
        """After a reply that was lost, a duplicate is our own event."""
        return self._answers[b"appended"] if answer == "duplicate" else answer


class Appender(EventLog[str]):
    """An ``EventLog`` that answers in words, for an API."""

    def __init__(self, redis: Redis, namespace: str, *, limit: int = 20_000) -> None:
        super().__init__(redis, namespace, answer=str, limit=limit)


def _policy(failure: Failure[Append]) -> Verdict:
    """Retried until Redis has carried it out: the script recognises repetitions."""
    if isinstance(failure.error, RedisAway):
        return Verdict.RETRY
    if isinstance(failure.error, ResponseError):
        if failure.is_single:
            log.error(
                "Redis refuses an event of job %s: %s", failure.batch[0].job_id, failure.error
            )
        return Verdict.HALVE
    return Verdict.GIVE_UP
