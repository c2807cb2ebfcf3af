"""``uvian demo``: the main job on this machine, watched."""

from __future__ import annotations

__all__ = ["PROMPT", "THEME", "conclude", "demo", "introduce", "look_back"]

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

import typer

from uvian_worker.cli.endings import ExitCode, run

if TYPE_CHECKING:
    from rich.console import Console

    from uvian_worker.cli.view import JobView
    from uvian_worker.demo import DemoOrder, DemoResult
    from uvian_worker.watching import WatchedJob

PROMPT = "A sailing boat at sunrise"
THEME = "Coral sunrise over deep teal water"


def demo(
    prompt: Annotated[str, typer.Option(help="What the mark shows.")] = PROMPT,
    theme: Annotated[str, typer.Option(help="Its colours and mood.")] = THEME,
    palettes: Annotated[int, typer.Option(min=1, max=12, help="How many variations.")] = 7,
    size: Annotated[int, typer.Option(min=256, max=2048, help="Pixels, width and height.")] = 1024,
    seed: Annotated[
        int | None, typer.Option(min=0, help="The same seed draws the same marks.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            file_okay=False, help=r"Folder for the pictures.  \[default: .uvian/demo/<job>]"
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document and nothing else.")
    ] = False,
) -> None:
    """Make a concept and its palette variations, on a real Postgres and a real Redis.

    Nothing needs to be installed or configured: servers, schema, user and worker are made in
    ./.uvian and stopped again. A second run works at once.
    """
    from uvian_worker.demo import DemoOrder

    order = DemoOrder(prompt, theme, palettes, size, seed, out)
    result = run(_as_document(order) if as_json else _on_screen(order))
    raise typer.Exit(ExitCode.OK if result.succeeded else ExitCode.JOB_FAILED)


async def _as_document(order: DemoOrder) -> DemoResult:
    from uvian_worker.cli.output import print_json
    from uvian_worker.demo import run_demo

    try:
        result = await run_demo(order)
    except Exception:
        print_json({"jobs": []})  # the sentence goes to stderr
        raise
    print_json({"jobs": [result.as_document()]})
    return result


async def _on_screen(order: DemoOrder) -> DemoResult:
    from uvian_worker.cli.output import console
    from uvian_worker.demo import run_demo

    screen = console()
    introduce(screen, order)
    with _Screen(screen) as audience:
        result = await run_demo(order, audience)
    if screen.is_terminal:  # elsewhere it was told line by line
        look_back(screen, result)
    conclude(screen, order, result)
    return result


class _Screen:
    """An audience that draws: first what is being started, then the job."""

    def __init__(self, screen: Console) -> None:
        from contextlib import ExitStack

        self._screen = screen
        self._stack = ExitStack()
        self._status = self._stack.enter_context(screen.status("Preparing …"))
        self._view: JobView | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def preparing(self, step: str) -> None:
        self._status.update(f"{step} …")

    def begins(self, job: WatchedJob) -> None:
        from uvian_worker.cli.view import JobView

        self._status.stop()
        self._view = self._stack.enter_context(JobView(self._screen, job))

    def changed(self) -> None:
        assert self._view is not None  # noqa: S101 - it has begun
        self._view.changed()


def introduce(screen: Console, order: DemoOrder) -> None:
    """What is asked for."""
    from rich.text import Text

    screen.print()
    screen.print(Text(order.prompt, style="bold"))
    screen.print(Text(order.theme, style="dim"))
    screen.print()


def look_back(screen: Console, result: DemoResult) -> None:
    """Where the time went, and the pictures themselves."""
    from PIL import Image

    from uvian_worker.cli.view import JobView

    files = dict(zip(sorted(result.job.pictures), result.files, strict=False))
    view = JobView(screen, result.job, open_picture=lambda p: Image.open(files[p.place]))
    screen.print(view.summary() if files else "")
    screen.print()


def conclude(screen: Console, order: DemoOrder, result: DemoResult) -> None:
    """How it went, where the pictures are, what can be done next."""
    from rich.text import Text

    from uvian_worker.cli.output import duration

    job = result.job
    if result.succeeded and result.out is not None:
        done = f"A base image and {order.palettes} variations, {order.size} px square, in "
        screen.print(Text.assemble(("✓ ", "green"), done, (duration(result.ms), "bold")))
        page = result.out / "index.html"
        link = Text(_path(page), style=f"underline link {page.as_uri()}")
        screen.print(Text.assemble("  ", link), soft_wrap=True)  # in one piece, to be copied
        again = Text.assemble(
            "  Next: ",
            ('uvian demo --prompt "…" --theme "…"', "cyan"),
            " or ",
            ("uvian dev", "cyan"),
        )
        screen.print(again, style="dim")
    else:
        reason = (
            job.error_message or "; ".join(str(w["message"]) for w in job.warnings) or job.status
        )
        screen.print(Text.assemble(("✗ ", "bold red"), reason), soft_wrap=True)
        screen.print(Text(f"  The worker's log: {_path(result.log)}", style="dim"), soft_wrap=True)
    screen.print()


def _path(path: Path) -> str:
    """As short as it works from here."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
