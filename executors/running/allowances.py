"""What the operator allows of a type, checked once more against the input of a job that is about to run.

The doors have checked it before. But a manual edit may have made the row, and a setting may have changed
while the job waited.
"""

from __future__ import annotations

__all__ = ["within"]

from typing import Any, TypeVar

from pydantic import BaseModel

from executors.errors import InvalidInput
from repositories.jobs import ClaimedJob

InputT = TypeVar("InputT", bound=BaseModel)


def within(given: InputT, claim: ClaimedJob) -> InputT:
    """The input, with the operator's choice where it has none of its own.

    Raises ``InvalidInput`` for what is not allowed. Settings about fields that the type's input does
    not have mean nothing.
    """
    chosen: dict[str, Any] = {}
    own = {
        name: getattr(given, name) if name in given.model_fields_set else None
        for name in ("model", "max_tokens", "system_prompt")
        if name in type(given).model_fields
    }
    if claim.models and "model" in own:
        if own["model"] is None:
            chosen["model"] = claim.models[0]
        elif own["model"] not in claim.models:
            raise InvalidInput(f"Invalid input: model may be: {', '.join(claim.models)}.")
    if claim.max_tokens and "max_tokens" in own:
        if own["max_tokens"] is None:
            usual = type(given).model_fields["max_tokens"].default
            chosen["max_tokens"] = min(usual, claim.max_tokens) if usual else claim.max_tokens
        elif own["max_tokens"] > claim.max_tokens:
            raise InvalidInput(f"Invalid input: max_tokens may be {claim.max_tokens} at most.")
    if claim.system_prompt and "system_prompt" in own:
        if own["system_prompt"] not in (None, claim.system_prompt):
            raise InvalidInput("Invalid input: the system prompt is the operator's.")
        chosen["system_prompt"] = claim.system_prompt
    return given.model_copy(update=chosen) if chosen else given
