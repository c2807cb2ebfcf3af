"""One chat of a conversation at a time, in order, exactly, however many connections there are."""

from __future__ import annotations

import asyncio
import random
import uuid
from typing import Any

import asyncpg
import pytest

from repositories import errors
from repositories.database import Filter
from repositories.errors import Transient
from tests.adapters import over_postgres_only
from tests.lifecycle.invariants import broken
from tests.lifecycle.world import World, opened

pytestmark = [pytest.mark.database, over_postgres_only]

LATER = "2040-01-01T00:00:00Z"


@pytest.fixture
async def user(world: World) -> str:
    """Somebody."""
    return await world.user()


@pytest.fixture
async def conversation(world: World, user: str) -> str:
    """Their conversation."""
    return await world.conversation(user)


async def chats(
    world: World, user: str, conversation: str, number: int, **item: Any
) -> list[dict[str, Any]]:
    """So many new chats, as create_jobs answers."""
    asked = {"user_id": user, "type": "chat", "input": {"conversation_id": conversation}, **item}
    return await world.ask(*([asked] * number))


async def in_line(world: World, conversation: str) -> list[tuple[str, bool]]:
    """The open chats in their order, and whether it is their turn."""
    rows = await world.hand.fetch(
        "select id, its_turn from uvian.jobs where conversation_id = $1 "
        "and status in ('queued', 'processing') order by turn",
        conversation,
    )
    return [(row["id"], row["its_turn"]) for row in rows]


def ids(rows: list[dict[str, Any]]) -> list[str]:
    """Of answers, or of what is to be dispatched."""
    return [(row.get("job") or row)["id"] for row in rows]


# ─── created ─────────────────────────────────────────────────────────────────────────────────────


async def test_of_a_batch_the_first_is_dispatched(
    world: World, user: str, conversation: str
) -> None:
    """In the order in which they were asked for, whatever their ids and keys."""
    asked = [
        {
            "id": f"{9 - n}0000000-0000-4000-8000-000000000000",
            "user_id": user,
            "type": "chat",
            "input": {"conversation_id": conversation},
            "idempotency_key": str(5 - n),
        }
        for n in range(4)
    ]
    answers = await world.ask(*asked)
    assert [a["dispatch"] for a in answers] == [True, False, False, False]
    assert [id_ for id_, _ in await in_line(world, conversation)] == [a["id"] for a in asked]
    await world.hand.execute("update uvian.job_state set redispatch_at = now() - interval '1 h'")
    assert ids((await world.sweep())["dispatch"]) == [answers[0]["job"]["id"]]


@pytest.mark.parametrize(
    "input_", [{}, {"conversation_id": None}, {"conversation_id": 7}, {"conversation_id": "x"}]
)
async def test_a_chat_without_a_conversation_is_refused(
    world: World, user: str, input_: dict[str, Any]
) -> None:
    """Missing, malformed, nobody's, another's: the same answer."""
    other = await world.conversation(await world.user())
    for wanted in (input_, {"conversation_id": str(uuid.uuid4())}, {"conversation_id": other}):
        (answer,) = await world.ask({"user_id": user, "type": "chat", "input": wanted})
        assert answer == {"code": "not_found"}


async def test_jobs_of_other_types_wait_for_no_turn(world: World, user: str) -> None:
    """A conversation_id in their input is nobody's business but theirs."""
    wanted = {"conversation_id": await world.conversation(user)}
    answers = await world.ask(*([{"user_id": user, "type": "noop", "input": wanted}] * 3))
    assert all(answer["dispatch"] for answer in answers)


async def test_who_is_claimed_before_its_turn_goes_on_waiting(
    world: World, user: str, conversation: str
) -> None:
    """By id it is refused, polled it is not found; when its turn comes it is offered."""
    first, second = [a["job"] for a in await chats(world, user, conversation, 2)]
    assert (await world.claim(second))["reason"] == "waiting"
    assert [job["id"] for job in await world.claim_next("w1", "chat", limit=5)] == [first["id"]]
    answer = await world.settlement(first)
    assert [(d["id"], d["run"]) for d in answer["dispatch"]] == [(second["id"], 2)]


# ─── kept and given away ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("ending", ["completed", "failed", "cancelled"])
async def test_an_ending_gives_the_turn_to_the_next(
    world: World, user: str, conversation: str, ending: str
) -> None:
    """To one, the one that came first."""
    jobs = [a["job"] for a in await chats(world, user, conversation, 3)]
    await world.claim(jobs[0])
    assert ids((await world.settlement(jobs[0], ending))["dispatch"]) == [jobs[1]["id"]]
    assert await in_line(world, conversation) == [(jobs[1]["id"], True), (jobs[2]["id"], False)]


async def test_a_cancellation_gives_the_turn_to_the_next(
    world: World, user: str, conversation: str
) -> None:
    """Of the one that had it; who only waited lets nobody in."""
    jobs = [a["job"] for a in await chats(world, user, conversation, 3)]
    assert (await world.cancel(jobs[1]))["dispatch"] == []
    assert ids((await world.cancel(jobs[0]))["dispatch"]) == [jobs[2]["id"]]


@pytest.mark.parametrize("limit", [None, 1])
@pytest.mark.parametrize(("outcome", "delay"), [("interrupted", 0), ("retry", 600)])
async def test_a_requeued_chat_keeps_its_turn(
    world: World, user: str, conversation: str, outcome: str, delay: int, limit: int | None
) -> None:
    """However long it waits to run again, nobody overtakes it; its user's place it may give away."""
    await world.type("chat", max_running_per_user=limit)
    first, second = [a["job"] for a in await chats(world, user, conversation, 2)]
    elsewhere = (await chats(world, user, await world.conversation(user), 1))[0]["job"]
    claim = await world.claim(first)
    answer = await world.settlement(claim, outcome, delay=delay)
    assert second["id"] not in ids(answer["dispatch"])
    assert await in_line(world, conversation) == [(first["id"], True), (second["id"], False)]
    if limit and delay:
        assert ids(answer["dispatch"]) == [elsewhere["id"]], (
            "another conversation may use the place"
        )
        await world.cancel(elsewhere)
    await world.make_due(first)
    await world.sweep()
    assert (await world.claim({**first, "run": 2}))["claimed"]
    assert await broken(world) == {}


async def test_a_chat_whose_worker_died_keeps_its_turn(
    world: World, user: str, conversation: str
) -> None:
    """Until it is given up: then the sweep answers with the next."""
    await world.type("chat", max_attempts=2)
    first, second = [a["job"] for a in await chats(world, user, conversation, 2)]
    await world.claim(first)
    await world.expire(first)
    assert second["id"] not in ids((await world.sweep())["dispatch"])
    await world.make_due(first)
    await world.claim({**first, "run": 2})
    await world.expire(first)
    assert ids((await world.sweep())["dispatch"]) == [second["id"]]
    assert (await world.row(first))["status"] == "failed"


async def test_a_retried_chat_gets_in_line_again(
    world: World, user: str, conversation: str
) -> None:
    """Behind those who came meanwhile; alone it goes at once."""
    first, second = [a["job"] for a in await chats(world, user, conversation, 2)]
    await world.cancel(first)
    assert (await world.retry(first, 1))["dispatch"] == []
    assert await in_line(world, conversation) == [(second["id"], True), (first["id"], False)]
    answer = await world.cancel(second)
    assert [(d["id"], d["run"]) for d in answer["dispatch"]] == [(first["id"], 2)]
    await world.cancel(first)
    assert ids((await world.retry(first, 2))["dispatch"]) == [first["id"]]


async def test_a_chat_for_later_is_in_nobodys_way(
    world: World, user: str, conversation: str
) -> None:
    """It takes its turn when it is due, before those who came after it."""
    later = (await chats(world, user, conversation, 1, run_at=LATER))[0]
    now, then = [a["job"] for a in await chats(world, user, conversation, 2)]
    assert not later["dispatch"]
    await world.claim(now)
    await world.make_due(later["job"])
    assert (await world.sweep())["dispatch"] == [], "somebody has the turn"
    assert ids((await world.settlement(now))["dispatch"]) == [later["job"]["id"]]
    assert ids((await world.cancel(later["job"]))["dispatch"]) == [then["id"]]


async def test_a_chat_for_later_wakes_by_itself(world: World, user: str, conversation: str) -> None:
    """With nobody before it, the sweep lets it in when it is due, and not before."""
    later = (await chats(world, user, conversation, 1, run_at=LATER))[0]["job"]
    await world.hand.execute("update uvian.job_state set redispatch_at = now()")
    assert (await world.sweep())["dispatch"] == []
    assert (await world.state(later))["redispatch_at"].year == 2040
    await world.make_due(later)
    assert ids((await world.sweep())["dispatch"]) == [later["id"]]


# ─── with places ─────────────────────────────────────────────────────────────────────────────────


async def test_a_turn_is_no_place_and_a_place_no_turn(world: World, user: str) -> None:
    """A user's limit counts over conversations; both must be had to be dispatched."""
    await world.type("chat", max_running_per_user=1)
    one, two = await world.conversation(user), await world.conversation(user)
    first = (await chats(world, user, one, 1))[0]["job"]
    second = (await chats(world, user, one, 1))[0]["job"]
    third = (await chats(world, user, two, 1))[0]["job"]
    assert await in_line(world, two) == [(third["id"], True)]
    await world.claim(first)
    # `second` is older than `third` among those who wait for the place, now that it has the turn.
    assert ids((await world.settlement(first))["dispatch"]) == [second["id"]]
    assert ids((await world.cancel(second))["dispatch"]) == [third["id"]]


async def test_the_turn_goes_to_a_user_who_has_a_place(world: World) -> None:
    """It may be another member's, whose own limit then counts."""
    await world.type("chat", max_running_per_user=1)
    one, two = await world.user(), await world.user()
    shared = await world.conversation(one, two)
    first = (await chats(world, one, shared, 1))[0]["job"]
    second = (await chats(world, two, shared, 1))[0]["job"]
    busy = (await chats(world, two, await world.conversation(two), 1))[0]["job"]
    await world.claim(first)
    assert (await world.settlement(first))["dispatch"] == [], "its user is busy elsewhere"
    assert ids((await world.cancel(busy))["dispatch"]) == [second["id"]]


async def test_a_place_that_another_holds_is_tried_again(world: World) -> None:
    """Met out of order it is not waited for: the next sweep lets the chat in."""
    await world.type("chat", max_running_per_user=1)
    one, two = await world.user(), await world.user()
    shared = await world.conversation(one, two)
    first = (await chats(world, one, shared, 1))[0]["job"]
    second = (await chats(world, two, shared, 1))[0]["job"]
    await world.claim(first)
    async with opened(world.adapter) as other, other.hand.transaction():
        await other.hand.execute("select pg_advisory_xact_lock(uvian._slot($1::uuid, 'chat'))", two)
        assert (await world.settlement(first))["dispatch"] == []
        assert await broken(world) == {}
    await world.hand.execute(
        "update uvian.job_state set redispatch_at = redispatch_at - interval '2 s'"
    )
    assert ids((await world.sweep())["dispatch"]) == [second["id"]]


async def test_who_is_held_by_another_is_not_overtaken(
    world: World, user: str, conversation: str
) -> None:
    """A row that is locked in that moment keeps its turn for the next sweep."""
    first, second, third = [a["job"] for a in await chats(world, user, conversation, 3)]
    await world.claim(first)
    async with opened(world.adapter) as other, other.hand.transaction():
        await other.hand.execute("select from uvian.jobs where id = $1 for update", second["id"])
        assert (await world.settlement(first))["dispatch"] == []
    assert await broken(world) == {}
    await world.hand.execute(
        "update uvian.job_state set redispatch_at = redispatch_at - interval '2 s'"
    )
    assert ids((await world.sweep())["dispatch"]) == [second["id"]]
    assert (await world.row(third))["its_turn"] is False


async def test_a_claim_in_between_does_not_strike_who_waits_from_the_list(
    world: World, user: str, conversation: str
) -> None:
    """Refused, because its turn was not given yet, it is still looked at when it should be."""
    first, second = [a["job"] for a in await chats(world, user, conversation, 2)]
    await world.claim(first)
    async with opened(world.adapter) as other, other.hand.transaction():
        await other.hand.execute("select from uvian.jobs where id = $1 for update", second["id"])
        await world.settlement(first)
    assert (await world.claim(second))["reason"] == "waiting"
    assert await broken(world) == {}
    await world.hand.execute(
        "update uvian.job_state set redispatch_at = redispatch_at - interval '2 s'"
    )
    assert ids((await world.sweep())["dispatch"]) == [second["id"]]


async def test_the_sweep_waits_for_no_place_with_those_who_wait_in_its_hands(
    world: World, user: str, conversation: str
) -> None:
    """Whoever has the conversation may write down when to look at them again: no deadlock."""
    first, second = [a["job"] for a in await chats(world, user, conversation, 2)]
    await world.claim(first)
    await world.hand.execute("update uvian.job_state set redispatch_at = now()")
    waits = "select count(*) from pg_locks where not granted"
    async with opened(world.adapter) as other, other.hand.transaction():
        await other.hand.execute(
            "select from uvian.conversations where id = $1 for no key update", conversation
        )
        sweeping = asyncio.create_task(world.sweep())
        while not sweeping.done() and not await world.hand.fetchval(waits):
            await asyncio.sleep(0)
        await other.hand.execute(
            "update uvian.job_state set redispatch_at = now() where job_id = $1", second["id"]
        )
    assert (await sweeping)["swept"]


# ─── by hand ─────────────────────────────────────────────────────────────────────────────────────


async def test_a_chat_made_by_hand_gets_in_line(world: World, user: str, conversation: str) -> None:
    """Behind those who are there; what a hand says of its turn is not believed."""
    first = (await chats(world, user, conversation, 1))[0]["job"]
    second = await world.hand.fetchval(
        "insert into uvian.jobs (user_id, type, input, its_turn, admitted) "
        "values ($1, 'chat', jsonb_build_object('conversation_id', $2::text), true, true) returning id",
        user,
        conversation,
    )
    await world.hand.execute(
        "update uvian.jobs set its_turn = true, admitted = true, turn = 0, conversation_id = null "
        "where id = $1",
        second,
    )
    assert await in_line(world, conversation) == [(first["id"], True), (second, False)]
    assert ids((await world.cancel(first))["dispatch"]) == [second]


async def test_a_hand_makes_no_chat_for_strangers(world: World, conversation: str) -> None:
    """Nor moves one to another conversation."""
    stranger = await world.user()
    wanted = "insert into uvian.jobs (user_id, type, input) values ($1, 'chat', $2) returning id"
    with pytest.raises(asyncpg.PostgresError, match="not_found"):
        await world.hand.fetchval(wanted, stranger, {"conversation_id": conversation})
    mine = await world.conversation(stranger)
    job = await world.hand.fetchval(wanted, stranger, {"conversation_id": mine})
    with pytest.raises(asyncpg.PostgresError, match="owner_is_fixed"):
        await world.hand.execute(
            "update uvian.jobs set input = $1 where id = $2", {"conversation_id": conversation}, job
        )
    await world.hand.execute(
        "update uvian.jobs set input = $1 where id = $2", {"conversation_id": mine, "x": 1}, job
    )


async def test_set_to_queued_by_hand_a_chat_gets_in_line(
    world: World, user: str, conversation: str
) -> None:
    """An ended one behind the others, a running one where it was."""
    first, second = [a["job"] for a in await chats(world, user, conversation, 2)]
    await world.cancel(first)
    await world.claim(second)
    for job in (first, second):
        await world.hand.execute("update uvian.jobs set status = 'queued' where id = $1", job["id"])
    assert await in_line(world, conversation) == [(second["id"], True), (first["id"], False)]
    assert await broken(world) == {}
    assert ids((await world.sweep())["dispatch"]) == [second["id"]]


@pytest.mark.parametrize("how", ["end", "delete"])
async def test_a_hand_that_ends_a_chat_lets_the_next_in(
    world: World, user: str, conversation: str, how: str
) -> None:
    """With the next sweep."""
    first, second = [a["job"] for a in await chats(world, user, conversation, 2)]
    if how == "end":
        await world.hand.execute(
            "update uvian.jobs set status = 'failed' where id = $1", first["id"]
        )
    else:
        await world.service.delete("jobs", where=[Filter("id", "eq", first["id"])])
    assert ids((await world.sweep())["dispatch"]) == [second["id"]]


# ─── at once ─────────────────────────────────────────────────────────────────────────────────────


async def test_at_most_one_is_dispatched_under_concurrency(world: World, user: str) -> None:
    """Many connections post, claim, settle, retry and cancel; the index would refuse a second."""
    conversations = [await world.conversation(user) for _ in range(2)]
    chance = random.Random(7)
    over = asyncio.Event()
    most = 0

    async def watch() -> None:
        nonlocal most
        while not over.is_set():
            for row in await world.hand.fetch(
                "select count(*) from uvian.jobs where admitted and status in ('queued', 'processing') "
                "group by conversation_id"
            ):
                most = max(most, row["count"])
            await asyncio.sleep(0)

    async def work(name: str) -> None:
        for _ in range(10):
            made = await chats(world, user, chance.choice(conversations), 3)
            await world.post(
                chance.choice(conversations), user, on_busy=chance.choice(["enqueue", "interrupt"])
            )
            for job in await world.claim_next(name, "chat", limit=2):
                outcome = chance.choice(
                    ["completed", "failed", "retry", "interrupted", "cancelled"]
                )
                await world.settle(job, outcome, name, delay=chance.choice([0, 30]))
            cancelled = await world.cancel(made[0]["job"])
            if cancelled["cancelled"]:
                await world.retry(made[0]["job"], cancelled["job"]["run"])

    watching = asyncio.create_task(watch())
    try:
        await asyncio.gather(*(work(f"w{n}") for n in range(5)))
    finally:
        over.set()
        await watching
    assert most == 1
    assert await broken(world) == {}


async def test_everybody_in_line_gets_a_turn(world: World) -> None:
    """Whatever happened at once: nobody waits for ever, and order is kept."""
    users = [await world.user() for _ in range(3)]
    conversation = await world.conversation(*users)
    await world.type("chat", max_running_per_user=1)
    chance = random.Random(3)

    async def work(name: str, user: str) -> None:
        for _ in range(6):
            await world.post(conversation, user)
            for job in await world.claim_next(name, "chat", limit=3):
                await world.settle(job, chance.choice(["completed", "failed"]), name)

    await asyncio.gather(*(work(f"w{n}", user) for n, user in enumerate(users)))
    waiting = [id_ for id_, _ in await in_line(world, conversation)]
    order: list[str] = []
    for _ in range(60):
        if not await in_line(world, conversation):
            break
        await world.hand.execute(
            "update uvian.job_state set redispatch_at = now() where redispatch_at is not null"
        )
        try:
            await world.sweep()
        except Transient:
            continue
        for job in await world.claim_next("w", "chat", limit=10):
            order.append(job["id"])
            await world.settle(job, worker="w")
    assert order == waiting


async def test_a_conversation_that_goes_leaves_nobody_waiting(
    world: World, user: str, conversation: str
) -> None:
    """A chat that slipped through while it was deleted by hand still gets its turn, and finds nothing."""
    first, second = [a["job"] for a in await chats(world, user, conversation, 2)]
    async with opened(world.adapter) as other, other.hand.transaction():
        await other.hand.execute(
            "select from uvian.jobs where conversation_id = $1 for update", conversation
        )
        await world.service.delete("conversations", where=[Filter("id", "eq", conversation)])
    assert (await world.claim(first))["claimed"]
    assert ids((await world.settlement(first, "failed"))["dispatch"]) == [second["id"]]
    with pytest.raises(errors.Refused, match="no such conversation"):
        await world.retry(first, 1)


async def test_chats_queued_by_one_statement_have_numbers_of_their_own(world: World) -> None:
    """Also where the first gives the turn to the next, which still has its number of before."""
    user = await world.user()
    conversation = await world.conversation(user)
    ended = [(await world.post(conversation, user))["job"]["id"] for _ in range(2)]
    await world.hand.execute("update uvian.jobs set status = 'cancelled'")
    for _ in range(2):  # they count anew, and are not due
        await world.create(
            user, "chat", input={"conversation_id": conversation}, run_at="2040-01-01T00:00:00Z"
        )
    await world.hand.execute(
        "update uvian.jobs set status = 'queued' where id = any ($1::uuid[])", ended
    )
    turns = await world.hand.fetch("select turn from uvian.jobs where status = 'queued'")
    assert len({row["turn"] for row in turns}) == 4
    assert await broken(world) == {}
