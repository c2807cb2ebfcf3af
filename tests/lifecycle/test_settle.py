"""settle_jobs: every ending, fenced, paid for, and the same answer for ever."""

from __future__ import annotations

import asyncio
import uuid
from decimal import Decimal
from typing import Any

import pytest

from repositories import errors
from tests.lifecycle.world import World

pytestmark = pytest.mark.database

ERROR = {"code": "provider_rejected", "stage": "work", "message": "No.", "retryable": False}


async def paying(world: World, price: str = "10", **item: Any) -> tuple[str, dict[str, Any]]:
    """A user with 100 credits and a running job that holds some of them."""
    await world.type(price=price)
    user = await world.user(100)
    return user, await world.started(user, **item)


async def test_completed_work_is_stored_and_charged(world: World) -> None:
    """Output, result, stages and charge appear together; the lease is gone."""
    user, job = await paying(world)
    result = str(uuid.uuid4())
    stages = [{"name": "work", "ms": 5}]
    answer = await world.settlement(job, output={"a": 1}, result_id=result, stages=stages)
    assert answer["jobs"] == [
        {
            "id": job["id"],
            "run": 1,
            "settled": True,
            "status": "completed",
            "attempt": 0,
            "cost": "10.000000",
            "next_run": 1,
            "next": None,
        }
    ]
    assert answer["dispatch"] == []
    assert answer["accounts"] == [
        {"user_id": user, "balance": "90.000000", "reserved": "0.000000", "version": 3}
    ]
    row = await world.row(job)
    assert (row["status"], row["progress"], row["cost"]) == ("completed", 1.0, Decimal(10))
    assert (row["output"], row["result_id"], row["stages"]) == ({"a": 1}, result, stages)
    assert row["finished_at"] is not None
    assert await world.lease(job) is None
    assert await world.entries(job) == [("reserve", Decimal(10)), ("charge", Decimal(10))]


async def test_failed_work_costs_nothing_and_says_why(world: World) -> None:
    """The reservation is released, the attempt burned, the reason kept."""
    user, job = await paying(world)
    answer = await world.settle(job, "failed", error=ERROR, error_message="No.")
    assert (answer["status"], answer["attempt"], answer["cost"]) == ("failed", 1, "0.000000")
    row = await world.row(job)
    assert (row["error"], row["error_message"]) == (ERROR, "No.")
    assert await world.account(user) == (Decimal(100), Decimal(0))
    assert await world.entries(job) == [("reserve", Decimal(10)), ("release", Decimal(10))]


async def test_cancelled_work_is_released(world: World) -> None:
    """A job that was cancelled and kept nothing costs nothing, and has no error."""
    user, job = await paying(world)
    await world.cancel(job)
    answer = await world.settle(job, "cancelled", error=ERROR, error_message="No.")
    assert (answer["status"], answer["attempt"]) == ("cancelled", 0)
    assert (await world.row(job))["error"] is None
    assert await world.account(user) == (Decimal(100), Decimal(0))


async def test_kept_partial_results_are_charged_pro_rata(world: World) -> None:
    """A cancelled chat pays for its tokens: charge and release add up to the reservation."""
    user, job = await paying(world, "0.000003")
    answer = await world.settle(job, "cancelled", charge=0.5)
    assert answer["cost"] == "0.000002"
    assert await world.entries(job) == [
        ("reserve", Decimal("0.000003")),
        ("charge", Decimal("0.000002")),
        ("release", Decimal("0.000001")),
    ]
    assert await world.account(user) == (Decimal("99.999998"), Decimal(0))


@pytest.mark.parametrize(("fraction", "cost"), [(7, "10.000000"), (-1, "0.000000")])
async def test_never_more_is_charged_than_reserved_nor_less_than_nothing(
    world: World, fraction: int, cost: str
) -> None:
    """Whatever a worker computes, the user pays at most what was agreed to."""
    _, job = await paying(world)
    assert (await world.settle(job, charge=fraction))["cost"] == cost


async def test_a_retry_is_queued_as_another_run_after_its_delay(world: World) -> None:
    """An error that may pass: run and attempt grow, the reservation stays."""
    user, job = await paying(world)
    answer = await world.settlement(job, "retry", delay=30, error=ERROR, error_message="No.")
    settled = answer["jobs"][0]
    assert (settled["status"], settled["attempt"], settled["next_run"]) == ("queued", 1, 2)
    (told,) = answer["dispatch"]
    assert (told["id"], told["run"], told["attempt"], told["delayed"]) == (job["id"], 2, 1, True)
    row = await world.row(job)
    assert (row["status"], row["run"], row["started_at"]) == ("queued", 2, None)
    assert 29 < (row["run_at"] - row["updated_at"]).total_seconds() < 31
    assert await world.account(user) == (Decimal(90), Decimal(10))


async def test_a_retry_past_max_attempts_fails_with_its_error(world: World) -> None:
    """The third error of a type with three attempts is the end, and the credits come back."""
    user, job = await paying(world)
    for run in (1, 2):
        await world.settle({**job, "run": run}, "retry", delay=0)
        await world.claim({**job, "run": run + 1})
    answer = await world.settle({**job, "run": 3}, "retry", error=ERROR, error_message="No.")
    assert (answer["status"], answer["attempt"], answer["next_run"]) == ("failed", 3, 3)
    assert (await world.row(job))["error"] == ERROR
    assert await world.account(user) == (Decimal(100), Decimal(0))


async def test_a_retry_that_burns_nothing_never_fails_for_it(world: World) -> None:
    """A rate limit is not the job's fault: it may happen more often than the type has attempts."""
    _, job = await paying(world)
    for run in range(1, 6):
        answer = await world.settle({**job, "run": run}, "retry", burn=False, delay=0)
        assert (answer["status"], answer["attempt"]) == ("queued", 0)
        await world.claim({**job, "run": run + 1})


@pytest.mark.parametrize("delay", [-5, 1e12])
async def test_an_absurd_delay_is_put_right(world: World, delay: float) -> None:
    """Neither a negative delay nor one beyond a week reaches the row."""
    _, job = await paying(world)
    await world.settle(job, "retry", delay=delay)
    row = await world.row(job)
    assert 0 <= (row["run_at"] - row["updated_at"]).total_seconds() <= 604800


async def test_an_interruption_burns_nothing_and_is_queued_at_once(world: World) -> None:
    """A deploy is not a failure."""
    _, job = await paying(world)
    answer = await world.settlement(job, "interrupted")
    assert (answer["jobs"][0]["status"], answer["jobs"][0]["attempt"]) == ("queued", 0)
    assert not answer["dispatch"][0]["delayed"]


async def test_what_is_not_mine_comes_back_later_each_time(world: World) -> None:
    """1 s doubling to 30 s, through the sweep: two workers must not throw it at each other."""
    _, job = await paying(world)
    pauses = []
    for run in range(1, 8):
        answer = await world.settlement({**job, "run": run}, "not_mine")
        assert answer["dispatch"] == []
        assert (answer["jobs"][0]["status"], answer["jobs"][0]["attempt"]) == ("queued", 0)
        pauses.append(
            await world.hand.fetchval(
                "select round(extract(epoch from s.redispatch_at - j.updated_at)) "
                "from uvian.job_state s join uvian.jobs j on j.id = s.job_id"
            )
        )
        await world.claim({**job, "run": run + 1})
    assert pauses == [1, 2, 4, 8, 16, 30, 30]


async def test_a_job_that_is_not_mine_keeps_its_age(world: World) -> None:
    """Ten minutes without an executor count from when the job was due, not from its last refusal."""
    _, job = await paying(world)
    before = (await world.row(job))["run_at"]
    await world.settle(job, "not_mine")
    assert (await world.row(job))["run_at"] == before


async def test_another_ending_clears_what_was_not_mine(world: World) -> None:
    """Once a worker knew the type, the next refusal starts at 1 s again."""
    _, job = await paying(world)
    await world.settle(job, "not_mine")
    await world.claim({**job, "run": 2})
    await world.settle({**job, "run": 2}, "interrupted")
    assert (await world.state(job))["refusals"] == 0


# ─── fences ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "outcome", ["completed", "failed", "cancelled", "retry", "interrupted", "not_mine"]
)
async def test_the_same_call_again_is_the_same_answer_for_ever(world: World, outcome: str) -> None:
    """Also when the job has run on, ended and been run by hand since: nothing is done twice."""
    user, job = await paying(world)
    first = await world.settle(job, outcome)
    balance = await world.account(user)
    assert await world.settle(job, outcome) == first
    assert await world.settle(job, "completed") == first, "the first ending wins"
    assert await world.account(user) == balance
    if (await world.row(job))["status"] != "queued":
        await world.hand.execute("update uvian.jobs set status = 'queued'")
    await world.claim({**job, "run": 2}, "w2")
    assert await world.settle(job, outcome) == first
    await world.settle({**job, "run": 2}, "completed", "w2")
    entries = await world.entries(job)
    assert await world.settle(job, outcome) == first
    assert await world.entries(job) == entries


async def test_a_repetition_offers_the_next_run_again(world: World) -> None:
    """The reply with what to dispatch was lost; while nobody took the run, it is told again."""
    _, job = await paying(world)
    first = await world.settlement(job, "interrupted")
    assert (await world.settlement(job, "interrupted"))["dispatch"] == first["dispatch"]
    await world.claim({**job, "run": 2})
    assert (await world.settlement(job, "interrupted"))["dispatch"] == []


@pytest.mark.parametrize("change", [{"run": 2}, {"run": 0}, {"id": str(uuid.uuid4())}])
async def test_a_run_that_does_not_hold_the_job_settles_nothing(
    world: World, change: dict[str, Any]
) -> None:
    """A run that is not, and a job that is not."""
    user, job = await paying(world)
    answer = await world.settle({**job, **change})
    assert not answer["settled"]
    assert (await world.row(job))["status"] == "processing"
    assert await world.account(user) == (Decimal(90), Decimal(10))


async def test_another_worker_settles_nothing(world: World) -> None:
    """The right run in the wrong hands."""
    _, job = await paying(world)
    assert not (await world.settle(job, worker="w2"))["settled"]


async def test_a_zombie_settles_nothing(world: World) -> None:
    """A worker whose lease was swept comes back, before and after its successor is done."""
    user, job = await paying(world)
    await world.lose(job)
    assert not (await world.settle(job))["settled"]
    await world.claim({**job, "run": 2}, "w2")
    assert not (await world.settle(job))["settled"]
    assert not (await world.settle({**job, "run": 2}, worker="w1"))["settled"]
    await world.settle({**job, "run": 2}, "failed", "w2")
    assert not (await world.settle(job))["settled"]
    assert await world.account(user) == (Decimal(100), Decimal(0))


async def test_a_lease_that_expired_but_was_not_swept_settles(world: World) -> None:
    """Work that is done counts as long as nobody else was given the job."""
    _, job = await paying(world)
    await world.expire(job)
    assert (await world.settle(job))["status"] == "completed"


async def test_completed_work_is_charged_even_if_a_cancel_came_in_between(world: World) -> None:
    """The first ending wins: what was finished before the request was heard is delivered."""
    user, job = await paying(world)
    await world.cancel(job)
    assert (await world.settle(job))["status"] == "completed"
    assert await world.account(user) == (Decimal(90), Decimal(0))


@pytest.mark.parametrize("outcome", ["retry", "interrupted", "not_mine"])
async def test_who_was_asked_to_cancel_is_not_queued_again(world: World, outcome: str) -> None:
    """The worker had not heard of it yet; the job would otherwise run once more for nothing."""
    user, job = await paying(world)
    await world.cancel(job)
    answer = await world.settle(job, outcome)
    assert (answer["status"], answer["next_run"]) == ("cancelled", 1)
    assert await world.account(user) == (Decimal(100), Decimal(0))


async def test_of_two_outcomes_in_one_call_the_first_counts(world: World) -> None:
    """A batch with the same run twice ends it once."""
    _, job = await paying(world)
    items = [{"id": job["id"], "run": 1, "outcome": o} for o in ("failed", "completed")]
    answer = await world.call("settle_jobs", worker="w1", jobs=items)
    assert [a["status"] for a in answer["jobs"]] == ["failed", "failed"]


async def test_settlements_at_the_same_moment_charge_once(world: World) -> None:
    """A repetition that overtakes its original waits for it, and is answered the same."""
    user, job = await paying(world)
    answers = await asyncio.gather(*(world.settle(job) for _ in range(5)))
    assert all(answer == answers[0] for answer in answers)
    assert await world.account(user) == (Decimal(90), Decimal(0))


async def test_an_unknown_outcome_is_refused_with_all_of_its_batch(world: World) -> None:
    """The batcher halves the batch until the item at fault stands alone."""
    _, job = await paying(world)
    other = {"id": str(uuid.uuid4()), "run": 1, "outcome": "exploded"}
    mine = {"id": job["id"], "run": 1, "outcome": "completed"}
    with pytest.raises(errors.Refused) as refused:
        await world.call("settle_jobs", worker="w1", jobs=[mine, other])
    assert refused.value.code == "unknown_outcome"
    assert (await world.row(job))["status"] == "processing"


async def test_an_output_that_postgres_refuses_leaves_the_job_to_be_settled(world: World) -> None:
    """U+0000 cannot be stored: the call fails as a whole and the same run may end otherwise."""
    _, job = await paying(world)
    with pytest.raises(errors.DataError):
        await world.settle(job, output={"text": "\u0000"})
    assert (await world.settle(job, "failed"))["status"] == "failed"


async def test_an_ending_waits_to_be_announced(world: World) -> None:
    """Settle first, publish after: until it is marked, the sweep knows of it."""
    _, job = await paying(world)
    await world.settle(job)
    state = await world.state(job)
    assert state["announce_at"] is not None
    assert state["redispatch_at"] is None
    assert state["checkpoints"] == {}
