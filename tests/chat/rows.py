"""Conversations and messages in memory, read through the real repositories."""

from __future__ import annotations

__all__ = ["CONVERSATION", "OTHER", "USER", "Rows"]

import operator
import uuid
from collections.abc import Sequence
from typing import Any

from repositories.conversations import UserConversations
from repositories.database import Filter, Order, Row
from repositories.messages import Message, UserMessages

USER = str(uuid.UUID(int=1))
CONVERSATION = str(uuid.UUID(int=2))
OTHER = str(uuid.UUID(int=3))  #: a conversation of somebody else

_COMPARE = {"eq": operator.eq, "lt": operator.lt, "gt": operator.gt}


class Rows:
    """As much of a Database as reading a history asks for."""

    def __init__(self) -> None:
        member = {"conversation_id": CONVERSATION, "user_id": USER, "role": "owner"}
        self.tables: dict[str, list[Row]] = {"conversation_members": [member], "messages": []}
        self.selects = 0
        self.fails: Exception | None = None

    @property
    def conversations(self) -> UserConversations:
        """Bound to the user."""
        database: Any = self
        return UserConversations(database, USER)

    @property
    def messages(self) -> UserMessages:
        """Bound to the user."""
        database: Any = self
        return UserMessages(database, USER)

    def say(
        self,
        content: str,
        *,
        role: str = "user",
        reply_to: str | None = None,
        conversation_id: str = CONVERSATION,
        status: str = "completed",
    ) -> str:
        """A message in the next position; its id."""
        position = len(self.tables["messages"]) + 1
        id_ = str(uuid.UUID(int=1000 + position))
        message = Message(id_, conversation_id, position, role, content, status, reply_to=reply_to)
        self.tables["messages"].append({name: getattr(message, name) for name in Message.__slots__})
        return id_

    async def select(
        self,
        table: str,
        *,
        where: Sequence[Filter] = (),
        columns: Sequence[str] = (),
        order: Sequence[Order] = (),
        limit: int | None = None,
    ) -> list[Row]:
        self.selects += 1
        if self.fails is not None:
            raise self.fails
        rows = [
            row
            for row in self.tables[table]
            if all(_COMPARE[f.op](row[f.column], f.value) for f in where)
        ]
        for by in reversed(order):
            rows.sort(key=operator.itemgetter(by.column), reverse=by.descending)
        return [{name: row[name] for name in columns} for row in rows[:limit]]
