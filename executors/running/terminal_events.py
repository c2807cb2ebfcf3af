"""What is told when a job has ended: what became of its answer, then of the job itself."""

from __future__ import annotations

__all__ = ["LONGEST_TOLD", "endings_of", "told_answer"]

from collections.abc import Mapping
from typing import Any

from executors.events import (
    Event,
    JobCancelled,
    JobCompleted,
    JobFailed,
    MessageCompleted,
    MessageReset,
)
from repositories.messages import answer_id

#: Bytes; of longer answers ``message.completed`` has only length and hash.
LONGEST_TOLD = 64 * 1024


def told_answer(stored: Mapping[str, Any] | None, content: str | None) -> dict[str, Any] | None:
    """What is told of an answer that was stored: the database knows it, and we know its text."""
    if stored is None:
        return None
    return {**stored, "text": content if stored["length"] <= LONGEST_TOLD else None}


def endings_of(row: Mapping[str, Any]) -> list[Event]:
    """The events of an ended job as the database tells of it (``_ending`` in SQL); its own is last."""
    answer = _answer_ending(row)
    return [_job_ending(row)] if answer is None else [answer, _job_ending(row)]


def _answer_ending(row: Mapping[str, Any]) -> Event | None:
    """What became of the answer; None for a job that speaks in no conversation."""
    if row["conversation_id"] is None:
        return None
    message = row["message"]
    if message is None:
        return MessageReset(message_id=answer_id(row["id"]), final=True)
    return MessageCompleted(
        message_id=message["id"],
        role=message["role"],
        status=message["status"],
        length=message["length"],
        sha256=message["sha256"],
        text=message["text"],
    )


def _job_ending(row: Mapping[str, Any]) -> Event:
    stages = row["stages"] or []
    match row["status"]:
        case "completed":
            return JobCompleted(
                output=row["output"], result_id=row["result_id"], stages=stages, cost=row["cost"]
            )
        case "failed":
            return JobFailed(
                error=row["error"] or {},
                error_message=row["error_message"] or "",
                stages=stages,
                cost=row["cost"],
            )
        case _:
            return JobCancelled(stages=stages, cost=row["cost"])
