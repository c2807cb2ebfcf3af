"""``uvian dev``: everything up until Ctrl-C."""

from __future__ import annotations

__all__ = ["dev"]

from typing import TYPE_CHECKING

import typer

from uvian_worker.cli.errors import ExitCode, run

if TYPE_CHECKING:
    from uvian_worker.local.dev import Development


def dev() -> None:
    """Run Postgres, Redis, a worker and a gateway here until Ctrl-C, and print how to connect.

    Other commands in this folder find these servers by themselves. Everything is written to ./.uvian.
    The worker uses your .env, except for the addresses of its servers.
    """
    try:
        run(_dev())
    except typer.Exit as exited:
        # Ctrl-C is how this command ends.
        raise typer.Exit(
            ExitCode.OK if exited.exit_code == ExitCode.INTERRUPTED else exited.exit_code
        ) from None


async def _dev() -> None:
    from uvian_worker.cli.terminal.output import console
    from uvian_worker.local.dev import run_dev

    screen = console()
    with screen.status("") as status:

        def report(step: str) -> None:
            status.update(f"{step} …")

        def show(development: Development) -> None:
            status.stop()
            _introduce(development)

        try:
            await run_dev(report=report, show=show)
        finally:
            status.stop()


def _introduce(development: Development) -> None:
    """How to connect, and what to try."""
    from rich.table import Table
    from rich.text import Text

    from uvian_worker.cli.terminal.output import console
    from uvian_worker.cli.terminal.program import program

    servers = development.servers
    screen = console()
    facts = Table.grid(padding=(0, 2, 0, 0))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    facts.add_row("Images", str(servers.images_dir))
    facts.add_row("Health", development.health_url)
    facts.add_row("User", servers.user_id)
    facts.add_row("", Text("dev@localhost, free of charge", style="dim"))
    screen.print()
    screen.print(
        Text.assemble(("● ", "green"), ("Postgres, Redis, a worker and a gateway are up", "bold"))
    )
    screen.print()
    # Whole lines, however long: they are there to be copied.
    screen.print(Text(development.page_url, style="cyan"), soft_wrap=True)
    screen.print()
    for name in ("UVIAN_DATABASE_URL", "UVIAN_REDIS_URL"):
        screen.print(Text(f"{name}={servers.settings()[name]}", style="cyan"), soft_wrap=True)
    screen.print()
    screen.print(facts)
    screen.print()
    screen.print(Text("In another shell, in this folder:", style="dim"))
    for command in _COMMANDS:
        line = f"  {program(elsewhere=True)} {command}"
        screen.print(Text(line, style="cyan"), soft_wrap=True)
    screen.print(Text("In a program, or for psql and arq:", style="dim"))
    screen.print(Text(f"  set -a; . {development.env_file}; set +a", style="cyan"), soft_wrap=True)
    screen.print()
    screen.print(Text("The worker's log follows. Ctrl-C ends everything.", style="dim"))


_COMMANDS = (
    'submit generation logo_description="A fox" theme_description="autumn woods" --watch',
    "chat",
    "jobs list",
)
