"""What can go wrong with one request, whoever the vendor is."""

from __future__ import annotations

__all__ = [
    "BrokenImage",
    "Cut",
    "DoneAfterCancel",
    "Endless",
    "ErrorInside",
    "Expired",
    "Failed",
    "Fault",
    "Forgotten",
    "Html",
    "Mislabelled",
    "NoEnd",
    "Paced",
    "Repeated",
    "Shuffled",
    "Silence",
    "Slow",
    "Status",
    "Trailing",
    "Waiting",
]

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Fault:
    """Something goes wrong."""


@dataclass(frozen=True, slots=True)
class Status(Fault):
    """The vendor answers an error, in its own form."""

    status: int
    code: str = ""  #: the vendor's word for it
    message: str = "The laboratory was told to say this."
    headers: Mapping[str, str] = field(default_factory=dict)
    param: str | None = None


@dataclass(frozen=True, slots=True)
class Html(Fault):
    """A page of something that stands in between, and is not the vendor."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Mislabelled(Fault):
    """A good answer under another content type."""

    content_type: str = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Slow(Fault):
    """The answer pauses, then goes on. ``after`` counts pieces; 0 is after the head, -1 before it."""

    seconds: float
    after: int = -1


@dataclass(frozen=True, slots=True)
class Paced(Fault):
    """Not a fault, but what a model does: so many seconds between two pieces."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Silence(Fault):
    """The answer stops, and the connection stays open. ``after`` as with :class:`Slow`."""

    after: int = -1


@dataclass(frozen=True, slots=True)
class Cut(Fault):
    """The connection breaks. ``after`` as with :class:`Slow`; an answer in one piece breaks in half."""

    after: int = -1


@dataclass(frozen=True, slots=True)
class ErrorInside(Fault):
    """The answer began with 200, and goes on with an error."""

    after: int = 1
    code: str = "server_error"
    message: str = "The laboratory was told to say this."


@dataclass(frozen=True, slots=True)
class Repeated(Fault):
    """Every piece comes twice."""


@dataclass(frozen=True, slots=True)
class Shuffled(Fault):
    """What ends the answer comes before its last pieces."""


@dataclass(frozen=True, slots=True)
class NoEnd(Fault):
    """All pieces come, and the answer ends without saying so."""


@dataclass(frozen=True, slots=True)
class Trailing(Fault):
    """After the end more pieces come."""


@dataclass(frozen=True, slots=True)
class Endless(Fault):
    """The body never ends: one line, or one document, that grows and grows."""

    compressed: bool = False  #: a few bytes on the wire for each megabyte


@dataclass(frozen=True, slots=True)
class BrokenImage(Fault):
    """The picture is none, or not one that may be decoded."""

    kind: Literal["truncated", "bomb", "text"] = "truncated"


@dataclass(frozen=True, slots=True)
class Expired(Fault):
    """The URL of the result leads nowhere any more."""


@dataclass(frozen=True, slots=True)
class Waiting(Fault):
    """The request stays in the queue for so many looks at it."""

    looks: int = 1_000_000


@dataclass(frozen=True, slots=True)
class Failed(Fault):
    """The vendor takes the request, and says later that it failed; in the vendor's own words."""

    code: str = ""
    status: int = 500  #: where the result has an HTTP status
    message: str = "The laboratory was told to say this."
    retryable: bool | None = None  #: whether the vendor says that the same may work later


@dataclass(frozen=True, slots=True)
class Forgotten(Fault):
    """The vendor takes the request, and knows nothing of it later."""


@dataclass(frozen=True, slots=True)
class DoneAfterCancel(Fault):
    """The vendor accepts a cancellation, and finishes all the same."""
