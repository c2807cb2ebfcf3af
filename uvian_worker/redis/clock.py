"""The time of Redis: jobs become due by its clock."""

from __future__ import annotations

__all__ = ["StoreClock"]

import math
import time


class StoreClock:
    """The clock of Redis, which gave the queue its scores. The clock of this machine may be minutes off.

    It is read every few seconds; in between, the monotonic clock of this process continues it.
    """

    _HOLDS = 10.0
    _QUICK, _SLOW = 0.02, 0.25  #: seconds that an answer took

    def __init__(self) -> None:
        self._ahead = 0.0  #: milliseconds, of our monotonic clock
        self._until = -math.inf

    @property
    def holds(self) -> bool:
        """Whether the last reading is recent enough."""
        return time.monotonic() < self._until

    def learn(self, moment: tuple[int, int], sent_at: float) -> None:
        """Take the answer of TIME, which was sent at ``sent_at`` (monotonic)."""
        answered = time.monotonic()
        took = answered - sent_at
        # A job that was enqueued before TIME was sent must look due: so the reading counts from then on,
        # unless the answer took so long that delayed jobs would start early.
        since = sent_at if took <= self._SLOW else answered
        self._ahead = moment[0] * 1000 + moment[1] / 1000 - since * 1000
        self._until = answered + (self._HOLDS if took <= self._QUICK else 0.5)
        if took > self._SLOW:
            self._until = answered  # good for this call only

    def now(self) -> float:
        """Milliseconds since 1970, as Redis counts them."""
        return time.monotonic() * 1000 + self._ahead

    def as_ours(self, score: float) -> float:
        """A score as the clock of this machine would have given it: arq compares it with that clock."""
        if self._until == -math.inf:
            return score
        return max(1.0, time.time() * 1000 - (self.now() - score))
