"""The answer of a chat: the id of its message, and how much of its text an event repeats."""

from __future__ import annotations

__all__ = ["LONGEST_PUBLISHED", "answer_id", "published_answer"]

import hashlib
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

#: Bytes of UTF-8; for longer answers ``message.completed`` has only length and hash.
LONGEST_PUBLISHED: Final = 64 * 1024


def answer_id(job_id: str) -> str:
    """The id of the message that a chat stores, the same in every run of its job.

    It is a UUID of version 8 (RFC 9562) from SHA-256 of the job's id and ``answer``. ``uvian._answer_id``
    in SQL is the same; a test compares the two.
    """
    digest = bytearray(hashlib.sha256(UUID(job_id).bytes + b"answer").digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x80
    digest[8] = digest[8] & 0x3F | 0x80
    return str(UUID(bytes=bytes(digest)))


def published_answer(
    stored: Mapping[str, Any] | None, content: str | None
) -> dict[str, Any] | None:
    """A stored answer as an event carries it: what the database returned, and its text if it is short."""
    if stored is None:
        return None
    return {**stored, "text": content if stored["length"] <= LONGEST_PUBLISHED else None}
