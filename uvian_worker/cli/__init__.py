"""``uvian``: every command imports what it needs when it runs, so that ``uvian --help`` is instant.

One module per noun, registered here. ``uvian_worker/process/exit_codes.py`` has the exit codes,
``docs/cli.md`` is the manual.
"""

from __future__ import annotations

__all__ = ["app", "main"]

import sys
from types import TracebackType
from typing import Annotated

import typer

from uvian_common.scrubbing import guard_logs, scrubbed_trace
from uvian_worker import __version__
from uvian_worker.cli.chat import chat
from uvian_worker.cli.credits import app as credits_app
from uvian_worker.cli.demo import demo
from uvian_worker.cli.dev import dev
from uvian_worker.cli.errors import keep_traces
from uvian_worker.cli.gateway import gateway
from uvian_worker.cli.jobs import app as jobs_app
from uvian_worker.cli.migrate import migrate
from uvian_worker.cli.submit import submit, watch
from uvian_worker.cli.types import app as types_app
from uvian_worker.cli.worker import worker

app = typer.Typer(
    name="uvian",
    help="An arq worker on Redis, with Supabase as the truth and live events.",
    epilog="Exit codes: 0 done · 1 the job failed · 2 usage, settings or schema · 3 not reachable · "
    "4 refused · 5 a local server or worker did not start.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"uvian-worker {__version__}")
        raise typer.Exit


@app.callback()
def _everywhere(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the release.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show stack traces of errors.")] = False,
) -> None:
    if debug:
        keep_traces()


_HERE = "On this machine"
_SITE = "On your project"

app.command(rich_help_panel=_HERE)(demo)
app.command(rich_help_panel=_HERE)(dev)
app.command(rich_help_panel=_SITE)(worker)
app.command(rich_help_panel=_SITE)(gateway)
app.command(rich_help_panel=_SITE)(migrate)
app.command(rich_help_panel=_SITE)(submit)
app.command(rich_help_panel=_SITE)(watch)
app.command(rich_help_panel=_SITE)(chat)
app.add_typer(jobs_app, name="jobs", rich_help_panel=_SITE)
app.add_typer(credits_app, name="credits", rich_help_panel=_SITE)
app.add_typer(types_app, name="types", rich_help_panel=_SITE)


def main() -> None:
    """The ``uvian`` command: whatever it says, on any way out, holds no secret."""
    guard_logs()
    sys.excepthook = _print_trace
    app()


def _print_trace(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    typer.echo(scrubbed_trace(kind, error, trace), err=True)
