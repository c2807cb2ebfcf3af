"""What a run leaves behind when it is cancelled or incomplete."""

from __future__ import annotations

__all__ = ["Answer", "PartialResult"]

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Answer:
    """What the assistant says, stored by the settlement as the job's one message."""

    content: str
    reply_to: str | None = None
    usage: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PartialResult:
    """What a run has delivered so far, and what fraction of the price it is worth."""

    message: Answer | None = None
    #: What it is worth when cancelled, as a fraction of the price. None for a stopped answer: the
    #: database computes it from the tokens.
    charge: float | None = 0.0
    #: The rows it leaves when cancelled, as ``UserConcepts.store`` writes them, and whose they are.
    rows: dict[str, Any] = field(default_factory=dict)
    result_id: str | None = None
    delivered: float = 1.0  #: what of it there is when completed, as a fraction of the price
