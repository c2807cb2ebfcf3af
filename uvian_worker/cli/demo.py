"""``uvian demo``: the jobs of ours on this machine, watched."""

from __future__ import annotations

__all__ = ["PROMPT", "REFINEMENT", "THEME", "Part", "conclude", "demo", "introduce", "look_back"]

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from uvian_worker.cli.errors import ExitCode, run

if TYPE_CHECKING:
    from PIL import Image
    from rich.console import Console
    from rich.text import Text

    from uvian_worker.cli.terminal.answer import AnswerView
    from uvian_worker.cli.terminal.job_view import JobView
    from uvian_worker.local.contact_sheet import Shown
    from uvian_worker.local.demo import DemoOrder, DemoResult

PROMPT = "A sailing boat at sunrise"
THEME = "Coral sunrise over deep teal water"
REFINEMENT = "On a dark gradient background, with a soft shadow and the text “Sunrise Sailing”"


class Part(StrEnum):
    """What ``--only`` takes: the parts of ``uvian_worker.local.demo``."""

    GENERATION = "generation"
    REFINEMENT = "refinement"
    CHAT = "chat"


def demo(
    *,
    prompt: Annotated[str, typer.Option(help="What the mark shows.")] = PROMPT,
    theme: Annotated[str, typer.Option(help="Its colours and mood.")] = THEME,
    refine: Annotated[str, typer.Option(help="What the refinement changes.")] = REFINEMENT,
    ask: Annotated[
        str | None,
        typer.Option(help=r"The question of the chat.  \[default: colours for the concept]"),
    ] = None,
    only: Annotated[
        Part | None,
        typer.Option(help="Only `generation`, `refinement` or `chat` (of the newest concept)."),
    ] = None,
    palettes: Annotated[int, typer.Option(min=1, max=12, help="How many variations.")] = 7,
    size: Annotated[
        int, typer.Option(min=256, max=2048, help="Width and height in pixels.")
    ] = 1024,
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
    """Make a concept, refine it and talk about it, on a real Postgres and a real Redis.

    You need to install or configure nothing. Servers, schema, user and worker are created in ./.uvian
    and stopped at the end. You can run it again at once.
    """
    from uvian_worker.local.demo import DemoOrder

    order = DemoOrder(prompt, theme, refine, ask, only, palettes, size, seed, out)
    results = run(_as_document(order) if as_json else _on_screen(order))
    succeeded = all(result.succeeded for result in results)
    raise typer.Exit(ExitCode.OK if succeeded else ExitCode.JOB_FAILED)


async def _as_document(order: DemoOrder) -> list[DemoResult]:
    from uvian_worker.cli.terminal.output import print_json
    from uvian_worker.local.demo import run_demo

    try:
        results = await run_demo(order)
    except Exception:
        print_json({"jobs": []})  # the sentence goes to stderr
        raise
    print_json({"jobs": [result.as_document() for result in results]})
    return results


async def _on_screen(order: DemoOrder) -> list[DemoResult]:
    from uvian_worker.cli.terminal.output import console
    from uvian_worker.local.demo import run_demo

    screen = console()
    with _Screen(screen) as audience:
        results = await run_demo(order, audience)
    conclude(screen, results)
    return results


class _Screen:
    """An audience that draws: first what is being started, then one job after the other."""

    def __init__(self, screen: Console) -> None:
        from contextlib import ExitStack

        self._screen = screen
        self._stack = ExitStack()
        self._status = self._stack.enter_context(screen.status("Preparing …"))
        self._view: JobView | AnswerView | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def preparing(self, step: str) -> None:
        self._status.update(f"{step} …")

    def begins(self, shown: Shown) -> None:
        from uvian_worker.cli.terminal.answer import AnswerView
        from uvian_worker.cli.terminal.job_view import JobView

        self._status.stop()
        introduce(self._screen, shown)
        job = shown.job
        self._view = (
            AnswerView(self._screen, job) if job.type == "chat" else JobView(self._screen, job)
        )
        self._stack.enter_context(self._view)

    def changed(self) -> None:
        assert self._view is not None  # noqa: S101 - it has begun
        self._view.changed()

    def ends(self, result: DemoResult) -> None:
        from uvian_worker.cli.terminal.answer import AnswerView

        if isinstance(self._view, AnswerView):
            self._view.finish(result.text)
        self._stack.close()
        if result.expected and self._screen.is_terminal:  # elsewhere it was printed line by line
            look_back(self._screen, result)


def introduce(screen: Console, shown: Shown) -> None:
    """What the job is to make."""
    from rich.text import Text

    screen.print()
    screen.print(Text(shown.words, style="bold"))
    if shown.theme:
        screen.print(Text(shown.theme, style="dim"))
    screen.print()


def look_back(screen: Console, result: DemoResult) -> None:
    """Where the time went, and the pictures themselves; of a chat, the answer."""
    from rich.text import Text

    from uvian_worker.cli.terminal.gallery import open_stored
    from uvian_worker.cli.terminal.job_view import JobView

    if result.text is not None:
        screen.print(Text(result.text))
        return
    original = result.shown.original
    options: dict[str, Any] = (
        {} if original is None else {"original": lambda: _opened(result.images / original)}
    )
    view = JobView(
        screen, result.job, open_picture=lambda p: open_stored(result.images, p), **options
    )
    screen.print(view.summary() if result.job.pictures else "")


def _opened(file: Path) -> Image.Image:
    from executors.imaging.codec import decode

    return decode(file.read_bytes()).convert("RGB")


def conclude(screen: Console, results: list[DemoResult]) -> None:
    """How it went, where the pictures are, what can be done next."""
    from rich.text import Text

    from uvian_worker.cli.terminal.program import program

    screen.print()
    for result in results:
        screen.print(_verdict(result), soft_wrap=True)
    last = results[-1]
    pages = [file.parent / "index.html" for result in results for file in result.files[:1]]
    for page in dict.fromkeys(pages):
        link = Text(_path(page), style=f"underline link {page.as_uri()}")
        screen.print(Text.assemble("  ", link), soft_wrap=True)  # in one piece, to be copied
    if last.succeeded:
        ours = program()
        again = f'{ours} demo --prompt "…" --theme "…" --refine "…" --ask "…"'
        next_ = Text.assemble("  Next: ", (again, "cyan"), " or ", (f"{ours} dev", "cyan"))
        screen.print(next_, style="dim", soft_wrap=True)
    else:
        screen.print(Text(f"  The worker's log: {_path(last.log)}", style="dim"), soft_wrap=True)
    screen.print()


def _verdict(result: DemoResult) -> Text:
    """One line: what was made, or why not."""
    from rich.text import Text

    from uvian_worker.cli.terminal.output import duration

    job, took = result.job, (duration(result.shown.ms), "bold")
    if not result.succeeded:
        said = "; ".join(str(warning["message"]) for warning in job.warnings)
        return Text.assemble(("✗ ", "bold red"), job.error_message or said or job.status)
    if job.type == "refinement":
        done = ", ".join((job.output or {}).get("operations", ()))
        return Text.assemble(("✓ ", "green"), "Refined in ", took, (f"  {done}", "dim"))
    if result.message is not None:
        tokens = (result.message.usage or {}).get("completion_tokens", 0)
        stored = f"  {tokens} tokens, stored as message {result.message.id}"
        return Text.assemble(("✓ ", "green"), "Answered in ", took, (stored, "dim"))
    count = len(job.pictures) - 1
    made = f"A base image and {count} variation{'' if count == 1 else 's'} in "
    return Text.assemble(("✓ ", "green"), made, took)


def _path(path: Path) -> str:
    """As short as it works from here."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
