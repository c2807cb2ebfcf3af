"""What asyncpg's errors are in this project's words."""

from __future__ import annotations

__all__ = ["translated"]

import asyncpg

from repositories import errors
from uvian_common.asyncpg_errors import NO_CONNECTION, WRONG_CONNECTION_STRING, fault_of_postgres
from uvian_common.database_errors import Fault


def translated(error: Exception) -> errors.RepositoryError:  # noqa: PLR0911 - a table
    """The one place where asyncpg's errors become ours."""
    match error:
        case errors.RepositoryError():
            return error
        case TimeoutError():
            return errors.TimedOut("Postgres did not answer in time")
        case asyncpg.ClientConfigurationError():
            return errors.Misconfigured(f"UVIAN_DATABASE_URL cannot be used: {error}")
        case _ if isinstance(error, WRONG_CONNECTION_STRING):
            return errors.Misconfigured(
                f"The server's certificate is not the one UVIAN_DATABASE_URL asks for: {error}"
            )
        case UnicodeEncodeError():
            return errors.DataError("a value that is no text")
        case asyncpg.PostgresError():
            return _of_server(error)
        case _ if isinstance(error, NO_CONNECTION):
            return errors.Unavailable(f"Postgres is not reachable: {error or type(error).__name__}")
        case _:
            return errors.Permanent(f"{type(error).__name__}: {error}")


def _of_server(error: asyncpg.PostgresError) -> errors.RepositoryError:
    fault, state, message = fault_of_postgres(error)
    match fault:
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
        case _:
            return errors.of_fault(fault, state, message, getattr(error, "detail", None))
