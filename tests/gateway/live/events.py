"""Events as a topic has them."""

from __future__ import annotations

__all__ = ["JOB", "TOPIC", "delta", "event"]

from typing import Any

from uvian_worker.events.envelope import Envelope

JOB = "11111111-1111-4111-8111-111111111111"
TOPIC = f"job:{JOB}"


def event(
    seq: int, type_: str = "stage.started", topic: str = TOPIC, run: int = 1, **data: Any
) -> Envelope:
    """The event at this place of a topic."""
    return Envelope(
        id=f"e-{seq}-c{seq}",
        seq=seq,
        topic=topic,
        key=f"{topic}:{run}:{seq}",
        type=type_,
        at="2026-01-01T00:00:00.000Z",
        job_id=JOB,
        run=run,
        attempt=0,
        data=data,
    )


def delta(seq: int, offset: int, text: str, **more: Any) -> Envelope:
    """The next piece of a message."""
    return event(seq, "message.delta", message_id="m", offset=offset, text=text, **more)
