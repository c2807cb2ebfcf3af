"""Everything the database or the image store can answer, in this project's words.

RepositoryError
├── Transient              try again: the same call may work in a moment
│   ├── Unavailable        no connection, server stopping, reply lost
│   │   └── StoreAway          … of the image store, and known to be so: come back later
│   └── TimedOut           a lock or our own deadline; the work may still have happened
└── Permanent              the same call will be refused again
    ├── Misconfigured      the operator must act: the message names the setting
    │   ├── SchemaMissing      migrations not applied, or too old for this release
    │   └── NotGranted         the role may not do this
    ├── DataError          a value the database refuses
    │   ├── Conflict           it already exists
│   └── PictureRefused     a picture the image store does not take: too large, of another type
    ├── Refused            a function said no; ``code`` says why
    ├── StatementTooSlow   the statement hit the server's statement timeout
    └── NotFound           a row or file that is not there (or is another user's)
"""

from __future__ import annotations

__all__ = [
    "WAITED_FOR",
    "Conflict",
    "DataError",
    "Misconfigured",
    "NotFound",
    "NotGranted",
    "Permanent",
    "PictureRefused",
    "Refused",
    "RepositoryError",
    "SchemaMissing",
    "StatementTooSlow",
    "StoreAway",
    "TimedOut",
    "Transient",
    "Unavailable",
    "of_fault",
]

from typing import Final

from uvian_common.database_errors import Fault


class RepositoryError(Exception):
    """Root of all errors of the repositories."""


class Transient(RepositoryError):
    """A fault that passes; the call may be repeated."""


class Unavailable(Transient):
    """The server is not reachable at the moment."""


class StoreAway(Unavailable):
    """The image store is known to be away; ``retry_after`` is in seconds."""

    def __init__(self, message: str, *, retry_after: float = 0.0) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class TimedOut(Transient):
    """No answer in time."""


class Permanent(RepositoryError):
    """The same call would be refused again."""


class Misconfigured(Permanent):
    """Something the operator must set right; the message says what."""


#: While work that was paid for is in our hands: a password that was changed is set right as well, later.
WAITED_FOR: Final = (Transient, Misconfigured)


class SchemaMissing(Misconfigured):
    """The schema ``uvian`` is missing, not exposed or too old."""


class NotGranted(Misconfigured):
    """The role lacks a privilege."""


class DataError(Permanent):
    """A value the database does not accept."""


class Conflict(DataError):
    """A row with this key exists."""


class PictureRefused(DataError):
    """The image store does not take this picture; the message says why, in words for its user."""


class Refused(Permanent):
    """A function of the schema refused the request."""

    def __init__(self, code: str, message: str = "") -> None:
        self.code = code
        super().__init__(message or code)


class StatementTooSlow(Permanent):
    """The statement ran into the server's timeout; the same statement would again."""


class NotFound(Permanent):
    """There is no such row or file."""


def of_fault(  # noqa: PLR0911 - a table
    fault: Fault, code: str, message: str, detail: str | None = None
) -> RepositoryError:
    """The error for a fault whose sentence is the same over every adapter.

    An adapter has its own sentences for the faults that name a setting of its own.
    """
    match fault:
        case Fault.AWAY:
            return Unavailable(message)
        case Fault.LOCKED:
            return TimedOut("a lock was not free within a second")
        case Fault.SLOW:
            return StatementTooSlow(message)
        case Fault.REFUSED:
            return Refused(message, detail or message)
        case Fault.CONFLICT:
            return Conflict(message)
        case Fault.DATA:
            return DataError(message)
        case Fault.NOT_FOUND:
            return NotFound(message)
        case _:
            return Permanent(f"{code}: {message}")
