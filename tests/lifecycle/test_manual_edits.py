"""The SQL editor: a manual edit of uvian.jobs is normalised, not refused."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import asyncpg
import pytest

from repositories.database import Filter
from tests.adapters import over_postgres_only
from tests.lifecycle.world import World

pytestmark = [pytest.mark.database, over_postgres_only]


async def in_status(world: World, user: str, status: str, type_: str = "noop") -> dict[str, Any]:
    """A job of run 1 in this status, with a checkpoint."""
    job = await world.create(user, type_)
    if status != "queued":
        job = await world.claim(job)
        await world.call(
            "save_checkpoints",
            worker="w1",
            jobs=[{"id": job["id"], "run": 1, "checkpoints": {"a": 1}}],
        )
    if status in ("completed", "failed", "cancelled"):
        error = {"code": "x", "message": "No."}
        await world.settle(job, status, output={"a": 1}, error=error, error_message="No.")
    return job


async def set_status(world: World, job: dict[str, Any], status: str) -> None:
    """As an operator writes it."""
    await world.hand.execute("update uvian.jobs set status = $1 where id = $2", status, job["id"])


# ─── insert ──────────────────────────────────────────────────────────────────────────────────────


async def test_a_minimal_row_runs(world: World) -> None:
    """(user_id, type, input) is enough: the sweep dispatches it, listeners hear of it."""
    await world.type(price=10)
    user = await world.user(100)
    heard: list[str] = []
    await world.hand.add_listener("uvian_jobs", lambda *args: heard.append(args[2]))
    id_ = await world.hand.fetchval(
        "insert into uvian.jobs (user_id, type, input) values ($1, 'noop', '{\"a\": 1}') returning id",
        user,
    )
    assert heard == ["uvian_jobs"]
    swept = await world.sweep()
    assert [(one["id"], one["run"]) for one in swept["dispatch"]] == [(id_, 1)]
    claim = await world.claim({"id": id_, "run": 1})
    assert (claim["claimed"], claim["input"]) == (True, {"a": 1})
    await world.settle(claim)
    assert await world.account(user) == (Decimal(90), Decimal(0))


async def test_the_service_may_insert_like_a_hand(world: World) -> None:
    """An API that only inserts the row, in any language, is served."""
    user = await world.user()
    rows = await world.service.insert("jobs", [{"user_id": user, "type": "noop", "input": {}}])
    assert (rows[0]["run"], rows[0]["status"]) == (1, "queued")
    assert len((await world.sweep())["dispatch"]) == 1


async def test_what_a_hand_must_not_set_is_set_right(world: World) -> None:
    """Run, attempt and cost are the machine's, also in a row that somebody copied."""
    await world.type(price=10)
    user = await world.user(100)
    id_ = await world.hand.fetchval(
        "insert into uvian.jobs (user_id, type, run, attempt, cost, admitted) "
        "values ($1, 'noop', 7, 2, 0, false) returning id",
        user,
    )
    row = await world.row(id_)
    assert (row["run"], row["attempt"], row["cost"], row["admitted"]) == (1, 0, Decimal(10), True)


async def test_a_row_for_later_waits_for_its_time(world: World) -> None:
    """run_at in the future is kept."""
    await world.hand.execute(
        "insert into uvian.jobs (user_id, type, run_at) values ($1, 'noop', '2040-01-01')",
        await world.user(),
    )
    (told,) = (await world.sweep())["dispatch"]
    assert told["delayed"]


async def test_too_few_credits_refuse_the_row_with_that_message(world: World) -> None:
    """The one thing that is refused: nobody's work is done for nothing by mistake."""
    await world.type(price=10)
    with pytest.raises(asyncpg.PostgresError, match="insufficient_credits") as refused:
        await world.hand.execute(
            "insert into uvian.jobs (user_id, type) values ($1, 'noop')", await world.user(9)
        )
    assert refused.value.detail == "The job costs 10.000000 credits; the balance is 9.000000."
    assert await world.hand.fetchval("select count(*) from uvian.jobs") == 0


async def test_a_type_that_nobody_knows_is_refused_by_name(world: World) -> None:
    """A typing error in the editor says which type does not exist."""
    with pytest.raises(asyncpg.PostgresError, match="unknown_type") as refused:
        await world.hand.execute(
            "insert into uvian.jobs (user_id, type) values ($1, 'noopp')", await world.user()
        )
    assert "'noopp'" in refused.value.detail


async def test_a_finished_row_may_be_imported(world: World) -> None:
    """History from another system: not run, not paid for, readable."""
    id_ = await world.hand.fetchval(
        "insert into uvian.jobs (user_id, type, status) values ($1, 'noop', 'completed') returning id",
        await world.user(),
    )
    assert (await world.sweep())["dispatch"] == []
    assert (await world.claim({"id": id_, "run": 1}))["reason"] == "stale"
    await set_status(world, {"id": id_}, "queued")
    assert len((await world.sweep())["dispatch"]) == 1


# ─── set to queued ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", ["processing", "completed", "failed", "cancelled"])
async def test_set_to_queued_it_runs_again(world: World, status: str) -> None:
    """Lease, end, error and output cleared, run bumped, attempts reset, credits reserved once."""
    await world.type(price=10)
    user = await world.user(100)
    job = await in_status(world, user, status)
    await set_status(world, job, "queued")
    row = await world.row(job)
    assert (row["status"], row["run"], row["attempt"]) == ("queued", 2, 0)
    cleared = (
        "output",
        "error",
        "error_message",
        "started_at",
        "finished_at",
        "stage",
        "result_id",
    )
    assert {name: row[name] for name in cleared} == dict.fromkeys(cleared)
    assert await world.lease(job) is None
    charged = 10 if status == "completed" else 0
    assert await world.account(user) == (Decimal(90 - charged), Decimal(10))
    (told,) = (await world.sweep())["dispatch"]
    assert (told["id"], told["run"]) == (job["id"], 2)
    claim = await world.claim({**job, "run": 2}, "w2")
    assert claim["checkpoints"] == ({} if status == "completed" else {"a": 1})
    if status == "processing":
        assert not (await world.settle(job))["settled"], "its worker of before is a zombie"
    await world.settle(claim, worker="w2")
    assert await world.account(user) == (Decimal(90 - charged), Decimal(0))


async def test_from_processing_the_open_reservation_is_kept(world: World) -> None:
    """The price that was agreed to holds, and a balance of nothing is enough."""
    await world.type(price=10)
    user = await world.user(10)
    job = await in_status(world, user, "processing")
    await world.type(price=20)
    await set_status(world, job, "queued")
    assert (await world.row(job))["cost"] == Decimal(10)
    assert [kind for kind, _ in await world.entries(job)] == ["reserve"]


async def test_what_is_queued_already_stays_as_it_is(world: World) -> None:
    """Setting a queued row to queued starts no second run."""
    job = await world.create(await world.user())
    before = await world.row(job), await world.state(job)
    await set_status(world, job, "queued")
    assert (await world.row(job), await world.state(job)) == before


async def test_requeued_without_credits_is_refused(world: World) -> None:
    """The message says what it costs and what there is; the row stays."""
    await world.type(price=10)
    user = await world.user(10)
    job = await in_status(world, user, "completed")
    with pytest.raises(asyncpg.PostgresError, match="insufficient_credits"):
        await set_status(world, job, "queued")
    assert (await world.row(job))["status"] == "completed"


async def test_a_whole_table_can_be_queued_again(world: World) -> None:
    """One statement for many rows, as operators write it after an outage."""
    user = await world.user()
    jobs = [await in_status(world, user, "failed") for _ in range(5)]
    await world.hand.execute("update uvian.jobs set status = 'queued' where status = 'failed'")
    assert len((await world.sweep())["dispatch"]) == len(jobs)


async def test_a_waiting_ending_is_not_announced_after_all(world: World) -> None:
    """The end that was taken back is not told a moment later."""
    job = await in_status(world, await world.user(), "failed")
    await set_status(world, job, "queued")
    await world.hand.execute(
        "update uvian.job_state set announce_at = announce_at - interval '1 h'"
    )
    assert (await world.sweep())["announce"] == []


# ─── ended by hand ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", ["queued", "processing"])
@pytest.mark.parametrize("ending", ["completed", "failed", "cancelled"])
async def test_ended_by_hand_it_is_ended_altogether(world: World, status: str, ending: str) -> None:
    """Credits, lease and announcement follow the status that a hand has set."""
    await world.type(price=10)
    user = await world.user(100)
    job = await in_status(world, user, status)
    await set_status(world, job, ending)
    row = await world.row(job)
    assert (row["status"], row["finished_at"] is not None) == (ending, True)
    assert await world.lease(job) is None
    assert await world.account(user) == (Decimal(90 if ending == "completed" else 100), Decimal(0))
    assert (await world.renew(job))["lost"] == [job["id"]]
    assert not (await world.settle(job))["settled"]
    await world.hand.execute("update uvian.job_state set announce_at = now()")
    assert [one["status"] for one in (await world.sweep())["announce"]] == [ending]


async def test_what_the_hand_wrote_beside_the_status_is_kept(world: World) -> None:
    """An operator who completes a job by hand gives its output, too."""
    job = await in_status(world, await world.user(), "processing")
    await world.hand.execute(
        "update uvian.jobs set status = 'completed', output = '{\"by\": \"hand\"}' where id = $1",
        job["id"],
    )
    assert (await world.row(job))["output"] == {"by": "hand"}


async def test_a_place_left_by_hand_goes_to_the_next(world: World) -> None:
    """Ended, deleted or given back: whoever waits under the limit is let in by the next sweep."""
    await world.type(max_running_per_user=1)
    user = await world.user()
    jobs = [await world.create(user) for _ in range(4)]
    await set_status(world, jobs[0], "cancelled")
    assert [one["id"] for one in (await world.sweep())["dispatch"]] == [jobs[1]["id"]]
    await world.hand.execute("delete from uvian.jobs where id = $1", jobs[1]["id"])
    assert [one["id"] for one in (await world.sweep())["dispatch"]] == [jobs[2]["id"]]
    await world.claim(jobs[2])
    await set_status(world, jobs[2], "queued")
    assert [one["id"] for one in (await world.sweep())["dispatch"]] == [jobs[3]["id"]]


# ─── what a hand cannot do ───────────────────────────────────────────────────────────────────────


async def test_processing_is_for_workers(world: World) -> None:
    """A row in processing without a lease would be nobody's for ever."""
    user = await world.user()
    job = await world.create(user)
    with pytest.raises(asyncpg.PostgresError, match="claimed_by_workers_only") as refused:
        await set_status(world, job, "processing")
    assert "set it to queued" in refused.value.detail
    with pytest.raises(asyncpg.PostgresError, match="claimed_by_workers_only"):
        await world.hand.execute(
            "insert into uvian.jobs (user_id, type, status) values ($1, 'noop', 'processing')", user
        )


async def test_the_fence_is_nobodys_to_set(world: World) -> None:
    """A hand that edits run, attempt, cost or admitted changes nothing."""
    job = await world.started(await world.user())
    before = await world.row(job)
    await world.hand.execute(
        "update uvian.jobs set run = 9, attempt = 9, cost = 9, admitted = false"
    )
    assert await world.row(job) == before


@pytest.mark.parametrize("column", ["id", "user_id"])
async def test_a_job_keeps_its_user(world: World, column: str) -> None:
    """Its reservation is in that user's account: moved, it would be released into another's."""
    await world.type(price=10)
    user, other = await world.user(100), await world.user()
    await world.create(user)
    with pytest.raises(asyncpg.PostgresError, match="owner_is_fixed"):
        await world.hand.execute(f"update uvian.jobs set {column} = $1", other)


async def test_other_columns_are_the_hands_own(world: World) -> None:
    """A corrected input or priority is written as it is, and starts nothing."""
    job = await world.create(await world.user())
    await world.hand.execute("update uvian.jobs set input = '{\"fixed\": true}', priority = 5")
    row = await world.row(job)
    assert (row["input"], row["priority"], row["run"]) == ({"fixed": True}, 5, 1)


async def test_a_used_type_cannot_be_deleted(world: World) -> None:
    """Its open jobs would wait for ever: no sweep could say that no worker knows it."""
    job = await world.create(await world.user())
    with pytest.raises(asyncpg.PostgresError, match="type_in_use"):
        await world.hand.execute("delete from uvian.job_types where type = 'noop'")
    await world.cancel(job)
    await world.hand.execute("delete from uvian.job_types where type = 'noop'")


# ─── delete ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", ["queued", "processing", "completed"])
async def test_deleting_a_job_releases_what_it_holds(world: World, status: str) -> None:
    """Credits come back, its worker learns that it is lost, and the books keep its entries."""
    await world.type(price=10)
    user = await world.user(100)
    job = await in_status(world, user, status)
    deleted = await world.service.delete("jobs", where=[Filter("id", "eq", job["id"])])
    assert len(deleted) == 1
    assert await world.account(user) == (Decimal(90 if status == "completed" else 100), Decimal(0))
    assert (await world.renew(job))["lost"] == [job["id"]]
    kinds = [kind for kind, _ in await world.entries(job)]
    assert kinds == ["reserve", "charge" if status == "completed" else "release"]


async def test_deleting_a_user_takes_everything_but_the_books(world: World) -> None:
    """Open jobs, account and concepts go with the user; the entries outlive them."""
    await world.type(price=10)
    user = await world.user(100)
    for status in ("queued", "processing", "completed"):
        await in_status(world, user, status)
    await world.hand.execute("delete from auth.users where id = $1", user)
    for table in ("jobs", "job_state", "job_leases", "job_runs", "credit_accounts"):
        assert await world.hand.fetchval(f"select count(*) from uvian.{table}") == 0, table
    assert await world.hand.fetchval("select count(*) from uvian.credit_entries") == 7
