"""Who is removed from a conversation hears no more of it at once, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import asyncpg
import orjson
import pytest
from redis.asyncio import Redis

from executors import events
from tests.adapters import over_postgres_only
from tests.gateway.live.sockets import Happenings, Socket, connected
from tests.gateway.site import Caller, Site, someone

pytestmark = pytest.mark.database

SOON = 2.0  #: seconds


class Room:
    """A conversation of two who listen, and what is said in it."""

    def __init__(self, conversation: str, talk: Happenings, owner: Socket, guest: Socket) -> None:
        self.id = conversation
        self.topic = f"conversation:{conversation}"
        self.owner = owner
        self.guest = guest
        self._talk = talk

    async def say(self) -> str:
        """Somebody is answered; the answer's id."""
        message = someone()
        await self._talk.tell(
            events.MessageStarted(message_id=message, conversation_id=self.id, reply_to=None)
        )
        return message

    async def is_over_for(self, socket: Socket) -> None:
        """PublishedEvent soon, and once; what is said then is not for them."""
        async with asyncio.timeout(SOON):
            frame = await socket.hears("unsubscribed")
        assert (frame["topic"], frame["reason"]) == (self.topic, "not_found")
        await self.say()
        await socket.say(op="ping")
        await socket.hears("pong")
        answer = await socket.subscribe(self.topic)
        assert (answer["op"], answer["code"]) == ("error", "not_found")

    async def goes_on_for(self, socket: Socket) -> None:
        """Nothing was said but what is said in it."""
        await socket.say(op="ping")
        while (frame := await socket.hear())["op"] == "event":
            pass
        assert frame["op"] == "pong"
        message = await self.say()
        assert (await socket.hears("event"))["event"]["data"]["message_id"] == message


@pytest.fixture
async def owner(site: Site) -> Caller:
    """Whose conversation it is."""
    return await site.user()


@pytest.fixture
async def guest(site: Site) -> Caller:
    """Who was let in."""
    return await site.user()


@pytest.fixture
async def room(site: Site, owner: Caller, guest: Caller, redis_url: str) -> AsyncIterator[Room]:
    """Both listen, and have heard something."""
    conversation = await site.world.conversation(owner.user_id, guest.user_id)
    async with contextlib.AsyncExitStack() as stack:
        redis = Redis.from_url(redis_url)
        stack.push_async_callback(redis.aclose)
        talk = Happenings(redis, someone(), owner.user_id, conversation)
        stack.push_async_callback(talk.close)
        sockets = [await stack.enter_async_context(connected(each)) for each in (owner, guest)]
        room = Room(conversation, talk, *sockets)
        for socket in sockets:
            assert (await socket.subscribe(room.topic))["op"] == "subscribed"
        await room.say()
        for socket in sockets:
            await socket.hears("event")
        yield room


async def test_who_is_removed_hears_no_more_and_the_others_go_on(
    site: Site, owner: Caller, guest: Caller, room: Room
) -> None:
    """Within moments, straight to Postgres and through the API alone."""
    reply = await owner("DELETE", f"/v1/conversations/{room.id}/members/{guest.user_id}")
    assert reply.status == 204
    await room.is_over_for(room.guest)
    await room.goes_on_for(room.owner)


async def test_who_leaves_and_comes_back_listens_again(
    site: Site, owner: Caller, guest: Caller, room: Room
) -> None:
    """Being removed is no mark that stays."""
    at = f"/v1/conversations/{room.id}"
    assert (await guest("DELETE", f"{at}/members/{guest.user_id}")).status == 204
    await room.is_over_for(room.guest)
    await site.joined(owner, at, guest)
    assert (await room.guest.subscribe(room.topic))["op"] == "subscribed"
    await room.goes_on_for(room.guest)


async def test_a_deleted_conversation_is_over_for_all(
    site: Site, owner: Caller, room: Room
) -> None:
    """The owner's own sockets as well."""
    assert (await owner("DELETE", f"/v1/conversations/{room.id}")).status == 204
    await room.is_over_for(room.guest)
    await room.is_over_for(room.owner)


@over_postgres_only
async def test_a_browser_that_removes_somebody_in_the_database_is_heard_of(
    site: Site, owner: Caller, guest: Caller, room: Room
) -> None:
    """No client of ours takes part: Postgres tells."""
    claims = {"role": "authenticated", "sub": owner.user_id}
    browser = await asyncpg.connect(site.world.clean.authenticator_dsn)
    async with browser.transaction():
        await browser.execute("set local role authenticated")
        await browser.execute(
            "select set_config('request.jwt.claims', $1, true)", orjson.dumps(claims).decode()
        )
        await browser.execute("select uvian.remove_member($1, $2)", room.id, guest.user_id)
    await browser.close()
    await room.is_over_for(room.guest)
    await room.goes_on_for(room.owner)


@over_postgres_only
async def test_what_is_deleted_by_hand_is_heard_of(site: Site, owner: Caller, room: Room) -> None:
    """A user with all their conversations."""
    await site.world.hand.execute("delete from auth.users where id = $1", owner.user_id)
    await room.is_over_for(room.guest)


@over_postgres_only
async def test_a_removal_that_nobody_told_of_is_found_when_the_session_is_back(
    site: Site, guest: Caller, room: Room
) -> None:
    """Whatever was missed meanwhile, everybody is looked at again."""
    async with site.world.hand.transaction():
        await site.world.hand.execute("alter table uvian.conversation_members disable trigger user")
        await site.world.hand.execute(
            "delete from uvian.conversation_members where user_id = $1", guest.user_id
        )
        await site.world.hand.execute("alter table uvian.conversation_members enable trigger user")
    await room.goes_on_for(room.guest)
    await site.world.hand.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity "
        "where datname = current_database() and query ilike 'listen%uvian_members%'"
    )
    await room.is_over_for(room.guest)
