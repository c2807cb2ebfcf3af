"""``/v1/invitations``: nobody takes part in a conversation unasked; who is asked accepts or declines."""

from __future__ import annotations

__all__ = ["invitation_operations"]

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field

from repositories.conversations import UserConversations
from repositories.database import Database
from uvian_worker.client import Client
from uvian_worker.gateway.endpoints.conversations import Conversation, ConversationPath
from uvian_worker.gateway.http.operations import Answer, Operation, Parameters, Request, Shown


class Invitation(Shown):
    """Somebody who was asked to take part and has not answered. Maybe there is no such user."""

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
    """Users to ask, by id."""

    user_ids: Annotated[list[UUID], Field(min_length=1, max_length=100)]


def invitation_operations(database: Database, client: Client) -> Sequence[Operation]:
    """The endpoints of invitations."""
    invitations = _Invitations(database, client)
    of_one = "/v1/conversations/{conversation_id}/invitations"
    mine = "/v1/invitations"
    common: Mapping[str, Any] = {"tag": "conversations"}
    return (
        Operation(
            id="inviteMembers",
            method="POST",
            route=of_one,
            summary="Invite users, as the owner; the answer is the same whether they exist or not",
            handle=invitations.invite,
            path=ConversationPath,
            body=NewInvitations,
            answers={200: Invitations},
            problems=(
                "not_found",
                "owner_only",
                "type_not_open",
                "type_disabled",
                "unknown_type",
                "too_many_members",
            ),
            **common,
        ),
        Operation(
            id="listInvited",
            method="GET",
            route=of_one,
            summary="Who was invited and has not answered",
            handle=invitations.invited,
            path=ConversationPath,
            answers={200: Invitations},
            problems=("not_found",),
            **common,
        ),
        Operation(
            id="listInvitations",
            method="GET",
            route=mine,
            summary="The conversations you are invited to, the latest first",
            handle=invitations.mine,
            answers={200: Invitations},
            **common,
        ),
        Operation(
            id="acceptInvitation",
            method="POST",
            route=f"{mine}/{{conversation_id}}/accept",
            summary="Accept an invitation",
            handle=invitations.accept,
            path=ConversationPath,
            answers={200: Conversation},
            problems=("not_found",),
            **common,
        ),
        Operation(
            id="declineInvitation",
            method="POST",
            route=f"{mine}/{{conversation_id}}/decline",
            summary="Decline an invitation",
            handle=invitations.decline,
            path=ConversationPath,
            answers={204: None},
            problems=("not_found",),
            **common,
        ),
    )


class _Invitations:
    """The handlers. What a user neither takes part in nor is invited to does not exist."""

    def __init__(self, database: Database, client: Client) -> None:
        self._database = database
        self._client = client

    async def invite(self, request: Request[ConversationPath, Any, NewInvitations]) -> Answer:
        await self._client.conversations.invite(
            str(request.path.conversation_id),
            [str(user_id) for user_id in request.body.user_ids],
            user_id=request.user.id,
            door=request.user.door,
        )
        return await self.invited(request)

    async def invited(self, request: Request[ConversationPath, Any, Any]) -> Answer:
        conversations = UserConversations(self._database, request.user.id)
        found = await conversations.invited(str(request.path.conversation_id))
        return Answer(Invitations(items=[Invitation.model_validate(each) for each in found]))

    async def mine(self, request: Request[Any, Any, Any]) -> Answer:
        found = await UserConversations(self._database, request.user.id).invitations()
        return Answer(Invitations(items=[Invitation.model_validate(each) for each in found]))

    async def accept(self, request: Request[ConversationPath, Any, Any]) -> Answer:
        conversation_id = str(request.path.conversation_id)
        await self._client.conversations.answer_invitation(
            conversation_id, user_id=request.user.id, accept=True
        )
        found = await UserConversations(self._database, request.user.id).get(conversation_id)
        return Answer(Conversation.model_validate(found))

    async def decline(self, request: Request[ConversationPath, Any, Any]) -> Answer:
        conversation_id = str(request.path.conversation_id)
        await self._client.conversations.answer_invitation(
            conversation_id, user_id=request.user.id, accept=False
        )
        return Answer(None, status=204)
