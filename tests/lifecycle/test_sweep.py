"""sweep_jobs, register_worker: what workers, Redis and outages leave behind is picked up."""

from __future__ import annotations

import asyncio
import time
import uuid
from decimal import Decimal
from typing import Any

import pytest

from tests.lifecycle.world import World, opened

pytestmark = pytest.mark.database


def ids(rows: list[dict[str, Any]]) -> list[str]:
    """Of these rows."""
    return [row["id"] for row in rows]


# ─── expired leases ──────────────────────────────────────────────────────────────────────────────


async def test_an_expired_lease_returns_the_job_to_the_queue_at_once(world: World) -> None:
    """The sweep that finds it dispatches it as another run: 20 s must do, from kill to claim."""
    user = await world.user()
    job, alive = await world.started(user), await world.started(user, worker="w2")
    await world.expire(job)
    swept = await world.sweep()
    assert swept["expired"] == 1
    assert [(one["id"], one["run"], one["delayed"]) for one in swept["dispatch"]] == [
        (job["id"], 2, False)
    ]
    row = await world.row(job)
    assert (row["status"], row["run"], row["started_at"]) == ("queued", 2, None)
    assert (await world.row(alive))["status"] == "processing"
    assert (await world.claim({**job, "run": 2}, "w2"))["claimed"]


async def test_a_lease_that_has_not_expired_stays(world: World) -> None:
    """A sweep takes nothing from a worker that renews."""
    job = await world.started(await world.user())
    assert (await world.sweep())["expired"] == 0
    assert (await world.row(job))["status"] == "processing"


async def test_what_the_sweep_dispatched_is_not_offered_again_at_once(world: World) -> None:
    """Until 2 to 5 s later, unless a mark or a claim says more."""
    job = await world.started(await world.user())
    await world.expire(job)
    assert len((await world.sweep())["dispatch"]) == 1
    assert (await world.sweep())["dispatch"] == []


async def test_a_sweep_whose_reply_was_lost_is_answered_the_same(world: World) -> None:
    """What it offered is dispatched and announced at once, not seconds later by another sweep."""
    asked = str(uuid.uuid4())
    user = await world.user()
    job, dying = await world.started(user), await world.started(user)
    await world.cancel(dying)
    await world.expire(job)
    await world.expire(dying)
    swept = await world.sweep(id=asked)
    assert (ids(swept["dispatch"]), ids(swept["announce"])) == ([job["id"]], [dying["id"]])
    assert await world.sweep(id=asked) == swept
    assert await world.sweep(id=asked) == swept
    row = await world.row(job)
    assert (row["run"], row["attempt"]) == (2, 0), "it was found dead once"


async def test_only_the_last_sweep_is_answered_again(world: World) -> None:
    """Another has come in between: this one looks for itself. Without an id nothing is kept."""
    asked = str(uuid.uuid4())
    job = await world.started(await world.user())
    await world.expire(job)
    assert len((await world.sweep(id=asked))["dispatch"]) == 1
    assert (await world.sweep(id=str(uuid.uuid4())))["dispatch"] == []
    assert (await world.sweep(id=asked))["dispatch"] == []
    late = await world.started(await world.user())
    await world.expire(late)
    assert len((await world.sweep())["dispatch"]) == 1
    assert (await world.sweep())["dispatch"] == []


async def test_what_is_offered_again_is_spread(world: World) -> None:
    """Replies that are lost at a steady pace must not always be those of the same jobs."""
    user = await world.user()
    jobs = [await world.create(user) for _ in range(20)]
    await world.hand.execute("update uvian.job_state set redispatch_at = now()")
    assert len((await world.sweep())["dispatch"]) == 20
    waits = await world.hand.fetch(
        "select extract(epoch from redispatch_at - now())::float8 as seconds from uvian.job_state"
    )
    assert len(jobs) == len({row["seconds"] for row in waits})
    assert all(1.5 < row["seconds"] < 5.1 for row in waits)


async def test_a_cancel_request_outlives_its_worker(world: World) -> None:
    """The user's word counts, though nobody is left who heard it: cancelled, released, announced."""
    await world.type(price=10)
    user = await world.user(100)
    job = await world.started(user)
    await world.cancel(job)
    await world.expire(job)
    swept = await world.sweep()
    assert [(one["id"], one["status"]) for one in swept["announce"]] == [(job["id"], "cancelled")]
    assert [one["balance"] for one in swept["accounts"]] == ["100.000000"]
    assert swept["dispatch"] == []
    assert (await world.row(job))["attempt"] == 0
    assert await world.account(user) == (Decimal(100), Decimal(0))


async def test_after_an_outage_nothing_expires_for_one_lease(world: World) -> None:
    """Nobody could renew while Postgres was away: those who live get the time to do so."""
    job = await world.started(await world.user())
    await world.expire(job)
    await world.hand.execute("update uvian.sweeps set last_at = now() - interval '11 s'")
    assert (await world.sweep())["expired"] == 0
    assert (await world.sweep())["expired"] == 0, "the hold lasts, though sweeps are regular again"
    assert (
        await world.hand.fetchval(
            "select extract(epoch from hold_until - clock_timestamp()) from uvian.sweeps"
        )
        > 14
    )
    await world.hand.execute("update uvian.sweeps set hold_until = now()")
    assert (await world.sweep())["expired"] == 1


# ─── crashes and suspects ────────────────────────────────────────────────────────────────────────


async def test_a_crash_of_a_job_that_ran_alone_burns_an_attempt(world: World) -> None:
    """It was this job, or its worker would have died of another; the third time is the last."""
    await world.type(price=10)
    user = await world.user(100)
    job = await world.create(user)
    for run in (1, 2):
        await world.claim({**job, "run": run})
        row = await world.lose(job)
        assert (row["status"], row["attempt"]) == ("queued", run)
    await world.claim({**job, "run": 3})
    row = await world.lose(job)
    assert (row["status"], row["attempt"]) == ("failed", 3)
    assert row["error"]["code"] == "worker_lost"
    assert row["error_message"]
    assert await world.account(user) == (Decimal(100), Decimal(0))


async def test_a_shared_crash_burns_nobody(world: World) -> None:
    """Which of them it was is not known, in one sweep or in several."""
    user = await world.user()
    jobs = [await world.started(user) for _ in range(3)]
    await world.expire(jobs[0])
    await world.sweep()
    await world.expire(*jobs[1:])
    await world.sweep(limit=1)
    await world.sweep(limit=1)
    for job in jobs:
        row = await world.row(job)
        assert (row["status"], row["attempt"]) == ("queued", 0)
        assert (await world.state(job))["crashes"] == 1


async def test_a_job_that_crashed_often_in_company_becomes_a_suspect(world: World) -> None:
    """With three attempts: after the third crash it runs alone, and only a crash there ends it."""
    user = await world.user()
    job = await world.create(user)
    for run in (1, 2, 3):
        neighbour = await world.started(user)
        assert (await world.claim({**job, "run": run}))["claimed"]
        await world.expire(job, neighbour)
        await world.sweep()
        await world.cancel(neighbour)
        assert (await world.row(job))["attempt"] == 0
        assert (await world.state(job))["isolated"] == (run == 3)
    assert (await world.claim({**job, "run": 4}))["claimed"]
    assert (await world.claim(await world.create(user)))["reason"] == "worker_isolating"
    row = await world.lose(job)
    assert (row["status"], row["error"]["code"]) == ("failed", "worker_lost")


async def test_two_crashes_cost_no_pause_and_further_ones_come_back_later_each_time(
    world: World,
) -> None:
    """A crash is not the job's error; one that goes on killing does not kill as fast as it can."""
    await world.type(max_attempts=10)
    job = await world.create(await world.user())
    pauses = []
    for run in range(1, 8):
        await world.claim({**job, "run": run})
        row = await world.lose(job)
        pauses.append(round((row["run_at"] - row["updated_at"]).total_seconds()))
    assert pauses == [0, 0, 4, 8, 16, 30, 30]


async def test_a_second_crash_in_company_costs_no_pause_either(world: World) -> None:
    """Nobody of those who ran there waits, and the sweep that finds them dispatches them."""
    user = await world.user()
    jobs = [await world.create(user) for _ in range(3)]
    for run in (1, 2):
        for job in jobs:
            assert (await world.claim({**job, "run": run}))["claimed"]
        await world.expire(*jobs)
        swept = await world.sweep()
        assert {(d["id"], d["run"], d["delayed"]) for d in swept["dispatch"]} == {
            (job["id"], run + 1, False) for job in jobs
        }


async def test_an_interrupted_suspect_stays_one(world: World) -> None:
    """A deploy while it ran alone proves nothing."""
    job = await world.create(await world.user())
    await world.hand.execute("update uvian.job_state set isolated = true, crashes = 3")
    await world.claim(job)
    await world.settle(job, "interrupted")
    assert (await world.state(job))["isolated"]


async def test_a_settlement_wins_over_the_sweep_or_loses_to_it(world: World) -> None:
    """Never both: of a race between the two exactly one ending is in the books."""
    await world.type(price=1, max_attempts=1)
    user = await world.user(100)
    for n in range(1, 16):
        job = await world.started(user, worker=f"w{n}")
        await world.expire(job)
        answer, _ = await asyncio.gather(world.settle(job, worker=f"w{n}"), world.sweep())
        row = await world.row(job)
        assert row["status"] == ("completed" if answer["settled"] else "failed")
        kinds = [kind for kind, _ in await world.entries(job)]
        assert kinds == ["reserve", "charge" if answer["settled"] else "release"]


# ─── no executor ─────────────────────────────────────────────────────────────────────────────────


async def old(world: World, job: dict[str, Any], age: str = "11 min") -> None:
    """The job has been due for so long."""
    await world.hand.execute(
        f"update uvian.jobs set created_at = now() - interval '{age}', run_at = now() - interval '{age}' "
        "where id = $1",
        job["id"],
    )


async def veteran(world: World, name: str, *types: str) -> None:
    """A worker that has been there for a while."""
    await world.worker(name, *types)
    await world.hand.execute("update uvian.workers set started_at = now() - interval '1 hour'")


async def test_a_type_that_nobody_knows_fails_after_ten_minutes(world: World) -> None:
    """While workers were there all the time, none of which has it; with its credits released."""
    await world.type(price=10)
    user = await world.user(100)
    job = await world.create(user)
    await veteran(world, "w1", "other")
    await old(world, job, "9 min")
    await world.sweep()
    assert (await world.row(job))["status"] == "queued"
    await old(world, job)
    swept = await world.sweep()
    assert ids(swept["announce"]) == [job["id"]]
    row = await world.row(job)
    assert (row["status"], row["error"]["code"], row["attempt"]) == ("failed", "no_executor", 0)
    assert await world.account(user) == (Decimal(100), Decimal(0))


async def test_refusals_do_not_keep_it_young(world: World) -> None:
    """A job that workers without its executor throw back and forth ends all the same."""
    job = await world.create(await world.user())
    await veteran(world, "w1", "other")
    await old(world, job)
    for run in range(1, 4):
        await world.claim({**job, "run": run})
        await world.settle({**job, "run": run}, "not_mine")
    await world.sweep()
    assert (await world.row(job))["status"] == "failed"


async def test_without_any_worker_jobs_wait(world: World) -> None:
    """An evening without workers, or the first ten minutes of a new one, is no reason to fail."""
    job = await world.create(await world.user())
    await old(world, job)
    await world.sweep()
    await world.worker("new", "other")
    await world.sweep()
    assert (await world.row(job))["status"] == "queued"
    await veteran(world, "gone", "other")
    await world.hand.execute("update uvian.workers set last_seen = now() - interval '1 min'")
    await world.sweep()
    assert (await world.row(job))["status"] == "queued"


async def test_a_worker_that_was_there_lately_counts(world: World) -> None:
    """A rolling deploy: the only worker with the type is away for a moment."""
    job = await world.create(await world.user())
    await old(world, job)
    await veteran(world, "w1", "other")
    await veteran(world, "w2", "noop")
    await world.hand.execute(
        "update uvian.workers set last_seen = now() - interval '9 min' where name = 'w2'"
    )
    await world.sweep()
    assert (await world.row(job))["status"] == "queued"
    await world.call("retire_worker", worker="w2")
    await world.sweep()
    assert (await world.row(job))["status"] == "failed"


async def test_a_job_for_later_is_not_given_up_early(world: World) -> None:
    """It is ten minutes from its time, not from its creation."""
    job = await world.create(await world.user(), run_at="2040-01-01T00:00:00Z")
    await veteran(world, "w1", "other")
    await world.hand.execute("update uvian.jobs set created_at = now() - interval '1 day'")
    await world.sweep()
    assert (await world.row(job))["status"] == "queued"


# ─── Redis ───────────────────────────────────────────────────────────────────────────────────────


async def test_what_nobody_dispatched_is_offered_after_five_seconds(world: World) -> None:
    """The API died between its insert and its dispatch."""
    job = await world.create(await world.user())
    assert (await world.sweep())["dispatch"] == []
    await world.hand.execute(
        "update uvian.job_state set redispatch_at = redispatch_at - interval '5 s'"
    )
    assert ids((await world.sweep())["dispatch"]) == [job["id"]]


async def test_what_was_taken_but_not_claimed_is_brought_forward(world: World) -> None:
    """A worker that died between arq's pick and its claim; a run that has moved on is left alone."""
    user = await world.user()
    stuck, moved, running = [await world.create(user) for _ in range(3)]
    await world.call(
        "mark_jobs", dispatched=[{"id": j["id"], "run": 1} for j in (stuck, moved, running)]
    )
    await world.claim(running)
    claiming = [
        {"id": stuck["id"], "run": 1},
        {"id": moved["id"], "run": 7},
        {"id": running["id"], "run": 1},
    ]
    assert ids((await world.sweep(claiming=claiming))["dispatch"]) == [stuck["id"]]


async def test_after_a_flush_everything_is_dispatched_again_page_by_page(world: World) -> None:
    """Also what was to be left alone for ten minutes; each row once, and then it is over."""
    user = await world.user()
    answers = await world.ask(*({"user_id": user, "type": "noop", "input": {}} for _ in range(7)))
    runs = [{"id": a["job"]["id"], "run": 1} for a in answers]
    await world.call("mark_jobs", dispatched=runs)
    assert (await world.sweep())["dispatch"] == []
    lost_at = await world.hand.fetchval("select clock_timestamp()::text")
    told: list[str] = []
    pages: list[int] = []
    while not pages or pages[-1] == 3:
        swept = await world.sweep(redis_lost_at=lost_at, limit=3)
        pages.append(swept["forwarded"])
        told += ids(swept["dispatch"])
        await world.call("mark_jobs", dispatched=swept["dispatch"])
    assert pages == [3, 3, 1]
    assert sorted(told) == sorted(run["id"] for run in runs)
    assert (await world.sweep(redis_lost_at=lost_at))["forwarded"] == 0


async def test_a_flush_does_not_stumble_over_those_who_wait_for_a_place(world: World) -> None:
    """A page full of delayed jobs without a place must not be the same page for ever."""
    await world.type(max_running_per_user=1)
    await world.type("plain")
    user = await world.user()
    for _ in range(3):
        await world.create(user, run_at="2040-01-01T00:00:00Z")
    plain = await world.create(user, "plain")
    await world.call("mark_jobs", dispatched=[{"id": plain["id"], "run": 1}])
    lost_at = await world.hand.fetchval("select clock_timestamp()::text")
    swept = await world.sweep(redis_lost_at=lost_at, limit=3)
    assert (swept["forwarded"], ids(swept["dispatch"])) == (1, [plain["id"]])


async def test_jobs_that_run_long_leave_the_list_of_what_is_due(world: World) -> None:
    """A claim does not strike its job from the list; the first sweep that sees it does."""
    job = await world.started(await world.user())
    await world.hand.execute("update uvian.job_state set redispatch_at = now()")
    assert (await world.sweep())["dispatch"] == []
    assert (await world.state(job))["redispatch_at"] is None


# ─── announcements ───────────────────────────────────────────────────────────────────────────────


async def test_an_ending_is_announced_until_that_is_marked(world: World) -> None:
    """Settled and not announced: every 5 s again, with all that the event needs."""
    job = await world.started(await world.user())
    await world.settle(job, output={"a": 1}, stages=[{"name": "work"}])
    assert (await world.sweep())["announce"] == [], "its worker has 5 s to do it"
    for _ in range(2):
        await world.hand.execute(
            "update uvian.job_state set announce_at = announce_at - interval '5 s'"
        )
        (told,) = (await world.sweep())["announce"]
        assert (told["id"], told["run"], told["status"]) == (job["id"], 1, "completed")
        assert (told["output"], told["stages"]) == ({"a": 1}, [{"name": "work"}])
        assert (await world.sweep())["announce"] == []
    await world.call("mark_jobs", announced=[{"id": job["id"], "run": 1}])
    await world.hand.execute(
        "update uvian.job_state set announce_at = announce_at - interval '1 h'"
    )
    assert (await world.sweep())["announce"] == []


# ─── one at a time, in pages ─────────────────────────────────────────────────────────────────────


async def test_one_sweeps_at_a_time(world: World) -> None:
    """Whoever comes second is told so, and does not wait."""
    async with world.hand.transaction():
        await world.hand.execute("select pg_advisory_xact_lock(hashtextextended('uvian sweep', 0))")
        began = time.monotonic()
        assert await world.sweep() == {"swept": False}
        assert time.monotonic() - began < 0.9
    assert (await world.sweep())["swept"]


async def test_there_is_more_when_a_page_was_full(world: World) -> None:
    """≤ 500 rows a call, and the next call comes at once while there is more."""
    user = await world.user()
    jobs = [await world.started(user, worker=f"w{n}") for n in range(3)]
    await world.expire(*jobs)
    first, second = await world.sweep(limit=2), await world.sweep(limit=2)
    assert [(s["expired"], s["more"]) for s in (first, second)] == [(2, True), (1, False)]


async def test_a_sweep_waits_for_nobody(world: World) -> None:
    """Rows that somebody holds are left to the next sweep, and the heartbeat is not."""
    user = await world.user()
    held, free = await world.started(user), await world.started(user, worker="w2")
    await world.expire(held, free)
    async with opened(world.adapter) as other, other.hand.transaction():
        await other.hand.execute("select from uvian.jobs where id = $1 for update", held["id"])
        swept = await world.sweep()
    assert ids(swept["dispatch"]) == [free["id"]]
    assert ids((await world.sweep())["dispatch"]) == [held["id"]]


# ─── workers and types ───────────────────────────────────────────────────────────────────────────


async def test_the_newest_release_says_what_a_type_is(world: World) -> None:
    """Old and new run side by side during a deploy; what the operator set stays."""

    async def register(release: str, attempts: int) -> int:
        types = [{"type": "t", "input_schema": {}, "timeout_seconds": 1, "max_attempts": attempts}]
        await world.call("register_worker", worker=f"w{release}", release=release, types=types)
        return int(
            await world.hand.fetchval("select max_attempts from uvian.job_types where type = 't'")
        )

    assert await register("0.9.0", 1) == 1
    await world.type("t", enabled=False, max_running_per_user=4)
    assert await register("0.10.0", 2) == 2
    assert await register("0.9.1", 3) == 2
    assert await register("v1.0.0rc1", 4) == 4
    assert await register("dev", 5) == 4
    row = await world.hand.fetchrow("select * from uvian.job_types where type = 't'")
    assert (row["enabled"], row["max_running_per_user"]) == (False, 4)


async def test_a_worker_that_says_little_is_known_all_the_same(world: World) -> None:
    """A worker in another language needs to name its types, and no more."""
    await world.call("register_worker", worker="curl", types=[{"type": "simple"}])
    row = await world.hand.fetchrow("select * from uvian.job_types where type = 'simple'")
    assert (row["timeout_seconds"], row["max_attempts"], row["browser"]) == (300, 3, False)
