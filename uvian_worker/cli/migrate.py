"""``uvian migrate``: the schema."""

from __future__ import annotations

__all__ = ["migrate"]

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from uvian_common.scrubbing import keep_secret
from uvian_worker.cli.errors import ExitCode, Fault, explained, run
from uvian_worker.cli.terminal.program import program

if TYPE_CHECKING:
    from uvian_worker.config import Config
    from uvian_worker.schema.export import ExportReport
    from uvian_worker.schema.history import Finding, SchemaStatus
    from uvian_worker.schema.migrate import MigrationReport

_NAMES = {
    "bucket": "the bucket uvian-images",
    "policy": "the policy uvian_images_owner",
    "jobs": "uvian.jobs in the publication supabase_realtime",
    "messages": "uvian.messages in the publication supabase_realtime",
}


def migrate(
    export: Annotated[
        Path | None,
        typer.Option(
            "--export",
            metavar="DIR",
            help="Write what is missing in DIR, for the Supabase CLI; needs no database.",
        ),
    ] = None,
    bootstrap: Annotated[
        bool,
        typer.Option(
            "--bootstrap",
            help="First create what Supabase has (roles, auth); for a plain Postgres, as its superuser.",
        ),
    ] = False,
    status: Annotated[
        bool,
        typer.Option(
            "--status",
            help="Only show what is pending (exit code 2 if anything is) or missing; with --export: in DIR.",
        ),
    ] = False,
    url: Annotated[
        str | None,
        typer.Option(
            help="Use this connection instead of UVIAN_DATABASE_URL, e.g. as the schema's owner."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Bring the schema uvian up to date. There are two ways with the same result; you may mix them.

    uvian migrate: applies what is pending, over a direct or session connection. Then it creates what the
    project needs beside the schema (bucket, policy, publication), as far as its role may.

    uvian migrate --export supabase/migrations: writes what is pending there; `supabase db push` applies it.
    """
    if bootstrap and status:
        raise typer.BadParameter("--status changes nothing: leave out --bootstrap.")
    if export is not None:
        if bootstrap or url is not None:
            raise typer.BadParameter("--export needs no database: leave out --bootstrap and --url.")
        raise typer.Exit(_export(export, status, as_json))
    if status:
        raise typer.Exit(run(_show_status(url, as_json)))
    run(_migrate(url, bootstrap, as_json))


async def _migrate(url: str | None, bootstrap: bool, as_json: bool) -> None:
    from repositories.errors import Transient
    from uvian_worker.cli.terminal.output import print_json
    from uvian_worker.schema.migrate import bootstrap as supply
    from uvian_worker.schema.migrate import migrate as apply

    config = _config()
    try:
        if url is None and not bootstrap and _is_api_alone(config):
            report = await _over_api(config)
        else:
            target = _target(url, config)
            if bootstrap:
                await supply(target)
            report = await _with_bucket(await apply(target), config)
    except Transient as error:  # its message has the next step
        raise Fault(str(error), ExitCode.UNREACHABLE) from error
    if as_json:
        print_json(_report_document(report))
    else:
        _print_report(report)


async def _over_api(config: Config) -> MigrationReport:
    """Where there is no connection string: the schema cannot be changed, the bucket can be made."""
    from uvian_worker.process.project_setup import look_over_api
    from uvian_worker.schema.migrate import MigrationReport

    found = await look_over_api(config)
    if found.schema.pending:
        config.require_database_url()
    already = tuple(row.name for row in found.schema.applied)
    return await _with_bucket(MigrationReport((), already, (), (), found.missing), config)


async def _with_bucket(report: MigrationReport, config: Config) -> MigrationReport:
    """What SQL may not make, the Storage API may; what is refused there as well stays a notice."""
    from dataclasses import replace

    from repositories.errors import RepositoryError
    from uvian_worker.process.project_setup import make_bucket

    lacks = any(finding.part == "bucket" for finding in report.missing)
    if not lacks or config.supabase_url is None or config.supabase_key is None:
        return report
    try:
        made = await make_bucket(config)
    except RepositoryError:
        return report
    left = tuple(finding for finding in report.missing if finding.part != "bucket")
    return replace(report, missing=left, made=(*report.made, *(["bucket"] if made else [])))


async def _show_status(url: str | None, as_json: bool) -> ExitCode:
    from uvian_worker.cli.terminal.output import print_json
    from uvian_worker.process.project_setup import look_over_api
    from uvian_worker.schema.migrate import look

    config = _config()
    if url is None and _is_api_alone(config):
        found = await look_over_api(config)
    else:
        found = await look(_target(url, config))
    if as_json:
        print_json(_status_document(found.schema) | {"missing": _missing(found.missing)})
    else:
        _print_status(found.schema)
        _print_missing(found.missing)
    usable = not found.schema.pending and found.schema.needs_release is None
    return ExitCode.OK if usable else ExitCode.USAGE


def _export(folder: Path, status: bool, as_json: bool) -> ExitCode:
    from uvian_worker.cli.terminal.output import print_json
    from uvian_worker.schema.export import export, unexported

    with explained():
        if status:
            pending = [file.label for file in unexported(folder)]
            if as_json:
                print_json({"folder": folder, "pending": pending})
            else:
                _print_unexported(folder, pending)
            return ExitCode.USAGE if pending else ExitCode.OK
        report = export(folder)
        if as_json:
            print_json(
                {"folder": folder, "written": report.written, "already": list(report.already)}
            )
        else:
            _print_export(report)
    return ExitCode.OK


def _config() -> Config:
    from uvian_worker.cli.connect import load_config

    return load_config()[0]


def _is_api_alone(config: Config) -> bool:
    return config.database == "supabase" and config.database_url is None


def _target(url: str | None, config: Config) -> str:
    """Where the schema is; the password of a connection that was given is shown nowhere."""
    if url is None:
        return config.require_database_url()
    keep_secret([url])
    return url


def _report_document(report: MigrationReport) -> dict[str, Any]:
    return {
        "applied": report.applied,
        "already": report.already,
        "notices": [
            {"migration": n.migration, "severity": n.severity, "message": n.message, "hint": n.hint}
            for n in report.notices
        ],
        "made": report.made,
        "missing": _missing(report.missing),
    }


def _missing(found: tuple[Finding, ...]) -> list[dict[str, str]]:
    return [{"part": each.part, "message": each.message} for each in found]


def _print_report(report: MigrationReport) -> None:
    from rich.text import Text

    from uvian_worker.cli.terminal.output import console

    screen = console()
    for label in report.applied:
        screen.print(Text.assemble(("✓ ", "green"), label))
    for notice in report.notices:
        hint = f" {notice.hint}" if notice.hint else ""
        said, found, steps = f"{notice.message}{hint}".partition(" In the dashboard")
        text = Text.assemble(("! ", "yellow"), f"{notice.migration}: {said}")
        if found:
            text.append("\n  → ", "cyan").append(f"{found.strip()}{steps}")
        screen.print(text, soft_wrap=True)
    notices = [notice.message for notice in report.notices]
    for part in report.made:
        screen.print(Text.assemble(("✓ ", "green"), f"made: {_NAMES.get(part, part)}"))
    _print_missing(
        tuple(each for each in report.missing if not any(each.step in notice for notice in notices))
    )
    done = f"{len(report.applied)} applied" if report.applied else "Nothing was pending"
    screen.print(f"{done}; {len(report.already)} were there already.")


def _print_missing(found: tuple[Finding, ...]) -> None:
    from rich.text import Text

    from uvian_worker.cli.terminal.output import console

    for each in found:
        text = Text.assemble(("! ", "yellow"), each.problem, ("\n  → ", "cyan"), each.step)
        console().print(text, soft_wrap=True)


def _print_export(report: ExportReport) -> None:
    from rich.text import Text

    from uvian_worker.cli.terminal.output import console

    screen = console()
    if report.made_folder:
        screen.print(Text(f"The folder {report.folder} was made."), soft_wrap=True)
    for name in report.written:
        screen.print(Text.assemble(("✓ ", "green"), name), soft_wrap=True)
    done = f"{len(report.written)} written" if report.written else "Nothing was missing"
    screen.print(f"{done}; {len(report.already)} were there already.")
    if report.written:
        screen.print(
            Text.assemble(("→ ", "cyan"), "Commit them, then: supabase db push"), soft_wrap=True
        )
        screen.print(
            Text.assemble(
                ("→ ", "cyan"),
                f"It shows no notices. What the platform refused: {program()} migrate --status",
            ),
            soft_wrap=True,
        )


def _print_unexported(folder: Path, pending: list[str]) -> None:
    from rich.text import Text

    from uvian_worker.cli.terminal.output import console

    screen = console()
    for label in pending:
        screen.print(Text.assemble(("· ", "yellow"), label, ("  not exported", "yellow")))
    if pending:
        step = f"Run: {program()} migrate --export {folder}"
        screen.print(Text.assemble(("→ ", "cyan"), step), soft_wrap=True)
    else:
        screen.print(Text(f"{folder} has all of this release."), soft_wrap=True)


def _status_document(found: SchemaStatus) -> dict[str, Any]:
    return {
        "release": found.release,
        "needs_release": found.needs_release,
        "applied": [{"label": row.name, "applied_at": row.applied_at} for row in found.applied],
        "pending": [file.label for file in found.pending],
        "outdated": list(found.outdated),
        "changed": list(found.changed),
        "unknown": [row.name for row in found.unknown],
    }


def _print_status(found: SchemaStatus) -> None:
    from rich.table import Table
    from rich.text import Text

    from uvian_worker.cli.terminal.output import console

    table = Table.grid(padding=(0, 2, 0, 0))
    for row in found.applied:
        if row.name in found.outdated:
            continue  # stands below
        state = Text(f"applied {row.applied_at:%Y-%m-%d %H:%M}", style="dim")
        if row in found.unknown:
            needs = f" (needs {row.min_code})" if row.min_code else ""
            state = Text(f"of a newer release{needs}", style="yellow")
        elif row.name in found.changed:
            state = Text("differs from this release's file", style="red")
        table.add_row(Text("✓", style="green"), row.name, state)
    for file in found.pending:
        why = "pending: its text has changed" if file.label in found.outdated else "pending"
        table.add_row(Text("·", style="yellow"), file.label, Text(why, style="yellow"))
    screen = console()
    screen.print(table)
    if found.pending:
        screen.print(Text.assemble(("→ ", "cyan"), f"Run: {program()} migrate"))
    elif found.needs_release is not None:
        screen.print(Text.assemble(("→ ", "cyan"), f"Install uvian-worker {found.needs_release}"))
