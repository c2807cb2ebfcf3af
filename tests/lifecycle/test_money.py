"""What is charged is what was delivered, whoever stops, retries or crashes; the rest is removed."""

from __future__ import annotations

import asyncio
import uuid
from decimal import Decimal
from typing import Any

import pytest

from tests.adapters import over_postgres_only
from tests.lifecycle.invariants import broken
from tests.lifecycle.test_running import concept, variation
from tests.lifecycle.world import World

pytestmark = [pytest.mark.database, over_postgres_only]

PRICE = 8


@pytest.fixture
async def user(world: World) -> str:
    """Somebody with credits; a picture job costs eight of them."""
    await world.type("noop", price=PRICE)
    await world.type("chat", price=PRICE)
    return await world.user(100)


def pictures(job: dict[str, Any], count: int) -> dict[str, Any]:
    """What a worker keeps of a job that told of so many of eight pictures; their ids are the job's."""
    made = [
        {
            **variation(n),
            "id": str(uuid.uuid5(uuid.UUID(job["id"]), str(n))),
            "image_path": f"u/{n}",
        }
        for n in range(1, count)
    ]
    kept = concept(job["id"], image_path="u/0")
    return {"charge": count / 8, "concept": kept, "variations": made, "result_id": kept["id"]}


async def register(world: World, job: dict[str, Any], *paths: str, worker: str = "w1") -> Any:
    """A worker says that it is about to store these."""
    item = {"id": job["id"], "run": job["run"], "checkpoints": {}, "files": list(paths)}
    answer = await world.call("save_checkpoints", worker=worker, jobs=[item])
    return answer["jobs"][0]


async def unnamed(world: World) -> list[str]:
    """What is to be removed now."""
    found: list[str] = []
    while True:
        call = str(uuid.uuid4())
        chosen = await world.call("choose_unnamed_files", id=call)
        if not chosen["more"]:
            break
        if chosen["files"]:  # a lost reply: the same call is answered the same
            assert await world.call("choose_unnamed_files", id=call) == chosen
        found += chosen["files"]
    return sorted(found)


# ─── pictures ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("count", [1, 4, 7, 8])
async def test_a_cancelled_job_keeps_and_pays_for_what_was_told(
    world: World, user: str, count: int
) -> None:
    """Rows and charge in one transaction: so many eighths of the price for so many pictures."""
    job = await world.started(user)
    await register(world, job, *(f"u/{n}" for n in range(8)))
    await world.cancel(job)
    answer = await world.settle(job, "cancelled", **pictures(job, count))
    assert Decimal(answer["cost"]) == count
    assert await world.account(user) == (Decimal(100 - count), Decimal(0))
    assert (await world.row(job))["result_id"] == job["id"]
    assert await unnamed(world) == [f"u/{n}" for n in range(count, 8)]
    assert await broken(world) == {}


async def test_who_was_told_of_nothing_pays_nothing(world: World, user: str) -> None:
    """And everything that was stored meanwhile goes."""
    job = await world.started(user)
    await register(world, job, "u/0")
    await world.cancel(job)
    assert Decimal((await world.settle(job, "cancelled"))["cost"]) == 0
    assert await unnamed(world) == ["u/0"]


@pytest.mark.parametrize("then", ["completed", "failed", "cancelled"])
async def test_a_retry_pays_for_the_rest(world: World, user: str, then: str) -> None:
    """What was paid for is not paid again, and no later failure takes it away."""
    job = await world.started(user)
    await world.settle(job, "cancelled", **pictures(job, 7))
    again = await world.claim((await world.retry(job, 1))["job"])
    if then == "completed":
        whole = pictures(job, 8)
        await world.call("store_concept", worker="w1", job_id=job["id"], run=2, **_rows(whole))
        answer = await world.settle(again, "completed", result_id=job["id"])
        assert Decimal(answer["cost"]) == 1
    elif then == "cancelled":
        answer = await world.settle(again, "cancelled", **pictures(job, 7))
        assert Decimal(answer["cost"]) == 0
    else:
        answer = await world.settle(again, "failed")
        assert Decimal(answer["cost"]) == 0
    spent = PRICE if then == "completed" else 7
    assert await world.account(user) == (Decimal(100 - spent), Decimal(0))
    named = await world.hand.fetchval("select count(*) from uvian.concept_variations")
    assert named + 1 == spent
    assert await broken(world) == {}


@pytest.mark.parametrize(
    ("first", "second", "together"), [(7, [], 7), (7, [1], 7), (4, [1, 2, 5], 5), (1, [3], 2)]
)
async def test_a_retry_takes_no_picture_away(
    world: World, user: str, first: int, second: list[int], together: int
) -> None:
    """Cancelled again before it came to all of them: what was paid for stays, what is new is paid for."""
    job = await world.started(user)
    await register(world, job, *(f"u/{n}" for n in range(8)))
    await world.settle(job, "cancelled", **pictures(job, first))
    again = await world.claim((await world.retry(job, 1))["job"])
    made = pictures(job, 8)
    made["variations"] = [each for each in made["variations"] if each["position"] in second]
    made["charge"] = (1 + len(second)) / 8
    answer = await world.settle(again, "cancelled", **made)
    assert Decimal(answer["cost"]) == together - first
    assert await world.account(user) == (Decimal(100 - together), Decimal(0))
    named = {
        row["image_path"]
        for row in await world.hand.fetch(
            "select image_path from uvian.concepts union select image_path from uvian.concept_variations"
        )
    }
    assert named == {"u/0", *(f"u/{n}" for n in {*range(1, first), *second})}
    assert await unnamed(world) == sorted({f"u/{n}" for n in range(8)} - named)
    assert await broken(world) == {}


@pytest.mark.parametrize("ending", ["failed", "lost"])
async def test_what_a_failed_retry_has_added_is_not_given_away(
    world: World, user: str, ending: str
) -> None:
    """Seven pictures are paid for; the run that had stored all eight ends without a charge."""
    job = await world.started(user)
    await register(world, job, *(f"u/{n}" for n in range(8)))
    await world.settle(job, "cancelled", **pictures(job, 7))
    again = await world.claim((await world.retry(job, 1))["job"])
    await world.call(
        "store_concept", worker="w1", job_id=job["id"], run=2, **_rows(pictures(job, 8))
    )
    if ending == "failed":
        await world.settle(again, "failed")
    else:
        await world.cancel(again)
        await world.lose(again)
    assert await world.account(user) == (Decimal(93), Decimal(0))
    assert await world.hand.fetchval("select count(*) from uvian.concept_variations") == 6
    await world.hand.execute("update uvian.files set check_at = now()")
    assert await unnamed(world) == ["u/7"]
    assert await broken(world) == {}


@pytest.mark.parametrize(("price", "rest"), [(PRICE, 1), (PRICE + 4, 5), (3, 0)])
async def test_a_retry_holds_the_rest_alone(world: World, price: int, rest: int) -> None:
    """Who has what is left to pay can have the rest made, also after the price has changed."""
    await world.type("noop", price=PRICE)
    user = await world.user(max(PRICE, 7 + rest))
    left = max(PRICE, 7 + rest) - 7 - rest
    job = await world.started(user)
    await world.settle(job, "cancelled", **pictures(job, 7))
    await world.type("noop", price=price)
    again = await world.claim((await world.retry(job, 1))["job"])
    assert await world.account(user) == (Decimal(left), Decimal(rest))
    whole = pictures(job, 8)
    await world.call("store_concept", worker="w1", job_id=job["id"], run=2, **_rows(whole))
    answer = await world.settle(again, "completed", result_id=job["id"])
    assert Decimal(answer["cost"]) == rest
    assert await world.account(user) == (Decimal(left), Decimal(0))
    assert await broken(world) == {}


def _rows(kept: dict[str, Any]) -> dict[str, Any]:
    return {"concept": kept["concept"], "variations": kept["variations"]}


async def test_a_result_that_its_user_has_deleted_is_paid_for_anew(world: World, user: str) -> None:
    """Its pictures are gone: the retry makes them again."""
    job = await world.started(user)
    await world.settle(job, "cancelled", **pictures(job, 7))
    await world.hand.execute("delete from uvian.concepts")
    again = await world.claim((await world.retry(job, 1))["job"])
    answer = await world.settle(again, "completed", result_id=job["id"])
    assert Decimal(answer["cost"]) == PRICE


async def test_a_part_of_a_result_costs_its_part(world: World, user: str) -> None:
    """Four of seven variations are missing: five eighths of the price at most are charged."""
    job = await world.started(user)
    answer = await world.settle(job, "completed", charge=0.5)
    assert Decimal(answer["cost"]) == PRICE / 2


async def test_killed_between_storing_and_settling(world: World, user: str) -> None:
    """The worker is gone with a cancelled job: free, without a row, and its files are removed."""
    job = await world.started(user)
    await register(world, job, "u/0", "u/1")
    await world.call(
        "store_concept", worker="w1", job_id=job["id"], run=1, **_rows(pictures(job, 2))
    )
    await world.cancel(job)
    await world.lose(job)
    assert (await world.row(job))["status"] == "cancelled"
    assert await world.account(user) == (Decimal(100), Decimal(0))
    assert await world.hand.fetchval("select count(*) from uvian.concepts") == 0
    assert await unnamed(world) == ["u/0", "u/1"]
    late = await world.settle(job, "cancelled", **pictures(job, 2))
    assert late["settled"] is False
    assert await world.account(user) == (Decimal(100), Decimal(0))


async def test_cancel_settle_and_crash_at_once(world: World, user: str) -> None:
    """Whoever comes first: charged once, for what is kept, and never more than the price."""
    for _ in range(6):
        job = await world.started(user)
        await asyncio.gather(
            world.cancel(job),
            world.settle(job, "cancelled", **pictures(job, 7)),
            world.settle(job, "completed", result_id=job["id"]),
            world.settle(job, "cancelled", **pictures(job, 3)),
            return_exceptions=True,
        )
        cost = Decimal(str((await world.row(job))["cost"]))
        kept = await world.hand.fetchval(
            "select count(*) from uvian.concept_variations where concept_id = $1",
            uuid.UUID(job["id"]),
        )
        assert cost in (3, 7, PRICE)
        assert cost == PRICE or kept + 1 == cost
        assert await broken(world) == {}


async def test_a_parent_that_is_gone_takes_nothing_from_its_child(world: World, user: str) -> None:
    """The kept concept of a refinement stands alone then."""
    job = await world.started(user)
    kept = pictures(job, 1)
    kept["concept"]["parent_id"] = str(uuid.uuid4())
    assert Decimal((await world.settle(job, "cancelled", **kept))["cost"]) == 1
    assert await world.hand.fetchval("select parent_id from uvian.concepts") is None


# ─── files ───────────────────────────────────────────────────────────────────────────────────────


async def test_only_who_holds_the_job_registers(world: World, user: str) -> None:
    """A run that was fenced off stores nothing any more."""
    job = await world.started(user)
    assert await register(world, job, "u/0") == {"saved": True, "busy": False}
    assert (await register(world, job, "u/1", worker="other"))["saved"] is False
    assert (await register(world, {**job, "run": 7}, "u/1"))["saved"] is False
    assert await world.hand.fetchval("select count(*) from uvian.files") == 1


async def test_a_file_is_kept_while_anybody_may_need_it(world: World, user: str) -> None:
    """Another job that runs, or its result, names the same picture: content has one address."""
    one, other = await world.started(user), await world.started(user)
    for job in (one, other):
        await register(world, job, "u/0")
    await world.settle(one, "cancelled")
    assert await unnamed(world) == []
    await world.call(
        "store_concept", worker="w1", job_id=other["id"], run=1, **_rows(pictures(other, 1))
    )
    await world.settle(other, "completed", result_id=other["id"])
    assert await unnamed(world) == []
    await world.hand.execute("delete from uvian.concepts")
    assert await unnamed(world) == ["u/0"]


async def test_a_file_that_is_being_removed_is_waited_for(world: World, user: str) -> None:
    """Stored in that moment it would be gone afterwards, and its row would name nothing."""
    one = await world.started(user)
    await register(world, one, "u/0")
    await world.settle(one, "cancelled")
    assert await unnamed(world) == ["u/0"]
    other = await world.started(user)
    assert (await register(world, other, "u/0"))["busy"]
    await world.call("forget_files", files=["u/0"])
    assert not (await register(world, other, "u/0"))["busy"]
    assert await world.hand.fetchval("select count(*) from uvian.files") == 1
    await world.settle(other, "cancelled")
    assert await unnamed(world) == ["u/0"]


async def test_a_removal_that_died_is_begun_again(world: World, user: str) -> None:
    """Each file is handed out once, and again after two minutes; nobody waits for a dead one longer."""
    job = await world.started(user)
    await register(world, job, "u/0")
    await world.settle(job, "cancelled")
    assert await unnamed(world) == ["u/0"]
    assert await unnamed(world) == []
    await world.hand.execute("update uvian.files set removing_at = removing_at - interval '3 min'")
    assert not (await register(world, await world.started(user), "u/0"))["busy"]
    assert await unnamed(world) == []  # a job that runs is about to store it


async def test_a_failed_jobs_files_wait_for_its_retry(world: World, user: str) -> None:
    """An hour: its picture from the model is not paid for again. Nobody sees it meanwhile."""
    job = await world.started(user)
    path = f"{user}/x.png"
    await register(world, job, path)
    seen = {"user_id": user, "paths": [path]}
    assert (await world.call("served_files", **seen))["paths"] == [path]
    await world.settle(job, "failed")
    assert (await world.call("served_files", **seen))["paths"] == []
    assert await unnamed(world) == []
    await world.hand.execute("update uvian.files set check_at = check_at - interval '1 hour'")
    assert await unnamed(world) == [path]


async def test_nobody_is_served_anothers_file(world: World, user: str) -> None:
    """Although a row names it."""
    job = await world.started(user)
    path = f"{user}/x.png"
    await register(world, job, path)
    stranger = await world.user()
    answer = await world.call("served_files", user_id=stranger, paths=[path])
    assert answer["paths"] == []


@pytest.mark.parametrize("what", ["uvian.jobs", "auth.users"])
async def test_who_deletes_rows_deletes_files(world: World, user: str, what: str) -> None:
    """A job that runs, or its user, is deleted by hand: what was stored is found all the same."""
    job = await world.started(user)
    await register(world, job, "u/0")
    await world.hand.execute(f"delete from {what}")
    assert await unnamed(world) == ["u/0"]


# ─── answers ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("size", "user_limit", "operator_limit", "share"),
    [
        (4, None, None, "0.1"),  # a word: the question was read
        (1000, None, None, "0.5"),
        (2000, None, None, "1"),
        (90_000, None, None, "1"),
        (1000, 200_000, None, "0.5"),  # what the user would have allowed makes nothing cheap
        (1000, 1, None, "1"),  # … and nothing free
        (100, 50, None, "0.5"),
        (1000, None, 250, "1"),
        (1000, 200_000, 4096, "0.5"),
        (1000, 0, None, "1"),
        (1000, -5, None, "1"),
        (1000, "many", None, "0.5"),
    ],
)
async def test_a_stopped_answer_costs_what_was_delivered(
    world: World, user: str, size: int, user_limit: Any, operator_limit: int | None, share: str
) -> None:
    """Against a whole answer, never against the number that its user has set."""
    await world.type("chat", max_tokens=operator_limit)
    conversation = await world.conversation(user)
    posted = await world.post(conversation, user)
    job = await world.claim(posted["job"])
    if user_limit is not None:
        value = f'"{user_limit}"' if isinstance(user_limit, str) else user_limit
        await world.hand.execute(
            f"update uvian.jobs set input = input || '{{\"max_tokens\": {value}}}'"
        )
    await world.cancel(job)
    answer = await world.settle(job, "cancelled", message={"content": "x" * size})
    assert Decimal(answer["cost"]) == PRICE * Decimal(share)
    assert await broken(world) == {}


async def test_each_new_answer_is_paid_for(world: World, user: str) -> None:
    """Stopped at its last word and asked for again: that is two answers, and not one for the price."""
    conversation = await world.conversation(user)
    job = await world.claim((await world.post(conversation, user))["job"])
    await world.cancel(job)
    await world.settle(job, "cancelled", message={"content": "x" * 2000})
    again = await world.claim((await world.retry(job, 1))["job"])
    await world.settlement(again, message={"content": "x" * 2000})
    assert await world.account(user) == (Decimal(100 - 2 * PRICE), Decimal(0))
