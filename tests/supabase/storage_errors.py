"""Storage's errors: HTTP 400 nearly always, and the true status as a string in the body."""

from __future__ import annotations

__all__ = [
    "StorageError",
    "bucket_not_found",
    "duplicate",
    "invalid_jwt",
    "object_not_found",
    "storage_error",
]

from tests.supabase.pool import PoolExhausted, Unreachable
from tests.supabase.wire import Lost, PostgresError


class StorageError(Exception):
    """``{statusCode, error, message}``."""

    def __init__(self, code: int, error: str, message: str, *, http: int | None = None) -> None:
        self.code = code
        self.error = error
        self.message = message
        self.http = http or (500 if code == 500 else 400)
        super().__init__(f"{code} {error}: {message}")

    @property
    def body(self) -> dict[str, str]:
        """As it goes over the wire."""
        return {"statusCode": str(self.code), "error": self.error, "message": self.message}


def bucket_not_found() -> StorageError:
    """No such bucket, or none for the likes of you."""
    return StorageError(404, "Bucket not found", "Bucket not found")


def object_not_found() -> StorageError:
    """No such object, or none that you may see."""
    return StorageError(404, "not_found", "Object not found")


def duplicate() -> StorageError:
    """It is there already."""
    return StorageError(409, "Duplicate", "The resource already exists")


def invalid_jwt(message: str) -> StorageError:
    """The token of a signed URL."""
    return StorageError(400, "InvalidJWT", message)


def storage_error(error: Exception) -> StorageError | None:
    """What Storage answers; None for an error that is a fault of this code."""
    match error:
        case StorageError():
            return error
        case PostgresError():
            return _from_postgres(error)
        case PoolExhausted():
            message = "The connection to the database timed out"
            return StorageError(544, "DatabaseTimeout", message, http=544)
        case Lost() | Unreachable():
            return StorageError(500, "InternalError", str(error) or "Internal server error")
        case _:
            return None


def _from_postgres(error: PostgresError) -> StorageError:
    message = error.message
    match error.code:
        case "42501":
            if "row-level security" in message:
                message = "new row violates row-level security policy"
            return StorageError(403, "Unauthorized", message)
        case "23505":
            return duplicate()
        case "23503":
            return StorageError(404, "InvalidRequest", "The related resource does not exist")
        case "55P03":
            return StorageError(423, "ResourceLocked", "The resource is locked")
        case "57014":
            timed_out = "The connection to the database timed out"
            return StorageError(544, "DatabaseTimeout", timed_out, http=544)
        case _:
            return StorageError(500, "DatabaseError", f"database error, code: {error.code}")
