"""What a job that is queued waits for, as the commands say it."""

from __future__ import annotations

import io
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from uvian_worker.cli.terminal.job_view import JobView
from uvian_worker.cli.terminal.output import waits_for
from uvian_worker.cli.terminal.tables import _facts, _remark
from uvian_worker.events.job_view import WatchedJob

NOW = datetime.now(UTC)


@pytest.mark.parametrize(
    ("run", "run_at", "has_turn", "said"),
    [
        (1, None, True, "a worker"),
        (3, None, True, "a worker"),
        (1, NOW - timedelta(seconds=5), True, "a worker"),
        (3, NOW - timedelta(seconds=5), True, "a worker"),
        (1, NOW, False, "its turn: other jobs of this user come first"),
        (3, NOW + timedelta(hours=1), True, "its next try at "),
        (1, NOW + timedelta(days=3), True, "its time at "),
    ],
)
def test_what_it_waits_for(run: int, run_at: datetime | None, has_turn: bool, said: str) -> None:
    """A worker, its turn, its time, or the end of its backoff, and when that is."""
    assert waits_for(run, run_at, has_turn=has_turn).startswith(said)


def test_until_when() -> None:
    """On this day the clock, on others the date too; and how long that is."""
    soon = datetime.now(UTC) + timedelta(seconds=91)
    assert re.search(r", in 1 m (?:29|30|31) s$", waits_for(2, soon))
    later = NOW + timedelta(days=3)
    assert f"{later.astimezone():%Y-%m-%d %H:%M:%S}" in waits_for(2, later)


def row(**more: Any) -> dict[str, Any]:
    """A job that waits for its third try."""
    return {
        "id": "0" * 36, "type": "generation", "user_id": "u", "status": "queued", "run": 3, "attempt": 2,
        "created_at": NOW.isoformat(), "run_at": (NOW + timedelta(hours=1)).isoformat(),
        "started_at": None, "finished_at": None, "updated_at": NOW.isoformat(), "cost": 0,
        "error": None, "error_message": "The provider is away.", "output": None, "result_id": None,
        "idempotency_key": None, "parent_id": None, "admitted": True, **more,
    }  # fmt: skip


def test_a_row_says_it() -> None:
    """In the list and on the job's own page."""
    assert "waits for its next try at" in str(_remark(row()))
    assert dict(_facts(row()))["waits for"].startswith("its next try at")
    assert "waits for" not in dict(_facts(row(status="completed")))


def test_a_job_that_is_watched_says_it_once() -> None:
    """Line by line, where there is no terminal."""
    job = WatchedJob("j", "generation", run=2, run_at=NOW + timedelta(hours=1))
    out = io.StringIO()
    with JobView(Console(file=out, width=100), job) as view:
        view.changed()
        view.changed()
        job.status = "processing"
        view.changed()
    assert out.getvalue().count("Run 2 waits for its next try at") == 1
