"""create_jobs: checked, counted, paid for and inserted, once per id and key."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from decimal import Decimal
from typing import Any

import pytest

from repositories import errors
from tests.lifecycle.world import World, opened

pytestmark = pytest.mark.database


def item(user: str, **more: Any) -> dict[str, Any]:
    """An item of a request."""
    return {"user_id": user, "type": "noop", "input": {}, **more}


async def test_a_new_job_is_queued_with_run_1_and_to_be_dispatched_by_its_caller(
    world: World,
) -> None:
    """The answer carries what dispatch needs; the sweep would offer the job again after 5 s."""
    user = await world.user()
    id_ = str(uuid.uuid4())
    answer = (await world.ask(item(user, id=id_, input={"a": 1}, priority=60)))[0]
    assert answer["created"]
    assert answer["dispatch"]
    assert not answer["delayed"]
    job = answer["job"]
    assert (job["id"], job["run"], job["attempt"], job["status"]) == (id_, 1, 0, "queued")
    row = await world.row(job)
    assert row["input"] == {"a": 1}
    assert row["priority"] == 60
    state = await world.state(job)
    assert 4 < (state["redispatch_at"] - row["created_at"]).total_seconds() < 6


async def test_the_same_id_twice_is_the_same_job(world: World) -> None:
    """A reply that was lost after the commit: the repetition finds what the first call made."""
    user = await world.user(10)
    await world.type(price=3)
    asked = item(user, id=str(uuid.uuid4()), input={"a": 1})
    first = (await world.ask(asked))[0]
    again = (await world.ask(asked))[0]
    assert again["job"] == first["job"]
    assert not again["created"]
    assert not again["dispatch"]
    assert await world.account(user) == (Decimal(7), Decimal(3))


async def test_the_same_key_twice_is_the_same_job_whatever_the_id(world: World) -> None:
    """The idempotency key identifies a user's request even when the client made a new id."""
    user = await world.user()
    asked = [item(user, id=str(uuid.uuid4()), idempotency_key="k") for _ in range(2)]
    first, again = [(await world.ask(one))[0] for one in asked]
    assert first["created"]
    assert not again["created"]
    assert again["job"]["id"] == first["job"]["id"]


async def test_a_key_belongs_to_its_user(world: World) -> None:
    """Two users may use the same key without seeing each other's jobs."""
    one, two = await world.user(), await world.user()
    answers = await world.ask(item(one, idempotency_key="k"), item(two, idempotency_key="k"))
    assert [answer["created"] for answer in answers] == [True, True]


@pytest.mark.parametrize("changed", [{"input": {"b": 2}}, {"type": "other"}])
async def test_another_request_under_a_used_key_is_a_conflict(
    world: World, changed: dict[str, Any]
) -> None:
    """A key that comes with another input or type was reused by mistake, and nothing is made."""
    user = await world.user()
    await world.type("other")
    await world.ask(item(user, idempotency_key="k", input={"a": 1}))
    answer = (await world.ask(item(user, idempotency_key="k", input={"a": 1}) | changed))[0]
    assert answer == {"code": "idempotency_conflict"}


async def test_another_users_id_is_a_conflict(world: World) -> None:
    """An id that is taken tells a stranger nothing about the job that has it."""
    job = await world.create(await world.user())
    assert await world.ask(item(await world.user(), id=job["id"])) == [
        {"code": "idempotency_conflict"}
    ]


async def test_an_id_and_a_key_of_two_different_jobs_are_a_conflict(world: World) -> None:
    """Both name a job that exists, but not the same one: neither may be answered."""
    user = await world.user()
    one = await world.create(user, idempotency_key="k")
    two = await world.create(user)
    assert one["id"] != two["id"]
    assert await world.ask(item(user, id=two["id"], idempotency_key="k")) == [
        {"code": "idempotency_conflict"}
    ]


async def test_the_same_request_twice_in_one_batch_is_made_once(world: World) -> None:
    """A batch that was put together from retries makes one job of each id and each key."""
    user = await world.user(10)
    await world.type(price=3)
    same_id = item(user, id=str(uuid.uuid4()))
    answers = await world.ask(
        same_id, same_id, item(user, idempotency_key="k"), item(user, idempotency_key="k")
    )
    assert [answer["created"] for answer in answers] == [True, False, True, False]
    assert answers[2]["job"]["id"] == answers[3]["job"]["id"]
    assert await world.account(user) == (Decimal(4), Decimal(6))


async def test_what_cannot_be_made_says_why(world: World) -> None:
    """Each refusal has a code and what its reader needs; others of the batch are made all the same."""
    user = await world.user(5)
    await world.type("off", enabled=False)
    await world.type("small", max_input_bytes=20)
    await world.type("dear", price="7.5")
    stranger = await world.create(await world.user())
    answers = await world.ask(
        item(user, type="nothing"),
        item(user, type="off"),
        item(user, input=[1]),
        item(user, input=None),
        item(user, type="small", input={"text": "x" * 20}),
        item(str(uuid.uuid4())),
        item(user, parent_id=stranger["id"]),
        item(user, type="dear", max_cost="7"),
        item(user, type="dear"),
        item(user),
    )
    assert answers[:-1] == [
        {"code": "unknown_type"},
        {"code": "type_disabled"},
        {"code": "invalid_input"},
        {"code": "invalid_input"},
        {"code": "input_too_large", "limit": 20},
        {"code": "unknown_user"},
        {"code": "unknown_parent"},
        {"code": "cost_exceeds_max", "cost": "7.500000"},
        {"code": "insufficient_credits", "cost": "7.500000", "balance": "5.000000"},
    ]
    assert answers[-1]["created"]


async def test_a_parent_may_be_in_the_same_batch(world: World) -> None:
    """Who creates a job and its child in one call need not make two."""
    user = await world.user()
    id_ = str(uuid.uuid4())
    answers = await world.ask(item(user, id=id_), item(user, parent_id=id_))
    assert [answer["created"] for answer in answers] == [True, True]
    assert answers[1]["job"]["parent_id"] == id_


async def test_max_cost_is_a_limit_not_an_estimate(world: World) -> None:
    """A price that rose since the user saw it does not take more than was agreed to."""
    user = await world.user(100)
    await world.type(price=5)
    assert (await world.ask(item(user, max_cost="5")))[0]["created"]
    await world.type(price=6)
    assert (await world.ask(item(user, max_cost="5")))[0]["code"] == "cost_exceeds_max"


async def test_creation_reserves_the_price(world: World) -> None:
    """What the job will cost is taken from the balance and held, and the books say for whom."""
    user = await world.user(10)
    await world.type(price="2.5")
    answer = await world.call("create_jobs", jobs=[item(user), item(user)])
    assert await world.account(user) == (Decimal(5), Decimal(5))
    assert await world.entries(answer["jobs"][0]["job"]) == [("reserve", Decimal("2.5"))]
    assert answer["accounts"] == [
        {"user_id": user, "balance": "5.000000", "reserved": "5.000000", "version": 2}
    ]


async def test_in_a_batch_each_job_is_made_that_can_be_paid_for(world: World) -> None:
    """A dear job that cannot be paid does not keep a cheap one after it from being made."""
    user = await world.user(10)
    await world.type("six", price=6)
    await world.type("four", price=4)
    answers = await world.ask(
        item(user, type="six"),
        item(user, type="six"),
        item(user, type="four"),
        item(user, type="four"),
    )
    assert [answer.get("code") for answer in answers] == [
        None,
        "insufficient_credits",
        None,
        "insufficient_credits",
    ]
    assert await world.account(user) == (Decimal(0), Decimal(10))


async def test_a_free_job_needs_no_account(world: World) -> None:
    """Without a price everything works without credits."""
    user = await world.user()
    assert await world.create(user)
    assert await world.hand.fetchval("select count(*) from uvian.credit_accounts") == 0


async def test_max_queued_per_user_counts_within_the_batch(world: World) -> None:
    """The limit holds however the jobs arrive, and is the user's own."""
    await world.type(max_queued_per_user=2)
    one, two = await world.user(), await world.user()
    answers = await world.ask(item(one), item(one), item(one), item(two))
    assert [answer.get("code") for answer in answers] == [None, None, "too_many_queued", None]
    assert answers[2]["limit"] == 2
    job = answers[0]["job"]
    await world.claim(job)
    assert (await world.ask(item(one)))[0]["created"], "a running job does not wait"


async def test_a_delayed_job_is_dispatched_with_its_delay(world: World) -> None:
    """arq's own score carries the delay; the caller dispatches at once."""
    user = await world.user()
    answer = (await world.ask(item(user, run_at="2040-01-01T00:00:00Z")))[0]
    assert answer["dispatch"]
    assert answer["delayed"]


async def test_a_malformed_value_refuses_the_whole_call(world: World) -> None:
    """A value that is no uuid is the caller's mistake: nothing of the batch is made."""
    user = await world.user()
    with pytest.raises(errors.DataError):
        await world.ask(item(user), item(user, id="not a uuid"))
    assert await world.hand.fetchval("select count(*) from uvian.jobs") == 0


async def test_unknown_keys_are_ignored(world: World) -> None:
    """A newer release may send more: an older schema must not break its deploy."""
    user = await world.user()
    answer = await world.call("create_jobs", jobs=[item(user, colour="blue")], tomorrow=1)
    assert answer["jobs"][0]["created"]


async def test_concurrent_creates_with_crossing_keys_end_alike(world: World) -> None:
    """Batches with the same keys in opposite orders neither deadlock nor make a job twice."""
    user = await world.user()
    keys = [str(n) for n in range(20)]
    orders = [keys, keys[::-1], keys[10:] + keys[:10], keys[1::2] + keys[::2]]

    async def create(order: list[str]) -> list[dict[str, Any]]:
        return await world.ask(*(item(user, idempotency_key=key) for key in order))

    for _ in range(3):
        await world.hand.execute("delete from uvian.jobs")
        answers = await asyncio.gather(*map(create, orders))
        by_key: dict[str, set[str]] = {}
        for order, answer in zip(orders, answers, strict=True):
            for key, one in zip(order, answer, strict=True):
                by_key.setdefault(key, set()).add(one["job"]["id"])
        assert all(len(ids) == 1 for ids in by_key.values())
        created = [one["created"] for one in itertools.chain(*answers)]
        assert sum(created) == len(keys)


async def test_batches_take_their_keys_in_one_order(world: World) -> None:
    """Whoever waits for a key holds none that comes after it: no two can wait for each other."""
    user = await world.user()
    first, then = (item(user, idempotency_key=key) for key in "ab")
    waits = "select count(*) from pg_locks where not granted"
    async with opened(world.adapter) as other, other.hand.transaction():
        statement = "select uvian.create_jobs($1)"
        await other.hand.execute(statement, {"jobs": [first]})
        waiting = asyncio.create_task(world.ask(then, first))
        while not await world.hand.fetchval(waits):
            await asyncio.sleep(0)
        await other.hand.execute(statement, {"jobs": [then]})
    answers = await waiting
    assert [answer["created"] for answer in answers] == [False, False]


async def test_concurrent_creates_cannot_spend_the_same_credits(world: World) -> None:
    """Of ten calls at once exactly as many are made as the balance pays for."""
    user = await world.user(10)
    await world.type(price=3)
    answers = await asyncio.gather(*(world.ask(item(user), item(user)) for _ in range(5)))
    created = [one for answer in answers for one in answer if "job" in one]
    assert len(created) == 3
    assert await world.account(user) == (Decimal(1), Decimal(9))


async def test_who_looks_at_a_balance_waits_for_who_spends_it(world: World) -> None:
    """Credits that are spent and not yet committed are missed in time: a refusal, not an error."""
    await world.type(price=6)
    user = await world.user(10)
    waits = "select count(*) from pg_locks where not granted"
    async with opened(world.adapter) as other, other.hand.transaction():
        await other.hand.execute("select uvian.create_jobs($1)", {"jobs": [item(user)]})
        asking = asyncio.create_task(world.ask(item(user)))
        while not asking.done() and not await world.hand.fetchval(waits):
            await asyncio.sleep(0)
    assert [answer.get("code") for answer in await asking] == ["insufficient_credits"]


async def test_concurrent_creates_keep_max_queued_exactly(world: World) -> None:
    """The limit holds under concurrency, because who counts holds the place."""
    await world.type(max_queued_per_user=5)
    user = await world.user()
    answers = await asyncio.gather(*(world.ask(item(user), item(user)) for _ in range(6)))
    assert sum("job" in one for answer in answers for one in answer) == 5


@pytest.mark.parametrize(
    "run_at",
    [
        "2040-01-01T00:00:00",
        "2040-01-01 00:00",
        "2040-01-01",
        "tomorrow",
        "now",
        "infinity",
        "epoch",
        "noon",
        "",
        2_208_988_800,
        "2040-01-01T00:00:00 Europe/Berlin",
    ],
)
async def test_a_moment_without_its_offset_is_refused(world: World, run_at: Any) -> None:
    """It would be taken in whatever zone the session has; the others of the batch are made."""
    user = await world.user()

    refused, made = await world.ask(item(user, run_at=run_at), item(user))
    assert (refused["code"], refused["field"]) == ("invalid_input", "run_at")
    assert "offset from UTC" in refused["message"]
    assert "job" in made


async def test_a_moment_with_its_offset_is_that_moment(world: World) -> None:
    """However it is written."""
    user = await world.user()
    for run_at in (
        "2040-01-01T00:00:00Z",
        "2040-01-01T09:00:00+09:00",
        "2040-01-01 00:00+00",
        "2039-12-31T19:00:00.000000-0500",
        "2040-01-01t00:00:00z",
    ):
        (answer,) = await world.ask(item(user, run_at=run_at))
        row = await world.row(answer["job"])
        assert row["run_at"].isoformat() == "2040-01-01T00:00:00+00:00", run_at
