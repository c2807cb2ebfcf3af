"""What people type, and the row that is meant: ids by their beginning, types by their nearest name."""

from __future__ import annotations

__all__ = ["conversation_id_of", "find_job", "nearest", "refusal", "user_id_of"]

import difflib
import re
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, Final

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
    return _whole_id(
        text,
        "a user's id",
        hint="It is the uuid in auth.users (on Supabase: Authentication > Users).",
    )


def conversation_id_of(text: str) -> str:
    """The conversation's id, whole. Raises ``Fault``."""
    return _whole_id(
        text,
        "the id of a conversation",
        hint="`uvian chat` prints it when a conversation ends, `uvian chat --json` with each answer.",
    )


def _whole_id(text: str, what: str, *, hint: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise Fault(f"{text!r} is not {what}.", ExitCode.USAGE, hint=hint) from None


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


#: By code: sentence and next step, with the facts of ``_words``.
_REFUSALS: Final[Mapping[str, tuple[str, str]]] = {
    "unknown_type": ("There is no job type {type!r}.", "{nearest}"),
    "unknown_user": ("There is no user {user} in auth.users.", _NEW_USER),
    "insufficient_credits": (
        "The job costs {price}; the balance is {balance}.",
        "Grant some: uvian credits grant {user} {cost}",
    ),
    "cost_exceeds_max": ("The job costs {price}: more than --max-cost.", ""),
    "too_many_queued": (
        "This user has {limit} jobs of this type waiting: no more are accepted.",
        "Wait for some to start, or raise it: uvian types limit {name} --queued …",
    ),
    "input_too_large": (
        "The input is larger than {limit} bytes.",
        "The operator says how much: uvian types limit {name} --input-bytes …",
    ),
    "type_disabled": (
        "Jobs of the type {type} are switched off.",
        "The operator switches it on again: uvian types open {name}",
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


def _words(
    code: str, details: dict[str, Any], type_: str, user: str, known: Iterable[str]
) -> tuple[str, str]:
    """Sentence and next step; a code of a newer schema speaks for itself."""
    cost = details.get("cost") or 0
    facts = {
        "type": type_,
        "name": type_ or "…",
        "nearest": nearest(type_, known),
        "user": user,
        "price": credits_said(cost),
        "cost": credits_text(cost) if cost else "…",
        "balance": credits_text(details.get("balance") or 0),
        "limit": details.get("limit"),
    }
    sentence, hint = _REFUSALS.get(code, (code.replace("_", " "), ""))
    if "message" in details:  # raised with a sentence of its own
        return str(details["message"]), hint.format_map(facts)
    return sentence.format_map(facts), hint.format_map(facts)
