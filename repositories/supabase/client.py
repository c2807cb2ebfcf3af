"""The one client of Supabase that a process has: supabase-py's, with our deadlines, retries and errors."""

from __future__ import annotations

__all__ = ["TRIES", "Supabase", "connect_supabase"]

import asyncio
import re
from base64 import urlsafe_b64decode
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import httpx
import orjson
from supabase import AsyncClient, AsyncClientOptions

from repositories import errors
from repositories.supabase.errors import THE_KEY, translated
from uvian_common.backoff import retry

T = TypeVar("T")

TRIES: Final = 3  #: of a call that may be repeated
_CONNECT_SECONDS: Final = 5.0
#: An idle connection is closed before any gateway would close it: a closed one costs a try.
_IDLE_SECONDS: Final = 15.0


class Supabase:
    """A project's API: ``rest`` for the schema ``uvian``, ``storage`` for its files.

    HTTP/1.1, because a connection that was cut silently then fails one call. Over HTTP/2 all calls share
    it, and fail until the operating system notices.
    """

    def __init__(self, client: AsyncClient, http: httpx.AsyncClient) -> None:
        self.rest = client.postgrest
        self.storage = client.storage
        self._http = http
        self._closed = False

    async def call(
        self,
        request: Callable[[], Awaitable[T]],
        *,
        timeout: float,  # noqa: ASYNC109 - of all tries together
        tries: int = TRIES,
    ) -> T:
        """The answer to ``request`` within ``timeout`` seconds; raises only ``repositories.errors``.

        While the answer is ``Unavailable`` the request is repeated after a short pause. That is enough
        for a connection that was closed meanwhile. For a longer outage the caller waits.
        """
        if self._closed:
            raise _closed()
        try:
            async with asyncio.timeout(timeout):
                return await retry(
                    lambda: self._request(request),
                    errors.Unavailable,
                    tries=tries,
                    first=0.1,
                    longest=0.3,
                )
        except TimeoutError as error:
            raise errors.TimedOut(f"Supabase did not answer within {timeout:g} s.") from error

    async def close(self) -> None:
        """Close every connection; closing twice is fine."""
        self._closed = True
        await self._http.aclose()

    async def _request(self, request: Callable[[], Awaitable[T]]) -> T:
        try:
            return await request()
        except Exception as error:
            raise (_closed() if self._closed else translated(error)) from error


def _closed() -> errors.Unavailable:
    return errors.Unavailable("The connection to Supabase is closed.")


def connect_supabase(url: str, key: str) -> Supabase:
    """The client of the project at ``url``, as the service; no call is made yet.

    Raises ``Misconfigured`` for what is no project's URL, and for a key that is not the service's.
    """
    url, key = url.strip(), key.strip()
    _require_url(url)
    _require_secret(key)
    _require_one_project(url, key)
    # The deadlines are those of `Supabase.call`: these only end calls without a caller.
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
            f"UVIAN_SUPABASE_KEY is a publishable key, which every browser has: give {THE_KEY}."
        )
    if _SECRET.fullmatch(key):
        return
    role = _claims(key).get("role")
    if role is None:
        raise errors.Misconfigured(f"UVIAN_SUPABASE_KEY is no key of Supabase: give {THE_KEY}.")
    if role != "service_role":
        raise errors.Misconfigured(
            f"UVIAN_SUPABASE_KEY is a key of the role {role!r}: give {THE_KEY}."
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
