"""How a run can end. Each ending is a value; ``item`` is what ``settle_jobs`` takes of it."""

from __future__ import annotations

__all__ = [
    "Answer",
    "Cancelled",
    "Completed",
    "Failed",
    "Interrupted",
    "Kept",
    "NotMine",
    "Outcome",
    "Retry",
    "unstorable",
]

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Answer:
    """What the assistant says, stored by the settlement as the job's one message."""

    content: str
    reply_to: str | None = None
    usage: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Kept:
    """What a run leaves behind, also when it is cancelled before its end."""

    message: Answer | None = None
    #: What it is worth when cancelled, as a fraction of the price; None: a stopped answer's, which the
    #: database computes.
    charge: float | None = 0.0
    #: The rows it leaves when cancelled, as ``UserConcepts.store`` writes them, and whose they are.
    rows: dict[str, Any] = field(default_factory=dict)
    result_id: str | None = None
    delivered: float = 1.0  #: what of it there is when completed, as a fraction of the price


@dataclass(frozen=True, slots=True)
class Completed:
    """The executor returned: its output is stored and the reservation charged."""

    output: dict[str, Any]
    result_id: str | None = None
    message: Answer | None = None
    charge: float = 1.0  #: as a fraction of the price

    def item(self) -> dict[str, Any]:
        """For ``settle_jobs``."""
        return {
            "outcome": "completed",
            "charge": self.charge,
            "output": self.output,
            "result_id": self.result_id,
            **_stored(self.message),
        }


@dataclass(frozen=True, slots=True)
class Failed:
    """It cannot work, now or later: the reservation is released."""

    error: dict[str, Any]
    error_message: str

    def item(self) -> dict[str, Any]:
        """For ``settle_jobs``."""
        return {"outcome": "failed", "error": self.error, "error_message": self.error_message}


@dataclass(frozen=True, slots=True)
class Retry:
    """It may work later. Past the type's attempts the database makes it ``failed`` with this error."""

    error: dict[str, Any]
    error_message: str
    delay: float  #: seconds
    burn: bool = True  #: counts as an attempt; a rate limit does not

    def item(self) -> dict[str, Any]:
        """For ``settle_jobs``."""
        return {
            "outcome": "retry",
            "error": self.error,
            "error_message": self.error_message,
            "delay": self.delay,
            "burn": self.burn,
        }


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The user or an operator asked for it; what was kept is stored and paid for."""

    kept: Kept = Kept()

    def item(self) -> dict[str, Any]:
        """For ``settle_jobs``."""
        return {
            "outcome": "cancelled",
            "charge": self.kept.charge,
            "result_id": self.kept.result_id,
            **self.kept.rows,
            **_stored(self.kept.message),
        }


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The worker stops: queued again at once, no attempt burned."""

    def item(self) -> dict[str, Any]:
        """For ``settle_jobs``."""
        return {"outcome": "interrupted"}


@dataclass(frozen=True, slots=True)
class NotMine:
    """This worker has no executor for the type; another may."""

    def item(self) -> dict[str, Any]:
        """For ``settle_jobs``."""
        return {"outcome": "not_mine"}


def unstorable(attempt: int) -> Failed:
    """Of a run whose result the database refuses."""
    message = "The result could not be stored."
    error = {
        "code": "unstorable_output",
        "stage": None,
        "message": message,
        "retryable": False,
        "attempt": attempt + 1,
    }
    return Failed(error, message)


Outcome = Completed | Failed | Retry | Cancelled | Interrupted | NotMine


def _stored(message: Answer | None) -> dict[str, Any]:
    return {"message": asdict(message)} if message else {}
