"""``uvian types``: open, close, limit and price types of jobs. Each is closed until it is opened."""

from __future__ import annotations

__all__ = ["app"]

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from uvian_worker.cli.errors import ExitCode, Fault, explained, run

if TYPE_CHECKING:
    from decimal import Decimal

    from repositories.job_types import JobTypeSettings
    from uvian_worker.cli.connect import Site

app = typer.Typer(
    help="Open, close, limit and price types of jobs. Each is closed until it is opened.",
    no_args_is_help=True,
)

_Type = Annotated[str, typer.Argument(metavar="TYPE", help="generation, …")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
_Queued = Annotated[
    str | None, typer.Option(metavar="N|none", help="How many jobs of one user may wait.")
]
_Running = Annotated[
    str | None, typer.Option(metavar="N|none", help="How many jobs of one user may run at a time.")
]


@app.command("list")
def list_(as_json: _Json = False) -> None:
    """List all types: who may use them, what they cost, which limits they have."""
    run(_list(as_json))


@app.command("open")
def open_(
    type_: _Type,
    price: Annotated[
        str | None, typer.Option(help="Credits for each job; 0 makes it free.")
    ] = None,
    queued: _Queued = None,
    running: _Running = None,
    anonymous: Annotated[
        bool | None,
        typer.Option(
            "--anonymous/--no-anonymous", help="Whether anonymous sign-ins may use it too."
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    as_json: _Json = False,
) -> None:
    """Let signed-in users create jobs of a type.

    If the type has no price or no limit, the command asks first; a script gives the options instead.
    """
    changes: dict[str, Any] = {"enabled": True, "browser": True}
    if price is not None:
        changes["price"] = _price(price)
    changes |= _limits(queued, running)
    if anonymous is not None:
        changes["anonymous"] = anonymous
    if not yes and (doubts := run(_doubts(type_, changes))):
        with explained():
            _confirm(type_, doubts, may_prompt=not as_json and sys.stdin.isatty())
    run(_change(type_, changes, as_json))


@app.command()
def close(
    type_: _Type,
    everybody: Annotated[
        bool, typer.Option("--all", help="Switch it off for everybody, your own API included.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Let no user create jobs of a type any more. Jobs that wait or run are finished."""
    changes = {"browser": False, **({"enabled": False} if everybody else {})}
    run(_change(type_, changes, as_json))


@app.command()
def limit(
    type_: _Type,
    queued: _Queued = None,
    running: _Running = None,
    input_bytes: Annotated[
        int | None, typer.Option(min=1, help="How many bytes an input may have.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="A model that jobs may name, or none for any; the first is the default."),
    ] = None,
    max_tokens: Annotated[
        str | None, typer.Option(metavar="N|none", help="The most tokens that an answer may have.")
    ] = None,
    system_prompt: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT|none",
            help="The system prompt for the model; jobs may not bring their own then.",
        ),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Limit what jobs of a type may do. The limits hold at every entry, and in the worker."""
    changes: dict[str, Any] = _limits(queued, running)
    if input_bytes is not None:
        changes["max_input_bytes"] = input_bytes
    if model:
        changes["models"] = None if model == ["none"] else model
    if max_tokens is not None:
        changes["max_tokens"] = _number(max_tokens, "--max-tokens", least=1)
    if system_prompt is not None:
        changes["system_prompt"] = None if system_prompt == "none" else system_prompt
    if not changes:
        raise typer.BadParameter("Say which limit: see uvian types limit --help.")
    run(_change(type_, changes, as_json))


@app.command()
def price(
    type_: _Type,
    amount: Annotated[
        str, typer.Argument(help="Credits for each job; 0 makes it free, none removes the price.")
    ],
    as_json: _Json = False,
) -> None:
    """Set the price of a job type. Jobs that wait or run keep their price; a retry has the new one."""
    run(_change(type_, {"price": None if amount == "none" else _price(amount)}, as_json))


async def _list(as_json: bool) -> None:
    from repositories.job_types import JobTypeRepository
    from uvian_worker.cli.connect import open_site
    from uvian_worker.cli.terminal.output import print_json
    from uvian_worker.cli.terminal.tables import print_types

    async with open_site(redis=False) as site:
        types = await JobTypeRepository(site.database).list()
    if as_json:
        print_json({"types": [_document(each) for each in types]})
    else:
        print_types(types)


async def _change(type_: str, changes: dict[str, Any], as_json: bool) -> None:
    from uvian_worker.cli.connect import open_site

    async with open_site(redis=False) as site:
        await _find(site, type_)
        changed = await _configured(site, type_, changes)
    _print_settings(changed, as_json)


async def _find(site: Site, type_: str) -> JobTypeSettings:
    from repositories.job_types import JobTypeRepository
    from uvian_worker.cli.lookup import refusal
    from uvian_worker.client import JobRefused

    types = {each.type: each for each in await JobTypeRepository(site.database).list()}
    if type_ not in types:
        raise refusal(JobRefused("unknown_type"), type_=type_, known=types)
    return types[type_]


async def _configured(site: Site, type_: str, changes: dict[str, Any]) -> JobTypeSettings:
    from repositories.errors import DataError
    from repositories.job_types import JobTypeRepository

    try:
        return await JobTypeRepository(site.database).configure(type_, changes)
    except DataError as error:
        raise Fault(f"This cannot be set: {error}", ExitCode.USAGE) from error


async def _doubts(type_: str, changes: dict[str, Any]) -> list[tuple[str, str]]:
    """What nobody has said, as a sentence and the option that says it."""
    from uvian_worker.cli.connect import open_site

    async with open_site(redis=False) as site:
        settings = await _find(site, type_)
    doubts = []
    if settings.price is None and "price" not in changes:
        doubts.append(
            ("It has no price: every signed-in user gets it for nothing.", "--price N (0: free)")
        )
    limits = {
        "queued": settings.max_queued_per_user is None and "max_queued_per_user" not in changes,
        "running": settings.max_running_per_user is None and "max_running_per_user" not in changes,
    }
    if missing := [name for name, is_missing in limits.items() if is_missing]:
        options = " ".join(f"--{name} N" for name in missing)
        doubts.append((f"It has no limit of {' and '.join(missing)} jobs.", f"{options} (or none)"))
    return doubts


def _confirm(type_: str, doubts: list[tuple[str, str]], *, may_prompt: bool) -> None:
    """Raise ``Fault`` unless the person at the terminal says that it is meant."""
    sentences = " ".join(sentence for sentence, _ in doubts)
    if not may_prompt:
        says = "; ".join(option for _, option in doubts)
        raise Fault(
            f"{type_} is not opened. {sentences}",
            ExitCode.USAGE,
            hint=f"Say what is meant: {says}. Or --yes for all of it.",
        )
    typer.echo(sentences, err=True)
    try:
        is_meant = typer.confirm(f"Open {type_} all the same?", err=True)
    except typer.Abort:
        raise KeyboardInterrupt from None
    if not is_meant:
        raise Fault(f"{type_} is not opened.", ExitCode.USAGE)


def _limits(queued: str | None, running: str | None) -> dict[str, int | None]:
    changes = {}
    if queued is not None:
        changes["max_queued_per_user"] = _number(queued, "--queued", least=0)
    if running is not None:
        changes["max_running_per_user"] = _number(running, "--running", least=1)
    return changes


def _number(text: str, option: str, *, least: int) -> int | None:
    if text == "none":
        return None
    if not text.isascii() or not text.isdecimal() or not least <= int(text) < 2**31:
        raise typer.BadParameter(f"{option} takes a whole number from {least}, or none.")
    return int(text)


def _price(text: str) -> Decimal:
    from decimal import Decimal, InvalidOperation

    try:
        value = Decimal(text)
    except InvalidOperation:
        raise typer.BadParameter(f"{text!r} is no price: write it as 2 or 0.5.") from None
    if not value.is_finite() or not 0 <= value < 10**14 or value != round(value, 6):
        raise typer.BadParameter("A price is 0 or more, with six decimals at most.")
    return value


def _print_settings(settings: JobTypeSettings, as_json: bool) -> None:
    from rich.text import Text

    from uvian_worker.cli.terminal.output import console, print_json
    from uvian_worker.cli.terminal.tables import described

    if as_json:
        print_json({"type": _document(settings)})
        return
    screen = console()
    line = Text.assemble(("✓ ", "green"), (settings.type, "bold"), f" {described(settings)}")
    screen.print(line, soft_wrap=True)


def _document(settings: JobTypeSettings) -> dict[str, Any]:
    from dataclasses import asdict

    document = asdict(settings)
    return {**document, "price": None if settings.price is None else str(settings.price)}
