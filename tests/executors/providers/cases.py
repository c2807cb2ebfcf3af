"""What a row of the table is, and the endings that most of them have."""

from __future__ import annotations

__all__ = [
    "AGAIN",
    "CANCELLED",
    "DONE",
    "DONE_LATER",
    "GIVEN_UP",
    "HASTY",
    "MAX_ATTEMPTS",
    "PRICE",
    "REJECTED",
    "Case",
    "Ending",
    "limit",
    "limited",
]

from dataclasses import dataclass
from typing import Final, Literal

from executors.providers.transport.http import Timeouts
from tests.executors.providers.lab.faults import Fault, Status

PRICE: Final = 3  #: credits, of every job of the table
MAX_ATTEMPTS: Final = 3

Code = Literal["provider_unavailable", "provider_rejected", "rate_limited"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What the row says after a run."""

    status: Literal["completed", "queued", "failed", "cancelled"]
    code: Code | None = None
    attempts: int = 0  #: burned so far
    wait: float | None = None  #: at least so many seconds until the next run, as the vendor said


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One row."""

    provider: str
    does: Literal["chat", "image"]
    fault: str  #: in words
    script: tuple[Fault | None, ...]
    asked: int = 1  #: how often the vendor is asked in the first run
    first: Ending  #: after the first run
    end: Ending | None = None  #: when no run follows any more, if that is not the first one's
    forever: bool = False  #: the vendor does not recover
    timeouts: Timeouts | None = None  #: shorter ones, where the fault is to take long
    cancel: bool = False  #: the user cancels while the fault lasts
    on: str = (
        ""  #: which of the vendor's routes breaks: ``fal.status``; else the first that is asked
    )
    #: Where the vendor gives request ids, the requests it got in all runs: what there was to pay for.
    in_all: int | None = None
    calls_off: bool = False  #: the vendor is told that the answer is not wanted

    @property
    def last(self) -> Ending:
        """How it all ends."""
        return self.end or self.first

    @property
    def charge(self) -> int:
        """Credits."""
        return PRICE if self.last.status == "completed" else 0

    @property
    def id(self) -> str:
        """For pytest."""
        return f"{self.provider} {self.does}: {self.fault}"


DONE: Final = Ending(status="completed")
DONE_LATER: Final = Ending(status="completed", attempts=1)
REJECTED: Final = Ending(status="failed", code="provider_rejected", attempts=1)
AGAIN: Final = Ending(status="queued", code="provider_unavailable", attempts=1)
GIVEN_UP: Final = Ending(status="failed", code="provider_unavailable", attempts=MAX_ATTEMPTS)
CANCELLED: Final = Ending(status="cancelled")


def limited(wait: float) -> Ending:
    """A rate limit: the job comes back when the vendor said, and no attempt is burned."""
    return Ending(status="queued", code="rate_limited", wait=wait)


HASTY: Final = Timeouts(first_byte=1.5, idle=1.0)


def limit(**headers: str) -> Status:
    """429 with these headers."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Status(429, "rate_limit_exceeded", headers=named)
