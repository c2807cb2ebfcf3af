"""The one client of Supabase that a process has: supabase-py's, with our deadlines, tries and words."""

from __future__ import annotations

__all__ = ["Supabase", "connect_supabase", "translated"]

import asyncio
import json
import random
import re
from base64 import urlsafe_b64decode
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import httpx
import orjson
import pydantic
from postgrest import APIError
from storage3.exceptions import StorageApiError
from supabase import AsyncClient, AsyncClientOptions

from repositories import errors
from repositories.images import missing
from repositories.sqlstates import by_state

T = TypeVar("T")

_TRIES: Final = 3
_CONNECT_SECONDS: Final = 5.0
#: An idle connection is let go before any gateway would: one that is closed under our feet costs a try.
_IDLE_SECONDS: Final = 15.0


class Supabase:
    """A project's API: ``rest`` for the schema ``uvian``, ``storage`` for its files.

    HTTP/1.1, because a connection that was cut without a word is then one call's fault and not all
    calls': over HTTP/2 they share it until the operating system notices.
    """

    def __init__(self, client: AsyncClient, http: httpx.AsyncClient) -> None:
        self.rest = client.postgrest
        self.storage = client.storage
        self._http = http
        self._closed = False

    async def answer(
        self,
        ask: Callable[[], Awaitable[T]],
        *,
        timeout: float,  # noqa: ASYNC109 - of all tries together
        tries: int = _TRIES,
    ) -> T:
        """What ``ask`` answers within ``timeout`` seconds; raises only ``repositories.errors``.

        While the answer is ``Unavailable`` it is asked again, after a moment: enough for a
        connection that was closed meanwhile. A longer outage is the caller's to wait for.
        """
        try:
            async with asyncio.timeout(timeout):
                for attempt in range(1, tries):
                    try:
                        return await self._ask(ask)
                    except errors.Unavailable:
                        await asyncio.sleep(random.uniform(0.5, 1) * 0.1 * attempt)  # noqa: S311 - jitter
                return await self._ask(ask)
        except TimeoutError as error:
            raise errors.TimedOut(f"Supabase did not answer within {timeout:g} s.") from error

    async def close(self) -> None:
        """Close every connection; closing twice is fine."""
        self._closed = True
        await self._http.aclose()

    async def _ask(self, ask: Callable[[], Awaitable[T]]) -> T:
        if self._closed:
            raise errors.Unavailable("The connection to Supabase is closed.")
        try:
            return await ask()
        except Exception as error:
            raise translated(error) from error


def connect_supabase(url: str, key: str) -> Supabase:
    """The client of the project at ``url``, as the service; no call is made yet.

    Raises ``Misconfigured`` for what is no project's URL, and for a key that is not the service's.
    """
    url, key = url.strip(), key.strip()
    _require_url(url)
    _require_secret(key)
    _require_one_project(url, key)
    # The deadlines are `Supabase.answer`'s: these only end what nobody waits for any more.
    http = httpx.AsyncClient(
        timeout=httpx.Timeout(120, connect=_CONNECT_SECONDS),
        limits=httpx.Limits(max_keepalive_connections=16, keepalive_expiry=_IDLE_SECONDS),
    )
    options = AsyncClientOptions(
        schema="uvian",
        auto_refresh_token=False,
        persist_session=False,
        # Its own pauses (1, 2 and 4 s) are longer than a renewal of leases may take.
        postgrest_client_retry=False,
        httpx_client=http,
    )
    return Supabase(AsyncClient(url, key, options), http)


# ─── settings ────────────────────────────────────────────────────────────────────────────────────

_SECRET: Final = re.compile(r"sb_secret_[A-Za-z0-9_-]+")
_JWT: Final = re.compile(r"[A-Za-z0-9_-]+\.([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+")
_WHERE_THE_KEY_IS: Final = (
    "the secret key (sb_secret_…) or the legacy service_role key, from Project Settings > API Keys"
)


def _require_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        well_formed = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        well_formed = False
    if not well_formed or re.search(r"/v1\b|/dashboard/|[?#@\s]", url):
        raise errors.Misconfigured(
            "UVIAN_SUPABASE_URL is not the URL of a project: it reads https://<ref>.supabase.co "
            "(Project Settings > Data API > Project URL), without a path."
        )
    if url.startswith("http:") and _project(url):
        raise errors.Misconfigured(
            "UVIAN_SUPABASE_URL begins with http:, which would send the key in the clear: make it https:."
        )


def _require_secret(key: str) -> None:
    if key.startswith("sb_publishable_"):
        raise errors.Misconfigured(
            f"UVIAN_SUPABASE_KEY is a publishable key, which every browser has: give {_WHERE_THE_KEY_IS}."
        )
    if _SECRET.fullmatch(key):
        return
    role = _claims(key).get("role")
    if role is None:
        raise errors.Misconfigured(
            f"UVIAN_SUPABASE_KEY is no key of Supabase: give {_WHERE_THE_KEY_IS}."
        )
    if role != "service_role":
        raise errors.Misconfigured(
            f"UVIAN_SUPABASE_KEY is a key of the role {role!r}: give {_WHERE_THE_KEY_IS}."
        )


def _require_one_project(url: str, key: str) -> None:
    """The legacy keys name their project, and so do most URLs."""
    ref, project = _claims(key).get("ref"), _project(url)
    if ref and project and ref != project:
        raise errors.Misconfigured(
            f"UVIAN_SUPABASE_KEY is a key of the project {ref}, and UVIAN_SUPABASE_URL is that of {project}."
        )


def _project(url: str) -> str | None:
    host = urlsplit(url).hostname or ""
    return host.removesuffix(".supabase.co") if host.endswith(".supabase.co") else None


def _claims(key: str) -> dict[str, Any]:
    """What a JWT says of itself, unverified: the gateway verifies it. Nothing when it is none."""
    match = _JWT.fullmatch(key)
    if match is None:
        return {}
    try:
        claims = orjson.loads(urlsafe_b64decode(match[1] + "=" * (-len(match[1]) % 4)))
    except ValueError:
        return {}
    return claims if isinstance(claims, dict) else {}


# ─── errors ──────────────────────────────────────────────────────────────────────────────────────

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
            f"{message}. UVIAN_SUPABASE_KEY must be {_WHERE_THE_KEY_IS}; if it is, run `uvian migrate`, "
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
        f"Supabase refuses UVIAN_SUPABASE_KEY ({message.rstrip('.')}): give {_WHERE_THE_KEY_IS}."
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
