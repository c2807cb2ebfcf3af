"""Messages: inserted, read page by page, changed, removed; what a user's chat may read of them."""

from __future__ import annotations

import uuid
from dataclasses import asdict
from typing import Any

import asyncpg
import pytest

from repositories import errors
from repositories.database import Filter
from repositories.messages import Message, MessageRepository, UserMessages
from tests.lifecycle.world import World

pytestmark = pytest.mark.database


@pytest.fixture
def messages(world: World) -> MessageRepository:
    """All of them."""
    return MessageRepository(world.service)


def said(conversation: str, content: str, role: str = "user", **more: Any) -> Message:
    """A message to import."""
    return Message(str(uuid.uuid4()), conversation, 0, role, content, **more)


# ─── messages without a job ──────────────────────────────────────────────────────────────────────


async def test_messages_are_inserted_in_order_and_read_page_by_page(
    world: World, messages: MessageRepository
) -> None:
    """The position is the database's; it is the cursor in both directions."""
    user = await world.user()
    conversation = await world.conversation(user)
    made = [
        await messages.insert(said(conversation, "Be kind.", "system")),
        await messages.insert(said(conversation, "Hello", user_id=user)),
        await messages.insert(said(conversation, "Hi", "assistant", usage={"tokens": 1})),
    ]
    assert [m.position for m in made] == [1, 2, 3]
    assert await messages.list(conversation) == made
    assert await messages.list(conversation, after_position=1) == made[1:]
    assert await messages.list(conversation, before_position=3, newest_first=True) == [
        made[1],
        made[0],
    ]
    assert await messages.list(conversation, limit=1) == made[:1]


async def test_a_message_that_is_inserted_again_stays_as_it_is(
    world: World, messages: MessageRepository
) -> None:
    """An import that is repeated neither doubles nor overwrites."""
    conversation = await world.conversation(await world.user())
    message = said(conversation, "Once")
    made = await messages.insert(message)
    assert await messages.insert(Message(**{**asdict(message), "content": "Twice"})) == made
    assert [m.content for m in await messages.list(conversation)] == ["Once"]


@pytest.mark.parametrize(
    ("role", "length", "fits"),
    [
        ("user", 65_536, True),
        ("user", 65_537, False),
        ("assistant", 1_048_576, True),
        ("assistant", 1_048_577, False),
        ("narrator", 1, False),
    ],
)
async def test_a_message_has_a_role_and_a_length(
    world: World, messages: MessageRepository, role: str, length: int, fits: bool
) -> None:
    """64 kB from a user, 1 MB from the assistant, counted in bytes."""
    conversation = await world.conversation(await world.user())
    text = "ü" * (length // 2) + "x" * (length % 2)
    if fits:
        made = await messages.insert(said(conversation, text, role))
        assert (
            (await world.messages(conversation))[0]["length_bytes"] == length == len(text.encode())
        )
        assert made.content == text
    else:
        with pytest.raises(errors.DataError):
            await messages.insert(said(conversation, text, role))


async def test_a_message_without_a_conversation_is_refused(messages: MessageRepository) -> None:
    """Nothing is stored for a conversation that is not there."""
    with pytest.raises(errors.DataError):
        await messages.insert(said(str(uuid.uuid4()), "Hello?"))


async def test_a_message_is_changed_and_removed(world: World, messages: MessageRepository) -> None:
    """Its place stays empty: no other message gets its position."""
    conversation = await world.conversation(await world.user())
    one, two = [await messages.insert(said(conversation, str(n))) for n in range(2)]
    assert (await messages.update(one.id, "changed")).content == "changed"
    for _ in range(2):
        await messages.delete(two.id)
    assert await messages.find(two.id) is None
    assert await messages.find("no id") is None
    with pytest.raises(errors.NotFound):
        await messages.update(two.id, "gone")
    assert (await messages.insert(said(conversation, "new"))).position == 3


async def test_answers_outlive_their_questions_and_jobs(
    world: World, messages: MessageRepository
) -> None:
    """A question or a job that is deleted is no longer referred to; the answer stays."""
    user = await world.user()
    conversation = await world.conversation(user)
    posted = await world.post(conversation, user)
    await world.answered(posted["job"])
    await messages.delete(posted["message"]["id"])
    await world.service.delete("jobs", where=[Filter("id", "eq", posted["job"]["id"])])
    (answer,) = await messages.list(conversation)
    assert (answer.content, answer.reply_to, answer.job_id) == ("Because.", None, None)


# ─── what a user's chat may read ─────────────────────────────────────────────────────────────────


async def test_only_members_read_messages(world: World, messages: MessageRepository) -> None:
    """Another's, a missing one and no id at all are the same: not found."""
    owner, member, stranger = [await world.user() for _ in range(3)]
    conversation = await world.conversation(owner, member)
    message = await messages.insert(said(conversation, "Hello"))
    for user in (owner, member):
        assert await UserMessages(world.service, user).get(message.id) == message
        assert await UserMessages(world.service, user).history(conversation) == [message]
    for id_ in (message.id, str(uuid.uuid4()), "x", ""):
        with pytest.raises(errors.NotFound):
            await UserMessages(world.service, stranger).get(id_)
    for id_ in (conversation, str(uuid.uuid4()), "x", ""):
        with pytest.raises(errors.NotFound):
            await UserMessages(world.service, stranger).history(id_)


async def test_a_history_has_the_newest_first(world: World, messages: MessageRepository) -> None:
    """So that it is read back until the budget is spent."""
    user = await world.user()
    conversation = await world.conversation(user)
    for n in range(5):
        await messages.insert(said(conversation, str(n)))
    mine = UserMessages(world.service, user)
    page = await mine.history(conversation, limit=3)
    assert [m.content for m in page] == ["4", "3", "2"]
    rest = await mine.history(conversation, before_position=page[-1].position)
    assert [m.content for m in rest] == ["1", "0"]


async def test_a_history_is_as_its_question_saw_it(
    world: World, messages: MessageRepository
) -> None:
    """Messages that were posted while others were being answered stand where they belong."""
    user = await world.user()
    conversation = await world.conversation(user)
    posts = [await world.post(conversation, user, f"Q{n}") for n in (1, 2, 3)]
    for n in (0, 1):
        await world.answered(posts[n]["job"], f"A{n + 1}")
    assert [m["content"] for m in await world.messages(conversation)] == [
        "Q1",
        "Q2",
        "Q3",
        "A1",
        "A2",
    ]
    mine = UserMessages(world.service, user)

    async def seen(question: int, **page: Any) -> list[str]:
        up_to = posts[question]["message"]["id"]
        return [m.content for m in await mine.history(conversation, up_to=up_to, **page)]

    assert await seen(2) == ["Q3", "A2", "Q2", "A1", "Q1"]
    assert await seen(1) == ["Q2", "A1", "Q1"], "an answer to itself, of an earlier run, is none"
    assert await seen(2, before_position=4) == ["Q2", "Q1"]
    with pytest.raises(errors.NotFound):
        await mine.history(conversation, up_to=str(uuid.uuid4()))
    elsewhere = await messages.insert(said(await world.conversation(user), "elsewhere"))
    with pytest.raises(errors.NotFound):
        await mine.history(conversation, up_to=elsewhere.id)


async def test_a_hand_that_writes_many_is_put_in_order(world: World) -> None:
    """Rows that are inserted at once get positions one after the other."""
    conversation = await world.conversation(await world.user())
    await world.hand.execute(
        "insert into uvian.messages (conversation_id, position, role, content) "
        "select $1, 7, 'user', n::text from generate_series(1, 3) n",
        conversation,
    )
    assert [m["position"] for m in await world.messages(conversation)] == [1, 2, 3]
    with pytest.raises(asyncpg.CheckViolationError):
        await world.hand.execute(
            "insert into uvian.messages (conversation_id, role, content, user_id) "
            "select id, 'assistant', 'x', user_id from uvian.conversations"
        )


async def test_messages_are_told_through_realtime(world: World) -> None:
    """Where there is a publication of the platform, jobs and messages are in it."""
    rows = await world.hand.fetch(
        "select tablename from pg_publication_tables where pubname = 'supabase_realtime'"
    )
    assert {row["tablename"] for row in rows} == {"jobs", "messages"}
