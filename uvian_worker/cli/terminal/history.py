"""How the runs of a job waited, ran and ended: in sentences, and as a waterfall on one time line."""

from __future__ import annotations

__all__ = ["Run", "again_after", "again_in", "runs_of", "said_of", "sentences", "span", "waterfall"]

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from rich.table import Table
from rich.text import Text

from repositories.database import Row
from uvian_worker.cli.terminal.output import STATUS_STYLES, duration

_ENDED = ("completed", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class Run:
    """One run: a row of ``job_runs``, or what the job's own row says of the latest."""

    number: int
    queued_at: datetime
    run_at: datetime  #: until then it waited on purpose
    claimed_at: datetime | None
    ended_at: datetime | None  #: None: it waits or runs
    outcome: str
    attempt: int
    worker: str | None
    error: Mapping[str, Any] | None
    stages: Sequence[Mapping[str, Any]]
    retried_at: datetime | None = None

    @classmethod
    def of(cls, row: Row) -> Self:
        """A row of ``job_runs``."""
        return cls(
            row["run"],
            _moment(row["queued_at"]),
            _moment(row["run_at"]),
            _moment(row["claimed_at"]) if row["claimed_at"] else None,
            _moment(row["ended_at"]),
            # A retry past the last attempt, or a lost worker, may have ended the job.
            row["status"] if row["status"] in _ENDED else row["outcome"],
            row["attempt"],
            row["worker"],
            row["error"],
            row["stages"],
            _moment(row["retried_at"]) if row["retried_at"] else None,
        )

    @classmethod
    def latest(cls, job: Row) -> Self:
        """A job that waits or runs."""
        started = _moment(job["started_at"]) if job["started_at"] else None
        return cls(
            job["run"],
            _moment(job["queued_at"]),
            _moment(job["run_at"]),
            started,
            None,
            job["status"],
            job["attempt"],
            None,
            None,
            job["stages"],
        )


def runs_of(job: Row, history: Sequence[Row]) -> list[Run]:
    """The runs of a job, the oldest first: those that have ended, and the one that waits or runs."""
    runs = [Run.of(row) for row in history]
    if job["status"] not in _ENDED:
        runs.append(Run.latest(job))
    return runs


_SAID = {
    "worker_lost": "the worker was lost while it ran the job",
    "interrupted": "the worker was stopped",
    "not_mine": "the worker does not have this type of job",
    "retried": "the job was retried",
}


def said_of(reason: Mapping[str, Any]) -> str:
    """Why a job waits again, as the beginning of a sentence; ``reason`` is that of a ``job.requeued``."""
    error, outcome = reason["error"] or {}, reason["outcome"]
    if outcome not in {"retry", "failed"}:
        return _SAID.get(outcome, str(outcome).replace("_", " "))
    attempt = error.get("attempt", reason["attempt"])
    put_off = outcome == "retry" and reason["attempt"] < attempt  # a rate limit burns no attempt
    what = "put off" if put_off else f"attempt {attempt} failed"
    return f"{what}{_where(error)}: {error.get('message', '')}"


def sentences(runs: Sequence[Run]) -> Iterator[Text]:
    """One for each run that was followed by another, or that failed."""
    for run, following in zip(runs, [*runs[1:], None], strict=True):
        if following is not None:
            reason = {"outcome": run.outcome, "attempt": run.attempt, "error": run.error}
            yield Text(f"{said_of(reason)}, {again_in(run, following)}", style="yellow")
        elif run.error:
            yield Text(
                said_of({"outcome": run.outcome, "attempt": run.attempt, "error": run.error}), "red"
            )


def again_in(run: Run, following: Run) -> str:
    """When the next run was due."""
    if run.retried_at is not None and run.ended_at is not None:
        waited = (run.retried_at - run.ended_at).total_seconds()
        return f"retried after {duration(waited * 1000)}"
    return again_after((following.run_at - following.queued_at).total_seconds())


def again_after(seconds: float) -> str:
    """How long the next run waits on purpose."""
    return "again at once" if seconds < 0.05 else f"again in {duration(round(seconds, 1) * 1000)}"


def waterfall(runs: Sequence[Run], width: int) -> Table:
    """Every run and its stages where they lay in time: ``·`` waits on purpose, ``░`` waits for a worker."""
    first = min(run.queued_at for run in runs)
    last = max(_end(run) for run in runs)
    whole = max((last - first).total_seconds() * 1000, 1)
    room = max(width - 44, 12)
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, max_width=28, overflow="ellipsis")
    table.add_column(no_wrap=True, width=room)
    table.add_column(justify="right", no_wrap=True)
    for run in runs:
        table.add_row(_heading(run), _bar(run, first, whole, room), duration(_took(run)))
        begin = _ms(first, run.claimed_at or run.queued_at)  # no claim: somebody edited the row
        for stage in run.stages:
            bar = span(begin + stage.get("offset_ms", 0), stage["ms"], whole, room)
            bar.stylize("red" if stage["status"] == "failed" else "cyan")
            name = stage.get("label") or stage["name"]
            table.add_row(Text(f"  {name}", style="dim"), bar, duration(stage["ms"]))
    return table


def span(offset: float, length: float, whole: float, width: int) -> Text:
    """A stretch of a line of ``width`` cells, at least half a cell long. All in the same unit."""
    halves = 2 * width / whole
    first = max(min(round(offset * halves), 2 * width - 1), 0)
    last = min(max(round((offset + length) * halves), first + 1), 2 * width)
    cells = []
    for cell in range(width):
        left, right = first <= 2 * cell < last, first <= 2 * cell + 1 < last
        cells.append(
            {(True, True): "━", (True, False): "╸", (False, True): "╺"}.get((left, right), " ")
        )
    return Text("".join(cells), no_wrap=True, overflow="crop")


def _heading(run: Run) -> Text:
    outcome = "retried" if run.retried_at is not None else run.outcome
    style = {"retry": "yellow", "worker_lost": "yellow"}.get(
        outcome, STATUS_STYLES.get(outcome, "")
    )
    return Text.assemble(f"run {run.number}  ", (outcome.replace("_", " "), style))


def _bar(run: Run, first: datetime, whole: float, width: int) -> Text:
    """The run's own line: how long it waited, and for what; then how long it ran."""
    due = min(max(run.run_at, run.queued_at), _end(run))
    claimed = run.claimed_at or _end(run)
    at = [
        round(_ms(first, moment) * width / whole)
        for moment in (run.queued_at, due, claimed, _end(run))
    ]
    queued, until_due, begun, ended = (min(max(x, 0), width) for x in at)
    if run.claimed_at is not None:
        ended = max(ended, begun + 1)
    line = Text(" " * queued)
    line.append("·" * (until_due - queued), style="dim")
    line.append("░" * max(begun - max(until_due, queued), 0), style="dim")
    style = "red" if run.outcome == "failed" else "yellow" if run.outcome == "retry" else "cyan"
    line.append("━" * (ended - begun), style=f"bold {style}")
    line.truncate(width)
    return line


def _took(run: Run) -> float | None:
    return None if run.claimed_at is None else _ms(run.claimed_at, _end(run))


def _end(run: Run) -> datetime:
    return run.ended_at or datetime.now(UTC)


def _ms(start: datetime, end: datetime) -> float:
    return (end - start).total_seconds() * 1000


def _where(error: Mapping[str, Any]) -> str:
    return f" in '{error['stage']}'" if error.get("stage") else ""


def _moment(moment: str) -> datetime:
    return datetime.fromisoformat(moment)
