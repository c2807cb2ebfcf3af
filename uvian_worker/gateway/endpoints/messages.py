"""``/v1/conversations/{id}/messages``: read them in their order, post one, stop its answer."""

from __future__ import annotations

__all__ = ["MessageEndpoints"]

from datetime import datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import Field, model_validator

from repositories.conversations import UserConversations
from repositories.database import Database
from repositories.messages import MessageRepository
from uvian_worker.client import Client
from uvian_worker.gateway.endpoints.conversations import ConversationPath
from uvian_worker.gateway.endpoints.jobs import (
    IdempotencyKey,
    MaxCost,
    Submitted,
    idempotency_key_of,
)
from uvian_worker.gateway.http.operations import (
    STORABLE,
    Answer,
    Endpoints,
    Operation,
    Parameters,
    Request,
    Shown,
)
from uvian_worker.gateway.http.pagination import shown_of
from uvian_worker.gateway.job_types import JobTypes

Position = Annotated[int, Field(ge=0, lt=2**63)]


class Message(Shown):
    """One message. ``position`` only grows in a conversation: what comes later stands later."""

    id: UUID
    position: int
    role: str
    content: str
    status: str
    user_id: UUID | None
    job_id: UUID | None
    reply_to: UUID | None
    usage: dict[str, Any] | None
    created_at: datetime


class Messages(Shown):
    """Some messages in their order: go on before the position of the first, or after that of the last."""

    items: list[Message]
    more: bool
    """There are others, in the direction that was requested."""


class MessageQuery(Parameters):
    """Which messages: those before or after a position, else the latest."""

    limit: Annotated[int, Field(ge=1, le=200)] = 50
    before: Position | None = None
    after: Position | None = None

    @model_validator(mode="after")
    def _one_direction(self) -> MessageQuery:
        if self.before is not None and self.after is not None:
            raise ValueError("Give the position before or after, not both.")
        return self


class NewMessage(Parameters):
    """A message, and how it is to be answered."""

    content: Annotated[str, Field(min_length=1, pattern=STORABLE)]
    on_busy: Literal["enqueue", "reject", "interrupt"] = "enqueue"
    """While another one is being answered: wait, be refused, or take its place."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Input of the chat: `system_prompt`, `model`, `temperature`, `max_tokens`."""
    idempotency_key: IdempotencyKey | None = None
    max_cost: MaxCost | None = None


class Posted(Shown):
    """What was stored, and the chat that answers it."""

    id: UUID
    position: int
    answer_id: UUID
    """The id that the answer will have."""
    job: Submitted


class Stop(Parameters):
    """Which answer is to be stopped."""

    job_id: UUID | None = None
    """The chat that writes it; without it, whichever has the turn when the request arrives."""


class Stopped(Shown):
    """Whether there was an answer to stop."""

    stopped: bool


_ONE: Final = "/v1/conversations/{conversation_id}"
_POST_PROBLEMS: Final = (
    "not_found", "conversation_busy", "message_too_large", "input_too_large", "invalid_message",
    "type_not_open", "type_disabled", "unknown_type", "not_allowed", "insufficient_credits",
    "too_many_queued", "cost_exceeds_max", "idempotency_conflict",
)  # fmt: skip


class MessageEndpoints(Endpoints, tag="conversations"):
    """The handlers. What a user takes no part in does not exist."""

    def __init__(self, database: Database, client: Client, types: JobTypes) -> None:
        self._database = database
        self._client = client
        self._types = types

    @Operation(
        "listMessages",
        "GET",
        f"{_ONE}/messages",
        path=ConversationPath,
        query=MessageQuery,
        answers={200: Messages},
        problems=("not_found",),
    )
    async def list(self, request: Request[ConversationPath, MessageQuery, Any]) -> Answer:
        """Messages in order: the latest ones, or those before or after a position."""
        conversation_id, query = str(request.path.conversation_id), request.query
        await UserConversations(self._database, request.user.id).require(conversation_id)
        backwards = query.after is None
        found = await MessageRepository(self._database).list(
            conversation_id,
            after_position=query.after,
            before_position=query.before,
            limit=query.limit + 1,  # one more shows whether there are others
            newest_first=backwards,
        )
        shown, more = shown_of(found, query.limit)
        in_order = reversed(shown) if backwards else shown
        return Answer(
            Messages(items=[Message.model_validate(each) for each in in_order], more=more)
        )

    @Operation(
        "postMessage",
        "POST",
        f"{_ONE}/messages",
        path=ConversationPath,
        body=NewMessage,
        answers={201: Posted, 200: Posted},
        problems=_POST_PROBLEMS,
    )
    async def post(self, request: Request[ConversationPath, Any, NewMessage]) -> Answer:
        """Post a message to be answered; 200 if the idempotency key was used before."""
        conversation_id, body = str(request.path.conversation_id), request.body
        chat = await self._types.require_open(request.user, "chat")
        chat.require_valid({**body.options, "conversation_id": conversation_id}, "options")
        posted = await self._client.conversations.post(
            request.user.id,
            conversation_id,
            body.content,
            on_busy=body.on_busy,
            options=body.options,
            idempotency_key=idempotency_key_of(request),
            max_cost=body.max_cost,
            door=request.user.door,
        )
        return Answer(
            Posted(
                id=UUID(posted.id),
                position=posted.position,
                answer_id=UUID(posted.answer_id),
                job=Submitted.of(posted.job),
            ),
            status=201 if posted.job.created else 200,
        )

    @Operation(
        "stopAnswer",
        "POST",
        f"{_ONE}/stop",
        path=ConversationPath,
        body=Stop,
        answers={200: Stopped},
        problems=("not_found",),
    )
    async def stop(self, request: Request[ConversationPath, Any, Stop]) -> Answer:
        """Stop the current or next answer; what was written of it is stored."""
        job_id = request.body.job_id
        stopped = await self._client.conversations.stop_answer(
            str(request.path.conversation_id),
            job_id=None if job_id is None else str(job_id),
            user_id=request.user.id,
        )
        return Answer(Stopped(stopped=stopped))
