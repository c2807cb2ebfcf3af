"""PostgREST's errors: what Postgres said, and what PostgREST says itself, as HTTP answers."""

from __future__ import annotations

__all__ = ["RestError", "translated"]

from typing import Final

import asyncpg

from tests.supabase.keys import BadToken
from tests.supabase.pool import BadValue, Lost, PoolExhausted, Unreachable


class RestError(Exception):
    """An answer other than success: ``{code, message, details, hint}`` with a status."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        details: str | None = None,
        hint: str | None = None,
    ) -> None:
        self.status = status
        self.code = code
        self.message = message
        self.details = details
        self.hint = hint
        super().__init__(f"{status} {code} {message}")

    @property
    def body(self) -> dict[str, str | None]:
        """As it goes over the wire."""
        return {
            "code": self.code,
            "details": self.details,
            "hint": self.hint,
            "message": self.message,
        }


def translated(error: Exception, *, role: str) -> RestError | None:
    """What PostgREST answers; None for an error that is a fault of this code."""
    match error:
        case RestError():
            return error
        case asyncpg.PostgresError():
            return _from_postgres(error, role)
        case Lost(code="", while_idle=True):
            # libpq has no words of the server to give, and PostgREST none for a code of nothing.
            return RestError(400, "", "")
        case Lost(code="", while_idle=False):
            return RestError(503, "PGRST001", "Database client error. Retrying the connection.")
        case Lost():
            return RestError(_status(error.code, error.message, role), error.code, error.message)
        case Unreachable():
            message = "Database connection error. Retrying the connection."
            return RestError(503, "PGRST000", message, str(error))
        case PoolExhausted():
            message = "Timed out acquiring connection from connection pool."
            return RestError(504, "PGRST003", message)
        case BadToken():
            return RestError(401, "PGRST303" if error.claims else "PGRST301", str(error))
        case BadValue():
            return RestError(400, "22021", 'invalid byte sequence for encoding "UTF8": 0x00')
        case _:
            return None


def _from_postgres(error: asyncpg.PostgresError, role: str) -> RestError:
    code = error.sqlstate or ""
    message = str(error.args[0]) if error.args else ""
    return RestError(_status(code, message, role), code, message, error.detail, error.hint)


_EXACT: Final = {
    "23503": 409,
    "23505": 409,
    "25006": 405,
    "42883": 404,
    "42P01": 404,
    "42P17": 500,
    "57P01": 503,
    "P0001": 400,
}
_CLASSES: Final = {
    "08": 503,
    "09": 500,
    "0L": 403,
    "0P": 403,
    "25": 500,
    "28": 403,
    "2D": 500,
    "38": 500,
    "39": 500,
    "3B": 500,
    "40": 500,
    "53": 503,
    "54": 500,
    "55": 500,
    "57": 500,
    "58": 500,
    "F0": 500,
    "HV": 500,
    "P0": 500,
    "XX": 500,
}


def _status(code: str, message: str, role: str) -> int:
    if code == "42501":
        return 401 if role == "anon" else 403
    if code == "21000":
        return 400 if message.endswith("requires a WHERE clause") else 500
    if code == "22023" and message.startswith("role") and message.endswith("does not exist"):
        return 401
    if code.startswith("PT"):
        return int(code[2:]) if code[2:].isdecimal() else 500
    if code == "53400":
        return 500
    return _EXACT.get(code) or _CLASSES.get(code[:2], 400)
