"""What a client returns, and how a request came."""

from __future__ import annotations

__all__ = ["Door", "JobHandle", "PostedMessage", "handle_of"]

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, TypeAlias

#: How a user came whose request is passed on unchanged: signed in, or by an anonymous sign-in. Then the
#: operator's limits for them hold (``job_types.browser``, ``anonymous``). None: the request is the API's own.
Door: TypeAlias = Literal["browser", "anonymous"]


@dataclass(frozen=True, slots=True)
class JobHandle:
    """A job as it was when the call was answered."""

    id: str
    status: str
    run: int
    created: bool  #: False when an earlier request with the same key had made it
    cost: Decimal  #: credits reserved or charged


@dataclass(frozen=True, slots=True)
class PostedMessage:
    """A message that was stored, and the chat that answers it."""

    id: str
    position: int  #: in its conversation: later messages have higher ones
    job: JobHandle
    answer_id: str  #: the id that the answer will have


def handle_of(job: Mapping[str, Any], *, created: bool = False) -> JobHandle:
    """The handle of a row of ``jobs``."""
    return JobHandle(job["id"], job["status"], job["run"], created, Decimal(job["cost"]))
