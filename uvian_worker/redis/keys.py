"""Every name in Redis, in one place.

The namespace (``UVIAN_NAMESPACE``) comes first in all of them, so that several installations share
one Redis, each with a user that may touch nothing else. arq's own names are in
``uvian_worker/queue/arq_adapter/names.py``; its client puts the namespace before them.
"""

from __future__ import annotations

__all__ = [
    "Keys",
    "canonical",
    "canonical_topic",
    "conversation_topic",
    "job_topic",
    "parsed_queue_id",
    "queue_id",
    "user_topic",
]

import re
from dataclasses import dataclass
from uuid import UUID

_NAMESPACE = re.compile(r"[A-Za-z0-9_.{}:-]{1,64}")


def canonical(id_: str) -> str:
    """An id as the database writes it. People may write it in capitals, in braces, without hyphens."""
    if len(id_) == 36:
        return id_.lower()
    try:
        return str(UUID(id_))
    except ValueError:
        return id_


def job_topic(job_id: str) -> str:
    """What happens to one job."""
    return f"job:{canonical(job_id)}"


def user_topic(user_id: str) -> str:
    """What happens to all jobs and to the credits of one user."""
    return f"user:{canonical(user_id)}"


def conversation_topic(conversation_id: str) -> str:
    """The messages of one conversation."""
    return f"conversation:{canonical(conversation_id)}"


def canonical_topic(topic: str) -> str:
    """A topic as the log names it, however its id is written."""
    kind, colon, id_ = topic.partition(":")
    return f"{kind}:{canonical(id_)}" if colon else topic


def queue_id(job_id: str, run: int) -> str:
    """The id in the queue. It has the run, so that nothing a dead worker left of one blocks the next."""
    return f"{job_id}:{run}"


def parsed_queue_id(raw: bytes) -> tuple[str, int] | None:
    """The job and the run of an id in the queue; None for what somebody else has put there."""
    job_id, _, run = raw.rpartition(b":")
    try:
        return (job_id.decode(), int(run)) if job_id else None
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class Keys:
    """The names of one namespace. The Lua scripts build the same ones; a test compares them."""

    namespace: str = "uvian"

    def __post_init__(self) -> None:
        if not _NAMESPACE.fullmatch(self.namespace):
            raise ValueError(
                f"The namespace {self.namespace!r} is not usable: "
                "take 1 to 64 of A-Z a-z 0-9 _ . : - { }."
            )

    def topic(self, topic: str) -> str:
        """Hash: epoch, seq and fences of a topic."""
        return f"{self.namespace}:topic:{topic}"

    def log(self, topic: str) -> str:
        """Stream: the events of a topic; the entry ``<seq>-0`` has the envelope in field ``e``."""
        return f"{self.namespace}:log:{topic}"

    def state(self, topic: str) -> str:
        """Hash: the envelopes that together are the state of a topic so far."""
        return f"{self.namespace}:state:{topic}"

    def text(self, message_id: str) -> str:
        """String: the text so far of a message that is being written."""
        return f"{self.namespace}:text:{message_id}"

    def channel(self, topic: str) -> str:
        """Pub/sub channel on which each envelope of a topic is published."""
        return f"{self.namespace}:events:{topic}"

    @property
    def control(self) -> str:
        """Pub/sub channel of the control messages to workers."""
        return f"{self.namespace}:control"

    @property
    def members(self) -> str:
        """Pub/sub channel of the ids of conversations that somebody was removed from."""
        return f"{self.namespace}:members"

    @property
    def paused(self) -> str:
        """Set: the names of paused workers, ``*`` for all."""
        return f"{self.namespace}:paused"

    @property
    def queue(self) -> str:
        """Sorted set: the queue, ``<job id>:<run>`` by the time it is due in milliseconds."""
        return f"{self.namespace}:queue"

    @property
    def wake(self) -> str:
        """List: one token per wake-up that waits for an idle worker, 64 at most."""
        return f"{self.namespace}:wake"

    @property
    def claiming(self) -> str:
        """Sorted set: ids between the queue and their claim in Postgres, by when they left it."""
        return f"{self.namespace}:claiming"

    @property
    def probe(self) -> str:
        """String: written to see whether Redis takes writes."""
        return f"{self.namespace}:probe"

    @property
    def marker(self) -> str:
        """String: the server the queue was filled on; missing or another one means it was lost."""
        return f"{self.namespace}:server"
