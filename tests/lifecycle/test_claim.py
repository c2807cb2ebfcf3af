"""claim_jobs and claim_next_jobs: a run is claimed at most once, and a lost reply is no crash."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from repositories import errors
from tests.lifecycle.world import World

pytestmark = pytest.mark.database


# ─── by id ───────────────────────────────────────────────────────────────────────────────────────


async def test_a_claim_starts_the_job_and_carries_what_its_worker_needs(world: World) -> None:
    """Queued becomes processing with a lease of the length asked for, on the database's clock."""
    user = await world.user()
    job = await world.create(user, input={"a": 1})
    claim = await world.claim(job)
    assert claim == {
        "claimed": True,
        "id": job["id"],
        "run": 1,
        "user_id": user,
        "type": "noop",
        "attempt": 0,
        "max_attempts": 3,
        "input": {"a": 1},
        "checkpoints": {},
        "cancel_requested": False,
        "created_at": job["created_at"],
        "parent_id": None,
        "models": None,
        "max_tokens": None,
        "system_prompt": None,
    }
    row, lease = await world.row(job), await world.lease(job)
    assert row["status"] == "processing"
    assert lease is not None
    assert (lease["run"], lease["worker"]) == (1, "w1")
    assert 14 < (lease["expires_at"] - row["started_at"]).total_seconds() < 16


async def test_a_repeated_claim_gets_the_same_job_again(world: World) -> None:
    """A reply that was lost after the commit: the same worker asks for the same run again."""
    job = await world.create(await world.user())
    first = await world.claim(job)
    assert await world.claim(job) == first
    assert (await world.row(job))["run"] == 1


async def test_a_repeated_claim_carries_a_cancellation_that_came_meanwhile(world: World) -> None:
    """Who never got the first answer learns from the second that there is nothing to do."""
    job = await world.started(await world.user())
    await world.cancel(job)
    assert (await world.claim(job))["cancel_requested"]


async def test_a_run_is_claimed_by_one_worker_only(world: World) -> None:
    """The second worker with the same message is told that it came too late."""
    job = await world.create(await world.user())
    await world.claim(job, "w1")
    answer = await world.claim(job, "w2")
    assert answer == {"claimed": False, "id": job["id"], "reason": "stale", "run": 1}


@pytest.mark.parametrize("run", [1, 3])
async def test_another_run_than_the_rows_is_stale(world: World, run: int) -> None:
    """A message of an earlier run, or of one that does not exist, starts nothing."""
    job = await world.started(await world.user())
    await world.settle(job, "interrupted")
    answer = await world.claim(job, "w2", run=run)
    assert answer == {"claimed": False, "id": job["id"], "reason": "stale", "run": 2}
    assert (await world.row(job))["status"] == "queued"
    assert (await world.claim(job, "w2", run=2))["claimed"]


async def test_an_ended_job_is_stale(world: World) -> None:
    """A message that arq delivers once more after the end starts nothing."""
    job = await world.started(await world.user())
    await world.settle(job)
    assert (await world.claim(job))["reason"] == "stale"


async def test_a_job_that_does_not_exist_is_not_found(world: World) -> None:
    """It was deleted while its message was in Redis."""
    job = await world.create(await world.user())
    await world.hand.execute("delete from uvian.jobs")
    assert (await world.claim(job))["reason"] == "not_found"


async def test_each_item_gets_its_own_answer_in_the_order_asked(world: World) -> None:
    """One call answers for jobs that start, that are stale, unknown, and asked for twice."""
    user = await world.user()
    new, taken = await world.create(user), await world.create(user)
    await world.claim(taken, "w2")
    unknown = {"id": str(uuid.uuid4()), "run": 1}
    answers = await world.claim_all([taken, new, unknown, new])
    assert [a.get("reason", "claimed") for a in answers] == [
        "stale",
        "claimed",
        "not_found",
        "claimed",
    ]
    assert [a["id"] for a in answers] == [taken["id"], new["id"], unknown["id"], new["id"]]


async def test_two_workers_share_jobs_exactly(world: World) -> None:
    """Each job of a batch that two workers claim at once is claimed by one of them."""
    user = await world.user()
    answers = await world.ask(*({"user_id": user, "type": "noop", "input": {}} for _ in range(100)))
    jobs = [a["job"] for a in answers]
    claims = await asyncio.gather(
        world.claim_all(jobs, "w1"), world.claim_all(jobs[::-1], "w2"), world.claim_all(jobs, "w3")
    )
    won = [c["id"] for answer in claims for c in answer if c["claimed"]]
    assert sorted(won) == sorted(job["id"] for job in jobs)


async def test_a_job_that_waits_for_its_place_is_refused_and_its_run_bumped(world: World) -> None:
    """arq forgets an id it has handed out: only another run can be dispatched again."""
    await world.type(max_running_per_user=1)
    user = await world.user()
    await world.started(user)
    waiting = await world.create(user)
    answer = await world.claim(waiting)
    assert answer == {"claimed": False, "id": waiting["id"], "reason": "waiting", "run": 2}
    assert (await world.row(waiting))["status"] == "queued"
    assert (await world.claim(waiting))["reason"] == "stale"


async def test_a_refused_claim_does_not_wake_who_is_not_due(world: World) -> None:
    """A delayed job that waits under a limit is still looked at when its time comes."""
    await world.type(max_running_per_user=1)
    user = await world.user()
    await world.started(user)
    later = await world.create(user, run_at="2040-01-01T00:00:00Z")
    assert (await world.claim(later))["reason"] == "waiting"
    assert (await world.state(later))["redispatch_at"].year == 2040


# ─── suspects ────────────────────────────────────────────────────────────────────────────────────


async def suspect(world: World, user: str) -> dict[str, object]:
    """A job that crashed in company as often as its type may be attempted."""
    job = await world.create(user)
    await world.hand.execute(
        "update uvian.job_state set isolated = true, crashes = 3 where job_id = $1", job["id"]
    )
    return job


async def test_a_suspect_is_refused_by_a_busy_worker_and_taken_by_an_idle_one(world: World) -> None:
    """Neighbours never burn for a job that kills its worker."""
    user = await world.user()
    job = await suspect(world, user)
    neighbour = await world.started(user, worker="busy")
    answer = await world.claim(job, "busy")
    assert (answer["reason"], answer["run"]) == ("worker_busy", 2)
    assert (await world.claim({**job, "run": 2}, "idle"))["claimed"]
    assert (await world.lease(neighbour)) is not None


async def test_beside_a_suspect_a_worker_claims_nothing(world: World) -> None:
    """What the worker would take beside it would die with it; it is offered again soon."""
    user = await world.user()
    await world.claim(await suspect(world, user))
    other = await world.create(user)
    answer = await world.claim(other)
    assert (answer["reason"], answer["run"]) == ("worker_isolating", 2)
    assert await world.claim_next("w1") == []
    assert (await world.claim({**other, "run": 2}, "w2"))["claimed"]


async def test_of_suspects_in_one_call_one_is_taken(world: World) -> None:
    """Two suspects are neighbours, too; and jobs above suspicion go first."""
    user = await world.user()
    suspects = [await suspect(world, user) for _ in range(2)]
    answers = await world.claim_all(suspects, "w1")
    assert sorted(a.get("reason", "claimed") for a in answers) == ["claimed", "worker_busy"]
    assert await world.hand.fetchval("select count(*) from uvian.job_leases") == 1
    third, plain = await suspect(world, user), await world.create(user)
    answers = await world.claim_all([third, plain], "w2")
    assert [a.get("reason", "claimed") for a in answers] == ["worker_busy", "claimed"]


async def test_two_calls_of_one_worker_cannot_put_a_suspect_beside_another_job(
    world: World,
) -> None:
    """What a worker holds is counted by one call at a time, so none is alone by mistake."""
    user = await world.user()
    for n in range(10):
        bad, good = await suspect(world, user), await world.create(user)
        answers = await asyncio.gather(world.claim(bad, f"w{n}"), world.claim(good, f"w{n}"))
        assert sum(a["claimed"] for a in answers) == 1


async def test_refused_claims_are_offered_again_later_each_time(world: World) -> None:
    """A suspect among busy workers does not spin: 1 s, 2 s, … at most 30 s."""
    user = await world.user()
    job = await suspect(world, user)
    await world.started(user)
    pauses = []
    for _ in range(7):
        answer = await world.claim(job)
        job = {**job, "run": answer["run"]}
        pauses.append(
            await world.hand.fetchval(
                "select round(extract(epoch from s.redispatch_at - j.updated_at)) "
                "from uvian.job_state s join uvian.jobs j on j.id = s.job_id where j.id = $1",
                job["id"],
            )
        )
    assert pauses == [1, 2, 4, 8, 16, 30, 30]


# ─── without a queue ─────────────────────────────────────────────────────────────────────────────


async def test_the_oldest_due_job_of_a_known_type_comes_next(world: World) -> None:
    """Polling: due jobs of the worker's types, oldest first; priority is a head start in seconds."""
    user = await world.user()
    await world.type("unknown")
    await world.create(user, "unknown", run_at="2020-01-01T00:00:00Z")
    await world.create(user, run_at="2040-01-01T00:00:00Z")
    second = await world.create(user, run_at="2026-01-01T00:00:10Z")
    first = await world.create(user, run_at="2026-01-01T00:00:00Z")
    urgent = await world.create(user, run_at="2026-01-01T00:00:20Z", priority=15)
    got = await world.claim_next("w1", "noop", limit=10)
    assert [job["id"] for job in got] == [first["id"], urgent["id"], second["id"]]
    assert await world.claim_next("w1", "noop") == []


async def test_the_limit_holds_over_all_types(world: World) -> None:
    """Of several types together no more are taken than asked for, the oldest of all."""
    user = await world.user()
    await world.type("other")
    jobs = [
        await world.create(user, type_, run_at=f"2026-01-01T00:00:0{n}Z")
        for n, type_ in enumerate(["noop", "other", "noop", "other"])
    ]
    got = await world.claim_next("w1", "noop", "other", "noop", limit=3)
    assert [job["id"] for job in got] == [job["id"] for job in jobs[:3]]


async def test_the_same_nonce_gets_the_same_jobs(world: World) -> None:
    """A reply that was lost: asking again with the nonce takes no further jobs."""
    user = await world.user()
    for _ in range(4):
        await world.create(user)
    nonce = str(uuid.uuid4())
    first = await world.claim_next("w1", limit=2, nonce=nonce)
    assert await world.claim_next("w1", limit=2, nonce=nonce) == first
    assert len(await world.claim_next("w1", limit=4)) == 2


async def test_another_workers_nonce_is_its_own(world: World) -> None:
    """Nobody gets another worker's jobs by its nonce."""
    await world.create(await world.user())
    nonce = str(uuid.uuid4())
    assert len(await world.claim_next("w1", nonce=nonce)) == 1
    assert await world.claim_next("w2", nonce=nonce) == []


async def test_without_a_nonce_nothing_is_claimed(world: World) -> None:
    """A caller that could not repeat its call is told so before jobs are lost with the reply."""
    await world.create(await world.user())
    with pytest.raises(errors.Refused, match="nonce") as refused:
        await world.call("claim_next_jobs", worker="w1", types=["noop"], limit=1)
    assert refused.value.code == "nonce_missing"


async def test_pollers_share_jobs_exactly(world: World) -> None:
    """Workers that poll at once skip what others hold: each job goes to one of them."""
    user = await world.user()
    await world.ask(*({"user_id": user, "type": "noop", "input": {}} for _ in range(60)))
    claims = await asyncio.gather(*(world.claim_next(f"w{n}", limit=25) for n in range(4)))
    won = [job["id"] for answer in claims for job in answer]
    assert len(won) == len(set(won))
    rest = await world.claim_next("w9", limit=100)
    assert len(won) + len(rest) == 60


async def test_a_poller_takes_a_suspect_only_when_idle_and_alone(world: World) -> None:
    """The rule for suspects is the same without a queue."""
    user = await world.user()
    job = await suspect(world, user)
    plain = await world.create(user)
    got = await world.claim_next("idle", limit=10)
    assert [one["id"] for one in got] == [job["id"]]
    assert await world.claim_next("idle", limit=10) == []
    await world.settle(job, "interrupted", "idle")
    await world.started(user, worker="busy")
    assert [one["id"] for one in await world.claim_next("busy", limit=10)] == [plain["id"]]
