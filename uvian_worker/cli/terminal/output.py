"""What commands print: one console, statuses in colour, durations and times in few characters."""

from __future__ import annotations

__all__ = [
    "STATUS_STYLES",
    "ago",
    "console",
    "credits_said",
    "credits_text",
    "duration",
    "print_json",
    "status_text",
    "waits_for",
]

import sys
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson
from rich.console import Console
from rich.text import Text

STATUS_STYLES = {
    "waiting": "dim",
    "queued": "yellow",
    "processing": "cyan",
    "running": "cyan",
    "completed": "green",
    "failed": "red",
    "cancelled": "magenta",
}


def console(*, stderr: bool = False) -> Console:
    """A console on the stream as it is now: tests and pipes replace it."""
    return Console(stderr=stderr, highlight=False)


def print_json(document: Any, *, indent: bool = True) -> None:
    """One JSON document on stdout and a new line."""
    options = orjson.OPT_INDENT_2 if indent else 0
    sys.stdout.write(orjson.dumps(document, default=str, option=options).decode() + "\n")
    sys.stdout.flush()


def status_text(status: str) -> Text:
    """A status in its colour."""
    return Text(status, style=STATUS_STYLES.get(status, ""))


def duration(ms: float | None) -> str:
    """``812 ms``, ``4.21 s``, ``3 m 07 s``, ``2 h 14 m``; nothing for what has none."""
    if ms is None:
        return ""
    if ms < 999.5:
        return f"{ms:.0f} ms"
    seconds = ms / 1000
    if seconds < 60:
        return f"{seconds:.2f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} m {seconds % 60:02.0f} s"
    return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:02.0f} m"


def ago(moment: str) -> str:
    """``4 s``, ``12 m``, ``3 h``, ``5 d`` since an ISO 8601 moment."""
    seconds = (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def waits_for(run: int, run_at: datetime | None, *, has_turn: bool = True) -> str:
    """What a job that is queued waits for, and until when."""
    seconds = 0.0 if run_at is None else (run_at - datetime.now(UTC)).total_seconds()
    if run_at is not None and seconds > 0:
        moment = run_at.astimezone()
        today = moment.date() == datetime.now().astimezone().date()
        clock = f"{moment:%H:%M:%S}" if today else f"{moment:%Y-%m-%d %H:%M:%S}"
        what = "its next try" if run > 1 else "its time"
        return f"{what} at {clock}, in {duration(round(seconds) * 1000)}"
    return "a worker" if has_turn else "its turn: other jobs of this user come first"


def credits_text(amount: Any) -> str:
    """An amount without trailing zeros."""
    value = Decimal(str(amount)).normalize()
    return f"{value:f}"


def credits_said(amount: Any) -> str:
    """An amount in a sentence: ``1 credit``, ``2.5 credits``."""
    number = credits_text(amount)
    return f"{number} credit" if number == "1" else f"{number} credits"
