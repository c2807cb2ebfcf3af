"""Waiting for an image store that is away: what a process knows of the outage, and how a run waits.

An image store that is away is waited for as the database is, because the pictures that a run has in
memory were paid for. So a call is repeated until it is answered, or until its run is stopped. A run that
has paid for nothing yet does not wait: ``StoreAway`` says when it may run again, and its slot is free for
other runs.
"""

from __future__ import annotations

__all__ = ["NoRetries", "Outage", "StoreRetries"]

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from repositories.errors import WAITED_FOR, Misconfigured, RepositoryError, StoreAway
from uvian_common.backoff import retry

T = TypeVar("T")

log = logging.getLogger("uvian.images")

#: Seconds between two tries of a call. Longer pauses would only keep a person waiting.
_FIRST: Final = 0.1
_LONGEST: Final = 3.0
#: Seconds between two runs that may begin while the store is away. Each of them may pay for a picture.
_SOONEST_TRIAL: Final = 1.0
_LATEST_TRIAL: Final = 30.0
#: Seconds after which a call without an answer counts as an outage, although no error was raised.
_SLOW: Final = 10.0
#: The share of a run's time. A run that waited for longer did not have the time that its type has.
_LOST_SHARE: Final = 0.1

#: Seconds of an outage that are worth a line in the log.
_REMARKABLE: Final = 1.0


class Outage:
    """What this process knows of the image store: whether it works, or since when it does not."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.worked_at = clock()
        self._since: float | None = None
        self._total = 0.0
        self._next_trial = 0.0
        self._logged = ""

    @property
    def is_away(self) -> bool:
        """Whether the last call failed."""
        return self._since is not None

    def failed(self, error: RepositoryError) -> None:
        """A call was not answered. Each state is logged once."""
        now = self.clock()
        if self._since is None:
            self._since = now
        self._next_trial = now + self._pause(now)
        if isinstance(error, Misconfigured):
            self._log(error, logging.ERROR)
        elif now - self._since >= _REMARKABLE:  # one lost reply is no outage
            self._log(error, logging.WARNING)

    def worked(self) -> None:
        """A call was answered."""
        now = self.worked_at = self.clock()
        if self._logged:
            log.warning("the image store is back after %.0f s", now - (self._since or now))
        self._total = self.seconds
        self._since = None
        self._logged = ""

    @property
    def seconds(self) -> float:
        """How long it was away, all in all."""
        return self._total + (0.0 if self._since is None else self.clock() - self._since)

    def require(self) -> None:
        """Raise ``StoreAway`` for a run that has not begun, unless it is time for the next trial."""
        now = self.clock()
        if self._since is None:
            return
        pause = self._pause(now)
        if now < self._next_trial:
            raise StoreAway("The image store is away.", retry_after=pause)
        self._next_trial = now + pause

    def _log(self, error: RepositoryError, level: int) -> None:
        kind = type(error).__name__
        if kind != self._logged:
            self._logged = kind
            log.log(level, "the image store is away, jobs wait for it: %s", error)

    def _pause(self, now: float) -> float:
        """The longer it has been away, the longer; up to half a minute."""
        away = now - (now if self._since is None else self._since)
        return min(max(away, _SOONEST_TRIAL), _LATEST_TRIAL)


class _Call:
    """One call while it is waited for."""

    __slots__ = ("began", "error", "requested_at")

    def __init__(self, now: float) -> None:
        self.began = self.requested_at = now
        self.error: RepositoryError | None = None


class StoreRetries:
    """The calls of one run to the image store: each is repeated until it is answered.

    ``on_wait`` is called once, when the run begins to wait.
    """

    def __init__(
        self, outage: Outage | None = None, on_wait: Callable[[], None] = lambda: None
    ) -> None:
        self.outage = outage or Outage()
        self.on_wait = on_wait
        self._calls: set[_Call] = set()
        self._away_before = self.outage.seconds
        self._last: RepositoryError | None = None

    async def call(self, request: Callable[[], Awaitable[T]]) -> T:
        """The answer to ``request``; raises only errors that every further try would raise as well."""
        call = _Call(self.outage.clock())
        self._calls.add(call)

        async def once() -> T:
            call.requested_at = self.outage.clock()
            return await request()

        try:
            answer = await retry(
                once,
                WAITED_FOR,
                first=_FIRST,
                longest=_LONGEST,
                on_failure=lambda error: self._failed(call, error),
            )
        except RepositoryError:  # an answer all the same
            self.outage.worked()
            raise
        else:
            self.outage.worked()
            return answer
        finally:
            self._calls.discard(call)

    def blame(self, seconds: float) -> RepositoryError | None:
        """The store's error, if the store is the reason why a run did not end within ``seconds``.

        Where the store served others while this call failed, the call itself is the reason.
        """
        now = self.outage.clock()
        for call in self._calls:
            if call.error is not None and self.outage.worked_at <= call.began:
                return call.error
            if call.error is None and now - call.requested_at > _SLOW:
                return StoreAway("The image store does not answer.")
        lost = self.outage.seconds - self._away_before
        return self._last if lost > _LOST_SHARE * seconds else None

    def _failed(self, call: _Call, error: Exception) -> None:
        assert isinstance(error, RepositoryError)  # noqa: S101 - of WAITED_FOR
        self.outage.failed(error)
        call.error = error
        if self._last is None:
            self.on_wait()
        self._last = error


class NoRetries(StoreRetries):
    """The first error is raised: for callers that a person waits for."""

    async def call(self, request: Callable[[], Awaitable[T]]) -> T:
        """The answer to ``request``; raises what it raises."""
        return await request()
