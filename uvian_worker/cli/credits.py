"""``uvian credits``: balances and the credit ledger."""

from __future__ import annotations

__all__ = ["app"]

from typing import TYPE_CHECKING, Annotated, Any

import typer

from uvian_worker.cli.errors import ExitCode, Fault, run

if TYPE_CHECKING:
    from repositories.credits import Account, Entry
    from uvian_worker.cli.connect import Site

app = typer.Typer(help="Grant credits, show accounts.", no_args_is_help=True)

_User = Annotated[str, typer.Argument(metavar="USER", help="The user's id.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command()
def grant(
    user: _User,
    amount: Annotated[str, typer.Argument(help="How many, up to six decimals.")],
    reference: Annotated[
        str | None,
        typer.Option(
            help=r"The payment or reason. The same reference counts once.  \[default: a new one]"
        ),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Add credits to a user's account."""
    run(_grant(user, amount, reference, as_json))


@app.command()
def show(
    user: _User,
    limit: Annotated[
        int, typer.Option(min=1, max=500, help="How many entries of the credit ledger.")
    ] = 20,
    as_json: _Json = False,
) -> None:
    """Show the balance of a user, and the newest entries of the credit ledger."""
    run(_show(user, limit, as_json))


async def _grant(user: str, amount: str, reference: str | None, as_json: bool) -> None:
    import secrets

    from repositories.credits import CreditRepository
    from repositories.errors import Refused
    from uvian_worker.cli.connect import open_site
    from uvian_worker.cli.lookup import refusal, user_id_of
    from uvian_worker.cli.terminal.output import console, credits_said, credits_text, print_json
    from uvian_worker.client import JobRefused

    value = _amount(amount)
    async with open_site() as site:
        user_id = user_id_of(user, site)
        reference = reference or f"uvian credits grant {secrets.token_hex(4)}"
        try:
            account = await CreditRepository(site.database).grant(user_id, value, reference)
        except Refused as error:
            raise refusal(JobRefused(error.code), user=user_id) from error
        await _publish_balance(site, account)
    if as_json:
        print_json({"account": _account_document(account), "reference": reference})
        return
    console().print(
        f"[green]✓[/] {credits_said(value)} granted; "
        f"the balance is [bold]{credits_text(account.balance)}[/]."
    )


def _amount(text: str) -> Any:
    from decimal import Decimal, InvalidOperation

    try:
        value = Decimal(text)
    except InvalidOperation:
        raise Fault(
            f"{text!r} is not an amount.", ExitCode.USAGE, hint="Write it as 250 or 2.5."
        ) from None
    if not value.is_finite() or value <= 0:
        raise Fault("An amount is greater than 0.", ExitCode.USAGE)
    return value


async def _publish_balance(site: Site, account: Account) -> None:
    """``credits.changed``, for whoever shows the balance."""
    from uvian_worker.events.append import credits_changed
    from uvian_worker.events.log import Appender
    from uvian_worker.redis.connection import redis_from_url

    redis = redis_from_url(site.config.redis_url.get_secret_value(), patience=1.0)
    appender = Appender(redis, site.config.namespace)
    appender.submit(credits_changed(_account_document(account)))
    await appender.close(patience=2.0)
    await redis.aclose()


async def _show(user: str, limit: int, as_json: bool) -> None:
    from repositories.credits import CreditRepository
    from uvian_worker.cli.connect import open_site
    from uvian_worker.cli.lookup import user_id_of
    from uvian_worker.cli.terminal.output import print_json

    async with open_site(redis=False) as site:
        user_id = user_id_of(user, site)
        ledger = CreditRepository(site.database)
        account = await ledger.account(user_id)
        entries = await ledger.entries(user_id, limit=limit)
    if as_json:
        print_json(
            {
                "account": _account_document(account),
                "entries": [_entry_document(entry) for entry in entries],
            }
        )
    else:
        _print_account(account, entries)


def _account_document(account: Account) -> dict[str, Any]:
    return {
        "user_id": account.user_id,
        "balance": str(account.balance),
        "reserved": str(account.reserved),
        "version": account.version,
    }


def _entry_document(entry: Entry) -> dict[str, Any]:
    return {
        "kind": entry.kind,
        "amount": str(entry.amount),
        "job_id": entry.job_id,
        "reference": entry.reference,
        "created_at": entry.created_at,
    }


_SIGNS = {"grant": ("+", "green"), "release": ("+", "green"), "reserve": ("-", "yellow")}


def _print_account(account: Account, entries: list[Entry]) -> None:
    from rich.table import Table
    from rich.text import Text

    from uvian_worker.cli.terminal.output import ago, console, credits_text

    screen = console()
    screen.print(
        f"Balance [bold]{credits_text(account.balance)}[/]"
        f"  [dim]reserved {credits_text(account.reserved)}[/]"
    )
    if not entries:
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("When", "What"):
        table.add_column(name, no_wrap=True)
    table.add_column("Amount", justify="right", no_wrap=True)
    table.add_column("For", overflow="ellipsis", no_wrap=True)
    for entry in entries:
        sign, style = _SIGNS.get(entry.kind, ("", ""))  # a charge was taken by its reservation
        amount = Text(f"{sign}{credits_text(entry.amount)}", style=style)
        what_for = entry.reference or f"job {entry.job_id}"
        table.add_row(f"{ago(entry.created_at)} ago", entry.kind, amount, what_for)
    screen.print()
    screen.print(table)
