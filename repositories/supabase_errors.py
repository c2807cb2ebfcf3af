"""What the answers of PostgREST, of Storage and of the gateway before them mean in this project's words."""

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
from repositories.sqlstates import by_state

#: What ``UVIAN_SUPABASE_KEY`` has to be, and where it is found.
THE_KEY: Final = (
    "the secret key (sb_secret_…) or the legacy service_role key, from Project Settings > API Keys"
)

_PASSING: Final = (408, 423, 425, 429)  #: HTTP statuses that are no fault of the request
_AWAY: Final = "Supabase is not reachable at the moment"
_NOT_AN_API: Final = (
    "What answers at UVIAN_SUPABASE_URL is not Supabase's API: it reads https://<ref>.supabase.co."
)


def translated(error: Exception) -> errors.RepositoryError:  # noqa: PLR0911 - a table
    """The one seam where the errors of postgrest, storage3 and httpx become ours."""
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
    if not code:
        return _of_gateway(message)
    if code in _POSTGREST:
        return _POSTGREST[code](message)
    if code.isdecimal() and len(code) == 3:
        return _by_status(int(code), message, has_body=bool(error.details))
    if code.startswith(("42501", "28")):
        return errors.NotGranted(
            f"{message}. UVIAN_SUPABASE_KEY must be {THE_KEY}; if it is, run `uvian migrate`, "
            "which grants what the service needs."
        )
    return by_state(code, message, error.details)


def _of_gateway(message: str) -> errors.RepositoryError:
    """An answer without a code; of its status postgrest keeps nothing, so that the words must do."""
    if "API key" in message or message == "Unauthorized":
        return _wrong_key(message)
    if message.startswith("no Route matched"):
        return errors.Misconfigured(_NOT_AN_API)
    # Without a word: a pooled connection after a crash of Postgres, with HTTP 400.
    return errors.Unavailable(f"{_AWAY}: {message or 'an empty answer'}")


def _by_status(status: int, message: str, *, has_body: bool) -> errors.RepositoryError:
    """An answer that is not PostgREST's own: a gateway's, a proxy's, somebody else's."""
    if status >= 500 or status in _PASSING or (status == 400 and not has_body):
        return errors.Unavailable(f"{_AWAY}: HTTP {status} {message}")
    if status in (401, 403):
        return _wrong_key(f"HTTP {status}")
    if status in (413, 414):
        return errors.DataError(f"The request is too large for the API: HTTP {status}")
    return errors.Misconfigured(f"{_NOT_AN_API} (HTTP {status})")


def _wrong_key(message: str) -> errors.RepositoryError:
    return errors.NotGranted(
        f"Supabase refuses UVIAN_SUPABASE_KEY ({message.rstrip('.')}): give {THE_KEY}."
    )


def _not_exposed(_: str) -> errors.RepositoryError:
    return errors.SchemaMissing(
        "The API does not serve the schema uvian: add uvian under "
        "Project Settings > Data API > Exposed schemas."
    )


def _schema(message: str) -> errors.RepositoryError:
    return errors.SchemaMissing(
        f"The schema uvian is missing or older than this release ({message.rstrip('.')}). "
        "Run: uvian migrate (the API notices within seconds)"
    )


def _away(message: str) -> errors.RepositoryError:
    return errors.Unavailable(f"{_AWAY}: {message}")


#: PostgREST's own codes. What is not here (and not an SQLSTATE) is a mistake of ours.
_POSTGREST: Final[dict[str, Callable[[str], errors.RepositoryError]]] = {
    **dict.fromkeys(("PGRST000", "PGRST001", "PGRST002", "PGRST003"), _away),
    **dict.fromkeys(("PGRST100", "PGRST102"), errors.DataError),
    "PGRST106": _not_exposed,
    "PGRST116": errors.NotFound,
    "PGRST125": lambda _: errors.Misconfigured(_NOT_AN_API),
    **dict.fromkeys(("PGRST202", "PGRST204", "PGRST205"), _schema),
    **dict.fromkeys(("PGRST300", "PGRST301", "PGRST302", "PGRST303"), _wrong_key),
}


def _of_storage(error: StorageApiError) -> errors.RepositoryError:
    """Storage's answers have the true status in their body; most say HTTP 400."""
    status = int(error.status) if str(error.status).isdecimal() else 500
    if status == 404 and error.code == "not_found":
        return missing()
    # A page of a proxy would be quoted whole.
    message = f"HTTP {status}" if error.code == "InternalError" else error.message
    if status in _STORAGE:
        return _STORAGE[status](message)
    if status >= 500 or status in _PASSING:
        return _away(message)
    return errors.Permanent(f"Storage refuses: {message}")


def _no_bucket(_: str) -> errors.RepositoryError:
    """Also what a token that is garbage is told."""
    return errors.Misconfigured(
        "Storage knows no bucket uvian-images, or refuses UVIAN_SUPABASE_KEY: `uvian migrate` makes "
        'it, or in the dashboard Storage > New bucket "uvian-images" (private).'
    )


def _not_taken(message: str) -> errors.RepositoryError:
    return errors.DataError(f"The bucket uvian-images does not take this picture: {message}")


_STORAGE: Final[dict[int, Callable[[str], errors.RepositoryError]]] = {
    401: _wrong_key,
    403: _wrong_key,
    404: _no_bucket,
    409: errors.Conflict,
    413: _not_taken,
    415: _not_taken,
}
