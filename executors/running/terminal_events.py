"""The terminal events of a job, as the classes that the event sink takes."""

from __future__ import annotations

__all__ = ["terminal_events_of"]

from collections.abc import Mapping
from typing import Any

from executors.events import EVENT_TYPES, Event
from uvian_common import terminal_events


def terminal_events_of(row: Mapping[str, Any]) -> list[Event]:
    """The events of a job that has ended; what became of its answer comes before the job's own."""
    return [EVENT_TYPES[type_](**data) for type_, data in terminal_events.terminal_events_of(row)]
