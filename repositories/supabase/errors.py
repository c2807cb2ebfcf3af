"""What the answers of PostgREST, of Storage and of the gateway before them are in this project's words."""

from __future__ import annotations

__all__ = ["THE_KEY", "translated"]

import json
from collections.abc import Callable
from typing import Final

import httpx
import pydantic
from postgrest import APIError
from storage3.exceptions import StorageApiError

from repositories import errors
from repositories.images import missing
from uvian_common.database_errors import Fault, fault_of_answer, status_passes

#: What ``UVIAN_SUPABASE_KEY`` has to be, and where it is found.
THE_KEY: Final = (
    "the secret key (sb_secret_…) or the legacy service_role key, from Project Settings > API Keys"
)

_AWAY: Final = "Supabase is not reachable at the moment"
_NOT_AN_API: Final = (
    "What answers at UVIAN_SUPABASE_URL is not Supabase's API: it reads https://<ref>.supabase.co."
)


def translated(error: Exception) -> errors.RepositoryError:  # noqa: PLR0911 - a table
    """The one place where the errors of postgrest, storage3 and httpx become ours."""
    match error:
        case errors.RepositoryError():
            return error
        case APIError():
            return _of_postgrest(error)
        case StorageApiError():
            return _of_storage(error)
        case httpx.ConnectTimeout() | httpx.PoolTimeout():
            return errors.Unavailable(f"{_AWAY}: no connection in time. Check UVIAN_SUPABASE_URL.")
        case httpx.TimeoutException() | TimeoutError():
            return errors.TimedOut("Supabase did not answer in time.")
        case httpx.ConnectError():
            return errors.Unavailable(f"{_AWAY}: {error}. Check UVIAN_SUPABASE_URL.")
        case httpx.RequestError() | OSError():
            return errors.Unavailable(f"{_AWAY}: {str(error) or type(error).__name__}")
        case UnicodeEncodeError() | httpx.InvalidURL():
            return errors.DataError(f"{type(error).__name__}: a value that no URL can hold")
        case json.JSONDecodeError() | UnicodeDecodeError() | pydantic.ValidationError():
            return errors.Unavailable(_NOT_AN_API)
        case _:
            return errors.Permanent(f"{type(error).__name__}: {error}")


def _of_postgrest(error: APIError) -> errors.RepositoryError:
    code, message = error.code or "", error.message or ""
    return _of_fault(
        fault_of_answer(code, message, body=bool(error.details)), code, message, error.details
    )


def _of_fault(  # noqa: PLR0911 - a table
    fault: Fault, code: str, message: str, detail: str | None
) -> errors.RepositoryError:
    answered = f"HTTP {code} {message}".rstrip() if code.isdecimal() and len(code) == 3 else message
    match fault:
        case Fault.AWAY:
            return _away(answered or "an empty answer")
        case Fault.KEY:
            return _wrong_key(message or f"HTTP {code}")
        case Fault.NOT_GRANTED:
            return errors.NotGranted(
                f"{message}. UVIAN_SUPABASE_KEY must be {THE_KEY}; if it is, run `uvian migrate`, "
                "which grants what the service needs."
            )
        case Fault.NOT_EXPOSED:
            return errors.SchemaMissing(
                "The API does not serve the schema uvian: add uvian under "
                "Project Settings > Data API > Exposed schemas."
            )
        case Fault.SCHEMA:
            return errors.SchemaMissing(
                f"The schema uvian is missing or older than this release ({message.rstrip('.')}). "
                "Run: uvian migrate (the API notices within seconds)"
            )
        case Fault.ADDRESS:
            return errors.Misconfigured(f"{_NOT_AN_API} ({answered.rstrip('.')})")
        case Fault.DATA if answered != message:
            return errors.DataError(f"The request is too large for the API: {answered}")
        case _:
            return errors.of_fault(fault, code, message, detail)


def _wrong_key(message: str) -> errors.RepositoryError:
    return errors.NotGranted(
        f"Supabase refuses UVIAN_SUPABASE_KEY ({message.rstrip('.')}): give {THE_KEY}."
    )


def _away(message: str) -> errors.RepositoryError:
    return errors.Unavailable(f"{_AWAY}: {message}")


def _of_storage(error: StorageApiError) -> errors.RepositoryError:
    """Storage's answers have the true status in their body; most say HTTP 400."""
    status = int(error.status) if str(error.status).isdecimal() else 500
    if status == 404 and error.code == "not_found":
        return missing()
    # A page of a proxy would be quoted whole.
    message = f"HTTP {status}" if error.code == "InternalError" else error.message
    if status in _STORAGE and (status == 413 or not _is_page(error)):
        return _STORAGE[status](message)
    if status_passes(status) or _is_page(error):
        return _away(message)
    if "jwt" in error.code.lower():
        return _wrong_key(message)
    return errors.Permanent(f"Storage refuses: {message}")


#: What storage3 says of a body that is not Storage's own, with the body after it.
_UNREAD: Final = "Unable to parse error message:"


def _is_page(error: StorageApiError) -> bool:
    """Whether something between us and Storage has answered: a page, a word, or nothing at all."""
    return error.message.startswith(_UNREAD) and not error.message[
        len(_UNREAD) :
    ].lstrip().startswith("{")


def _no_bucket(_: str) -> errors.RepositoryError:
    """A token that is garbage gets the same answer from Storage."""
    return errors.Misconfigured(
        "Storage knows no bucket uvian-images, or refuses UVIAN_SUPABASE_KEY: `uvian migrate` makes "
        'it, or in the dashboard Storage > New bucket "uvian-images" (private).'
    )


def _not_taken(message: str) -> errors.RepositoryError:
    return errors.PictureRefused(f"The bucket uvian-images does not take this picture: {message}")


_STORAGE: Final[dict[int, Callable[[str], errors.RepositoryError]]] = {
    401: _wrong_key,
    403: _wrong_key,
    404: _no_bucket,
    409: errors.Conflict,
    413: _not_taken,
    415: _not_taken,
}
