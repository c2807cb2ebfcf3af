"""Waiting for an image store that is away: what a process knows of it, and what a run waits for.

A store of ours that is away is waited for as the database is: what a run has in its hands was paid for.
So a call is repeated until it is answered, or until whoever waits is stopped. A run that has paid for
nothing yet does not wait: it is told to come back (``StoreAway``), and leaves its place to others.
"""

from __future__ import annotations

__all__ = ["NoPatience", "Outage", "Patience"]

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from repositories.errors import WAITED_FOR, Misconfigured, RepositoryError, StoreAway
from uvian_common.backoff import pause_before

T = TypeVar("T")

log = logging.getLogger("uvian.images")

#: Between two tries of a call. Longer ones would only keep a person waiting.
_FIRST: Final = 0.1
_LONGEST: Final = 3.0
#: Between two runs that may begin while the store is away: each finds out at the price of a picture.
_SOONEST_TRIAL: Final = 1.0
_LATEST_TRIAL: Final = 30.0
#: A call that has been asked for so long is waited for, though nobody has heard of a fault.
_SLOW: Final = 10.0
#: Of a run's time: who has waited for longer has not had the time that its type was given.
_LOST_SHARE: Final = 0.1

#: Away for so long it is worth a line in the log.
_REMARKABLE: Final = 1.0


class Outage:
    """What this process knows of the image store: whether it works, or since when it does not."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.worked_at = clock()
        self._since: float | None = None
        self._total = 0.0
        self._next_trial = 0.0
        self._told = ""

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
            self._tell(error, logging.ERROR)
        elif (
            now - self._since >= _REMARKABLE
        ):  # a reply that is lost now and then is nobody's concern
            self._tell(error, logging.WARNING)

    def worked(self) -> None:
        """A call was answered."""
        now = self.worked_at = self.clock()
        if self._told:
            log.warning("the image store is back after %.0f s", now - (self._since or now))
        self._total = self.seconds
        self._since = None
        self._told = ""

    @property
    def seconds(self) -> float:
        """How long it was away, all in all."""
        return self._total + (0.0 if self._since is None else self.clock() - self._since)

    def require(self) -> None:
        """Raise ``StoreAway`` for who has not begun, unless it is time that somebody tries."""
        now = self.clock()
        if self._since is None:
            return
        pause = self._pause(now)
        if now < self._next_trial:
            raise StoreAway("The image store is away.", retry_after=pause)
        self._next_trial = now + pause

    def _tell(self, error: RepositoryError, level: int) -> None:
        kind = type(error).__name__
        if kind != self._told:
            self._told = kind
            log.log(level, "the image store is away, jobs wait for it: %s", error)

    def _pause(self, now: float) -> float:
        """The longer it has been away, the longer; up to half a minute."""
        away = now - (now if self._since is None else self._since)
        return min(max(away, _SOONEST_TRIAL), _LATEST_TRIAL)


class _Call:
    """One call while it is waited for."""

    __slots__ = ("asked_at", "began", "error")

    def __init__(self, now: float) -> None:
        self.began = self.asked_at = now
        self.error: RepositoryError | None = None


class Patience:
    """The calls of one run: each is repeated until it is answered.

    ``on_wait`` is told once that the run waits.
    """

    def __init__(
        self, outage: Outage | None = None, on_wait: Callable[[], None] = lambda: None
    ) -> None:
        self.outage = outage or Outage()
        self.on_wait = on_wait
        self._calls: set[_Call] = set()
        self._away_before = self.outage.seconds
        self._last: RepositoryError | None = None

    async def answer(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What ``ask`` answers in the end; raises what would be raised again."""
        clock = self.outage.clock
        call = _Call(clock())
        self._calls.add(call)
        tries = 0
        try:
            while True:
                call.asked_at = clock()
                try:
                    answer = await ask()
                except WAITED_FOR as error:
                    self._fails(call, error)
                    await asyncio.sleep(pause_before(tries, first=_FIRST, longest=_LONGEST))
                    tries += 1
                except RepositoryError:  # an answer all the same
                    self.outage.worked()
                    raise
                else:
                    self.outage.worked()
                    return answer
        finally:
            self._calls.discard(call)

    def excuse(self, seconds: float) -> RepositoryError | None:
        """Why a run of ``seconds`` did not end in time, if the store was the reason.

        A store that served others while this call failed is no excuse: it is the call's own fault.
        """
        now = self.outage.clock()
        for call in self._calls:
            if call.error is not None and self.outage.worked_at <= call.began:
                return call.error
            if call.error is None and now - call.asked_at > _SLOW:
                return StoreAway("The image store does not answer.")
        lost = self.outage.seconds - self._away_before
        return self._last if lost > _LOST_SHARE * seconds else None

    def _fails(self, call: _Call, error: RepositoryError) -> None:
        self.outage.failed(error)
        call.error = error
        if self._last is None:
            self.on_wait()
        self._last = error


class NoPatience(Patience):
    """Who asks hears of the first fault: for those whose callers wait for an answer."""

    async def answer(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What ``ask`` answers; raises what it raises."""
        return await ask()
