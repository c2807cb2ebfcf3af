"""Conversations and who takes part in them."""

from __future__ import annotations

__all__ = ["Conversation", "ConversationRepository", "Invitation", "Member", "UserConversations"]

import builtins
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from repositories.database import Database, Filter, Order, Row, is_id
from repositories.errors import NotFound


@dataclass(frozen=True, slots=True)
class Conversation:
    """What messages belong to; ``user_id`` is its owner, who is a member too."""

    id: str
    user_id: str
    title: str | None
    metadata: dict[str, Any]
    last_position: int  #: of its newest message; 0 before the first
    last_message_at: str  #: ISO 8601; its own creation before the first
    created_at: str
    updated_at: str


@dataclass(frozen=True, slots=True)
class Member:
    """Somebody who reads and writes in a conversation; ``role`` is owner or member."""

    conversation_id: str
    user_id: str
    role: str
    added_at: str


@dataclass(frozen=True, slots=True)
class Invitation:
    """Somebody who was invited and has not answered; maybe there is no such user."""

    conversation_id: str
    user_id: str
    invited_by: str | None  #: None: the operator
    title: str | None  #: of the conversation, as it was then
    created_at: str


_CONVERSATION = Conversation.__slots__
_MEMBER = Member.__slots__
_INVITATION = Invitation.__slots__


@dataclass(frozen=True, slots=True)
class UserConversations:
    """The conversations one user takes part in; others do not exist here."""

    database: Database
    user_id: str

    async def get(self, conversation_id: str) -> Conversation:
        """One conversation; raises ``NotFound``, also for what is no id at all."""
        await self.require(conversation_id)
        return await ConversationRepository(self.database).get(conversation_id)

    async def members(self, conversation_id: str) -> builtins.list[Member]:
        """The members, in the order in which they were added; raises ``NotFound``."""
        await self.require(conversation_id)
        return await ConversationRepository(self.database).members(conversation_id)

    async def invited(self, conversation_id: str) -> builtins.list[Invitation]:
        """Who was invited and has not answered; raises ``NotFound``."""
        await self.require(conversation_id)
        return await ConversationRepository(self.database).invited(conversation_id)

    async def invitations(self, *, limit: int = 100) -> builtins.list[Invitation]:
        """Those that the user has not answered, the latest first."""
        return await ConversationRepository(self.database).invitations(self.user_id, limit=limit)

    async def list(
        self, *, limit: int = 20, before: tuple[str, str] | None = None
    ) -> builtins.list[Conversation]:
        """Those with the latest message first, from the beginning or after ``before``.

        That is the ``last_message_at`` and ``id`` of the last one known.
        """
        return await ConversationRepository(self.database).list(
            self.user_id, limit=limit, before=before
        )

    async def require(self, conversation_id: str) -> None:
        """Raises ``NotFound`` unless the user takes part."""
        if is_id(conversation_id) and await self.database.select(
            "conversation_members",
            columns=("role",),
            where=[
                Filter("conversation_id", "eq", conversation_id),
                Filter("user_id", "eq", self.user_id),
            ],
        ):
            return
        raise NotFound("There is no such conversation.")


@dataclass(frozen=True, slots=True)
class ConversationRepository:
    """All conversations, as the service sees them.

    Where a method takes ``user_id`` it acts in the name of that user: what is not theirs is refused
    as ``not_found``. Without one it acts as the operator.
    """

    database: Database

    async def create(
        self,
        user_id: str,
        *,
        id: str | None = None,  # noqa: A002 - the column's name
        title: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Conversation:
        """A conversation of this owner; the same ``id`` again is answered with what it made.

        Without one it gets an id here, so that a call that is repeated makes no second one.
        """
        row = await self.database.call(
            "create_conversation",
            title=title,
            metadata=dict(metadata or {}),
            conversation_id=id or str(uuid4()),
            user_id=user_id,
        )
        return _conversation(row)

    async def get(self, conversation_id: str) -> Conversation:
        """One conversation; raises ``NotFound``."""
        rows = await self.database.select(
            "conversations", columns=_CONVERSATION, where=[Filter("id", "eq", conversation_id)]
        )
        if not rows:
            raise NotFound("There is no such conversation.")
        return Conversation(**rows[0])

    async def list(
        self, user_id: str, *, limit: int = 20, before: tuple[str, str] | None = None
    ) -> builtins.list[Conversation]:
        """Those this user takes part in; see ``UserConversations.list``."""
        cursor = before and {"last_message_at": before[0], "id": before[1]}
        answer = await self.database.call(
            "list_conversations", request={"user_id": user_id, "limit": limit, "before": cursor}
        )
        return [_conversation(row) for row in answer["conversations"]]

    async def update(
        self,
        conversation_id: str,
        *,
        title: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        user_id: str | None = None,
    ) -> Conversation:
        """Change title or metadata, as the owner may; None leaves what there is."""
        row = await self.database.call(
            "update_conversation",
            conversation_id=conversation_id,
            title=title,
            metadata=None if metadata is None else dict(metadata),
            user_id=user_id,
        )
        return _conversation(row)

    async def delete(self, conversation_id: str, *, user_id: str | None = None) -> Row:
        """Delete it with its messages, as the owner may; what is open in it is cancelled first.

        Answers what to do about it: ``{terminal_events, cancel, accounts}`` as ``post_message`` does.
        """
        return dict(
            await self.database.call(
                "delete_conversation", conversation_id=conversation_id, user_id=user_id
            )
        )

    async def members(self, conversation_id: str) -> builtins.list[Member]:
        """The members, in the order in which they were added."""
        rows = await self.database.select(
            "conversation_members",
            columns=_MEMBER,
            where=[Filter("conversation_id", "eq", conversation_id)],
            order=[Order("added_at"), Order("user_id")],
        )
        return [Member(**row) for row in rows]

    async def add_members(
        self, conversation_id: str, users: Sequence[str]
    ) -> builtins.list[Member]:
        """Add users without an invitation, as the operator may; returns all members."""
        answer = await self.database.call(
            "add_members", conversation_id=conversation_id, members=list(users)
        )
        return [Member(**row) for row in answer["members"]]

    async def invite(
        self, conversation_id: str, users: Sequence[str], *, user_id: str | None = None
    ) -> builtins.list[Invitation]:
        """Ask users to take part, as the owner may; all open invitations are answered.

        Whether there are such users is not looked at.
        """
        answer = await self.database.call(
            "invite_members",
            conversation_id=conversation_id,
            members=list(users),
            user_id=user_id,
        )
        return [Invitation(**row) for row in answer["invitations"]]

    async def invited(self, conversation_id: str) -> builtins.list[Invitation]:
        """Who was invited and has not answered, in the order of the invitations."""
        rows = await self.database.select(
            "conversation_invitations",
            columns=_INVITATION,
            where=[Filter("conversation_id", "eq", conversation_id)],
            order=[Order("created_at"), Order("user_id")],
        )
        return [Invitation(**row) for row in rows]

    async def invitations(self, user_id: str, *, limit: int = 100) -> builtins.list[Invitation]:
        """Those that this user has not answered, the latest first."""
        answer = await self.database.call(
            "list_invitations", request={"user_id": user_id, "limit": limit}
        )
        return [Invitation(**row) for row in answer["invitations"]]

    async def answer_invitation(self, conversation_id: str, user_id: str, *, accept: bool) -> None:
        """Take part, or not, as who was invited; raises ``Refused`` (``not_found``)."""
        await self.database.call(
            "answer_invitation", conversation_id=conversation_id, accept=accept, user_id=user_id
        )

    async def remove_member(
        self, conversation_id: str, member: str, *, user_id: str | None = None
    ) -> Row:
        """Remove a member, as the owner and the member themself may; their open chats are cancelled.
        An invitation is withdrawn.

        Answers what to do about it: ``{removed, terminal_events, cancel, dispatch, accounts}``.
        """
        return dict(
            await self.database.call(
                "remove_member", conversation_id=conversation_id, member=member, user_id=user_id
            )
        )


def _conversation(row: Row) -> Conversation:
    return Conversation(**{name: row[name] for name in _CONVERSATION})
