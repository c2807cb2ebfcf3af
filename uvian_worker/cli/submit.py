"""``uvian submit`` and ``uvian watch``: a job as the service, and what happens to it."""

from __future__ import annotations

__all__ = ["follow_to_end", "submit", "watch"]

from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

import typer

from uvian_worker.cli.errors import ExitCode, run

if TYPE_CHECKING:
    from repositories.database import Row
    from uvian_worker.cli.connect import Site
    from uvian_worker.client import JobHandle
    from uvian_worker.events.job_view import WatchedJob

_Json = Annotated[
    bool, typer.Option("--json", help="One JSON document; when watching, one line per event.")
]


def submit(
    type_: Annotated[str, typer.Argument(metavar="TYPE", help="generation, …")],
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT", help="One JSON object, or key=value …; - reads JSON from stdin."
        ),
    ] = None,
    user: Annotated[
        str | None, typer.Option(help="The owner of the job: an id from auth.users.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Idempotency key: the same key makes one job.")
    ] = None,
    priority: Annotated[
        int, typer.Option(help="Seconds by which it moves forward in the queue.")
    ] = 0,
    max_cost: Annotated[
        float | None, typer.Option(min=0, help="Refuse the job if it costs more credits.")
    ] = None,
    watching: Annotated[
        bool,
        typer.Option("--watch", "-w", help="Wait until it has ended; exit code 1 if it failed."),
    ] = False,
    as_json: _Json = False,
) -> None:
    """Create a job, reserve its credits and wake a worker.

    uvian submit generation logo_description="A fox" theme_description="autumn" --watch
    """
    cost = None if max_cost is None else Decimal(str(max_cost))
    options = {"idempotency_key": key, "priority": priority, "max_cost": cost}
    raise typer.Exit(run(_submit(type_, words or [], user, options, watching, as_json)))


def watch(
    job_id: Annotated[str, typer.Argument(metavar="JOB", help="Its id, or the beginning of it.")],
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON per event.")] = False,
) -> None:
    """Show a job live until it has ended; exit code 1 when it failed or was cancelled."""
    raise typer.Exit(run(_watch(job_id, as_json)))


async def _submit(
    type_: str,
    words: list[str],
    user: str | None,
    options: dict[str, Any],
    watching: bool,
    as_json: bool,
) -> ExitCode:
    from uvian_worker.cli.connect import open_site
    from uvian_worker.cli.terminal.output import print_json

    async with open_site() as site:
        handle = await _create(site, type_, words, user, options)
        if watching:
            if not as_json:
                _print_submitted(type_, handle)
            return await follow_to_end(site, handle.id, as_json)
        if as_json:
            print_json(_document(type_, handle))
        else:
            _print_submitted(type_, handle)
        return ExitCode.OK


async def _create(
    site: Site, type_: str, words: list[str], user: str | None, options: dict[str, Any]
) -> JobHandle:
    """The job; every refusal as a ``Fault`` that knows the types there are."""
    from uvian_worker.cli.inputs import check_fields, parse_input
    from uvian_worker.cli.lookup import refusal, user_id_of
    from uvian_worker.client import JobRefused

    user_id = user_id_of(user, site)
    rows = await site.database.select("job_types", columns=("type", "input_schema"))
    schemas = {row["type"]: row["input_schema"] for row in rows}
    if type_ not in schemas:
        raise refusal(JobRefused("unknown_type"), type_=type_, known=schemas)
    values = parse_input(words, schemas[type_])
    check_fields(values, schemas[type_])
    try:
        return await site.client.submit(user_id, type_, values, **options)
    except JobRefused as refused:
        raise refusal(refused, type_=type_, user=user_id, known=schemas) from refused


def _document(type_: str, handle: JobHandle) -> dict[str, Any]:
    return {
        "id": handle.id,
        "type": type_,
        "status": handle.status,
        "run": handle.run,
        "created": handle.created,
        "cost": str(handle.cost),
    }


def _print_submitted(type_: str, handle: JobHandle) -> None:
    from rich.text import Text

    from uvian_worker.cli.terminal.output import console, credits_said, status_text

    cost = f", {credits_said(handle.cost)} reserved" if handle.cost else ""
    line = Text.assemble(("✓ ", "green"), type_, " ", (handle.id, "bold"), " ")
    line.append_text(status_text(handle.status))
    again = "" if handle.created else " (this --key made it before)"
    console().print(line.append(cost + again), soft_wrap=True)


async def _watch(job_id: str, as_json: bool) -> ExitCode:
    from uvian_worker.cli.connect import open_site
    from uvian_worker.cli.lookup import find_job

    async with open_site() as site:
        row = await find_job(site, job_id)
        return await follow_to_end(site, row["id"], as_json)


async def follow_to_end(site: Site, job_id: str, as_json: bool) -> ExitCode:
    """Show what happens to a job until nothing can follow."""
    from uvian_worker.events.job_view import WatchedJob

    job = WatchedJob(job_id)
    if as_json:
        await _follow_as_lines(site, job)
    else:
        await _follow_on_screen(site, job)
    return ExitCode.OK if job.status == "completed" else ExitCode.JOB_FAILED


async def _follow_as_lines(site: Site, job: WatchedJob) -> None:
    from dataclasses import asdict

    from uvian_worker.cli.terminal.output import print_json
    from uvian_worker.events.envelope import Envelope
    from uvian_worker.events.reader import Snapshot

    async for received in site.client.follow(job.id):
        match received:
            case Envelope():
                job.apply(received)
                print_json(asdict(received), indent=False)
            case Snapshot(state=state):
                job.apply(received)
                for envelope in state:
                    print_json(asdict(envelope), indent=False)
            case _:
                row = await _adopt_row(site, job)
                print_json({"type": "row", "job": row}, indent=False)
                if job.is_over:
                    return


async def _follow_on_screen(site: Site, job: WatchedJob) -> None:
    from functools import partial

    from uvian_worker.cli.terminal.gallery import open_stored
    from uvian_worker.cli.terminal.job_view import JobView
    from uvian_worker.cli.terminal.output import console
    from uvian_worker.events.reader import Expired

    screen = console()
    screen.print()
    with JobView(screen, job) as view:
        async for received in site.client.follow(job.id):
            if isinstance(received, Expired):
                await _adopt_row(site, job)
                if job.is_over:
                    break
            job.apply(received)
            view.changed()
    if screen.is_terminal:
        pictures = partial(open_stored, site.config.images_dir)
        screen.print(JobView(screen, job, open_picture=pictures).summary())
        screen.print()
    screen.print(_conclusion(job), soft_wrap=True)


async def _adopt_row(site: Site, job: WatchedJob) -> Row:
    """The log does not reach back far enough: the row knows."""
    from repositories.database import Filter

    rows = await site.database.select("jobs", where=[Filter("id", "eq", job.id)])
    job.adopt(rows[0])
    return rows[0]


def _conclusion(job: WatchedJob) -> Any:
    from rich.text import Text

    from uvian_worker.cli.terminal.output import STATUS_STYLES, credits_said, duration

    mark = {"completed": "✓", "failed": "✗"}.get(job.status, "○")
    text = Text.assemble((f"{mark} {job.status}", STATUS_STYLES[job.status]))
    if job.error_message:
        text.append(f": {job.error_message}")
        text.append(f" ({(job.error or {}).get('code', '')})", style="dim")
    elif job.ms is not None:
        text.append(f" in {duration(job.ms)}")
    if float(job.cost):
        text.append(f", {credits_said(job.cost)} charged")
    for warning in job.warnings:
        text.append(f"\n! {warning['message']}", style="yellow")
    if job.result_id:
        text.append(f"\n  result {job.result_id}", style="dim")
    return text
