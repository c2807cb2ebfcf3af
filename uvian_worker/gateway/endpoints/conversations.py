"""``/v1/conversations``: who takes part, and what they are called."""

from __future__ import annotations

__all__ = ["Conversation", "ConversationEndpoints", "ConversationPath"]

from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import Field

from repositories.conversations import UserConversations
from repositories.database import Database
from uvian_worker.client import Client
from uvian_worker.gateway.http.operations import (
    STORABLE,
    Answer,
    Endpoints,
    Operation,
    Parameters,
    Request,
    Shown,
)
from uvian_worker.gateway.http.pagination import Page, PageCursor, PageQuery, shown_of

Title = Annotated[str, Field(min_length=1, max_length=200, pattern=STORABLE)]


class Conversation(Shown):
    """What messages belong to; ``user_id`` is its owner."""

    id: UUID
    user_id: UUID
    title: str | None
    metadata: dict[str, Any]
    last_position: int
    last_message_at: datetime
    created_at: datetime
    updated_at: datetime


class ConversationPage(Page):
    """Some conversations, the latest message first."""

    items: list[Conversation]


class Member(Shown):
    """Somebody who reads and writes; ``role`` is owner or member."""

    user_id: UUID
    role: str
    added_at: datetime


class Members(Shown):
    """All who take part, in the order they were added."""

    items: list[Member]


class NewConversation(Parameters):
    """A conversation to be made. The same ``id`` of a user makes one conversation."""

    id: UUID | None = None
    """Chosen by the client, so that a request whose answer was lost can be sent again."""
    title: Title | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)


class ConversationChange(Parameters):
    """What is to change; what is left out, or null, stays."""

    title: Title | None = None
    metadata: dict[str, Any] | None = None


class ConversationPath(Parameters):
    """Which conversation."""

    conversation_id: UUID


class MemberPath(ConversationPath):
    """Which member of it."""

    user_id: UUID


_NOT_YOURS = ("not_found", "owner_only")


_ONE: Final = "/v1/conversations/{conversation_id}"
_CREATE_PROBLEMS: Final = (
    "invalid_conversation", "conflict", "type_not_open", "type_disabled", "unknown_type",
    "too_many_conversations",
)  # fmt: skip


class ConversationEndpoints(Endpoints, tag="conversations"):
    """The handlers. What a user takes no part in does not exist."""

    def __init__(self, database: Database, client: Client) -> None:
        self._database = database
        self._client = client

    @Operation(
        "createConversation",
        "POST",
        "/v1/conversations",
        body=NewConversation,
        answers={201: Conversation},
        names="conversation_id",
        problems=_CREATE_PROBLEMS,
    )
    async def create(self, request: Request[Any, Any, NewConversation]) -> Answer:
        """Create a conversation."""
        made = await self._client.conversations.create(
            request.user.id,
            title=request.body.title,
            metadata=request.body.metadata,
            conversation_id=str(request.body.id) if request.body.id is not None else None,
            door=request.user.door,
        )
        return Answer(
            await self._get(request.user.id, made),
            status=201,
            headers={"Location": f"/v1/conversations/{made}"},
        )

    @Operation(
        "listConversations",
        "GET",
        "/v1/conversations",
        query=PageQuery,
        answers={200: ConversationPage},
    )
    async def list(self, request: Request[Any, PageQuery, Any]) -> Answer:
        """Your conversations, the one with the latest message first."""
        limit = request.query.limit
        before = PageCursor.read(request.query.cursor) if request.query.cursor is not None else None
        found = await UserConversations(self._database, request.user.id).list(
            limit=limit + 1, before=before
        )
        shown, more = shown_of(found, limit)
        return Answer(
            ConversationPage(
                items=[Conversation.model_validate(each) for each in shown],
                next_cursor=PageCursor(shown[-1].last_message_at, shown[-1].id).written()
                if more
                else None,
            )
        )

    @Operation(
        "getConversation",
        "GET",
        _ONE,
        path=ConversationPath,
        answers={200: Conversation},
        problems=("not_found",),
    )
    async def get(self, request: Request[ConversationPath, Any, Any]) -> Answer:
        """One conversation."""
        return Answer(await self._get(request.user.id, str(request.path.conversation_id)))

    @Operation(
        "updateConversation",
        "PATCH",
        _ONE,
        path=ConversationPath,
        body=ConversationChange,
        answers={200: Conversation},
        problems=(*_NOT_YOURS, "invalid_conversation"),
    )
    async def update(self, request: Request[ConversationPath, Any, ConversationChange]) -> Answer:
        """Change title or metadata, as its owner."""
        conversation_id = str(request.path.conversation_id)
        await self._client.conversations.update(
            conversation_id,
            title=request.body.title,
            metadata=request.body.metadata,
            user_id=request.user.id,
        )
        return Answer(await self._get(request.user.id, conversation_id))

    @Operation(
        "deleteConversation",
        "DELETE",
        _ONE,
        path=ConversationPath,
        answers={204: None},
        problems=_NOT_YOURS,
    )
    async def delete(self, request: Request[ConversationPath, Any, Any]) -> Answer:
        """Delete it with its messages, as its owner; open chats are cancelled."""
        conversation_id = str(request.path.conversation_id)
        await self._client.conversations.delete(conversation_id, user_id=request.user.id)
        return Answer(None, status=204)

    @Operation(
        "listMembers",
        "GET",
        f"{_ONE}/members",
        path=ConversationPath,
        answers={200: Members},
        problems=("not_found",),
    )
    async def members(self, request: Request[ConversationPath, Any, Any]) -> Answer:
        """The members of a conversation."""
        mine = UserConversations(self._database, request.user.id)
        found = await mine.members(str(request.path.conversation_id))
        return Answer(Members(items=[Member.model_validate(each) for each in found]))

    @Operation(
        "removeMember",
        "DELETE",
        f"{_ONE}/members/{{user_id}}",
        path=MemberPath,
        answers={204: None},
        problems=(*_NOT_YOURS, "owner_stays"),
    )
    async def remove_member(self, request: Request[MemberPath, Any, Any]) -> Answer:
        """Remove a member or withdraw an invitation, as the owner; or leave."""
        conversation_id, member = str(request.path.conversation_id), str(request.path.user_id)
        await self._client.conversations.remove_member(
            conversation_id, member, user_id=request.user.id
        )
        return Answer(None, status=204)

    async def _get(self, user_id: str, conversation_id: str) -> Conversation:
        found = await UserConversations(self._database, user_id).get(conversation_id)
        return Conversation.model_validate(found)
