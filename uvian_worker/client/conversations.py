"""Conversations, their members and their messages, for any number of users."""

from __future__ import annotations

__all__ = ["Conversations"]

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, Literal

from uvian_common.answers import answer_id
from uvian_worker.client.database import ClientDatabase
from uvian_worker.client.handles import Door, PostedMessage, handle_of
from uvian_worker.client.inputs import Inputs
from uvian_worker.events.envelope import Envelope
from uvian_worker.events.reader import Expired, Reader, Snapshot
from uvian_worker.redis.connection import FAULTS
from uvian_worker.redis.keys import Keys, conversation_topic
from uvian_worker.sweep.outbox import Outbox

log = logging.getLogger("uvian.client")

_REDIS_SECONDS: Final = 1.0  #: that a call waits for Redis to publish that a member is gone


class Conversations:
    """``Client.conversations``. Check who the user is before you call it.

    Every call may raise ``DatabaseAway`` (after some seconds of trying; the request may have been carried
    out all the same) and ``NotSetUp``.
    """

    def __init__(
        self,
        database: ClientDatabase,
        redis: Any,
        namespace: str,
        *,
        inputs: Inputs,
        outbox: Outbox,
        reader: Reader,
    ) -> None:
        self._database = database
        self._redis = redis
        self._keys = Keys(namespace)
        self._inputs = inputs
        self._outbox = outbox
        self._reader = reader

    async def create(
        self,
        user_id: str,
        *,
        title: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        conversation_id: str | None = None,
        door: Door | None = None,
    ) -> str:
        """A conversation of this user; its id.

        Who chooses the ``conversation_id`` may call again after a lost answer, and makes one. Raises
        ``JobRefused`` (``conflict``: the id is another user's; by a ``door`` also ``type_not_open`` and
        ``too_many_conversations``).
        """
        arguments = {
            "conversation_id": conversation_id or str(uuid.uuid4()),
            "user_id": user_id,
            "title": title,
            "metadata": dict(metadata or {}),
            "door": door,
        }
        return str((await self._database.call("create_conversation", arguments))["id"])

    async def post(
        self,
        user_id: str,
        conversation_id: str,
        content: str,
        *,
        on_busy: Literal["enqueue", "reject", "interrupt"] = "enqueue",
        options: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        max_cost: Decimal | None = None,
        door: Door | None = None,
    ) -> PostedMessage:
        """A user's message, and the chat that answers it.

        ``on_busy`` says what happens while another message is being answered: this one waits, is
        refused (``conversation_busy``), or takes its place. ``options`` go into the chat's input
        (``system_prompt``, ``model``, ``temperature``, ``max_tokens``). Raises ``JobRefused``.
        """
        arguments = {
            "user_id": user_id,
            "conversation_id": conversation_id,
            "content": content,
            "on_busy": on_busy,
            "options": dict(options or {}),
            # A key of ours, so that repeating the call after a lost reply cannot post it twice.
            "idempotency_key": idempotency_key or f"post-{uuid.uuid4()}",
            "max_cost": None if max_cost is None else str(max_cost),
            "door": door,
        }
        chat = {**(options or {}), "conversation_id": conversation_id}
        await self._inputs.require_valid("chat", chat, "options")
        answer = await self._database.call("post_message", arguments)
        await self._outbox.deliver(answer)
        message, job = answer["message"], answer["job"]
        handle = handle_of(job, created=answer["created"] or not idempotency_key)
        return PostedMessage(message["id"], message["position"], handle, answer_id(job["id"]))

    async def stop_answer(
        self, conversation_id: str, *, job_id: str | None = None, user_id: str | None = None
    ) -> bool:
        """Stop the answer that is being written, or is about to be; whether there was one.

        Its text so far is stored, and the chat that waits behind it is next. Name the chat by ``job_id``
        where you know it: called twice, or a moment too late, no other is stopped. Without it the call
        is not repeated, and raises ``DatabaseAway`` where the outcome is unknown. With ``user_id`` a
        conversation they take no part in is ``not_found``. Raises ``JobRefused``.
        """
        arguments = {"conversation_id": conversation_id, "user_id": user_id, "job_id": job_id}
        answer = await self._database.call("stop_answer", arguments, repeat=job_id is not None)
        await self._outbox.deliver(answer)
        return bool(answer["stopped"])

    async def update(
        self,
        conversation_id: str,
        *,
        title: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        user_id: str | None = None,
    ) -> None:
        """Change title or metadata; None leaves what there is.

        With ``user_id``, here and in the three below, only what that user may do is done: others get
        ``not_found`` or ``owner_only``. Raises ``JobRefused``.
        """
        arguments = {
            "conversation_id": conversation_id,
            "title": title,
            "metadata": None if metadata is None else dict(metadata),
            "user_id": user_id,
        }
        await self._database.call("update_conversation", arguments)

    async def delete(self, conversation_id: str, *, user_id: str | None = None) -> None:
        """Delete a conversation with its messages; what is being answered in it is cancelled first."""
        arguments = {"conversation_id": conversation_id, "user_id": user_id}
        answer = await self._database.call("delete_conversation", arguments)
        await self._publish_removal(conversation_id)
        await self._outbox.deliver(answer)

    async def add_members(self, conversation_id: str, members: Sequence[str]) -> None:
        """Let users take part without asking them: as the operator, not in a user's name (``invite``).

        Those who take part already are fine. Raises ``JobRefused`` (``unknown_user``).
        """
        arguments = {"conversation_id": conversation_id, "members": list(members)}
        await self._database.call("add_members", arguments)

    async def invite(
        self,
        conversation_id: str,
        members: Sequence[str],
        *,
        user_id: str | None = None,
        door: Door | None = None,
    ) -> None:
        """Ask users to take part; they do when they accept. Whether they exist is not looked at."""
        arguments = {
            "conversation_id": conversation_id,
            "members": list(members),
            "user_id": user_id,
            "door": door,
        }
        await self._database.call("invite_members", arguments)

    async def answer_invitation(
        self, conversation_id: str, *, user_id: str, accept: bool = True
    ) -> None:
        """Take part, or not, as the user who was invited. Raises ``JobRefused`` (``not_found``)."""
        arguments = {"conversation_id": conversation_id, "user_id": user_id, "accept": accept}
        await self._database.call("answer_invitation", arguments)

    async def remove_member(
        self, conversation_id: str, member: str, *, user_id: str | None = None
    ) -> None:
        """Let a user take part no more, as the owner or that user may; their open chats are cancelled.

        An invitation that was not answered is withdrawn.
        """
        arguments = {"conversation_id": conversation_id, "member": member, "user_id": user_id}
        answer = await self._database.call("remove_member", arguments)
        await self._publish_removal(conversation_id)
        await self._outbox.deliver(answer)

    async def follow(
        self, conversation_id: str, cursor: str | None = None
    ) -> AsyncIterator[Envelope | Snapshot | Expired]:
        """The messages of a conversation as they are written, from now on or after ``cursor``.

        Messages that are complete are rows: read them first. A ``MessageAssembler`` puts the others
        together. Ends when you stop.
        """
        async for event in self._reader.follow(conversation_topic(conversation_id), cursor):
            yield event

    async def _publish_removal(self, conversation_id: str) -> None:
        """Gateways end the subscriptions of removed members; without Redis they notice a minute later."""
        try:
            async with asyncio.timeout(_REDIS_SECONDS):
                await self._redis.publish(self._keys.members, str(uuid.UUID(conversation_id)))
        except FAULTS as error:
            log.debug(
                "conversation %s: gateways notice a removal later: %s", conversation_id, error
            )
