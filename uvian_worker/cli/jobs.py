"""``uvian jobs``: list, show, cancel, retry."""

from __future__ import annotations

__all__ = ["app"]

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from uvian_worker.cli.errors import ExitCode, run
from uvian_worker.cli.terminal.program import program

if TYPE_CHECKING:
    from repositories.database import Row
    from uvian_worker.cli.connect import Site

app = typer.Typer(help="List, show, cancel and retry jobs.", no_args_is_help=True)


class _Status(StrEnum):
    QUEUED = "queued"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


_Job = Annotated[str, typer.Argument(metavar="JOB", help="Its id, or the beginning of it.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command("list")
def list_(
    user: Annotated[str | None, typer.Option(help="Only this user's.")] = None,
    status: Annotated[_Status | None, typer.Option(help="Only in this status.")] = None,
    type_: Annotated[str | None, typer.Option("--type", help="Only of this type.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many.")] = 20,
    as_json: _Json = False,
) -> None:
    """List jobs, the newest first."""
    run(_list(user, status, type_, limit, as_json))


@app.command()
def show(job_id: _Job, as_json: _Json = False) -> None:
    """Show one job: its runs and their stages, its error, its result and its cost."""
    run(_show(job_id, as_json))


@app.command()
def cancel(job_id: _Job, as_json: _Json = False) -> None:
    """Cancel a job: at once while it waits, within a second while it runs. Its credits are released."""
    raise typer.Exit(run(_cancel(job_id, as_json)))


@app.command()
def retry(
    job_id: _Job,
    watching: Annotated[
        bool,
        typer.Option("--watch", "-w", help="Wait until it has ended; exit code 1 if it failed."),
    ] = False,
    as_json: _Json = False,
) -> None:
    """Run a failed or cancelled job again. Results of finished stages are used again."""
    raise typer.Exit(run(_retry(job_id, watching, as_json)))


async def _list(
    user: str | None, status: _Status | None, type_: str | None, limit: int, as_json: bool
) -> None:
    from uvian_worker.cli.connect import open_site
    from uvian_worker.cli.lookup import user_id_of
    from uvian_worker.cli.terminal.output import print_json
    from uvian_worker.cli.terminal.tables import print_jobs

    async with open_site(redis=False) as site:
        if user is not None:
            user = user_id_of(user, site)
        rows = await _newest(site, user, status, type_, limit)
        if not rows and type_ is not None:
            await _require_type(site, type_)
    if as_json:
        print_json({"jobs": rows})
    else:
        print_jobs(rows)


async def _newest(
    site: Site, user_id: str | None, status: str | None, type_: str | None, limit: int
) -> list[Row]:
    from repositories.jobs import JobRepository

    jobs = JobRepository(site.database, "uvian", lambda _: None)
    return await jobs.list(user_id=user_id, status=status, type=type_, limit=limit)


async def _require_type(site: Site, type_: str) -> None:
    """Nothing found by a name that is none is an answer to another question."""
    from uvian_worker.cli.lookup import refusal
    from uvian_worker.client import JobRefused

    rows = await site.database.select("job_types", columns=("type",))
    known = [row["type"] for row in rows]
    if type_ not in known:
        raise refusal(JobRefused("unknown_type"), type_=type_, known=known)


async def _show(job_id: str, as_json: bool) -> None:
    from repositories.jobs import JobRepository
    from uvian_worker.cli.connect import open_site
    from uvian_worker.cli.lookup import find_job
    from uvian_worker.cli.terminal.output import print_json
    from uvian_worker.cli.terminal.tables import print_job

    async with open_site(redis=False) as site:
        row = await find_job(site, job_id)
        history = await JobRepository(site.database, "uvian", lambda _: None).history(row["id"])
    if as_json:
        print_json({"job": row, "runs": history})
    else:
        print_job(row, history)


async def _cancel(job_id: str, as_json: bool) -> ExitCode:
    from uvian_worker.cli.connect import open_site
    from uvian_worker.cli.lookup import find_job, refusal
    from uvian_worker.cli.terminal.output import print_json
    from uvian_worker.client import JobRefused

    async with open_site() as site:
        row = await find_job(site, job_id)
        was_over = row["status"] in ("completed", "failed", "cancelled")
        try:
            handle = await site.client.cancel(row["id"])
        except JobRefused as refused:
            raise refusal(refused) from refused
        if handle.status == "processing":
            await _until_ended(site, handle.id)
        row = await find_job(site, handle.id)
    if as_json:
        print_json({"id": row["id"], "status": row["status"], "run": row["run"]})
    else:
        _print_cancelled(row, was_over)
    return ExitCode.OK if row["status"] == "cancelled" else ExitCode.REFUSED


async def _until_ended(site: Site, job_id: str) -> None:
    """Wait until its worker has stopped, for a while."""
    import asyncio
    import contextlib

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(10):
            async for _ in site.client.follow(job_id):
                pass


def _print_cancelled(row: Row, was_over: bool) -> None:
    from rich.text import Text

    from uvian_worker.cli.terminal.output import console, status_text

    screen = console()
    status = row["status"]
    if status == "cancelled":
        what = "was cancelled before" if was_over else "cancelled"
        screen.print(Text.assemble(("✓ ", "green"), f"{row['id']} {what}"))
    elif status == "processing":
        screen.print(
            f"Its worker has the cancellation and has not stopped yet; see: {program()} watch {row['id']}"
        )
    else:
        ended = Text.assemble("It had ended before: ", status_text(status))
        screen.print(ended)


async def _retry(job_id: str, watching: bool, as_json: bool) -> ExitCode:
    from uvian_worker.cli.connect import open_site
    from uvian_worker.cli.lookup import find_job, refusal
    from uvian_worker.cli.submit import follow_to_end
    from uvian_worker.cli.terminal.output import console, print_json
    from uvian_worker.client import JobRefused

    async with open_site() as site:
        row = await find_job(site, job_id)
        try:
            handle = await site.client.retry(row["id"], expected_run=row["run"])
        except JobRefused as refused:
            raise refusal(refused, type_=row["type"], user=row["user_id"]) from refused
        if watching:
            return await follow_to_end(site, handle.id, as_json)
    if as_json:
        print_json({"id": handle.id, "status": handle.status, "run": handle.run})
    else:
        console().print(f"[green]✓[/] {handle.id} queued again as run {handle.run}")
    return ExitCode.OK
