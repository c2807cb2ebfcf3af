"""A job on a terminal while it runs: a bar per stage, and its pictures as they arrive."""

from __future__ import annotations

__all__ = ["JobView", "open_stored"]

import base64
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.style import Style
from rich.table import Table
from rich.text import Text

from uvian_worker.cli.terminal.history import again_after, said_of, span
from uvian_worker.cli.terminal.output import duration, waits_for
from uvian_worker.events.job_view import Picture, StageSeen, WatchedJob

if TYPE_CHECKING:
    from PIL import Image

_MARKS = {
    "waiting": Text("·", style="dim"),
    "completed": Text("✓", style="green"),
    "failed": Text("✗", style="red"),
    "cancelled": Text("○", style="magenta"),
}
_LARGE, _MIDDLE, _SMALL = (
    28,
    14,
    12,
)  # columns of a picture on the terminal; it has half as many lines
_WIDE = 96  # columns from which the base image stands beside its variations


class JobView:
    """Shows a job as it changes: alive on a terminal, line by line elsewhere.

    Inside of ``with``, call ``changed`` after every event. ``summary`` is what stays at the end.
    """

    def __init__(
        self,
        console: Console,
        job: WatchedJob,
        *,
        open_picture: Callable[[Picture], Image.Image] | None = None,
        original: Callable[[], Image.Image] | None = None,
    ) -> None:
        """``open_picture`` is for who has the pictures themselves; else their previews are drawn.

        ``original`` is what a refinement began with: it is shown beside what became of it.
        """
        self._original = original
        self._console = console
        self._open = open_picture or _open_preview
        self._job = job
        self._spinner = Spinner("dots", style="cyan")
        self._printed: set[str] = set()
        self._began = time.monotonic()
        self._bitmaps: dict[tuple[str, int], Text] = {}
        self._live = Live(
            get_renderable=self._now, console=console, refresh_per_second=12, transient=True
        )

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live.is_started:
            self._live.stop()

    def changed(self) -> None:
        """Tell what is new, where nothing is drawn again."""
        if not self._console.is_terminal:
            for line in self._news():
                self._console.print(line, soft_wrap=True)

    def summary(self) -> RenderableType:
        """Stages on their common time line, pictures with their palettes."""
        parts: list[RenderableType] = [*self._requeues()]
        if self._job.stages:
            parts.append(self._timeline())
        if self._job.pictures:
            parts += [Text(), self._gallery()]
        return Group(*parts)

    def _now(self) -> RenderableType:
        """The job at this moment; what would not fit on the screen is left out."""
        bars: RenderableType = Group(*self._requeues(), self._bars())
        if (waits := self._waits) is not None:
            bars = Group(bars, Text(f"Run {self._job.run} waits for {waits}", style="yellow"))
        if not self._job.pictures:
            return bars
        room = self._console.height - len(self._job.stages) - 6
        gallery = self._gallery() if room >= self._gallery_height() else self._names(max(room, 1))
        return Group(bars, Text(), gallery)

    def _news(self) -> Iterator[Text]:
        for stage in self._job.stages.values():
            if stage.ms is not None and stage.name not in self._printed:
                self._printed.add(stage.name)
                yield Text.assemble(
                    _MARKS[stage.status], f" {stage.label}  ", (duration(stage.ms), "dim")
                )
        for run, line in zip(self._job.requeues, self._requeues(), strict=True):
            if f"requeue {run}" not in self._printed:
                self._printed.add(f"requeue {run}")
                yield line
        said = f"run {self._job.run} waits"
        if self._waits is not None and said not in self._printed:
            self._printed.add(said)
            yield Text(f"… Run {self._job.run} waits for {self._waits}", style="yellow")
        for place, picture in self._job.pictures.items():  # as they arrive
            if picture.palette and f"picture {place}" not in self._printed:
                self._printed.add(f"picture {place}")
                yield Text.assemble("  ", self._named(picture))

    def _requeues(self) -> list[Text]:
        """Why each run was followed by another."""
        return [
            Text(f"↻ {said_of(reason)}, {again_after(seconds)}", style="yellow")
            for reason, seconds in self._job.requeues.values()
        ]

    @property
    def _waits(self) -> str | None:
        """What the job waits for; the first run of a job that was just made waits for nothing special."""
        job = self._job
        if job.status != "queued" or (job.run == 1 and job.run_at is None):
            return None
        return waits_for(job.run, job.run_at)

    def _bars(self) -> Table:
        table = _stage_table()
        for stage in self._job.stages.values():
            mark = _MARKS.get(stage.status, self._spinner)
            table.add_row(mark, _label(stage), self._bar(stage), _time(stage))
        table.add_row("", Text("The job", style="bold"), self._whole(), self._elapsed())
        return table

    def _bar(self, stage: StageSeen) -> RenderableType:
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

    def _timeline(self) -> Table:
        """Every stage where it lay in time: what overlaps, and what the time went into."""
        table = _stage_table()
        whole = self._job.ms or sum(stage.ms or 0 for stage in self._job.stages.values()) or 1
        width = max(self._console.width - 43, 8)
        for stage in self._job.stages.values():
            bar = span(self._offset(stage), stage.ms or 0, whole, width)
            bar.stylize("red" if stage.status == "failed" else "cyan")
            table.add_row(_MARKS.get(stage.status, Text(" ")), stage.label, bar, _time(stage))
        return table

    def _offset(self, stage: StageSeen) -> float:
        """Milliseconds from the job's beginning to the stage's."""
        if stage.began is None or self._job.began is None:
            return 0.0
        return (stage.began - self._job.began).total_seconds() * 1000

    def _gallery(self) -> RenderableType:
        pictures = [picture for _, picture in sorted(self._job.pictures.items())]
        if not self._can_draw:
            return self._names(len(pictures))
        if self._original is not None and pictures[0].kind == "base":
            return self._compared(self._original, pictures)
        if not self._is_wide or pictures[0].kind != "base":
            return self._tiles(pictures)
        beside = Table.grid(padding=(0, 3, 0, 0))
        base = Group(self._bitmap(pictures[0], _LARGE), Text("Base image", style="bold"))
        beside.add_row(base, self._tiles(pictures[1:]))
        return beside

    def _compared(
        self, original: Callable[[], Image.Image], pictures: list[Picture]
    ) -> RenderableType:
        """The original, and the refined image beside it where there is room."""
        from uvian_worker.cli.terminal.pixels import draw

        before = Group(draw(original(), _LARGE), Text("Original", style="bold"))
        after = Group(self._bitmap(pictures[0], _LARGE), Text("Refined", style="bold"))
        pair = Table.grid(padding=(0, 3, 0, 0))
        if self._console.width >= 2 * _LARGE + 3:
            pair.add_row(before, after)
        else:
            pair.add_row(before)
            pair.add_row(after)
        if len(pictures) == 1:
            return pair
        return Group(pair, Text(), self._tiles(pictures[1:]))

    def _gallery_height(self) -> int:
        count = len(self._job.pictures)
        if not self._can_draw:
            return count
        rows = -(-(count - self._is_wide) // self._columns)
        return max(rows * (self._tile_side // 2 + 3), (_LARGE // 2 + 1) * self._is_wide)

    def _tiles(self, pictures: list[Picture]) -> Table:
        grid = Table.grid(padding=(0, 2, 0, 0))
        columns = self._columns
        for at in range(0, len(pictures), columns):
            if at:
                grid.add_row()
            grid.add_row(*(self._tile(picture) for picture in pictures[at : at + columns]))
        return grid

    def _tile(self, picture: Picture) -> Group:
        side = self._tile_side
        name = Text(picture.name or "Base image", no_wrap=True)
        name.truncate(side, overflow="ellipsis")
        return Group(self._bitmap(picture, side), _swatches(picture.palette, side), name)

    @property
    def _is_wide(self) -> bool:
        """Whether the base image stands beside its variations."""
        return self._console.width >= _WIDE

    @property
    def _tile_side(self) -> int:
        return _MIDDLE if self._is_wide else _SMALL

    @property
    def _columns(self) -> int:
        room = self._console.width - (_LARGE + 3 if self._is_wide else 0) + 2
        return max(room // (self._tile_side + 2), 1)

    def _names(self, room: int) -> RenderableType:
        """One line per variation, the latest ones when there is little room."""
        pictures = [p for _, p in sorted(self._job.pictures.items()) if p.palette]
        return Group(*(Text.assemble("  ", self._named(p)) for p in pictures[-room:]))

    def _named(self, picture: Picture) -> Text:
        number = Text(f"{picture.place:02d}  ", style="dim")
        if self._can_draw:
            return Text.assemble(number, _swatches(picture.palette, 20), f"  {picture.name}")
        return Text.assemble(number, f"{picture.name}  ", (" ".join(picture.palette), "dim"))

    @property
    def _can_draw(self) -> bool:
        return self._console.color_system in {"truecolor", "256"} and not self._console.no_color

    def _bitmap(self, picture: Picture, side: int) -> Text:
        key = (picture.path, side)
        if key not in self._bitmaps:
            from uvian_worker.cli.terminal.pixels import draw

            self._bitmaps[key] = draw(self._open(picture), side)
        return self._bitmaps[key]


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


def _swatches(palette: tuple[str, ...], width: int) -> Text:
    """The colours side by side, ``width`` cells in all."""
    text = Text(no_wrap=True)
    for at, colour in enumerate(palette):
        cells = width * (at + 1) // len(palette) - width * at // len(palette)
        text.append(" " * cells, Style(bgcolor=colour))
    return text


def open_stored(folder: Path, picture: Picture) -> Image.Image:
    """The picture itself where the image store is a folder of this machine, else its preview."""
    from executors.imaging.codec import UnsafeImageError, decode
    from repositories.images import is_image_path

    try:
        if is_image_path(picture.path):
            return decode((folder / picture.path).read_bytes()).convert("RGB")
    except (OSError, UnsafeImageError):
        pass  # it is kept elsewhere, or is nothing to look at
    return _open_preview(picture)


def _open_preview(picture: Picture) -> Image.Image:
    """The tiny picture that came with the event; a blank one when it cannot be read."""
    from PIL import Image

    from executors.imaging.codec import decode

    try:
        content = base64.b64decode(picture.preview.partition(",")[2])
        return decode(content).convert("RGB")
    except ValueError:  # no base64, or an UnsafeImageError
        return Image.new("RGB", (1, 1))
