"""One figure, its peer in the same run, and the target."""

from __future__ import annotations

__all__ = ["Result"]

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Result:
    """``value`` against ``target`` (at most, or at least), and against ``peer``."""

    name: str
    value: float
    unit: str
    target: float | None = None
    at_least: bool = False  #: the target is a lower bound
    peer: float | None = None
    peer_name: str = ""

    @property
    def met(self) -> bool:
        """Whether the target is met; without one, yes."""
        if self.target is None:
            return True
        return self.value >= self.target if self.at_least else self.value <= self.target

    @property
    def ratio(self) -> float | None:
        """This over the peer."""
        return self.value / self.peer if self.peer else None

    def document(self) -> dict[str, Any]:
        """For ``--json``."""
        return {**asdict(self), "ratio": self.ratio, "met": self.met}

    def line(self) -> str:
        """For people."""
        parts = [f"{self.name:<46} {self.value:>10.4g} {self.unit:<14}"]
        if self.target is not None:
            sign = "≥" if self.at_least else "≤"
            parts.append(f"{'met   ' if self.met else 'MISSED'} {sign} {self.target:g}")
        if self.ratio is not None:
            parts.append(f"  {self.ratio:.4g} x {self.peer_name} ({self.peer:.4g})")
        return " ".join(parts)
