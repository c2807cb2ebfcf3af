"""What Postgres's errors mean in this project's words, whichever way they come."""

from __future__ import annotations

__all__ = ["by_state", "translated"]

from typing import Final

import asyncpg

from repositories import errors

#: Whole classes: connections (08), resources (53), the machine (58).
_TRANSIENT_CLASSES: Final = ("08", "53", "58")
#: Shutting down, starting up, idle session ended; serialisation, deadlock; object in use; a standby
#: that is being promoted; a migration that widens a table while a function returns its rows.
_TRANSIENT_STATES: Final = {
    "57P01",
    "57P02",
    "57P03",
    "57P05",
    "40001",
    "40003",
    "40P01",
    "55006",
    "25006",
    "42804",
}
_SCHEMA_STATES: Final = {"3F000", "42883", "42P01", "42703"}


def translated(error: Exception) -> errors.RepositoryError:
    """The one seam where asyncpg's errors become ours."""
    if isinstance(error, errors.RepositoryError):
        return error
    if isinstance(error, TimeoutError):
        return errors.TimedOut("Postgres did not answer in time")
    if isinstance(error, asyncpg.ClientConfigurationError):
        return errors.Misconfigured(f"UVIAN_DATABASE_URL cannot be used: {error}")
    state = getattr(error, "sqlstate", None)
    if state is not None:
        message = str(error.args[0]) if error.args else str(state)
        return by_state(str(state), message, getattr(error, "detail", None))
    # A backend that is cut off in the middle of an answer leaves asyncpg's own protocol confused,
    # which it calls an internal error: the connection is gone, nothing more.
    if isinstance(
        error,
        (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError, asyncpg.PostgresError),
    ):
        return errors.Unavailable(f"Postgres is not reachable: {error or type(error).__name__}")
    return errors.Permanent(f"{type(error).__name__}: {error}")


def by_state(state: str, message: str, detail: str | None = None) -> errors.RepositoryError:  # noqa: PLR0911 - a table
    """The meaning of an SQLSTATE and the sentence that came with it."""
    if state.startswith(_TRANSIENT_CLASSES) or state in _TRANSIENT_STATES:
        return errors.Unavailable(message)
    if state == "55P03":
        return errors.TimedOut("a lock was not free within a second")
    if state == "57014":
        return errors.StatementTooSlow(message)
    if state in _SCHEMA_STATES:
        return errors.SchemaMissing(
            f"The schema uvian is missing or older than this release ({message}). Run: uvian migrate"
        )
    if state in ("42501", "28P01", "28000", "3D000"):
        return errors.NotGranted(f"{message}. Check UVIAN_DATABASE_URL: its role and its database.")
    if state.startswith("PT") or state == "P0001":
        return errors.Refused(message, detail or message)
    if state == "23505":
        return errors.Conflict(message)
    if state.startswith(("22", "23")):
        return errors.DataError(message)
    return errors.Permanent(f"{state}: {message}")
