"""Everything the database or the image store can answer, in this project's words.

RepositoryError
├── Transient              try again: the same call may work in a moment
│   ├── Unavailable        no connection, server stopping, reply lost
│   └── TimedOut           a lock or our own deadline; the work may still have happened
└── Permanent              the same call will be refused again
    ├── Misconfigured      the operator must act: the message names the setting
    │   ├── SchemaMissing      migrations not applied, or too old for this release
    │   └── NotGranted         the role may not do this
    ├── DataError          a value the database refuses
    │   └── Conflict           it already exists
    ├── Refused            a function said no; ``code`` says why
    ├── StatementTooSlow   the statement hit the server's statement timeout
    └── NotFound           a row or file that is not there (or is another user's)
"""

from __future__ import annotations

__all__ = [
    "Conflict",
    "DataError",
    "Misconfigured",
    "NotFound",
    "NotGranted",
    "Permanent",
    "Refused",
    "RepositoryError",
    "SchemaMissing",
    "StatementTooSlow",
    "TimedOut",
    "Transient",
    "Unavailable",
]


class RepositoryError(Exception):
    """Root of all errors of the repositories."""


class Transient(RepositoryError):
    """A fault that passes; the call may be repeated."""


class Unavailable(Transient):
    """The server is not reachable at the moment."""


class TimedOut(Transient):
    """No answer in time."""


class Permanent(RepositoryError):
    """The same call would be refused again."""


class Misconfigured(Permanent):
    """Something the operator must set right; the message says what."""


class SchemaMissing(Misconfigured):
    """The schema ``uvian`` is missing, not exposed or too old."""


class NotGranted(Misconfigured):
    """The role lacks a privilege."""


class DataError(Permanent):
    """A value the database does not accept."""


class Conflict(DataError):
    """A row with this key exists."""


class Refused(Permanent):
    """A function of the schema refused the request."""

    def __init__(self, code: str, message: str = "") -> None:
        self.code = code
        super().__init__(message or code)


class StatementTooSlow(Permanent):
    """The statement ran into the server's timeout; the same statement would again."""


class NotFound(Permanent):
    """There is no such row or file."""
