"""What Postgres's errors mean in this project's words, whichever way they come."""

from __future__ import annotations

__all__ = ["by_state", "in_our_words", "translated"]

import ssl

import asyncpg

from repositories import errors
from uvian_common.database_errors import Fault, fault_of


def translated(error: Exception) -> errors.RepositoryError:  # noqa: PLR0911 - a table
    """The one seam where asyncpg's errors become ours."""
    if isinstance(error, errors.RepositoryError):
        return error
    if isinstance(error, TimeoutError):
        return errors.TimedOut("Postgres did not answer in time")
    if isinstance(error, asyncpg.ClientConfigurationError):
        return errors.Misconfigured(f"UVIAN_DATABASE_URL cannot be used: {error}")
    if isinstance(error, ssl.SSLCertVerificationError):
        return errors.Misconfigured(
            f"The server's certificate is not the one UVIAN_DATABASE_URL asks for: {error}"
        )
    if isinstance(error, UnicodeEncodeError):
        return errors.DataError("a value that is no text")
    state = getattr(error, "sqlstate", None)
    if state is not None:
        message = str(error.args[0]) if error.args else str(state)
        fatal = getattr(error, "severity", None) in ("FATAL", "PANIC")
        return by_state(str(state), message, getattr(error, "detail", None), fatal=fatal)
    # A backend that is cut off in the middle of an answer leaves asyncpg's own protocol confused,
    # which it calls an internal error: the connection is gone, nothing more.
    if isinstance(
        error,
        (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError, asyncpg.PostgresError),
    ):
        return errors.Unavailable(f"Postgres is not reachable: {error or type(error).__name__}")
    return errors.Permanent(f"{type(error).__name__}: {error}")


def by_state(
    state: str, message: str, detail: str | None = None, *, fatal: bool = False
) -> errors.RepositoryError:
    """The meaning of an SQLSTATE and the sentence that came with it."""
    return in_our_words(fault_of(state, message, fatal=fatal), state, message, detail)


def in_our_words(  # noqa: C901, PLR0911 - a table
    fault: Fault, code: str, message: str, detail: str | None = None
) -> errors.RepositoryError:
    """A fault that speaks of Postgres itself; what is the API's is ``supabase_errors``' to say."""
    match fault:
        case Fault.AWAY:
            return errors.Unavailable(message)
        case Fault.LOCKED:
            return errors.TimedOut("a lock was not free within a second")
        case Fault.SLOW:
            return errors.StatementTooSlow(message)
        case Fault.SCHEMA:
            return errors.SchemaMissing(
                "The schema uvian is missing or older than this release "
                f"({message.rstrip('.')}). Run: uvian migrate"
            )
        case Fault.NOT_GRANTED:
            return errors.NotGranted(
                f"{message}. Check UVIAN_DATABASE_URL: its role and its password."
            )
        case Fault.ADDRESS:
            return errors.Misconfigured(
                f"{message}. Check UVIAN_DATABASE_URL: its host, its user and its database."
            )
        case Fault.REFUSED:
            return errors.Refused(message, detail or message)
        case Fault.CONFLICT:
            return errors.Conflict(message)
        case Fault.DATA:
            return errors.DataError(message)
        case Fault.NOT_FOUND:
            return errors.NotFound(message)
        case _:
            return errors.Permanent(f"{code}: {message}")
