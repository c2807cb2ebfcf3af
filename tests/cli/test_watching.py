"""What the events of a job add up to, and how it looks on terminals of any kind."""

from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from executors.imaging.codec import preview
from uvian_worker.cli.terminal.job_view import JobView
from uvian_worker.cli.terminal.output import duration
from uvian_worker.cli.terminal.pixels import draw
from uvian_worker.events.envelope import Envelope
from uvian_worker.events.job_view import WatchedJob
from uvian_worker.events.reader import Expired, Snapshot

_PREVIEW = preview(Image.new("RGB", (64, 64), "#d7263d"))
_STAGES = [{"name": "asking", "label": "Asking", "status": "completed", "ms": 250.0}]


def event(type_: str, seq: int, run: int = 1, **data: Any) -> Envelope:
    """An event, one tenth of a second after the one before it."""
    at = f"2026-01-01T00:00:{seq / 10:06.3f}Z"
    return Envelope(f"e-{seq}-x", seq, "job:1", f"1:{run}:{seq}", type_, at, "1", run, 0, data)


def image(seq: int, kind: str, index: int, **more: Any) -> Envelope:
    """A picture."""
    fixed = {"path": f"u/{kind}{index}.png", "width": 64, "height": 64, "preview": _PREVIEW}
    return event("image.ready", seq, kind=kind, index=index, **{**fixed, "palette": None, **more})


def a_run() -> list[Envelope]:
    """A job that makes two variations."""
    palette = ["#111111", "#d7263d", "#ffffff"]
    return [
        event("job.queued", 1, job_type="generation"),
        event("job.started", 2, job_type="generation", worker="w"),
        event("stage.started", 3, stage="asking", label="Asking"),
        event("job.progress", 4, fraction=0.3, message="1 of 2 ready", stage="asking"),
        image(5, "base", 0, name=None),
        image(6, "variation", 1, name="Night Rose", palette=palette),
        image(7, "variation", 0, name="Day Rose", palette=palette),
        event("stage.finished", 8, stage="asking", label="Asking", status="completed", ms=250.0),
        event("job.completed", 9, output={}, result_id="r", stages=_STAGES, cost="2"),
    ]


def heard(events: list[Envelope]) -> WatchedJob:
    """A job that has heard these."""
    job = WatchedJob("1")
    for one in events:
        job.apply(one)
    return job


def test_events_add_up() -> None:
    """Status, stages, pictures in their places, counts, duration, cost."""
    job = heard(a_run())
    assert (job.status, job.type, job.fraction, job.cost) == ("completed", "generation", 1, "2")
    assert [stage.as_document() for stage in job.stages.values()] == _STAGES
    assert [p.name for _, p in sorted(job.pictures.items())] == [None, "Day Rose", "Night Rose"]
    assert job.counts["image.ready"] == 3
    assert job.ms == pytest.approx(800)
    assert job.is_over


def test_another_run_begins_its_stages_anew() -> None:
    """What a run that was lost said of its progress is void; its pictures are still there."""
    job = heard(a_run()[:6])
    job.apply(event("job.requeued", 10, run=2, job_type="generation"))
    assert (job.run, job.fraction, job.status) == (2, 0, "queued")
    assert job.stages["asking"].status == "waiting"
    assert set(job.pictures) == {0, 2}


def test_why_a_job_waits_again_is_said_once() -> None:
    """Which attempt failed, in which stage, and when the next run is due; not again with every event."""
    error = {"code": "x", "stage": "asking", "message": "Asking failed: no answer", "attempt": 1}
    reason = {"outcome": "retry", "attempt": 1, "error": error}
    requeued = event(
        "job.requeued",
        10,
        run=2,
        job_type="generation",
        run_at="2026-01-01T00:00:05Z",
        reason=reason,
    )
    job, out = heard(a_run()[:6]), io.StringIO()
    view = JobView(Console(file=out, width=120), job)
    for one in (requeued, event("job.started", 11, run=2, job_type="generation", worker="w")):
        job.apply(one)
        view.changed()
    said = "attempt 1 failed in 'asking': Asking failed: no answer, again in 4.00 s"
    assert out.getvalue().count(said) == 1


def test_a_failure_keeps_its_sentence() -> None:
    """The error is there as the user shall read it."""
    failed = event("job.failed", 9, error={"code": "x"}, error_message="No.", stages=[], cost="0")
    job = heard([*a_run()[:8], failed])
    assert (job.status, job.error_message, job.error) == ("failed", "No.", {"code": "x"})


def test_a_snapshot_counts_like_its_events() -> None:
    """Who comes late sees the state so far."""
    job = WatchedJob("1")
    job.apply(Snapshot("job:1", tuple(a_run()[1:4]), "e-4-x", ended=False))
    job.apply(Expired("job:1", "e-4-x", ended=False))
    assert (job.status, job.fraction) == ("processing", 0.3)


def shown(job: WatchedJob, width: int, colours: str | None) -> str:
    """What a terminal of this kind shows while the job runs, and at the end."""
    console = Console(
        file=io.StringIO(),
        width=width,
        height=50,
        force_terminal=True,
        color_system=colours,  # type: ignore[arg-type]
        legacy_windows=False,
    )
    view = JobView(console, job)
    console.print(view.now(), view.summary())
    output = console.file
    assert isinstance(output, io.StringIO)
    return output.getvalue()


@pytest.mark.parametrize(("width", "colours"), [(40, "truecolor"), (80, None), (200, "256")])
def test_a_job_fits_every_terminal(width: int, colours: str | None) -> None:
    """No line is longer than the terminal is wide, at any moment of the job."""
    from rich.text import Text

    for end in range(1, 10):
        for line in shown(heard(a_run()[:end]), width, colours).splitlines():
            assert Text.from_ansi(line).cell_len <= width


def test_without_colours_palettes_are_told_by_their_codes() -> None:
    """What cannot be shown is said."""
    assert "#d7263d" in shown(heard(a_run()), 100, None)
    assert "#d7263d" not in shown(heard(a_run()), 100, "truecolor")


def test_elsewhere_each_thing_is_told_once_in_a_line() -> None:
    """A pipe gets one line per stage and per picture, and no control characters."""
    output = io.StringIO()
    job = WatchedJob("1")
    with JobView(Console(file=output), job) as view:
        for one in a_run():
            job.apply(one)
            view.changed()
    lines = output.getvalue().splitlines()
    assert [line.split()[:3] for line in lines] == [
        ["02", "Night", "Rose"],
        ["01", "Day", "Rose"],
        ["✓", "Asking", "250"],
    ]
    assert "\x1b" not in output.getvalue()


def test_a_preview_that_cannot_be_read_is_no_reason_to_stop() -> None:
    """Something is drawn in its place."""
    job = heard(
        [*a_run()[:4], image(5, "base", 0, name=None, preview="data:image/webp;base64,AAAA")]
    )
    assert "Base image" in shown(job, 100, "truecolor")


def test_a_picture_becomes_cells_with_two_colours() -> None:
    """The split of a cell follows the picture: here its right half is white."""
    picture = Image.new("RGB", (4, 4), "black")
    picture.paste("white", (2, 0, 4, 4))
    text = draw(picture, 2)
    assert text.plain == "  "
    assert [str(span.style).split(" on ")[1] for span in text.spans] == ["#000000", "#ffffff"]
    picture = Image.new("RGB", (4, 4), "black")
    picture.paste("white", (1, 0, 4, 4))
    assert draw(picture, 2).plain == "▌ "


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (None, ""),
        (0.4, "0 ms"),
        (999.4, "999 ms"),
        (999.6, "1.00 s"),
        (61_000, "1 m 01 s"),
        (7.4e6, "2 h 03 m"),
    ],
)
def test_durations_are_short(ms: float | None, text: str) -> None:
    """Two or three digits and a unit."""
    assert duration(ms) == text
