"""What time it is for Redis, by whose clock jobs become due."""

from __future__ import annotations

__all__ = ["StoreClock"]

import math
import time


class StoreClock:
    """The clock of Redis, which gave the queue its scores: ours may be wrong by minutes.

    It is asked every few seconds and carried on by our monotonic clock in between.
    """

    _HOLDS = 10.0
    _QUICK, _SLOW = 0.02, 0.25  #: seconds that an answer took

    def __init__(self) -> None:
        self._ahead = 0.0  #: milliseconds, of our monotonic clock
        self._until = -math.inf

    @property
    def holds(self) -> bool:
        """Whether what was learnt is still good."""
        return time.monotonic() < self._until

    def learn(self, moment: tuple[int, int], asked: float) -> None:
        """Redis has told its time, having been asked at ``asked`` (monotonic)."""
        answered = time.monotonic()
        took = answered - asked
        # A job that was put there before we asked must look due: so it counts from the question on,
        # unless we waited for an answer so long that delayed jobs would be early.
        since = asked if took <= self._SLOW else answered
        self._ahead = moment[0] * 1000 + moment[1] / 1000 - since * 1000
        self._until = answered + (self._HOLDS if took <= self._QUICK else 0.5)
        if took > self._SLOW:
            self._until = answered  # but for this once

    def now(self) -> float:
        """Milliseconds since 1970, as Redis counts them."""
        return time.monotonic() * 1000 + self._ahead

    def as_ours(self, score: float) -> float:
        """A score as our own clock would have given it: arq compares it with that."""
        if self._until == -math.inf:
            return score
        return max(1.0, time.time() * 1000 - (self.now() - score))
