"""post_message: a message and its chat in one transaction; who else is busy is decided in the database."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any, TypeAlias

import pytest

from repositories import errors
from repositories.messages import MessageRepository
from tests.adapters import over_postgres_only
from tests.lifecycle.world import World

pytestmark = [pytest.mark.database, over_postgres_only]

Browser: TypeAlias = "Callable[..., Awaitable[dict[str, Any]]]"


async def refused(attempt: Awaitable[Any]) -> str:
    """The code of the refusal that this must end with."""
    with pytest.raises(errors.Refused) as refusal:
        await attempt
    return refusal.value.code


async def statuses(world: World, conversation: str) -> list[str]:
    """Of the chats of a conversation, in the order of their questions."""
    rows = await world.hand.fetch(
        "select j.status from uvian.messages m join uvian.jobs j on j.id = m.job_id "
        "where m.conversation_id = $1 and m.role = 'user' order by m.position",
        conversation,
    )
    return [row["status"] for row in rows]


# ─── stored together ─────────────────────────────────────────────────────────────────────────────


async def test_a_message_and_its_chat_are_stored_together(world: World) -> None:
    """Each knows the other; the chat is paid for and ready to be dispatched."""
    await world.type("chat", price=2)
    user = await world.user(10)
    conversation = await world.conversation(user)
    posted = await MessageRepository(world.service).post(
        conversation, "Why?", user_id=user, options={"temperature": 0.1}
    )
    message, job = posted.message, await world.row(posted.job)
    assert (message.position, message.role, message.content) == (1, "user", "Why?")
    assert (message.user_id, message.job_id, message.status) == (user, job["id"], "completed")
    assert job["input"] == {
        "conversation_id": conversation,
        "message_id": message.id,
        "temperature": 0.1,
    }
    assert (job["type"], job["user_id"], job["conversation_id"]) == ("chat", user, conversation)
    assert posted.created
    assert [(d["id"], d["run"]) for d in posted.dispatch] == [(job["id"], 1)]
    assert [a["balance"] for a in posted.accounts] == ["8.000000"]
    assert (posted.cancel, posted.terminal_events) == ([], [])
    (row,) = await world.hand.fetch("select * from uvian.conversations")
    assert (row["last_position"], row["last_message_at"]) == (1, job["created_at"])


@pytest.mark.parametrize("on_busy", ["enqueue", "interrupt"])
async def test_what_keeps_the_chat_out_keeps_the_message_out(world: World, on_busy: str) -> None:
    """Without credits nothing is stored, and nothing that runs is interrupted for it."""
    await world.type("chat", price=2)
    user = await world.user(5)
    conversation = await world.conversation(user)
    for _ in range(2):
        await world.post(conversation, user)
    await world.type("chat", price=6)  # more than an interruption would give back
    attempt = world.post(conversation, user, on_busy=on_busy)
    assert await refused(attempt) == "insufficient_credits"
    assert len(await world.messages(conversation)) == 2
    assert await statuses(world, conversation) == ["queued", "queued"]
    assert await world.account(user) == (Decimal(1), Decimal(4))


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        ({"content": ""}, "invalid_message"),
        ({"content": " \n\t"}, "invalid_message"),
        ({"content": None}, "invalid_message"),
        ({"content": "ü" * 32_769}, "message_too_large"),
        ({"on_busy": "shout"}, "invalid_message"),
        ({"on_busy": None}, "invalid_message"),
        ({"options": [1]}, "invalid_message"),
        ({"options": {"x": "y" * 70_000}}, "input_too_large"),
        ({"max_cost": "1"}, "cost_exceeds_max"),
        ({"user_id": None}, "unknown_user"),
    ],
)
async def test_what_is_no_message_is_refused_in_words(
    world: World, bad: dict[str, Any], code: str
) -> None:
    """And nothing of it is stored."""
    await world.type("chat", price=2)
    user = await world.user(10)
    conversation = await world.conversation(user)
    request = {"conversation_id": conversation, "content": "Why?", "user_id": user, **bad}
    assert await refused(world.service.call("post_message", **request)) == code
    assert await world.messages(conversation) == []


async def test_text_that_postgres_refuses_is_a_data_error(world: World) -> None:
    """U+0000 has no place in a text; the caller hears of it, nothing is stored."""
    user = await world.user()
    conversation = await world.conversation(user)
    with pytest.raises(errors.DataError):
        await world.post(conversation, user, "a\u0000b")
    assert await world.messages(conversation) == []


async def test_only_members_post(world: World) -> None:
    """Another's conversation and none at all are the same."""
    owner, stranger = await world.user(), await world.user()
    conversation = await world.conversation(owner)
    for conversation_id in (conversation, str(uuid.uuid4())):
        for on_busy in ("enqueue", "reject", "interrupt"):
            attempt = world.post(conversation_id, stranger, on_busy=on_busy)
            assert await refused(attempt) == "not_found"


async def test_an_operator_may_close_chats(world: World) -> None:
    """Disabled, or too many waiting: as for every other type."""
    user = await world.user()
    conversation = await world.conversation(user)
    await world.type("chat", max_queued_per_user=1)
    await world.post(conversation, user)
    assert await refused(world.post(conversation, user)) == "too_many_queued"
    await world.type("chat", enabled=False)
    assert await refused(world.post(conversation, user)) == "type_disabled"


# ─── again ───────────────────────────────────────────────────────────────────────────────────────


async def test_the_same_key_makes_one_message_and_one_chat(world: World) -> None:
    """A lost reply is repeated, whatever has become of the first post since."""
    user = await world.user()
    conversation = await world.conversation(user)
    first = await world.post(conversation, user, on_busy="reject", idempotency_key="k")
    again = await world.post(conversation, user, on_busy="reject", idempotency_key="k")
    assert (again["message"], again["job"]["id"]) == (first["message"], first["job"]["id"])
    assert (first["created"], again["created"], again["dispatch"]) == (True, False, [])
    await world.answered(first["job"])
    again = await world.post(conversation, user, on_busy="interrupt", idempotency_key="k")
    assert (again["message"], again["job"]["status"]) == (first["message"], "completed")


@pytest.mark.parametrize("change", ["content", "options", "conversation", "type"])
async def test_a_key_that_was_used_for_another_post_is_refused(world: World, change: str) -> None:
    """The key names one request; nothing of the second is stored."""
    user = await world.user()
    conversation = await world.conversation(user)
    if change == "type":
        await world.create(user, idempotency_key="k")
    else:
        await world.post(conversation, user, "Why?", idempotency_key="k")
    there = len(await world.messages(conversation))
    attempt = world.post(
        await world.conversation(user) if change == "conversation" else conversation,
        user,
        "How?" if change == "content" else "Why?",
        options={"temperature": 1} if change == "options" else {},
        idempotency_key="k",
    )
    assert await refused(attempt) == "idempotency_conflict"
    assert len(await world.messages(conversation)) == there


async def test_a_key_is_its_users(world: World) -> None:
    """Two members may use the same."""
    one, two = await world.user(), await world.user()
    conversation = await world.conversation(one, two)
    for user in (one, two):
        assert (await world.post(conversation, user, idempotency_key="k"))["created"]


async def test_the_same_post_many_times_at_once_is_one(world: World) -> None:
    """One makes it, the others are answered with it."""
    user = await world.user()
    conversation = await world.conversation(user)
    answers = await asyncio.gather(
        *(
            world.post(conversation, user, on_busy=on_busy, idempotency_key="k")
            for on_busy in ["enqueue", "reject", "interrupt"] * 4
        )
    )
    assert sum(answer["created"] for answer in answers) == 1
    assert len({answer["message"]["id"] for answer in answers}) == 1
    assert len(await world.messages(conversation)) == 1
    assert await statuses(world, conversation) == ["queued"]
