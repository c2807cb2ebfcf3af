"""on_busy: what becomes of a post while another is being answered is decided in the database, not by luck."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from repositories import errors
from repositories.messages import MessageRepository
from tests.adapters import over_postgres_only
from tests.lifecycle.invariants import broken
from tests.lifecycle.world import World, opened

pytestmark = [pytest.mark.database, over_postgres_only]


async def refused(attempt: Awaitable[Any]) -> str:
    """The code of the refusal that this must end with."""
    with pytest.raises(errors.Refused) as refusal:
        await attempt
    return refusal.value.code


async def test_enqueued_it_waits_for_those_before_it(world: World) -> None:
    """Stored at once, dispatched when its turn comes; another conversation waits for nobody."""
    user = await world.user()
    conversation = await world.conversation(user)
    first = await world.post(conversation, user)
    second = await world.post(conversation, user)
    assert second["dispatch"] == []
    assert (await world.claim(second["job"]))["reason"] == "waiting"
    elsewhere = await world.post(await world.conversation(user), user)
    assert [d["id"] for d in elsewhere["dispatch"]] == [elsewhere["job"]["id"]]
    settled = await world.answered(first["job"])
    assert [(d["id"], d["run"]) for d in settled["dispatch"]] == [(second["job"]["id"], 2)]


async def test_rejected_it_leaves_no_trace(world: World) -> None:
    """While one is queued or runs; when it has ended the next is welcome."""
    user = await world.user()
    conversation = await world.conversation(user)
    job = (await world.post(conversation, user, on_busy="reject"))["job"]
    attempt = world.post(conversation, user, on_busy="reject")
    assert await refused(attempt) == "conversation_busy"
    await world.claim(job)
    attempt = world.post(conversation, user, on_busy="reject")
    assert await refused(attempt) == "conversation_busy"
    assert len(await world.messages(conversation)) == 1
    await world.settle(job, "failed")
    assert (await world.post(conversation, user, on_busy="reject"))["dispatch"]


async def test_of_many_that_would_be_rejected_exactly_one_is_not(world: World) -> None:
    """Not by luck: the conversation's row lets one after the other look."""
    user = await world.user()
    for _ in range(5):
        conversation = await world.conversation(user)
        answers = await asyncio.gather(
            *(world.post(conversation, user, on_busy="reject") for _ in range(8)),
            return_exceptions=True,
        )
        won = [answer for answer in answers if isinstance(answer, dict)]
        lost = [answer.code for answer in answers if isinstance(answer, errors.Refused)]
        assert (len(won), lost) == (1, ["conversation_busy"] * 7)


async def test_an_interruption_cancels_what_waits_and_what_runs(world: World) -> None:
    """Who waits ends at once, who runs is asked to; its partial answer is kept; the new one is next."""
    await world.type("chat", price=2)
    user = await world.user(10)
    conversation = await world.conversation(user)
    running, waiting = [(await world.post(conversation, user))["job"] for _ in range(2)]
    claim = await world.claim(running)
    posted = await world.post(conversation, user, "No: how?", "interrupt")
    assert posted["cancel"] == [{"id": running["id"], "run": 1}]
    assert [(e["id"], e["status"]) for e in posted["terminal_events"]] == [
        (waiting["id"], "cancelled")
    ]
    assert posted["dispatch"] == []
    assert [a["balance"] for a in posted["accounts"]] == ["6.000000"]
    assert (await world.renew(claim))["cancel"] == [running["id"]]
    settled = await world.settlement(
        running, "cancelled", charge=0.25, message={"content": "Because th"}
    )
    assert [d["id"] for d in settled["dispatch"]] == [posted["job"]["id"]]
    assert settled["jobs"][0]["cost"] == "0.500000"
    told = [(m["role"], m["content"], m["status"]) for m in await world.messages(conversation)]
    assert told == [
        ("user", "Why?", "completed"),
        ("user", "Why?", "completed"),
        ("user", "No: how?", "completed"),
        ("assistant", "Because th", "cancelled"),
    ]
    assert await broken(world) == {}


async def test_an_interruption_of_nobody_is_a_post(world: World) -> None:
    """And of one that waits in the queue: the new one is dispatched at once."""
    user = await world.user()
    conversation = await world.conversation(user)
    first = await world.post(conversation, user, on_busy="interrupt")
    assert (first["cancel"], first["terminal_events"], len(first["dispatch"])) == ([], [], 1)
    second = await world.post(conversation, user, on_busy="interrupt")
    assert [e["id"] for e in second["terminal_events"]] == [first["job"]["id"]]
    assert [d["id"] for d in second["dispatch"]] == [second["job"]["id"]]


async def test_an_interrupted_worker_that_dies_is_no_obstacle(world: World) -> None:
    """The request outlives its worker: the sweep ends the old chat and offers the new one."""
    user = await world.user()
    conversation = await world.conversation(user)
    running = (await world.post(conversation, user))["job"]
    await world.claim(running)
    posted = await world.post(conversation, user, on_busy="interrupt")
    await world.expire(running)
    swept = await world.sweep()
    assert [d["id"] for d in swept["dispatch"]] == [posted["job"]["id"]]
    assert (await world.row(running))["status"] == "cancelled"


async def test_an_interruption_frees_places_of_other_conversations(world: World) -> None:
    """Under max_running_per_user: who waited elsewhere may go now."""
    await world.type("chat", max_running_per_user=1)
    one, two = await world.user(), await world.user()
    shared = await world.conversation(one, two)
    await world.post(shared, one)
    elsewhere = await world.post(await world.conversation(one), one)
    assert elsewhere["dispatch"] == []
    posted = await world.post(shared, two, on_busy="interrupt")
    assert {d["id"] for d in posted["dispatch"]} == {elsewhere["job"]["id"], posted["job"]["id"]}


async def test_an_interruption_locks_accounts_in_their_order(world: World) -> None:
    """Its own and those of who is interrupted: no later one is held while an earlier is waited for."""
    await world.type("chat", price=2)
    payer, newcomer = sorted([await world.user(10), await world.user(10)])
    conversation = await world.conversation(payer, newcomer)
    await world.post(conversation, payer)
    waits = "select count(*) from pg_locks where not granted"
    account = "select user_id from uvian.credit_accounts where user_id = $1 for no key update"
    async with opened(world.adapter) as other, other.hand.transaction():
        await other.hand.execute(account, payer)
        posting = asyncio.create_task(world.post(conversation, newcomer, on_busy="interrupt"))
        while not posting.done() and not await world.hand.fetchval(waits):
            await asyncio.sleep(0)
        assert await world.hand.fetchval(account + " skip locked", newcomer) == newcomer
    assert len((await posting)["terminal_events"]) == 1


async def test_of_interruptions_at_once_the_last_one_stands(world: World) -> None:
    """Every chat before it is cancelled or asked to stop, whoever came in between."""
    user = await world.user()
    for _ in range(5):
        conversation = await world.conversation(user)
        running = (await world.post(conversation, user))["job"]
        await world.claim(running)
        answers = await asyncio.gather(
            *(
                world.post(conversation, user, on_busy, on_busy)
                for on_busy in ["enqueue", "interrupt", "interrupt"] * 3
            )
        )
        answers.sort(key=lambda answer: int(answer["message"]["position"]))
        said = [answer["message"]["content"] for answer in answers]
        last = max(n for n, on_busy in enumerate(said) if on_busy == "interrupt")
        waiting = await world.hand.fetch(
            "select id from uvian.jobs where conversation_id = $1 and status = 'queued' order by turn",
            conversation,
        )
        assert [row["id"] for row in waiting] == [answer["job"]["id"] for answer in answers[last:]]
        assert (await world.renew(running))["cancel"] == [running["id"]]


async def test_positions_are_without_gaps_whoever_posts_at_once(world: World) -> None:
    """One strict order of questions and answers, and a reader with a cursor misses none."""
    users = [await world.user() for _ in range(3)]
    conversation = await world.conversation(*users)
    messages = MessageRepository(world.service)
    over = asyncio.Event()
    seen: list[int] = []

    async def read() -> None:
        while True:
            last = over.is_set()
            page = await messages.list(
                conversation, after_position=seen[-1] if seen else 0, limit=7
            )
            seen.extend(message.position for message in page)
            if last and not page:
                return
            await asyncio.sleep(0)

    async def work(worker: str, user: str) -> None:
        for _ in range(8):
            await world.post(conversation, user)
            for job in await world.claim_next(worker, "chat", limit=3):
                await world.settlement(job, worker=worker, message={"content": "Because."})

    reading = asyncio.create_task(read())
    await asyncio.gather(*(work(f"w{n}", user) for n, user in enumerate(users)))
    over.set()
    await reading
    assert seen == list(range(1, len(seen) + 1))
    assert len(seen) == len(await world.messages(conversation)) > 24
