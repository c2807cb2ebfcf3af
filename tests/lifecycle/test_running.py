"""While a job runs: renew_leases, mark_jobs, save_checkpoints, store_concept."""

from __future__ import annotations

import uuid
from typing import Any

import asyncpg
import pytest

from repositories import errors
from tests.lifecycle.world import World

pytestmark = pytest.mark.database


# ─── renew_leases ────────────────────────────────────────────────────────────────────────────────


async def test_renewal_gives_a_lease_its_full_length_again(world: World) -> None:
    """What was about to expire has 15 s from now, on the database's clock."""
    job = await world.started(await world.user())
    await world.expire(job)
    assert await world.renew(job) == {"lost": [], "cancel": []}
    left = await world.hand.fetchval(
        "select extract(epoch from expires_at - clock_timestamp()) from uvian.job_leases"
    )
    assert 14 < left <= 15


async def test_an_expired_lease_that_was_not_swept_is_renewed(world: World) -> None:
    """Only the sweep takes a job away: a worker that was merely slow keeps it."""
    job = await world.started(await world.user())
    await world.expire(job)
    assert (await world.renew(job))["lost"] == []
    await world.sweep()
    assert (await world.row(job))["status"] == "processing"


async def test_lost_jobs_are_named(world: World) -> None:
    """What was swept, ended or given to another is lost; the rest is renewed all the same."""
    user = await world.user()
    swept, ended, stolen, kept = [await world.started(user) for _ in range(4)]
    await world.lose(swept)
    await world.settle(ended)
    await world.settle(stolen, "interrupted")
    await world.claim({**stolen, "run": 2}, "w2")
    answer = await world.renew(swept, ended, stolen, kept)
    assert set(answer["lost"]) == {swept["id"], ended["id"], stolen["id"]}


async def test_nobody_renews_anothers_lease(world: World) -> None:
    """A worker whose job was given to another does not keep it from being swept."""
    job = await world.started(await world.user(), worker="w2")
    await world.expire(job)
    assert (await world.renew(job, worker="w1"))["lost"] == [job["id"]]
    await world.sweep()
    assert (await world.row(job))["status"] == "queued"


async def test_a_cancel_request_arrives_with_the_renewal(world: World) -> None:
    """A cancellation by rpc reaches the worker without Redis."""
    user = await world.user()
    one, two = await world.started(user), await world.started(user)
    await world.cancel(one)
    assert await world.renew(one, two) == {"lost": [], "cancel": [one["id"]]}


async def test_progress_is_carried_to_the_row(world: World) -> None:
    """The owner sees stage, fraction and message; a fraction out of range is put right."""
    job = await world.started(await world.user())
    told = {"stage": "work", "progress": 1.5, "message": "half way", "stages": [{"name": "work"}]}
    await world.renew({**job, **told})
    row = await world.row(job)
    assert (row["stage"], row["progress"], row["progress_message"]) == ("work", 1.0, "half way")
    assert row["stages"] == [{"name": "work"}]


async def test_unchanged_progress_writes_nothing(world: World) -> None:
    """A renewal with the same progress costs no row version and no realtime event."""
    job = await world.started(await world.user())
    told = {**job, "stage": "work", "progress": 0.25, "message": "m"}
    await world.renew(told)
    before = await world.hand.fetchval("select xmin::text from uvian.jobs")
    await world.renew(told)
    await world.renew(job)
    assert await world.hand.fetchval("select xmin::text from uvian.jobs") == before


async def test_a_late_renewal_does_not_touch_an_ended_job(world: World) -> None:
    """Progress that arrives after the end does not make a completed job look unfinished."""
    job = await world.started(await world.user())
    await world.settle(job)
    await world.renew({**job, "stage": "work", "progress": 0.5, "message": "m"})
    row = await world.row(job)
    assert (row["progress"], row["stage"]) == (1.0, None)


async def test_renewal_waits_for_nobody(world: World) -> None:
    """A row that somebody holds costs no other job its lease."""
    user = await world.user()
    held, free = await world.started(user), await world.started(user)
    await world.expire(held, free)
    other = await asyncpg.connect(world.clean.superuser_dsn)
    try:
        async with other.transaction():
            await other.execute(
                "select from uvian.job_leases where job_id = $1 for update", held["id"]
            )
            await other.execute("select from uvian.jobs where id = $1 for update", free["id"])
            answer = await world.renew(held, {**free, "stage": "s", "progress": 0.5})
            assert answer["lost"] == []
    finally:
        await other.close()
    await world.sweep()
    assert (await world.row(free))["status"] == "processing"


async def test_renewal_keeps_the_worker_alive(world: World) -> None:
    """An idle worker renews nothing, and is seen all the same."""
    await world.worker("w1", "noop")
    await world.hand.execute("update uvian.workers set last_seen = now() - interval '1 hour'")
    assert await world.renew() == {"lost": [], "cancel": []}
    assert await world.hand.fetchval(
        "select last_seen > now() - interval '1 min' from uvian.workers"
    )


# ─── mark_jobs ───────────────────────────────────────────────────────────────────────────────────


async def mark(world: World, **lists: list[dict[str, Any]]) -> None:
    """Mark these runs."""
    await world.call(
        "mark_jobs",
        **{
            name: [{"id": job["id"], "run": job["run"]} for job in jobs]
            for name, jobs in lists.items()
        },
    )


async def pause(world: World, job: dict[str, Any]) -> int | None:
    """Seconds until the sweep offers the job again."""
    seconds = await world.hand.fetchval(
        "select round(extract(epoch from redispatch_at - now())) from uvian.job_state where job_id = $1",
        job["id"],
    )
    return None if seconds is None else int(seconds)


async def test_what_was_dispatched_is_offered_again_later_each_time(world: World) -> None:
    """30 s, doubling to 10 min: a backlog is not dispatched over and over."""
    job = await world.create(await world.user())
    pauses = []
    for _ in range(7):
        await mark(world, dispatched=[job])
        pauses.append(await pause(world, job))
    assert pauses == [30, 60, 120, 240, 480, 600, 600]


async def test_a_delayed_job_that_was_dispatched_is_left_until_its_time(world: World) -> None:
    """A million jobs for next week do not go through Redis every ten minutes."""
    job = await world.create(await world.user(), run_at="2040-01-01T00:00:00Z")
    await mark(world, dispatched=[job])
    assert (await world.state(job))["redispatch_at"].year == 2040


async def test_a_late_mark_does_not_hit_another_run(world: World) -> None:
    """The mark of run 1 neither delays run 2 nor hides its ending."""
    job = await world.started(await world.user())
    await world.settle(job, "interrupted")
    await mark(world, dispatched=[job])
    assert await pause(world, job) == 5
    second = await world.claim({**job, "run": 2})
    await world.settle(second)
    await mark(world, announced=[job])
    assert (await world.state(job))["announce_at"] is not None
    await mark(world, announced=[second])
    assert (await world.state(job))["announce_at"] is None


async def test_a_mark_of_what_runs_already_changes_nothing(world: World) -> None:
    """A mark that was overtaken by the claim does not bring the job back to the sweep's attention."""
    job = await world.started(await world.user())
    before = await world.state(job)
    await mark(world, dispatched=[job])
    assert await world.state(job) == before


# ─── save_checkpoints ────────────────────────────────────────────────────────────────────────────


async def checkpoint(world: World, job: dict[str, Any], worker: str = "w1", **values: Any) -> bool:
    """Save; whether it was."""
    item = {"id": job["id"], "run": job["run"], "checkpoints": values}
    answer = await world.call("save_checkpoints", worker=worker, jobs=[item])
    return bool(answer["jobs"][0]["saved"])


async def test_checkpoints_are_merged_and_reach_the_next_run(world: World) -> None:
    """What a finished stage left is not done, or paid for, again."""
    job = await world.started(await world.user())
    assert await checkpoint(world, job, base="a")
    assert await checkpoint(world, job, palettes=[1])
    await world.lose(job)
    second = await world.claim({**job, "run": 2}, "w2")
    assert second["checkpoints"] == {"base": "a", "palettes": [1]}


async def test_only_the_run_that_holds_the_job_saves(world: World) -> None:
    """A zombie does not overwrite what its successor remembers."""
    job = await world.started(await world.user())
    assert not await checkpoint(world, job, "w2", base="b")
    await world.settle(job, "interrupted")
    assert not await checkpoint(world, job, base="b")
    await world.claim({**job, "run": 2})
    assert not await checkpoint(world, job, base="b")
    assert (await world.state(job))["checkpoints"] == {}


async def test_checkpoints_are_an_object(world: World) -> None:
    """Anything else could not be merged into, and would poison the job."""
    job = await world.started(await world.user())
    with pytest.raises(errors.DataError):
        await world.call(
            "save_checkpoints",
            worker="w1",
            jobs=[{"id": job["id"], "run": 1, "checkpoints": [1]}],
        )


# ─── store_concept ───────────────────────────────────────────────────────────────────────────────


def concept(id_: str | None = None, **more: Any) -> dict[str, Any]:
    """A concept as the repository sends it."""
    return {
        "id": id_ or str(uuid.uuid4()),
        "logo_description": "a fox",
        "theme_description": "autumn",
        "image_path": "u/a.png",
        "width": 8,
        "height": 8,
        **more,
    }


def variation(position: int) -> dict[str, Any]:
    """A variation as the repository sends it."""
    return {
        "id": str(uuid.uuid4()),
        "position": position,
        "name": f"p{position}",
        "palette": ["#ff0000"],
        "image_path": f"u/{position}.png",
        "width": 8,
        "height": 8,
    }


async def store(
    world: World,
    job: dict[str, Any],
    concept_: dict[str, Any],
    *variations: dict[str, Any],
    worker: str = "w1",
) -> bool:
    """Store a concept in the name of this run; whether it was."""
    answer = await world.call(
        "store_concept",
        worker=worker,
        job_id=job["id"],
        run=job["run"],
        concept=concept_,
        variations=list(variations),
    )
    return bool(answer["stored"])


async def stored(world: World) -> list[tuple[str, int]]:
    """Concepts with their number of variations."""
    rows = await world.hand.fetch(
        "select c.id, count(v.id) from uvian.concepts c "
        "left join uvian.concept_variations v on v.concept_id = c.id group by c.id"
    )
    return [(row["id"], row["count"]) for row in rows]


async def test_a_concept_belongs_to_the_jobs_user(world: World) -> None:
    """Whose it is comes from the job, not from what the worker sends."""
    user, stranger = await world.user(), await world.user()
    job = await world.started(user)
    one = concept(user_id=stranger)
    assert await store(world, job, one, variation(0), variation(1))
    assert await stored(world) == [(one["id"], 2)]
    owners = await world.hand.fetch(
        "select user_id from uvian.concepts union select user_id from uvian.concept_variations"
    )
    assert [row["user_id"] for row in owners] == [user]


async def test_storing_the_same_concept_again_replaces_it(world: World) -> None:
    """A lost reply, or another run of the job with the same id: one concept, no doubled variations."""
    job = await world.started(await world.user())
    one = concept()
    await store(world, job, one, variation(0), variation(1))
    await store(world, job, {**one, "logo_description": "a red fox"}, variation(0))
    assert await stored(world) == [(one["id"], 1)]
    assert await world.hand.fetchval("select logo_description from uvian.concepts") == "a red fox"


async def test_only_the_run_that_holds_the_job_stores(world: World) -> None:
    """A zombie's concept is refused, whatever it is that made it one."""
    job = await world.started(await world.user())
    assert not await store(world, job, concept(), worker="w2")
    await world.settle(job, "interrupted")
    assert not await store(world, job, concept())
    second = await world.claim({**job, "run": 2}, "w2")
    assert not await store(world, job, concept())
    await world.settle(second, "interrupted", "w2")
    await world.claim({**job, "run": 3}, "w1")
    assert not await store(world, job, concept()), "the same worker, in an earlier run"
    third = {**job, "run": 3}
    await world.settle(third, "failed")
    assert not await store(world, third, concept())
    assert await stored(world) == []


async def test_another_jobs_concept_is_not_overwritten(world: World) -> None:
    """An id that is taken is refused, even where both jobs are the same user's."""
    user = await world.user()
    one = concept()
    await store(world, await world.started(user), one)
    with pytest.raises(errors.Refused) as refused:
        await store(world, await world.started(user), {**one, "image_path": "u/other.png"})
    assert refused.value.code == "conflict"
    assert await world.hand.fetchval("select image_path from uvian.concepts") == "u/a.png"


async def test_another_users_parent_is_not_found(world: World) -> None:
    """The same answer as for a parent that does not exist."""
    one = concept()
    await store(world, await world.started(await world.user()), one)
    job = await world.started(await world.user())
    for parent in (one["id"], str(uuid.uuid4())):
        with pytest.raises(errors.Refused) as refused:
            await store(world, job, concept(parent_id=parent))
        assert refused.value.code == "not_found"


@pytest.mark.parametrize("outcome", ["cancelled", "failed"])
async def test_the_concept_of_a_run_that_did_not_complete_is_removed(
    world: World, outcome: str
) -> None:
    """Nobody paid for it, so nobody shall find it among their concepts."""
    job = await world.started(await world.user())
    await store(world, job, concept(), variation(0))
    await world.settle(job, outcome)
    assert await stored(world) == []


async def test_what_an_earlier_run_stored_is_removed_with_the_job(world: World) -> None:
    """Run 1 stored its concept and crashed; run 2 fails, or completes with another concept."""
    user = await world.user()
    for outcome, left in (("failed", 0), ("completed", 1)):
        job = await world.started(user)
        await store(world, job, concept())
        await world.lose(job)
        second = await world.claim({**job, "run": 2})
        await store(world, second, concept())
        await world.settle(second, outcome)
        assert len(await stored(world)) == left


async def test_a_concept_that_was_paid_for_stays(world: World) -> None:
    """A completed job that is run again by hand and fails keeps what its first run made."""
    job = await world.started(await world.user())
    one = concept()
    await store(world, job, one)
    await world.settle(job, "completed", result_id=one["id"])
    await world.hand.execute("update uvian.jobs set status = 'queued'")
    second = await world.claim({**job, "run": 2})
    await store(world, second, concept())
    await world.settle(second, "failed")
    assert await stored(world) == [(one["id"], 0)]
