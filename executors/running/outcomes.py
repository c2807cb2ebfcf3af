"""How a run can end: one class for each outcome; ``item`` is what ``settle_jobs`` takes of it."""

from __future__ import annotations

__all__ = [
    "Cancelled",
    "Completed",
    "Failed",
    "Interrupted",
    "NotMine",
    "Outcome",
    "Retry",
    "unstorable",
]

from dataclasses import asdict, dataclass, field
from typing import Any

from executors.partial_result import Answer, PartialResult


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
            **_message(self.message),
        }


@dataclass(frozen=True, slots=True)
class Failed:
    """The run failed and is not tried again: the reservation is released."""

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
    """The user or an operator cancelled it; the partial result is stored and charged."""

    partial_result: PartialResult = field(default_factory=PartialResult)

    def item(self) -> dict[str, Any]:
        """For ``settle_jobs``."""
        return {
            "outcome": "cancelled",
            "charge": self.partial_result.charge,
            "result_id": self.partial_result.result_id,
            **self.partial_result.rows,
            **_message(self.partial_result.message),
        }


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The worker shuts down: the job is queued again at once and burns no attempt."""

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
    """The outcome of a run whose result the database refuses."""
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


def _message(answer: Answer | None) -> dict[str, Any]:
    return {"message": asdict(answer)} if answer else {}
