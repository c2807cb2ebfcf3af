"""PostgREST's errors: what Postgres said, and what PostgREST says itself, as HTTP answers."""

from __future__ import annotations

__all__ = ["RestError", "translated"]

from typing import Final

from tests.supabase.keys import BadToken
from tests.supabase.pool import PoolExhausted, Unreachable
from tests.supabase.wire import Lost, PostgresError


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


def translated(  # noqa: PLR0911 - a table
    error: Exception, *, role: str
) -> RestError | None:
    """What PostgREST answers; None for an error that is a fault of this code."""
    match error:
        case RestError():
            return error
        case PostgresError():
            return _from_postgres(error, role)
        case Lost():
            return _from_lost(error, role)
        case Unreachable():
            message = "Database connection error. Retrying the connection."
            return RestError(503, "PGRST000", message, str(error))
        case PoolExhausted():
            message = "Timed out acquiring connection from connection pool."
            return RestError(504, "PGRST003", message)
        case BadToken():
            return RestError(401, "PGRST303" if error.claims else "PGRST301", str(error))
        case _:
            return None


def _from_postgres(error: PostgresError, role: str) -> RestError:
    status = _status(error.code, error.message, role)
    return RestError(status, error.code, error.message, error.detail, error.hint)


def _from_lost(error: Lost, role: str) -> RestError:
    if error.words is not None:
        return _from_postgres(error.words, role)
    if error.while_idle:
        # libpq has no words of the server to give, and for no code PostgREST has no status.
        return RestError(400, "", "")
    message = "Database client error. Retrying the connection."
    return RestError(503, "PGRST001", message, str(error))


_EXACT: Final = {
    "23503": 409,
    "23505": 409,
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
    if code == "22023" and message.startswith("role") and message.endswith("does not exist"):
        return 401
    if code.startswith("PT"):
        return int(code[2:]) if code[2:].isdecimal() else 500
    return _EXACT.get(code) or _CLASSES.get(code[:2], 400)
