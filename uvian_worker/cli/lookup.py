"""What people type, and the row that is meant: ids by their beginning, types by their nearest name."""

from __future__ import annotations

__all__ = ["conversation_id_of", "find_job", "nearest", "refusal", "user_id_of"]

import difflib
import re
import uuid
from collections.abc import Iterable
from typing import Any

from repositories.database import Filter, Row
from uvian_worker.cli.connect import Site
from uvian_worker.cli.errors import ExitCode, Fault
from uvian_worker.cli.terminal.output import credits_said, credits_text
from uvian_worker.client import JobRefused

_NEW_USER = (
    "Users are made by signing up in your app, or in the dashboard: "
    "Authentication > Users > Add user."
)
_ID = re.compile(r"[0-9a-f]{4,32}")


async def find_job(site: Site, text: str) -> Row:
    """The job whose id is ``text`` or begins with it (four characters at least).

    Raises ``Fault`` when there is none, or more than one.
    """
    digits = text.strip().lower().replace("-", "")
    if not _ID.fullmatch(digits):
        raise Fault(
            f"{text!r} is not the id of a job, nor its beginning.",
            ExitCode.USAGE,
            hint="See `uvian jobs list` for the ids.",
        )
    first, last = uuid.UUID(digits.ljust(32, "0")), uuid.UUID(digits.ljust(32, "f"))
    between = [Filter("id", "gte", str(first)), Filter("id", "lte", str(last))]
    rows = await site.database.select("jobs", where=between, limit=2)
    if not rows:
        raise Fault(f"There is no job {text}.", ExitCode.REFUSED, hint="See `uvian jobs list`.")
    if len(rows) > 1:
        raise Fault(
            f"More than one job begins with {text}.", ExitCode.USAGE, hint="Give more of its id."
        )
    return rows[0]


def user_id_of(text: str | None, site: Site) -> str:
    """The user's id; without one that of ``uvian dev`` if its servers are used. Raises ``Fault``."""
    if text is None:
        if site.default_user is None:
            raise Fault(
                "Whose job is it?",
                ExitCode.USAGE,
                hint="Name the user: --user <id from auth.users>",
            )
        return site.default_user
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise Fault(
            f"{text!r} is not a user's id.",
            ExitCode.USAGE,
            hint="It is the uuid in auth.users (on Supabase: Authentication > Users).",
        ) from None


def conversation_id_of(text: str) -> str:
    """The conversation's id, whole. Raises ``Fault``."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise Fault(
            f"{text!r} is not the id of a conversation.",
            ExitCode.USAGE,
            hint="`uvian chat` says it when a conversation ends, `uvian chat --json` with each answer.",
        ) from None


def nearest(name: str, known: Iterable[str]) -> str:
    """``Did you mean …?``, or all there are."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"Did you mean {close[0]}?"
    return f"There are: {', '.join(names)}." if names else "There are none yet."


def refusal(
    refused: JobRefused, *, type_: str = "", user: str = "", known: Iterable[str] = ()
) -> Fault:
    """Why the database said no, in a sentence with the next step."""
    message, hint = _words(refused.code, refused.details, type_, user, known)
    return Fault(message, ExitCode.REFUSED, hint=hint)


def _words(
    code: str, details: dict[str, Any], type_: str, user: str, known: Iterable[str]
) -> tuple[str, str]:
    """Sentence and next step; a code of a newer schema speaks for itself."""
    cost, balance = details.get("cost") or 0, credits_text(details.get("balance") or 0)
    price = credits_said(cost)
    limit = details.get("limit")
    sentences = {
        "unknown_type": (f"There is no job type {type_!r}.", nearest(type_, known)),
        "unknown_user": (f"There is no user {user} in auth.users.", _NEW_USER),
        "insufficient_credits": (
            f"The job costs {price}; the balance is {balance}.",
            f"Grant some: uvian credits grant {user} {credits_text(cost) if cost else '…'}",
        ),
        "cost_exceeds_max": (
            f"The job costs {price}: more than --max-cost.",
            "",
        ),
        "too_many_queued": (
            f"This user has {limit} jobs of this type waiting: no more are accepted.",
            f"Wait for some to start, or raise it: uvian types limit {type_ or '…'} --queued …",
        ),
        "input_too_large": (
            f"The input is larger than {limit} bytes.",
            f"The operator says how much: uvian types limit {type_ or '…'} --input-bytes …",
        ),
        "type_disabled": (
            f"Jobs of the type {type_} are switched off.",
            f"The operator switches it on again: uvian types open {type_ or '…'}",
        ),
        "idempotency_conflict": (
            "A job with this --key exists, and its type or input is another.",
            "Use a new key for a new request.",
        ),
        "conversation_busy": (
            "Another question of this conversation is being answered.",
            "Ask when it is answered, or with --on-busy enqueue or interrupt.",
        ),
    }
    if "message" in details:  # raised with a sentence of its own
        return str(details["message"]), sentences.get(code, ("", ""))[1]
    return sentences.get(code, (code.replace("_", " "), ""))
