"""A job on a terminal while it runs: its stages, why it waits, and its pictures as they arrive."""

from __future__ import annotations

__all__ = ["JobView"]

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from uvian_worker.cli.terminal.gallery import Gallery
from uvian_worker.cli.terminal.history import again_after, said_of
from uvian_worker.cli.terminal.output import duration, waits_for
from uvian_worker.cli.terminal.stages import STAGE_MARKS, StageBars, timeline
from uvian_worker.events.job_view import Picture, WatchedJob

if TYPE_CHECKING:
    from PIL import Image


class JobView:
    """Shows a job as it changes: drawn again and again on a terminal, line by line elsewhere.

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
        """``open_picture`` is for a caller that has the pictures; without it their previews are drawn.

        ``original`` is the picture that a refinement begins with; it is shown beside the refined one.
        """
        self._console = console
        self._job = job
        self._bars = StageBars(job)
        self._gallery = Gallery(console, job, open_picture=open_picture, original=original)
        self._printed: set[str] = set()
        self._live = Live(
            get_renderable=self.now, console=console, refresh_per_second=12, transient=True
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
        """Print what is new, unless the console is a terminal: there the view draws itself."""
        if not self._console.is_terminal:
            for line in self._new_lines():
                self._console.print(line, soft_wrap=True)

    def summary(self) -> RenderableType:
        """Stages on their common time line, pictures with their palettes."""
        parts: list[RenderableType] = [*self._requeues()]
        if self._job.stages:
            parts.append(timeline(self._job, self._console.width))
        if self._job.pictures:
            parts += [Text(), self._gallery.drawn()]
        return Group(*parts)

    def now(self) -> RenderableType:
        """The job at this moment; what would not fit on the screen is left out."""
        parts: list[RenderableType] = [*self._requeues(), self._bars.drawn()]
        if (waits := self._waits) is not None:
            parts.append(Text(f"Run {self._job.run} waits for {waits}", style="yellow"))
        if self._job.pictures:
            room = self._console.height - len(self._job.stages) - 6
            fits = room >= self._gallery.height
            parts += [
                Text(),
                self._gallery.drawn() if fits else self._gallery.names(max(room, 1)),
            ]
        return Group(*parts)

    def _new_lines(self) -> Iterator[Text]:
        for key, line in self._lines():
            if key not in self._printed:
                self._printed.add(key)
                yield line

    def _lines(self) -> Iterator[tuple[str, Text]]:
        """What there is to print of the job by now, each line with its name."""
        for stage in self._job.stages.values():
            if stage.ms is not None:
                mark = STAGE_MARKS[stage.status]
                took = (duration(stage.ms), "dim")
                yield f"stage {stage.name}", Text.assemble(mark, f" {stage.label}  ", took)
        for run, line in zip(self._job.requeues, self._requeues(), strict=True):
            yield f"requeue {run}", line
        if (waits := self._waits) is not None:
            sentence = f"… Run {self._job.run} waits for {waits}"
            yield f"waits {self._job.run}", Text(sentence, style="yellow")
        for number, picture in self._job.pictures.items():  # as they arrive
            if picture.palette:
                yield f"picture {number}", Text.assemble("  ", self._gallery.named(picture))

    def _requeues(self) -> list[Text]:
        """Why each run was followed by another."""
        return [
            Text(f"↻ {said_of(reason)}, {again_after(seconds)}", style="yellow")
            for reason, seconds in self._job.requeues.values()
        ]

    @property
    def _waits(self) -> str | None:
        """What the job waits for. The first run of a new job waits for nothing worth a sentence."""
        job = self._job
        if job.status != "queued" or (job.run == 1 and job.run_at is None):
            return None
        return waits_for(job.run, job.run_at)
