"""The stages of a job on a terminal: a bar each while it runs, and afterwards where they lay in time."""

from __future__ import annotations

__all__ = ["STAGE_MARKS", "StageBars", "timeline"]

import time
from datetime import UTC, datetime

from rich.console import RenderableType
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from uvian_worker.cli.terminal.history import span
from uvian_worker.cli.terminal.output import duration
from uvian_worker.events.job_view import StageSeen, WatchedJob

#: What stands before a stage that has not begun, or has ended; one that runs has a spinner.
STAGE_MARKS = {
    "waiting": Text("·", style="dim"),
    "completed": Text("✓", style="green"),
    "failed": Text("✗", style="red"),
    "cancelled": Text("○", style="magenta"),
}


class StageBars:
    """A bar per stage and one for the job, as they are at this moment."""

    def __init__(self, job: WatchedJob) -> None:
        self._job = job
        self._spinner = Spinner("dots", style="cyan")
        self._began = time.monotonic()

    def drawn(self) -> Table:
        """One row per stage; the job's own is the last."""
        table = _stage_table()
        for stage in self._job.stages.values():
            mark = STAGE_MARKS.get(stage.status, self._spinner)
            table.add_row(mark, _label(stage), _bar(stage), _time(stage))
        table.add_row("", Text("The job", style="bold"), self._whole(), self._elapsed())
        return table

    def _whole(self) -> ProgressBar:
        return ProgressBar(
            total=1,
            completed=self._job.fraction,
            complete_style="bold blue",
            finished_style="bold blue",
        )

    def _elapsed(self) -> Text:
        ms = self._job.ms or (time.monotonic() - self._began) * 1000
        return Text(duration(ms), style="bold")


def timeline(job: WatchedJob, width: int) -> Table:
    """Every stage where it lay in time: what overlaps, and what the time went into."""
    table = _stage_table()
    whole = job.ms or sum(stage.ms or 0 for stage in job.stages.values()) or 1
    room = max(width - 43, 8)
    for stage in job.stages.values():
        bar = span(_offset(job, stage), stage.ms or 0, whole, room)
        bar.stylize("red" if stage.status == "failed" else "cyan")
        table.add_row(STAGE_MARKS.get(stage.status, Text(" ")), stage.label, bar, _time(stage))
    return table


def _offset(job: WatchedJob, stage: StageSeen) -> float:
    """Milliseconds from the job's beginning to the stage's."""
    if stage.began is None or job.began is None:
        return 0.0
    return (stage.began - job.began).total_seconds() * 1000


def _bar(stage: StageSeen) -> RenderableType:
    match stage.status:
        case "completed":
            return ProgressBar(total=1, completed=1, finished_style="green")
        case "running" if stage.counted:
            done, total = stage.counted
            return ProgressBar(total=total, completed=done, complete_style="cyan")
        case "running":
            return ProgressBar(pulse=True, pulse_style="cyan")
        case status:
            style = "red" if status == "failed" else "grey30"
            return ProgressBar(total=1, completed=0, style=style)


def _stage_table() -> Table:
    table = Table.grid(padding=(0, 2, 0, 0), expand=True)
    table.add_column(width=1)
    table.add_column(no_wrap=True, min_width=27)
    table.add_column(ratio=1)
    table.add_column(justify="right", no_wrap=True, width=9)
    return table


def _label(stage: StageSeen) -> Text:
    return Text(stage.label, style="dim" if stage.status == "waiting" else "")


def _time(stage: StageSeen) -> Text:
    if stage.ms is not None:
        return Text(duration(stage.ms))
    if stage.status != "running":
        return Text()
    if stage.counted:
        return Text("{} of {}".format(*stage.counted), style="cyan")
    if stage.began is None:
        return Text()
    running = (datetime.now(UTC) - stage.began).total_seconds() * 1000
    return Text(duration(max(running, 0)), style="cyan")
