"""Frames of a live socket: JSON objects whose ``op`` says what they are."""

from __future__ import annotations

__all__ = ["data_of", "document_of", "event_frame", "frame_of"]

from collections.abc import Mapping
from typing import Any

import orjson

from uvian_worker.events.envelope import Envelope


def frame_of(document: Mapping[str, Any]) -> bytes:
    """A frame as it is sent."""
    return orjson.dumps(document)


def document_of(envelope: Envelope) -> dict[str, Any]:
    """An event as the contract of events writes it."""
    return {name: getattr(envelope, name) for name in Envelope.__slots__}


def event_frame(envelope: Envelope) -> bytes:
    """One event of a topic that is subscribed to."""
    return frame_of({"op": "event", "event": document_of(envelope)})


def data_of(envelope: Envelope) -> bytes:
    """An event as one line of JSON."""
    return orjson.dumps(document_of(envelope))
