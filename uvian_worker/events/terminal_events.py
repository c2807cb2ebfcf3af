"""A job's terminal events, to append, or for readers of a job whose events are gone."""

from __future__ import annotations

__all__ = ["terminal_appends", "terminal_envelope"]

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson

from uvian_common.terminal_events import terminal_events_of
from uvian_worker.events.append import Append, append_of
from uvian_worker.events.envelope import Cursor, Envelope, time_text


def terminal_appends(row: Mapping[str, Any]) -> list[Append]:
    """What to append for a job that has ended; ``row`` is what ``_terminal_event`` in SQL returns."""
    job = (row["id"], row["user_id"], row["run"], row["attempt"], row["conversation_id"])
    return [append_of(job, type_, data) for type_, data in terminal_events_of(row)]


def terminal_envelope(row: Mapping[str, Any], topic: str, after: str) -> Envelope:
    """The terminal event of a job whose events are gone, for readers that are at the cursor ``after``.

    ``row`` is one of ``uvian.terminal_events_of``. Nobody has appended this event: its id continues no
    log, and a reader that comes back with it gets the state so far.
    """
    cursor = Cursor.parse(after) or Cursor("0", 0, "0")
    document = orjson.loads(b"{" + terminal_appends(row)[-1].body)
    finished = row.get("finished_at")
    at = time_text(datetime.fromisoformat(finished)) if finished else document["at"]
    own = cursor._replace(seq=cursor.seq + 1, check="0")
    return Envelope(**{**document, "id": str(own), "seq": own.seq, "topic": topic, "at": at})
