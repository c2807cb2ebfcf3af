"""What an exception of asyncpg means, for the client and for the worker's adapter alike."""

from __future__ import annotations

__all__ = ["NO_CONNECTION", "WRONG_CONNECTION_STRING", "fault_of_postgres"]

import ssl
from typing import Final

import asyncpg

from uvian_common.database_errors import Fault, fault_of

#: The connection string is wrong, or the server has another certificate than it requires. Some of these
#: are errors of a connection as well: look for them first.
WRONG_CONNECTION_STRING: Final = (asyncpg.ClientConfigurationError, ssl.SSLCertVerificationError)

#: There is no connection, or it broke. A backend that is cut off in the middle of an answer confuses
#: asyncpg's own protocol, which calls that an internal error.
NO_CONNECTION: Final = (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError)


def fault_of_postgres(error: asyncpg.PostgresError) -> tuple[Fault, str, str]:
    """The meaning of an error that the server sent, with its SQLSTATE and its sentence."""
    message = str(error.args[0]) if error.args else ""
    if error.sqlstate is None:
        return Fault.AWAY, "", message or type(error).__name__
    state = str(error.sqlstate)
    fatal = getattr(error, "severity", None) in ("FATAL", "PANIC")
    return fault_of(state, message, fatal=fatal), state, message or state
