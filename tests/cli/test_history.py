"""The runs of a job as ``uvian jobs show`` shows them: one time line, and why each had a next one."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from uvian_worker.cli.terminal.history import runs_of, said_of, sentences, waterfall

_START = datetime(2026, 1, 1, tzinfo=UTC)
_ERROR = {"code": "x", "stage": "adding", "message": "Adding failed: no", "attempt": 1}
_STAGE = {"name": "adding", "label": "Adding", "status": "failed", "offset_ms": 100, "ms": 800}


def at(seconds: float) -> str:
    """So many seconds after the job was made."""
    return (_START + timedelta(seconds=seconds)).isoformat()


def run(
    number: int, queued: float, due: float, claimed: float | None, ended: float, **more: Any
) -> Any:
    """A row of ``job_runs``."""
    return {
        "run": number,
        "queued_at": at(queued),
        "run_at": at(due),
        "claimed_at": None if claimed is None else at(claimed),
        "ended_at": at(ended),
        "outcome": "completed",
        "status": "completed",
        "attempt": 1,
        "worker": "w",
        "error": None,
        "stages": [],
        "retried_at": None,
        **more,
    }


FAILED = run(1, 0, 0, 1, 2, outcome="retry", status="queued", error=_ERROR, stages=[_STAGE])
JOB = {"status": "completed"}


def shown(rows: list[Any], job: dict[str, Any] | None = None, width: int = 84) -> list[str]:
    """The lines of the waterfall, and of the sentences below it."""
    out = io.StringIO()
    runs = runs_of(job or JOB, rows)
    console = Console(file=out, width=width)
    console.print(waterfall(runs, width))
    for line in sentences(runs):
        console.print(line)
    return out.getvalue().splitlines()


def test_waiting_backoff_and_running_are_told_apart() -> None:
    """Ten seconds on forty columns: 1 s for a worker, 1 s run, 4 s on purpose, 2 s for a worker, 2 s run."""
    first, stage, second, sentence = shown([FAILED, run(2, 2, 6, 8, 10)])
    assert first.count("░") == first.count("━") == 4
    assert (second.count("·"), second.count("░"), second.count("━")) == (16, 8, 8)
    assert second.index("·") == first.rindex("━") + 1
    assert "Adding" in stage
    assert "800 ms" in stage
    assert sentence == "attempt 1 failed in 'adding': Adding failed: no, again in 4.00 s"


def test_a_run_that_goes_on_is_shown_from_the_row() -> None:
    """The history has it when it has ended."""
    now = datetime.now(UTC)
    job = {
        "status": "processing",
        "run": 2,
        "queued_at": (now - timedelta(seconds=5)).isoformat(),
        "run_at": (now - timedelta(seconds=5)).isoformat(),
        "started_at": (now - timedelta(seconds=4)).isoformat(),
        "attempt": 1,
        "stages": [],
    }
    lines = shown([FAILED], job)
    assert "run 2  processing" in "\n".join(lines)


@pytest.mark.parametrize("width", [40, 60, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    """Also where there is hardly room."""
    lines = shown(
        [FAILED, run(2, 2, 6, None, 10, outcome="cancelled", status="cancelled")], width=width
    )
    assert all(len(line.rstrip()) <= width for line in lines)


@pytest.mark.parametrize(
    ("reason", "sentence"),
    [
        (
            {"outcome": "retry", "attempt": 1, "error": _ERROR},
            "attempt 1 failed in 'adding': Adding failed: no",
        ),
        (
            {"outcome": "retry", "attempt": 0, "error": _ERROR},
            "put off in 'adding': Adding failed: no",
        ),
        (
            {"outcome": "worker_lost", "attempt": 0, "error": None},
            "the worker was lost while it ran the job",
        ),
        ({"outcome": "something_new", "attempt": 0, "error": None}, "something new"),
    ],
)
def test_each_reason_is_a_sentence(reason: dict[str, Any], sentence: str) -> None:
    """What burned an attempt is told from what did not; an outcome of a later release is no error."""
    assert said_of(reason) == sentence


def test_a_retry_by_hand_says_how_long_it_took() -> None:
    """The user came back a minute later."""
    rows = [{**FAILED, "status": "failed", "retried_at": at(62)}, run(2, 62, 62, 62, 63)]
    said = "attempt 1 failed in 'adding': Adding failed: no, retried after 1 m 00 s"
    assert shown(rows)[-1] == said


def test_the_last_attempt_is_a_failure() -> None:
    """The worker asked for a retry, and the database had none left: the job has failed."""
    lines = shown([{**FAILED, "status": "failed"}], {"status": "failed"})
    assert lines[0].startswith("run 1  failed")
    assert lines[-1] == "attempt 1 failed in 'adding': Adding failed: no"
