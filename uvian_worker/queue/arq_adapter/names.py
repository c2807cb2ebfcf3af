"""arq's names in Redis, repeated here because an API that enqueues does not import arq.

A test compares them with arq's own and with ``arq.lua``.
"""

from __future__ import annotations

__all__ = [
    "ARQ",
    "ARQ_FUNCTION",
    "ARQ_IN_PROGRESS",
    "ARQ_JOB",
    "ARQ_LUA",
    "ARQ_RETRY",
    "arq_key",
    "with_namespace",
]

from pathlib import Path
from typing import Any

#: The one function that arq calls.
ARQ_FUNCTION = "run_job"
#: How the keys of arq begin.
ARQ = "arq:"
ARQ_JOB = "arq:job:"
ARQ_IN_PROGRESS = "arq:in-progress:"
ARQ_RETRY = "arq:retry:"

#: What our scripts do with these keys. It comes first in a script that needs it.
ARQ_LUA = Path(__file__).with_name("arq.lua")


def arq_key(namespace: str, name: str) -> str:
    """A key of arq's with the namespace before it, so that installations do not share it."""
    return f"{namespace}:{name}"


def with_namespace(command: tuple[Any, ...], namespace: str) -> tuple[Any, ...]:
    """A command of arq's, each of its keys with the namespace."""
    return tuple(
        arq_key(namespace, part) if isinstance(part, str) and part.startswith(ARQ) else part
        for part in command
    )
