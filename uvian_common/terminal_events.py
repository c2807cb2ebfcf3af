"""The terminal events of a job, from its row: what became of its answer first, the job's own last.

A row is what ``uvian._terminal_event`` in SQL returns: id, user_id, run, attempt, status, stages, cost,
output, result_id, error, error_message, conversation_id and message (the stored answer).
"""

from __future__ import annotations

__all__ = ["TERMINAL_TYPES", "Fact", "terminal_events_of"]

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from uvian_common.answers import answer_id

#: The types after which nothing of a run follows.
TERMINAL_TYPES: Final = frozenset({"job.completed", "job.failed", "job.cancelled"})

_MESSAGE_FIELDS: Final = ("role", "status", "length", "sha256", "text")


class Fact(NamedTuple):
    """An event without its class: its type, and the fields of its data."""

    type: str
    data: dict[str, Any]


def terminal_events_of(row: Mapping[str, Any]) -> list[Fact]:
    """The events of a job that has ended."""
    fact = Fact(f"job.{row['status']}", _job_data(row))
    return [fact] if row["conversation_id"] is None else [_answer(row), fact]


def _answer(row: Mapping[str, Any]) -> Fact:
    message = row["message"]
    if message is None:  # the chat failed, or it was cancelled before it wrote anything
        return Fact("message.reset", {"message_id": answer_id(row["id"]), "final": True})
    fields = {name: message[name] for name in _MESSAGE_FIELDS}
    return Fact("message.completed", {"message_id": message["id"], **fields})


def _job_data(row: Mapping[str, Any]) -> dict[str, Any]:
    common = {"stages": row["stages"] or [], "cost": row["cost"]}
    match row["status"]:
        case "completed":
            return {"output": row["output"], "result_id": row["result_id"], **common}
        case "failed":
            error = {"error": row["error"] or {}, "error_message": row["error_message"] or ""}
            return {**error, **common}
        case _:
            return common
