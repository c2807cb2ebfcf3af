"""Chatting straight from supabase-js: the functions as the signed-in user."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import asyncpg
import orjson
import pytest

from tests.lifecycle.world import World

pytestmark = pytest.mark.database

Browser: TypeAlias = "Callable[..., Awaitable[dict[str, Any]]]"


@pytest.fixture
async def browser(world: World) -> AsyncIterator[Browser]:
    """Calls a function as PostgREST does for a signed-in user; chats are open to them."""
    await world.type("chat", browser=True)
    connection = await asyncpg.connect(world.clean.authenticator_dsn)

    async def call(user: str | None, function: str, **arguments: Any) -> dict[str, Any]:
        claims = {
            "role": "authenticated",
            "sub": user,
            "is_anonymous": arguments.pop("anonymous", 0),
        }
        named = ", ".join(f"{name} => ${n}" for n, name in enumerate(arguments, 1))
        async with connection.transaction():
            await connection.execute("set local role authenticated")
            await connection.execute(
                "select set_config('request.jwt.claims', $1, true)", orjson.dumps(claims).decode()
            )
            answer = await connection.fetchval(
                f"select uvian.{function}({named})::text", *arguments.values()
            )
        return dict(orjson.loads(answer))

    yield call
    await connection.close()


async def test_a_signed_in_user_chats_from_the_browser(world: World, browser: Browser) -> None:
    """Makes a conversation, another accepts and posts; the sweep dispatches at once."""
    user, friend = await world.user(), await world.user()
    made = await browser(user, "create_conversation", title="Logos")
    await browser(
        user, "invite_members", conversation_id=made["id"], members=orjson.dumps([friend]).decode()
    )
    await browser(friend, "answer_invitation", conversation_id=made["id"], accept=True)
    posted = await browser(friend, "post_message", conversation_id=made["id"], content="Why?")
    assert set(posted) == {"message", "job", "created", "accounts"}
    assert (posted["message"]["user_id"], posted["job"]["user_id"]) == (friend, friend)
    assert [d["id"] for d in (await world.sweep())["dispatch"]] == [posted["job"]["id"]]
    assert (await browser(friend, "remove_member", conversation_id=made["id"], member=friend)) == {
        "removed": True
    }
    assert await browser(user, "update_conversation", conversation_id=made["id"], title="Old")
    assert (await browser(user, "delete_conversation", conversation_id=made["id"])) == {
        "deleted": True
    }


async def test_a_browser_acts_for_nobody_else(world: World, browser: Browser) -> None:
    """The user that is named is not looked at; what the caller takes no part in is not found."""
    owner, stranger = await world.user(), await world.user()
    conversation = await world.conversation(owner)
    calls: list[tuple[str, dict[str, Any]]] = [
        ("post_message", {"content": "Why?"}),
        ("update_conversation", {"title": "Mine"}),
        ("invite_members", {"members": f'["{stranger}"]'}),
        ("remove_member", {"member": stranger}),
        ("delete_conversation", {}),
    ]
    for function, arguments in calls:
        for id_ in (conversation, str(uuid.uuid4())):
            with pytest.raises(asyncpg.PostgresError, match="not_found"):
                await browser(stranger, function, conversation_id=id_, user_id=owner, **arguments)
        with pytest.raises(asyncpg.PostgresError, match="unauthorized"):
            await browser(None, function, conversation_id=conversation, user_id=owner, **arguments)
    made = await browser(stranger, "create_conversation", user_id=owner)
    assert made["user_id"] == stranger


async def test_an_interruption_tells_a_user_nothing_of_others(
    world: World, browser: Browser
) -> None:
    """What ended and whose balance changed is the service's to announce."""
    await world.type("chat", price=2)
    one, two = await world.user(10), await world.user(10)
    conversation = await world.conversation(one, two)
    waiting = (await world.post(conversation, one))["job"]
    posted = await browser(
        two, "post_message", conversation_id=conversation, content="No!", on_busy="interrupt"
    )
    assert waiting["id"] not in orjson.dumps(posted).decode()
    assert [a["user_id"] for a in posted["accounts"]] == [two]
    assert (await world.row(waiting))["status"] == "cancelled"


async def test_the_operator_opens_chats_to_browsers(world: World, browser: Browser) -> None:
    """job_types.browser and anonymous hold for posts as for submit_job."""
    user = await world.user()
    conversation = await world.conversation(user)
    post: dict[str, Any] = {"conversation_id": conversation, "content": "Why?"}
    with pytest.raises(asyncpg.PostgresError, match="type_not_open"):
        await browser(user, "post_message", anonymous=True, **post)
    await world.type("chat", anonymous=True)
    assert (await browser(user, "post_message", anonymous=True, **post))["created"]
    await world.type("chat", browser=False)
    with pytest.raises(asyncpg.PostgresError, match="type_not_open"):
        await browser(user, "post_message", **post)


async def test_an_answer_may_be_asked_for_once_more(world: World, browser: Browser) -> None:
    """submit_job makes a chat for a message that is there, in a conversation of one's own."""
    user, stranger = await world.user(), await world.user()
    conversation = await world.conversation(user)
    first = await world.post(conversation, user)
    again = orjson.dumps(
        {"conversation_id": conversation, "message_id": first["message"]["id"]}
    ).decode()
    made = await browser(user, "submit_job", type="chat", input=again)
    settled = await world.answered(first["job"])
    assert [d["id"] for d in settled["dispatch"]] == [made["job"]["id"]]
    with pytest.raises(asyncpg.PostgresError, match="not_found"):
        await browser(stranger, "submit_job", type="chat", input=again)
