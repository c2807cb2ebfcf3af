"""Jobs as tables and as a page; their types as a table and in a sentence."""

from __future__ import annotations

__all__ = ["described", "print_job", "print_jobs", "print_types"]

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import orjson
from rich.console import Group, RenderableType
from rich.highlighter import JSONHighlighter
from rich.table import Table
from rich.text import Text

from repositories.database import Row
from repositories.job_types import JobTypeSettings
from uvian_worker.cli.terminal.history import Run, runs_of, sentences, waterfall
from uvian_worker.cli.terminal.output import (
    ago,
    console,
    credits_said,
    credits_text,
    duration,
    status_text,
    waits_for,
)

_ROOMY = 90  # columns


def print_jobs(rows: Sequence[Row]) -> None:
    """One line per job; what does not fit is left out, the error last."""
    screen = console()
    if not rows:
        screen.print("There are no such jobs.", style="dim")
        return
    priced = any(row["cost"] for row in rows)
    cells = [_cells(row, roomy=screen.width >= _ROOMY, priced=priced) for row in rows]
    names = ["Job", "Status", "Type", *(["User"] if screen.width >= _ROOMY else [])]
    numbers = ["Age", "Took", *(["Cost"] if priced else [])]
    table = Table(box=None, pad_edge=False, header_style="dim", expand=True)
    for at, name in enumerate([*names, *numbers]):
        # As wide as it is: only the remark gives way.
        width = max(len(name), *(len(line[at]) for line in cells))
        table.add_column(name, width=width, justify="left" if name in names else "right")
    table.add_column("", no_wrap=True, overflow="ellipsis", ratio=1)
    for line in cells:
        table.add_row(*line)
    screen.print(table)


def print_types(types: Sequence[JobTypeSettings]) -> None:
    """One line per type: to whom it is open, what it costs, how much of it there may be."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("Type", "Open to"):
        table.add_column(name, no_wrap=True)
    for name in ("Price", "Waiting", "Running", "Tokens"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("Models", overflow="ellipsis", no_wrap=True)
    for each in types:
        style = "green" if each.enabled and each.browser else "dim"
        table.add_row(
            each.type,
            Text(_open_to(each), style=style),
            "free" if each.price is None else credits_text(each.price),
            *(
                "-" if most is None else str(most)
                for most in (each.max_queued_per_user, each.max_running_per_user, each.max_tokens)
            ),
            ", ".join(each.models or ["any"]),
        )
    console().print(table)


def described(settings: JobTypeSettings) -> str:
    """What the operator says of a type, as the end of a sentence."""
    price = "free" if not settings.price else credits_said(settings.price)
    limits = [
        f"{'any number' if most is None else most} {doing}"
        for most, doing in (
            (settings.max_queued_per_user, "waiting"),
            (settings.max_running_per_user, "running"),
        )
    ]
    parts = [f"open to {_open_to(settings)}", price, f"{' and '.join(limits)} of each user"]
    if settings.models:
        parts.append(f"models: {', '.join(settings.models)}")
    if settings.max_tokens:
        parts.append(f"{settings.max_tokens} tokens at most")
    if settings.system_prompt:
        parts.append("with your system prompt")
    return "; ".join(parts)


def _open_to(settings: JobTypeSettings) -> str:
    if not settings.enabled:
        return "nobody: switched off"
    if not settings.browser:
        return "your API alone"
    return "signed-in users, anonymous ones too" if settings.anonymous else "signed-in users"


def print_job(row: Row, history: Sequence[Row]) -> None:
    """Everything its owner may know, and its runs: ``history`` are its rows of ``job_runs``."""
    screen = console()
    screen.print(_heading(row))
    facts = Table.grid(padding=(0, 2, 0, 0))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in _facts(row):
        facts.add_row(name, value)
    screen.print(facts)
    for title, content in _sections(row, runs_of(row, history), screen.width):
        screen.print()
        screen.print(title, style="bold")
        screen.print(content, soft_wrap=not screen.is_terminal)


def _cells(row: Row, *, roomy: bool, priced: bool) -> list[str | Text]:
    cost = credits_text(row["cost"]) if row["cost"] else ""
    return [
        row["id"][:8],
        status_text(row["status"]),
        row["type"],
        *([row["user_id"][:8]] if roomy else []),
        ago(row["created_at"]),
        duration(_took(row)),
        *([cost] if priced else []),
        _remark(row),
    ]


def _took(row: Row) -> float | None:
    """From the start of the latest run to its end, or to now."""
    if row["started_at"] is None:
        return None
    began = datetime.fromisoformat(row["started_at"])
    ended = datetime.fromisoformat(row["finished_at"] or row["updated_at"])
    return max((ended - began).total_seconds() * 1000, 0)


def _remark(row: Row) -> Text:
    if row["status"] == "queued":
        return Text(f"waits for {_waits_for(row)}", style="dim")
    if row["error_message"]:
        return Text(row["error_message"], style="red")
    if row["status"] == "processing":
        return Text(
            f"{row['progress']:.0%} {row['progress_message'] or row['stage'] or ''}", "cyan"
        )
    warnings = (row["output"] or {}).get("warnings") or ()
    return Text(f"{len(warnings)} warnings", style="yellow") if warnings else Text()


def _waits_for(row: Row) -> str:
    run_at = datetime.fromisoformat(row["run_at"])
    return waits_for(row["run"], run_at, has_turn=row.get("admitted", True))


def _heading(row: Row) -> Text:
    return Text.assemble((row["id"], "bold"), "  ", row["type"], "  ").append_text(
        status_text(row["status"])
    )


def _facts(row: Row) -> list[tuple[str, str]]:
    facts = [
        ("user", row["user_id"]),
        ("created", f"{_moment(row['created_at'])}, {ago(row['created_at'])} ago"),
        ("took", duration(_took(row))),
        ("run", str(row["run"])),
        ("attempts", f"{row['attempt']} burned"),
    ]
    if row["status"] == "queued":
        facts.append(("waits for", _waits_for(row)))
    if row["status"] == "processing":
        facts.append(("progress", f"{row['progress']:.0%} {row['progress_message'] or ''}"))
    if row["cost"]:
        facts.append(("cost", credits_said(row["cost"])))
    for name, column in (
        ("result", "result_id"),
        ("key", "idempotency_key"),
        ("parent", "parent_id"),
    ):
        if row[column]:
            facts.append((name, row[column]))
    return facts


def _sections(row: Row, runs: Sequence[Run], width: int) -> list[tuple[str, RenderableType]]:
    sections: list[tuple[str, RenderableType]] = [("Input", _json(row["input"]))]
    if row["stages"] or len(runs) > 1:
        sections.append(("Runs", Group(waterfall(runs, width), *sentences(runs))))
    if row["error"]:
        sections.append(("Error", _error(row)))
    if row["output"]:
        sections.append(("Output", _json(row["output"])))
    return sections


def _error(row: Row) -> Group:
    error: dict[str, Any] = row["error"]
    details = f"{error.get('code')}"
    if error.get("stage"):
        details += f" in {error['stage']}"
    details += f", attempt {error.get('attempt')}"
    details += ", may work later" if error.get("retryable") else ", will not work later"
    return Group(Text(row["error_message"] or "", style="red"), Text(details, style="dim"))


def _json(document: Any) -> Text:
    text = orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()
    return JSONHighlighter()(Text(text))


def _moment(moment: str) -> str:
    return f"{datetime.fromisoformat(moment).astimezone():%Y-%m-%d %H:%M:%S}"
