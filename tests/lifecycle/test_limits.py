"""max_running_per_user acts before dispatch, exactly, however many connections there are."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from repositories.errors import Transient
from tests.adapters import over_postgres_only
from tests.lifecycle.world import World, opened

pytestmark = [pytest.mark.database, over_postgres_only]


async def batch(world: World, user: str, number: int, type_: str = "noop") -> list[dict[str, Any]]:
    """So many new jobs of a user, as create_jobs answers."""
    return await world.ask(*({"user_id": user, "type": type_, "input": {}} for _ in range(number)))


async def running(world: World, user: str) -> list[str]:
    """Who has a place, oldest first."""
    rows = await world.hand.fetch(
        "select id from uvian.jobs where user_id = $1 and admitted "
        "and status in ('queued', 'processing') order by score, created_at, id",
        user,
    )
    return [row["id"] for row in rows]


async def test_only_so_many_of_a_user_are_dispatched(world: World) -> None:
    """The rest stays queued, undispatched, and is not offered by the sweep."""
    await world.type(max_running_per_user=2)
    one, two = await world.user(), await world.user()
    answers = await batch(world, one, 4) + await batch(world, two, 1)
    assert sorted(a["dispatch"] for a in answers[:4]) == [False, False, True, True]
    assert answers[4]["dispatch"], "another user's backlog blocks nobody"
    await world.hand.execute(
        "update uvian.job_state set redispatch_at = redispatch_at - interval '1 h'"
    )
    swept = await world.sweep()
    assert {d["id"] for d in swept["dispatch"]} == {
        a["job"]["id"] for a in answers if a["dispatch"]
    }


@pytest.mark.parametrize("ending", ["completed", "failed"])
async def test_a_settlement_answers_with_the_next(world: World, ending: str) -> None:
    """The place that a job leaves goes to the oldest who waits, without waiting for a sweep."""
    await world.type(max_running_per_user=1)
    user = await world.user()
    jobs = [(await batch(world, user, 1))[0]["job"] for _ in range(3)]
    await world.claim(jobs[0])
    answer = await world.settlement(jobs[0], ending)
    assert [one["id"] for one in answer["dispatch"]] == [jobs[1]["id"]]


async def test_a_cancellation_answers_with_the_next(world: World) -> None:
    """Of a job that held a place; one that only waited lets nobody in."""
    await world.type(max_running_per_user=1)
    user = await world.user()
    jobs = [(await batch(world, user, 1))[0]["job"] for _ in range(3)]
    assert (await world.cancel(jobs[1]))["dispatch"] == []
    assert [one["id"] for one in (await world.cancel(jobs[0]))["dispatch"]] == [jobs[2]["id"]]


async def test_a_sweep_answers_with_the_next(world: World) -> None:
    """A place that a dead worker's job leaves for good."""
    await world.type(max_running_per_user=1, max_attempts=1)
    user = await world.user()
    jobs = [(await batch(world, user, 1))[0]["job"] for _ in range(2)]
    await world.claim(jobs[0])
    await world.expire(jobs[0])
    assert [one["id"] for one in (await world.sweep())["dispatch"]] == [jobs[1]["id"]]


async def test_a_retry_at_once_keeps_its_place(world: World) -> None:
    """An interrupted job is not overtaken by its own user's backlog."""
    await world.type(max_running_per_user=1)
    user = await world.user()
    jobs = [(await batch(world, user, 1))[0]["job"] for _ in range(2)]
    await world.claim(jobs[0])
    answer = await world.settlement(jobs[0], "interrupted")
    assert [(one["id"], one["run"]) for one in answer["dispatch"]] == [(jobs[0]["id"], 2)]


async def test_a_retry_for_later_gives_its_place_to_the_next(world: World) -> None:
    """And comes back when it is due and there is a place again."""
    await world.type(max_running_per_user=1)
    user = await world.user()
    first, second = [(await batch(world, user, 1))[0]["job"] for _ in range(2)]
    await world.claim(first)
    answer = await world.settlement(first, "retry", delay=30)
    assert [one["id"] for one in answer["dispatch"]] == [second["id"]]
    await world.make_due(first)
    assert (await world.sweep())["dispatch"] == [], "there is no place"
    await world.claim(second)
    answer = await world.settlement(second)
    assert [(one["id"], one["run"]) for one in answer["dispatch"]] == [(first["id"], 2)]


async def test_a_delayed_job_takes_no_place_before_its_time(world: World) -> None:
    """It waits without one, and the sweep lets it in when it is due."""
    await world.type(max_running_per_user=1)
    user = await world.user()
    later = await world.ask(
        {"user_id": user, "type": "noop", "input": {}, "run_at": "2040-01-01T00:00:00Z"}
    )
    assert not later[0]["dispatch"]
    now = (await batch(world, user, 1))[0]
    assert now["dispatch"]
    await world.cancel(now["job"])
    await world.make_due(later[0]["job"])
    assert [one["id"] for one in (await world.sweep())["dispatch"]] == [later[0]["job"]["id"]]


async def test_redis_lost_does_not_forget_who_waits_for_its_time(world: World) -> None:
    """Bringing dispatches forward concerns what was dispatched, not what waits for a place."""
    await world.type(max_running_per_user=1)
    user = await world.user()
    await batch(world, user, 1)
    later = await world.ask(
        {"user_id": user, "type": "noop", "input": {}, "run_at": "2040-01-01T00:00:00Z"}
    )
    now = await world.hand.fetchval("select now()::text")
    await world.sweep(redis_lost_at=now)
    assert (await world.state(later[0]["job"]))["redispatch_at"].year == 2040


async def test_a_waiting_job_that_is_offered_too_early_keeps_its_time(world: World) -> None:
    """A sweep that looks at it before its time does not strike it from the list."""
    await world.type(max_running_per_user=1)
    user = await world.user()
    later = await world.ask(
        {"user_id": user, "type": "noop", "input": {}, "run_at": "2040-01-01T00:00:00Z"}
    )
    await world.hand.execute("update uvian.job_state set redispatch_at = now()")
    assert (await world.sweep())["dispatch"] == []
    assert (await world.state(later[0]["job"]))["redispatch_at"].year == 2040


@pytest.mark.parametrize(("limit", "let_in"), [(3, 2), (None, 4), (1, 0)])
async def test_an_operator_changes_the_limit(world: World, limit: int | None, let_in: int) -> None:
    """Raised or removed, the next sweep lets in who waits; lowered, nobody is thrown out."""
    await world.type(max_running_per_user=1)
    user = await world.user()
    answers = await batch(world, user, 5)
    has_place = [a["job"]["id"] for a in answers if a["dispatch"]]
    await world.type(max_running_per_user=limit)
    swept = await world.sweep()
    assert len({d["id"] for d in swept["dispatch"]} - set(has_place)) == let_in
    assert set(has_place) <= set(await running(world, user))


async def test_who_was_held_by_another_is_let_in_by_the_next_sweep(world: World) -> None:
    """A row that is locked in that moment is skipped, and must not wait for ever after."""
    await world.type(max_running_per_user=1)
    user = await world.user()
    first, second = [(await batch(world, user, 1))[0]["job"] for _ in range(2)]
    await world.claim(first)
    async with opened(world.adapter) as other, other.hand.transaction():
        await other.hand.execute("select from uvian.jobs where id = $1 for update", second["id"])
        assert (await world.settlement(first))["dispatch"] == []
    await world.hand.execute(
        "update uvian.job_state set redispatch_at = redispatch_at - interval '2 s'"
    )
    assert [one["id"] for one in (await world.sweep())["dispatch"]] == [second["id"]]


async def test_the_limit_holds_exactly_under_concurrency(world: World) -> None:
    """Many connections create, claim, settle, retry and cancel; never more than the limit is admitted."""
    await world.type(max_running_per_user=3)
    users = [await world.user() for _ in range(2)]
    chance = random.Random(7)
    over = asyncio.Event()
    most = 0

    async def watch() -> None:
        nonlocal most
        while not over.is_set():
            for row in await world.hand.fetch(
                "select count(*) from uvian.jobs where admitted and status in ('queued', 'processing') "
                "group by user_id"
            ):
                most = max(most, row["count"])
            await asyncio.sleep(0)

    async def work(name: str) -> None:
        for _ in range(12):
            user = chance.choice(users)
            told = [a["job"] for a in await batch(world, user, 4) if a["dispatch"]]
            for _ in range(3):
                got = await world.claim_next(name, limit=2)
                for job in got:
                    outcome = chance.choice(
                        ["completed", "failed", "retry", "interrupted", "cancelled"]
                    )
                    await world.settle(job, outcome, name, delay=chance.choice([0, 30]))
            for job in told:
                await world.cancel(job)

    watching = asyncio.create_task(watch())
    try:
        await asyncio.gather(*(work(f"w{n}") for n in range(5)))
    finally:
        over.set()
        await watching
    assert most == 3


async def test_who_counts_places_waits_for_who_takes_one(world: World) -> None:
    """A place that is taken and not yet committed is seen by nobody: without the lock, both have it."""
    await world.type(max_running_per_user=2)
    user = await world.user()
    failed = await world.started(user)
    await world.settle(failed, "failed")
    await world.started(user)
    waits = "select count(*) from pg_locks where not granted"
    async with opened(world.adapter) as other, other.hand.transaction():
        request = {"jobs": [{"user_id": user, "type": "noop", "input": {}}]}
        await other.hand.execute("select uvian.create_jobs($1)", request)
        retrying = asyncio.create_task(world.retry(failed, 1))
        while not retrying.done() and not await world.hand.fetchval(waits):
            await asyncio.sleep(0)
    assert (await retrying)["dispatch"] == []
    assert len(await running(world, user)) == 2


async def test_nobody_who_is_due_waits_beside_a_free_place(world: World) -> None:
    """Whatever happened at once: after a sweep every place is taken or nobody waits for it."""
    await world.type(max_running_per_user=2)
    user = await world.user()
    chance = random.Random(3)

    async def work(name: str) -> None:
        for _ in range(8):
            await batch(world, user, 2)
            for job in await world.claim_next(name, limit=3):
                await world.settle(job, chance.choice(["completed", "retry"]), name, delay=60)

    await asyncio.gather(*(work(f"w{n}") for n in range(5)))
    waiting = -1
    for _ in range(60):
        await world.hand.execute(
            "update uvian.job_state set redispatch_at = now() where redispatch_at is not null"
        )
        try:
            await world.sweep()
        except Transient:
            continue
        waiting = await world.hand.fetchval(
            "select count(*) from uvian.jobs where status = 'queued' and not admitted and run_at <= now()"
        )
        assert waiting == 0 or len(await running(world, user)) == 2
        got = await world.claim_next("w", limit=10)
        for job in got:
            await world.settle(job, worker="w")
        if not got and not waiting:
            break
    assert waiting == 0
