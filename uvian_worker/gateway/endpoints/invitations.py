"""``/v1/invitations``: who is invited to a conversation accepts or declines."""

from __future__ import annotations

__all__ = ["InvitationEndpoints"]

from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import Field

from repositories.conversations import UserConversations
from repositories.database import Database
from uvian_worker.client import Client
from uvian_worker.gateway.endpoints.conversations import Conversation, ConversationPath
from uvian_worker.gateway.http.operations import (
    Answer,
    Endpoints,
    Operation,
    Parameters,
    Request,
    Shown,
)


class Invitation(Shown):
    """Somebody who was invited and has not answered. Maybe there is no such user."""

    conversation_id: UUID
    user_id: UUID
    invited_by: UUID | None
    """Null: the operator."""
    title: str | None
    """Of the conversation, as it was then."""
    created_at: datetime


class Invitations(Shown):
    """Those that are not answered."""

    items: list[Invitation]


class NewInvitations(Parameters):
    """Users to invite, by id."""

    user_ids: Annotated[list[UUID], Field(min_length=1, max_length=100)]


_OF_ONE: Final = "/v1/conversations/{conversation_id}/invitations"
_MINE: Final = "/v1/invitations"
_INVITE_PROBLEMS: Final = (
    "not_found", "owner_only", "type_not_open", "type_disabled", "unknown_type",
    "too_many_members",
)  # fmt: skip


class InvitationEndpoints(Endpoints, tag="conversations"):
    """The handlers. What a user neither takes part in nor is invited to does not exist."""

    def __init__(self, database: Database, client: Client) -> None:
        self._database = database
        self._client = client

    @Operation(
        "inviteMembers",
        "POST",
        _OF_ONE,
        path=ConversationPath,
        body=NewInvitations,
        answers={200: Invitations},
        problems=_INVITE_PROBLEMS,
    )
    async def invite(self, request: Request[ConversationPath, Any, NewInvitations]) -> Answer:
        """Invite users, as the owner; the answer is the same whether they exist or not."""
        await self._client.conversations.invite(
            str(request.path.conversation_id),
            [str(user_id) for user_id in request.body.user_ids],
            user_id=request.user.id,
            door=request.user.door,
        )
        return await self.invited(request)

    @Operation(
        "listInvited",
        "GET",
        _OF_ONE,
        path=ConversationPath,
        answers={200: Invitations},
        problems=("not_found",),
    )
    async def invited(self, request: Request[ConversationPath, Any, Any]) -> Answer:
        """Who was invited and has not answered."""
        conversations = UserConversations(self._database, request.user.id)
        found = await conversations.invited(str(request.path.conversation_id))
        return Answer(Invitations(items=[Invitation.model_validate(each) for each in found]))

    @Operation("listInvitations", "GET", _MINE, answers={200: Invitations})
    async def mine(self, request: Request[Any, Any, Any]) -> Answer:
        """The conversations you are invited to, the latest first."""
        found = await UserConversations(self._database, request.user.id).invitations()
        return Answer(Invitations(items=[Invitation.model_validate(each) for each in found]))

    @Operation(
        "acceptInvitation",
        "POST",
        f"{_MINE}/{{conversation_id}}/accept",
        path=ConversationPath,
        answers={200: Conversation},
        problems=("not_found",),
    )
    async def accept(self, request: Request[ConversationPath, Any, Any]) -> Answer:
        """Accept an invitation."""
        conversation_id = await self._answer(request, accept=True)
        found = await UserConversations(self._database, request.user.id).get(conversation_id)
        return Answer(Conversation.model_validate(found))

    @Operation(
        "declineInvitation",
        "POST",
        f"{_MINE}/{{conversation_id}}/decline",
        path=ConversationPath,
        answers={204: None},
        problems=("not_found",),
    )
    async def decline(self, request: Request[ConversationPath, Any, Any]) -> Answer:
        """Decline an invitation."""
        await self._answer(request, accept=False)
        return Answer(None, status=204)

    async def _answer(self, request: Request[ConversationPath, Any, Any], *, accept: bool) -> str:
        conversation_id = str(request.path.conversation_id)
        await self._client.conversations.answer_invitation(
            conversation_id, user_id=request.user.id, accept=accept
        )
        return conversation_id
