"""Every ending of a run: what the row says, what was told, what it cost."""

from __future__ import annotations

import asyncio

import pytest

from executors import events
from executors.base import BaseExecutor
from executors.events import Appended
from executors.registry import Registry
from executors.running.active_runs import ActiveRun, StopReason
from repositories.errors import NotGranted
from repositories.jobs import JobRepository
from tests.executors.running.conftest import Bench
from tests.executors.running.executors import ScriptedExecutor

pytestmark = pytest.mark.database


async def test_a_completed_job_has_output_stages_and_its_events_in_order(bench: Bench) -> None:
    """The row and the events tell the same story, and the ending comes last."""
    row = await bench.run()
    assert (row["status"], row["output"], row["progress"]) == (
        "completed",
        {"said": "done", "result_id": None},
        1,
    )
    assert [(s["name"], s["status"]) for s in row["stages"]] == [
        ("first_half", "completed"),
        ("second_half", "completed"),
    ]
    assert all(stage["ms"] >= 0 for stage in row["stages"])
    first, second = row["stages"]
    assert 0 <= first["offset_ms"] <= first["offset_ms"] + first["ms"] <= second["offset_ms"] + 0.2
    assert bench.sink.types[0] == "job.started"
    assert bench.sink.types[-1] == "job.completed"
    fractions = [e.fraction for _, e in bench.sink.told if isinstance(e, events.JobProgress)]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1


async def test_a_bug_is_retried_without_its_secrets(bench: Bench) -> None:
    """What escapes unexpectedly is for the log: the user reads the stage and a sentence."""
    row = await bench.run(do="crash")
    assert (row["status"], row["run"], row["attempt"]) == ("queued", 2, 1)
    await bench.runner.run(row["id"], 2)
    await bench.runner.run(row["id"], 3)
    row = await bench.row(row["id"])
    assert row["status"] == "failed"
    assert row["error_message"] == "Risky business failed: an internal error"
    assert row["error"] == {
        "code": "internal_error",
        "stage": "risky_business",
        "message": "Risky business failed: an internal error",
        "retryable": True,
        "attempt": 3,
    }
    assert "secret" not in str(row)
    assert bench.sink.types.count("job.failed") == 1
    again = [(job, e) for job, e in bench.sink.told if isinstance(e, events.JobRequeued)]
    assert [(job.run, job.attempt) for job, _ in again] == [(2, 1), (3, 2)]
    reasons = [event.reason or {} for _, event in again]
    assert [(r["outcome"], r["error"]["stage"]) for r in reasons] == [
        ("retry", "risky_business")
    ] * 2
    assert "secret" not in str(reasons)


async def test_a_rejection_is_final(bench: Bench) -> None:
    """What the provider refuses once it is not asked again."""
    row = await bench.run(do="reject")
    assert row["status"] == "failed"
    assert row["error"]["code"] == "provider_rejected"
    assert row["error_message"] == "Asking the oracle failed: the oracle refuses to answer."


async def test_a_rate_limit_waits_and_burns_nothing(bench: Bench) -> None:
    """The job comes back at the reset time with all its attempts."""
    row = await bench.run(do="rate_limit")
    assert (row["status"], row["attempt"]) == ("queued", 0)
    dispatch = bench.followups[-1].dispatch
    assert [d["delayed"] for d in dispatch] == [True]


async def test_a_timeout_counts_as_an_attempt(bench: Bench) -> None:
    """A job that takes longer than its type allows is stopped and tried again."""
    row = await bench.run("hasty", do="wait")
    assert (row["status"], row["attempt"]) == ("queued", 1)


async def test_invalid_input_names_the_field_and_never_runs(bench: Bench) -> None:
    """Malformed input ends as failed, with the field's name and without the executor."""
    row = await bench.run(do="complete", seconds="many")
    assert row["status"] == "failed"
    assert row["error"]["code"] == "invalid_input"
    assert row["error_message"].startswith("Invalid input: seconds should be a valid number")
    assert "many" not in row["error_message"]
    assert not bench.scripted.entered.is_set()


async def test_an_unknown_type_is_given_back(bench: Bench) -> None:
    """A worker that lacks the executor leaves the job to another, a second later."""
    await bench.jobs.register("0.1.0", [*_description("foreign")])
    row = await bench.run("foreign")
    assert (row["status"], row["attempt"], row["run"]) == ("queued", 0, 2)


@pytest.mark.parametrize(
    ("reasons", "last", "expected"),
    [
        ([], False, False),
        ([StopReason.INTERRUPT], True, True),
        ([StopReason.LOST], True, True),
        ([StopReason.CANCEL], False, False),
        ([StopReason.INTERRUPT, StopReason.CANCEL], False, False),
        ([StopReason.TIMEOUT], False, True),
        ([StopReason.TIMEOUT], True, False),
    ],
)
async def test_whether_another_run_follows(
    reasons: list[StopReason], last: bool, expected: bool
) -> None:
    """What a vendor was asked is left to it, unless the user or the last attempt has given up."""
    running = ActiveRun("job", 1, grace=1)
    for reason in reasons:
        running.stop(reason)
    assert running.comes_back(last=last) is expected


async def test_an_executor_learns_whether_another_run_follows(bench: Bench) -> None:
    """Not while it runs, and not of a cancel; of an interruption it does."""
    for stop, expected in (
        (bench.runner.cancel, False),
        (lambda _: bench.runner.interrupt(), True),
    ):
        bench.scripted.entered.clear()
        job_id = await bench.create(do="wait")
        work = asyncio.create_task(bench.runner.run(job_id, 1))
        await bench.scripted.entered.wait()
        context = bench.scripted.contexts[-1]
        assert not context.comes_back()
        stop(job_id)
        await work
        assert context.comes_back() is expected


async def test_cancel_stops_a_running_job(bench: Bench) -> None:
    """A job cancelled in this process ends as cancelled, and says so once."""
    job_id = await bench.create(do="wait")
    work = asyncio.create_task(bench.runner.run(job_id, 1))
    await bench.scripted.entered.wait()
    assert bench.runner.cancel(job_id)
    await work
    row = await bench.row(job_id)
    assert row["status"] == "cancelled"
    assert row["stages"][0]["status"] == "cancelled"
    assert bench.sink.types.count("job.cancelled") == 1


@pytest.mark.parametrize(("do", "cost"), [("keep", 1.0), ("keep_badly", 0.0)])
async def test_what_a_cancelled_run_keeps_is_paid_for(bench: Bench, do: str, cost: float) -> None:
    """A part of the price for a part of the work; that the job ends does not depend on it."""
    await bench.database.insert("job_prices", [{"type": "scripted", "amount": "4"}])
    await bench.database.call("grant_credits", user_id=bench.user_id, amount="9", reference="r")
    job_id = await bench.create(do=do)
    work = asyncio.create_task(bench.runner.run(job_id, 1))
    await bench.scripted.entered.wait()
    bench.runner.cancel(job_id)
    await work
    row = await bench.row(job_id)
    assert (row["status"], row["cost"]) == ("cancelled", cost)


async def test_a_cancel_by_the_row_arrives_with_the_renewal(bench: Bench) -> None:
    """Without any message on Redis, the next renewal tells the worker."""
    job_id = await bench.create(do="wait")
    work = asyncio.create_task(bench.runner.run(job_id, 1))
    await bench.scripted.entered.wait()
    await bench.database.call("cancel_job", job_id=job_id)
    await bench.runner.leases.renew()
    await work
    assert (await bench.row(job_id))["status"] == "cancelled"


async def test_a_cancel_between_registration_and_claim_is_not_missed(bench: Bench) -> None:
    """A run can be cancelled from before its claim is sent."""
    job_id = await bench.create(do="wait")
    work = asyncio.create_task(bench.runner.run(job_id, 1))
    await asyncio.sleep(0)
    assert bench.runner.cancel(job_id)
    await work
    assert (await bench.row(job_id))["status"] == "cancelled"


async def test_work_that_was_done_wins_over_a_cancel(bench: Bench) -> None:
    """An executor that finishes although it was told to stop has completed."""
    job_id = await bench.create(do="finish_though_cancelled")
    work = asyncio.create_task(bench.runner.run(job_id, 1))
    await bench.scripted.entered.wait()
    bench.runner.cancel(job_id)
    await work
    assert (await bench.row(job_id))["output"]["said"] == "it was nearly done"


async def test_an_executor_that_will_not_stop_is_abandoned(bench: Bench) -> None:
    """After the grace the job ends without it."""
    job_id = await bench.create(do="ignore_cancellation")
    work = asyncio.create_task(bench.runner.run(job_id, 1))
    await bench.scripted.entered.wait()
    bench.runner.cancel(job_id)
    await work
    assert (await bench.row(job_id))["status"] == "cancelled"
    bench.scripted.release.set()


async def test_draining_interrupts_and_burns_nothing(bench: Bench) -> None:
    """A stopping worker gives its jobs back at once, with their attempts."""
    job_id = await bench.create(do="wait")
    work = asyncio.create_task(bench.runner.run(job_id, 1))
    await bench.scripted.entered.wait()
    await bench.runner.drain(grace=0)
    await work
    row = await bench.row(job_id)
    assert (row["status"], row["attempt"], row["run"]) == ("queued", 0, 2)
    assert [d["id"] for d in bench.followups[-1].dispatch] == [job_id]


async def test_draining_lets_short_jobs_finish(bench: Bench) -> None:
    """Within the grace a running job completes."""
    job_id = await bench.create(do="wait")
    work = asyncio.create_task(bench.runner.run(job_id, 1))
    await bench.scripted.entered.wait()
    drain = asyncio.create_task(bench.runner.drain(grace=30))
    bench.scripted.release.set()
    await drain
    await work
    assert (await bench.row(job_id))["status"] == "completed"


async def test_tearing_down_the_caller_settles_in_good_order(bench: Bench) -> None:
    """When the task that runs a job is cancelled, the job is interrupted, not lost."""
    job_id = await bench.create(do="wait")
    work = asyncio.create_task(bench.runner.run(job_id, 1))
    await bench.scripted.entered.wait()
    work.cancel()
    await work  # CancelledError never leaves run
    row = await bench.row(job_id)
    assert (row["status"], row["attempt"]) == ("queued", 0)


async def test_a_zombie_settles_nothing(bench: Bench) -> None:
    """A run that lost its lease neither ends the job nor announces an ending."""
    job_id = await bench.create(do="wait")
    work = asyncio.create_task(bench.runner.run(job_id, 1))
    await bench.scripted.entered.wait()
    await bench.execute("update uvian.sweeps set last_at = now(), hold_until = now()")
    await bench.execute("update uvian.job_leases set expires_at = now() - interval '1 min'")
    await bench.database.call("sweep_jobs", request={})
    other = JobRepository(bench.database, "worker-2", lambda _: None)
    assert not isinstance(await other.claim(job_id, 2), str)
    bench.scripted.release.set()
    await work
    row = await bench.row(job_id)
    assert (row["status"], row["run"]) == ("processing", 2)
    assert "job.completed" not in bench.sink.types
    await other.close()


async def test_a_lost_lease_stops_the_executor(bench: Bench) -> None:
    """When a renewal says the job is another's, its executor is stopped before it pays for more."""
    job_id = await bench.create(do="wait")
    work = asyncio.create_task(bench.runner.run(job_id, 1))
    await bench.scripted.entered.wait()
    await bench.execute("update uvian.job_leases set worker = 'worker-2'")
    await bench.runner.leases.renew()
    await work
    assert (await bench.row(job_id))["status"] == "processing"


async def test_the_same_message_twice_runs_once(bench: Bench) -> None:
    """A message that is delivered again while its run is going on changes nothing."""
    job_id = await bench.create(do="wait")
    work = asyncio.create_task(bench.runner.run(job_id, 1))
    await bench.scripted.entered.wait()
    await bench.runner.run(job_id, 1)
    bench.scripted.release.set()
    await work
    await bench.runner.run(job_id, 1)
    assert len(bench.scripted.contexts) == 1
    assert (await bench.row(job_id))["status"] == "completed"


async def test_checkpoints_survive_a_retry(bench: Bench) -> None:
    """A later run finds what an earlier one saved."""
    row = await bench.run(do="checkpoint")
    await bench.runner.run(row["id"], 2)
    assert (await bench.row(row["id"]))["output"]["said"] == "resumed at 7"


async def test_warnings_are_part_of_the_output(bench: Bench) -> None:
    """What a job survived is listed in its output."""
    row = await bench.run(do="warn")
    assert row["status"] == "completed"
    assert row["output"]["warnings"] == [
        {"code": "half_done", "message": "One of two parts failed.", "part": 2}
    ]


async def test_an_output_the_database_refuses_fails_the_job(bench: Bench) -> None:
    """U+0000 cannot be stored: the job ends with a clear error instead of staying in the air."""
    row = await bench.run(do="nul")
    assert row["status"] == "failed"
    assert row["error"]["code"] == "unstorable_output"


async def test_a_database_that_refuses_every_settlement_fails_no_job(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake of the operator is not the job's: its lease expires and another worker has it."""

    async def refuse(_: object) -> object:
        raise NotGranted("permission denied for function settle_jobs")

    monkeypatch.setattr(JobRepository, "settle", lambda _self, item: refuse(item))
    row = await bench.run()
    assert row["status"] == "processing"
    assert "job.failed" not in bench.sink.types


async def test_progress_reaches_the_row_with_the_renewal(bench: Bench) -> None:
    """Stage and progress are carried to the row while the job runs."""
    job_id = await bench.create(do="wait")
    work = asyncio.create_task(bench.runner.run(job_id, 1))
    await bench.scripted.entered.wait()
    bench.scripted.contexts[0].progress(0.25, "a quarter")
    await bench.runner.leases.renew()
    row = await bench.row(job_id)
    assert (row["stage"], row["progress"], row["progress_message"]) == (
        "waiting",
        0.25,
        "a quarter",
    )
    bench.scripted.release.set()
    await work


async def test_an_ending_that_was_told_is_not_announced_again(bench: Bench) -> None:
    """The mark is set once the event is in the log; what was lost stays for the sweep."""
    await bench.run()
    bench.sink.answer = Appended.LOST
    lost = await bench.run()
    await bench.runner.close()
    await bench.execute(
        "update uvian.job_state set announce_at = now() where announce_at is not null"
    )
    sweep = await bench.database.call("sweep_jobs", request={})
    assert [row["id"] for row in sweep["announce"]] == [lost["id"]]


def test_a_repeated_type_is_refused() -> None:
    """Two executors of one type are a mistake that is named when the process starts."""

    class Another(ScriptedExecutor):
        """Claims the same type."""

    with pytest.raises(ValueError, match=r"two executors claim the type 'scripted'"):
        Registry([ScriptedExecutor, Another])


def test_an_executor_without_a_type_is_refused() -> None:
    """What an executor must declare is said at start, not at its first job."""

    class Nameless(BaseExecutor):  # type: ignore[type-arg]
        """Declares nothing."""

        async def execute(self, job: object) -> object:
            """Do nothing."""

    with pytest.raises(TypeError, match="Nameless lacks type, Input, Output"):
        Registry([Nameless])


def _description(type_: str) -> list[dict[str, object]]:
    return [{"type": type_, "input_schema": {}, "timeout_seconds": 5, "max_attempts": 3}]


async def test_a_job_that_was_queued_in_capitals_is_the_same_job(bench: Bench) -> None:
    """An API in another language may write ids so: cancellations and leases name it as the row does."""
    job_id = await bench.create(do="wait")
    running = asyncio.create_task(bench.runner.run(job_id.upper(), 1))
    await bench.scripted.entered.wait()
    await bench.runner.leases.renew()
    assert bench.runner.cancel(job_id)
    await running
    assert (await bench.row(job_id))["status"] == "cancelled"
