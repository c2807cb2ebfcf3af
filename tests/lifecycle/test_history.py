"""The history of a job: how each of its runs waited, ran and ended, kept in rows of ``job_runs``."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from repositories.database import Filter, Order, Row
from tests.lifecycle.world import World

pytestmark = pytest.mark.database

ERROR = {
    "code": "provider_unavailable",
    "stage": "adding",
    "message": "Adding failed: the model is away",
    "retryable": True,
    "attempt": 1,
}
STAGES = [{"name": "adding", "label": "Adding", "status": "failed", "offset_ms": 2.5, "ms": 40.0}]


async def history(world: World, job: Row) -> list[Row]:
    """The rows of ``job_runs`` as the service reads them, the oldest first."""
    return await world.service.select(
        "job_runs", where=[Filter("job_id", "eq", job["id"])], order=[Order("run")]
    )


async def test_a_run_that_failed_keeps_its_worker_error_and_stages(world: World) -> None:
    """What a waterfall needs: waiting, claim, end, and what the run said of itself."""
    job = await world.started(await world.user())
    await world.settle(job, "retry", delay=4, error=ERROR, error_message="No.", stages=STAGES)
    (run,) = await history(world, job)
    assert (run["worker"], run["outcome"], run["status"]) == ("w1", "retry", "queued")
    assert (run["error"], run["stages"], run["attempt"]) == (ERROR, STAGES, 1)
    assert run["queued_at"] <= run["claimed_at"] <= run["ended_at"]
    row = await world.row(job)
    assert row["queued_at"] > row["created_at"]
    assert row["run_at"] - row["queued_at"] == timedelta(seconds=4)


async def test_each_run_has_its_own_times(world: World) -> None:
    """The second run began to wait when the first had ended, and was due after its pause."""
    job = await world.started(await world.user())
    await world.settle(job, "retry", delay=0, error=ERROR, stages=STAGES)
    await world.claim(job, "w2", run=2)
    await world.settle({**job, "run": 2}, worker="w2")
    first, second = await history(world, job)
    assert first["ended_at"] <= second["queued_at"] <= second["claimed_at"] <= second["ended_at"]
    assert (second["worker"], second["outcome"], second["error"]) == ("w2", "completed", None)


async def test_a_lost_worker_is_named_and_gets_no_answer_for_the_run(world: World) -> None:
    """Who had the job stands in the history; a settlement that comes too late is still refused."""
    job = await world.started(await world.user())
    await world.lose(job)
    await world.sweep()
    (run,) = await history(world, job)
    assert (run["worker"], run["outcome"], run["reported"]) == ("w1", "worker_lost", False)
    assert (run["error"]["code"], run["error"]["retryable"]) == ("worker_lost", True)
    assert not (await world.settle(job))["settled"]


async def test_a_retry_by_the_user_keeps_what_the_run_ended_as(world: World) -> None:
    """The failed run stays failed in the history, with the moment of the retry; repeating it does nothing."""
    user = await world.user()
    job = await world.started(user)
    await world.settle(job, "failed", error=ERROR, error_message="No.")
    await world.retry(job, 1, user)
    await world.retry(job, 1, user)
    (run,) = await history(world, job)
    assert (run["outcome"], run["status"], run["error"]) == ("failed", "failed", ERROR)
    assert run["retried_at"] >= run["ended_at"]
    assert (await world.row(job))["run"] == 2
    assert (await world.settle(job, "failed", error=ERROR))["status"] == "failed"


async def test_a_job_that_never_ran_has_a_run_without_a_claim(world: World) -> None:
    """Cancelled while it waited."""
    user = await world.user()
    job = await world.create(user)
    await world.cancel(job, user)
    (run,) = await history(world, job)
    assert (run["outcome"], run["claimed_at"], run["worker"]) == ("cancelled", None, None)


REASONS: list[tuple[str, dict[str, Any], str]] = [
    ("retry", {"delay": 4, "error": ERROR, "error_message": "No."}, "adding"),
    ("interrupted", {}, ""),
    ("not_mine", {}, ""),
]


@pytest.mark.parametrize(("outcome", "fields", "stage"), REASONS)
async def test_whoever_dispatches_the_next_run_is_told_why(
    world: World, outcome: str, fields: dict[str, Any], stage: str
) -> None:
    """In the answer of the settlement, whether or not the next run has a slot at once."""
    await world.type("tight", max_running_per_user=1)
    job = await world.started(await world.user(), "tight")
    answer = (await world.settlement(job, outcome, **fields))["jobs"][0]
    reason = answer["next"]["reason"]
    assert (answer["next"]["run"], reason["outcome"]) == (2, outcome)
    assert ((reason["error"] or {}).get("stage") or "") == stage


async def test_the_sweep_says_why_too(world: World) -> None:
    """What a worker settled and did not publish is published by the sweep with the same reason."""
    job = await world.started(await world.user())
    await world.settle(job, "retry", delay=0, error=ERROR, error_message="No.")
    await world.make_due(job)
    (offered,) = (await world.sweep())["dispatch"]
    assert offered["reason"] == {"outcome": "retry", "attempt": 1, "error": ERROR}
    assert json.dumps(offered["reason"])
