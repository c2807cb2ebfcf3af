"""Who may listen to what: checked when a topic is subscribed to."""

from __future__ import annotations

__all__ = ["Topics", "is_topic"]

import re
from typing import Final

from repositories.database import Database, Filter

_UUID: Final = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_TOPIC: Final = re.compile(rf"(?P<kind>job|user|conversation):(?P<id>{_UUID})")


class Topics:
    """Answers from the rows: a job is its owner's, a conversation its members'."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def may_subscribe(self, user_id: str, topic: str) -> bool:
        """Whether this user may; no for what does not exist. Raises ``RepositoryError``."""
        parts = _TOPIC.fullmatch(topic)
        if parts is None:
            return False
        match parts["kind"]:
            case "user":
                return parts["id"] == user_id
            case "job":
                return await self._exists("jobs", "id", parts["id"], user_id)
            case _:
                return await self._exists(
                    "conversation_members", "conversation_id", parts["id"], user_id
                )

    async def _exists(self, table: str, column: str, id_: str, user_id: str) -> bool:
        rows = await self._database.select(
            table,  # type: ignore[arg-type] # one of two names above
            columns=("user_id",),
            where=[Filter(column, "eq", id_), Filter("user_id", "eq", user_id)],
            limit=1,
        )
        return bool(rows)


def is_topic(text: object) -> bool:
    """Whether it names a topic at all."""
    return isinstance(text, str) and _TOPIC.fullmatch(text) is not None
