"""Conversations: who takes part, what they are called, how they are listed and go."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from decimal import Decimal
from typing import Any

import asyncpg
import pytest

from repositories import errors
from repositories.conversations import Conversation, ConversationRepository, UserConversations
from repositories.database import Filter
from repositories.messages import Message, MessageRepository
from tests.lifecycle.world import World

pytestmark = pytest.mark.database


@pytest.fixture
def conversations(world: World) -> ConversationRepository:
    """All of them."""
    return ConversationRepository(world.service)


@pytest.fixture
def messages(world: World) -> MessageRepository:
    """All of them."""
    return MessageRepository(world.service)


def said(conversation: str, content: str, role: str = "user", **more: Any) -> Message:
    """A message to import."""
    return Message(str(uuid.uuid4()), conversation, 0, role, content, **more)


# ─── made, changed, listed ───────────────────────────────────────────────────────────────────────


async def test_whoever_makes_a_conversation_owns_it(
    world: World, conversations: ConversationRepository
) -> None:
    """And takes part in it; others do not."""
    user, other = await world.user(), await world.user()
    made = await conversations.create(user, title="Logos", metadata={"pinned": True})
    assert (made.user_id, made.title, made.metadata) == (user, "Logos", {"pinned": True})
    assert (made.last_position, made.last_message_at) == (0, made.created_at)
    assert [(m.user_id, m.role) for m in await conversations.members(made.id)] == [(user, "owner")]
    assert await UserConversations(world.service, user).get(made.id) == made
    with pytest.raises(errors.NotFound):
        await UserConversations(world.service, other).get(made.id)
    with pytest.raises(errors.NotFound):
        await UserConversations(world.service, other).members(made.id)


async def test_the_same_id_makes_one_conversation(
    world: World, conversations: ConversationRepository
) -> None:
    """A lost reply is repeated; another user's id is a conflict."""
    user, other = await world.user(), await world.user()
    id_ = str(uuid.uuid4())
    made = await conversations.create(user, id=id_, title="First")
    assert await conversations.create(user, id=id_, title="Second") == made
    with pytest.raises(errors.Refused) as refused:
        await conversations.create(other, id=id_)
    assert refused.value.code == "conflict"


@pytest.mark.parametrize(
    "bad", [{"title": "x" * 201}, {"metadata": {"x": "y" * 16_400}}], ids=["title", "metadata"]
)
async def test_what_is_too_long_is_refused_in_words(
    world: World, conversations: ConversationRepository, bad: dict[str, Any]
) -> None:
    """At creation and at every change."""
    user = await world.user()
    made = await conversations.create(user)
    for attempt in (conversations.create(user, **bad), conversations.update(made.id, **bad)):
        with pytest.raises(errors.Refused) as refused:
            await attempt
        assert refused.value.code == "invalid_conversation"


async def test_nobody_makes_none(conversations: ConversationRepository) -> None:
    """The service must say whose it is, and the user must exist."""
    for user in (None, str(uuid.uuid4())):
        with pytest.raises(errors.Refused) as refused:
            await conversations.create(user)  # type: ignore[arg-type]
        assert refused.value.code == "unknown_user"


async def test_the_owner_changes_what_it_is_called(
    world: World, conversations: ConversationRepository
) -> None:
    """What is left out stays; members may not, strangers hear that there is none."""
    owner, member, stranger = [await world.user() for _ in range(3)]
    made = await conversations.create(owner, title="Old", metadata={"a": 1})
    await conversations.add_members(made.id, [member])
    changed = await conversations.update(made.id, title="New", user_id=owner)
    assert (changed.title, changed.metadata) == ("New", {"a": 1})
    assert (await conversations.update(made.id, metadata={"b": 2})).metadata == {"b": 2}
    for user, code in ((member, "owner_only"), (stranger, "not_found")):
        with pytest.raises(errors.Refused) as refused:
            await conversations.update(made.id, title="Mine", user_id=user)
        assert refused.value.code == code


async def test_conversations_are_listed_by_their_latest_message(
    world: World, conversations: ConversationRepository, messages: MessageRepository
) -> None:
    """Those the user takes part in, page by page, without one missing or twice."""
    user, other = await world.user(), await world.user()
    ids = [(await conversations.create(user)).id for _ in range(5)]
    shared = (await conversations.create(other)).id
    await conversations.add_members(shared, [user])
    await conversations.create(other)
    await messages.insert(said(ids[1], "the latest"))
    listed: list[Conversation] = []
    place: tuple[str, str] | None = None
    while page := await conversations.list(user, limit=2, before=place):
        assert len(page) == 2
        listed += page
        place = (page[-1].last_message_at, page[-1].id)
    assert [c.id for c in listed[:2]] == [ids[1], shared]
    assert sorted(c.id for c in listed) == sorted([*ids, shared])
    assert await UserConversations(world.service, user).list() == listed


# ─── who takes part ──────────────────────────────────────────────────────────────────────────────


async def test_members_are_the_operators_to_add(
    world: World, conversations: ConversationRepository
) -> None:
    """Adding twice is once; who is not there is refused, and an open invitation is settled by it."""
    owner, member = await world.user(), await world.user()
    made = await conversations.create(owner)
    await conversations.invite(made.id, [member], user_id=owner)
    await conversations.add_members(made.id, [member, member, owner])
    added = await conversations.add_members(made.id, [member])
    assert [(m.user_id, m.role) for m in added] == [(owner, "owner"), (member, "member")]
    assert await conversations.invitations(member) == []
    for at, members, code in (
        (made.id, [str(uuid.uuid4())], "unknown_user"),
        (str(uuid.uuid4()), [member], "not_found"),
    ):
        with pytest.raises(errors.Refused) as refused:
            await conversations.add_members(at, members)
        assert refused.value.code == code
    assert len(await conversations.members(made.id)) == 2


async def test_a_conversation_has_so_many_members(
    world: World, conversations: ConversationRepository
) -> None:
    """Five hundred, and none of those beyond is half added."""
    made = await conversations.create(await world.user())
    users = await world.hand.fetch(
        "insert into auth.users (id) select gen_random_uuid() from generate_series(1, 500) returning id"
    )
    with pytest.raises(errors.Refused) as refused:
        await conversations.add_members(made.id, [row["id"] for row in users])
    assert refused.value.code == "too_many_members"
    assert len(await conversations.add_members(made.id, [row["id"] for row in users[1:]])) == 500


async def test_members_leave_or_are_removed(
    world: World, conversations: ConversationRepository
) -> None:
    """By the owner or by themselves; the owner stays; a second time there is nobody to remove."""
    owner, one, two = [await world.user() for _ in range(3)]
    made = await conversations.create(owner)
    await conversations.add_members(made.id, [one, two])
    with pytest.raises(errors.Refused) as refused:
        await conversations.remove_member(made.id, two, user_id=one)
    assert refused.value.code == "owner_only"
    assert (await conversations.remove_member(made.id, one, user_id=one))["removed"]
    assert (await conversations.remove_member(made.id, two, user_id=owner))["removed"]
    assert not (await conversations.remove_member(made.id, two, user_id=owner))["removed"]
    for user in (owner, None):
        with pytest.raises(errors.Refused) as refused:
            await conversations.remove_member(made.id, owner, user_id=user)
        assert refused.value.code == "owner_stays"
    assert [m.user_id for m in await conversations.members(made.id)] == [owner]


async def test_who_is_removed_is_answered_no_more(world: World) -> None:
    """Their open chats end: who waits at once, who runs when its worker hears; others go on."""
    await world.type("chat", price=2)
    owner, member = await world.user(10), await world.user(10)
    conversation = await world.conversation(owner, member)
    running = (await world.post(conversation, member))["job"]
    await world.claim(running)
    waiting = (await world.post(conversation, member))["job"]
    others = (await world.post(conversation, owner))["job"]
    answer = await ConversationRepository(world.service).remove_member(
        conversation, member, user_id=owner
    )
    assert answer["cancel"] == [{"id": running["id"], "run": 1}]
    assert [(e["id"], e["status"], e["message"]) for e in answer["terminal_events"]] == [
        (waiting["id"], "cancelled", None)
    ]
    assert [a["user_id"] for a in answer["accounts"]] == [member]
    assert await world.account(member) == (Decimal(8), Decimal(2))
    settled = await world.settlement(running, "cancelled", charge=0.5, message={"content": "Bec"})
    assert settled["jobs"][0]["message"]["status"] == "cancelled"
    assert [d["id"] for d in settled["dispatch"]] == [others["id"]]
    with pytest.raises(errors.Refused) as refused:
        await world.post(conversation, member)
    assert refused.value.code == "not_found"


async def test_a_removed_member_retries_nothing(world: World) -> None:
    """A chat of the time before cannot be run again."""
    owner, member = await world.user(), await world.user()
    conversation = await world.conversation(owner, member)
    job = (await world.post(conversation, member))["job"]
    await world.cancel(job)
    await world.service.call(
        "remove_member", conversation_id=conversation, member=member, user_id=None
    )
    with pytest.raises(errors.Refused) as refused:
        await world.retry(job, 1, member)
    assert refused.value.code == "not_found"
    with pytest.raises(asyncpg.PostgresError, match="not_found"):  # nor does a hand for them
        await world.hand.execute("update uvian.jobs set status = 'queued'")
    assert (await world.row(job))["status"] == "cancelled"


# ─── gone ────────────────────────────────────────────────────────────────────────────────────────


async def test_a_deleted_conversation_ends_what_is_open_in_it(world: World) -> None:
    """Messages and members go with it; credits come back; what runs is asked to stop."""
    await world.type("chat", price=2)
    owner, member = await world.user(10), await world.user(10)
    conversation = await world.conversation(owner, member)
    running = (await world.post(conversation, owner))["job"]
    await world.claim(running)
    waiting = (await world.post(conversation, member))["job"]
    for user, code in ((member, "owner_only"), (await world.user(), "not_found")):
        with pytest.raises(errors.Refused) as refused:
            await ConversationRepository(world.service).delete(conversation, user_id=user)
        assert refused.value.code == code
    answer = await ConversationRepository(world.service).delete(conversation, user_id=owner)
    assert answer["deleted"]
    assert answer["cancel"] == [{"id": running["id"], "run": 1}]
    assert [e["id"] for e in answer["terminal_events"]] == [waiting["id"]]
    assert await world.messages(conversation) == []
    assert await world.account(member) == (Decimal(10), Decimal(0))
    assert (await world.renew(running))["cancel"] == [running["id"]]
    # Nothing is kept of an answer to nobody, so nothing is paid for it.
    settled = await world.settle(running, "cancelled", charge=0.5, message={"content": "Bec"})
    assert (settled["status"], settled["cost"], settled["message"]) == (
        "cancelled",
        "0.000000",
        None,
    )
    assert (await world.row(running))["result_id"] is None
    assert await world.account(owner) == (Decimal(10), Decimal(0))


async def test_deleted_by_hand_it_ends_the_same_way(world: World) -> None:
    """A row that is deleted in the SQL editor, or through the table."""
    await world.type("chat", price=2)
    owner = await world.user(10)
    conversation = await world.conversation(owner)
    running = (await world.post(conversation, owner))["job"]
    await world.claim(running)
    waiting = (await world.post(conversation, owner))["job"]
    await world.service.delete("conversations", where=[Filter("id", "eq", conversation)])
    assert (await world.row(waiting))["status"] == "cancelled"
    assert (await world.renew(running))["cancel"] == [running["id"]]
    assert await world.account(owner) == (Decimal(8), Decimal(2))


async def test_a_user_who_is_deleted_takes_the_conversations_along(world: World) -> None:
    """Those they own, with chats of others in them; what they wrote elsewhere stays, as nobody's."""
    await world.type("chat", price=2)
    owner, member = await world.user(10), await world.user(10)
    owned, shared = await world.conversation(owner, member), await world.conversation(member, owner)
    waiting = (await world.post(owned, member))["job"]
    await world.post(shared, owner, "Mine.")
    await world.hand.execute("delete from auth.users where id = $1", owner)
    assert (await world.row(waiting))["status"] == "cancelled"
    assert await world.account(member) == (Decimal(10), Decimal(0))
    assert [(m["user_id"], m["content"]) for m in await world.messages(shared)] == [(None, "Mine.")]


# ─── gateways are told ───────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def told(world: World) -> asyncio.Queue[str]:
    """The conversations that somebody was removed from."""
    told: asyncio.Queue[str] = asyncio.Queue()
    await world.hand.add_listener("uvian_members", lambda *heard: told.put_nowait(heard[-1]))
    return told


async def heard(world: World, told: asyncio.Queue[str]) -> list[str]:
    """All that was told until now."""
    await world.hand.execute("select pg_notify('uvian_members', 'the end')")
    answer = []
    async with asyncio.timeout(10):
        while (payload := await told.get()) != "the end":
            answer.append(payload)
    return answer


@pytest.mark.parametrize(
    "statement",
    [
        "delete from uvian.conversation_members where role = 'member'",
        "delete from uvian.conversations",
        "delete from auth.users where id = any (select user_id from uvian.conversations)",
        "delete from auth.users",
    ],
    ids=["members", "conversations", "owners", "users"],
)
async def test_whatever_removes_members_tells_of_each_conversation_once(
    world: World, told: asyncio.Queue[str], statement: str
) -> None:
    """By hand, with their conversations, with their users: as many rows as there are."""
    owners = [await world.user() for _ in range(3)]
    guests = [await world.user() for _ in range(5)]
    conversations = [await world.conversation(owner, *guests) for owner in owners for _ in range(4)]
    assert await heard(world, told) == []
    await world.hand.execute(statement)
    assert sorted(await heard(world, told)) == sorted(conversations)


async def test_a_removal_that_is_taken_back_tells_nothing(
    world: World, told: asyncio.Queue[str]
) -> None:
    """Nor does one of somebody who was no member."""
    owner, guest = await world.user(), await world.user()
    conversation = await world.conversation(owner, guest)
    with contextlib.suppress(ZeroDivisionError):
        async with world.hand.transaction():
            await world.hand.execute("delete from uvian.conversation_members")
            raise ZeroDivisionError
    await world.service.call(
        "remove_member", conversation_id=conversation, member=str(uuid.uuid4())
    )
    assert await heard(world, told) == []
    await world.service.call("remove_member", conversation_id=conversation, member=guest)
    assert await heard(world, told) == [conversation]
