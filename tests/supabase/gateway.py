"""What stands in front: API keys, faults, and which half a request is for."""

from __future__ import annotations

__all__ = ["Asked", "Gateway", "Limits", "RestHalf"]

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import orjson
from aiohttp import web

from tests.supabase.faults import ACTIONS, Faults, named
from tests.supabase.keys import Keys
from tests.supabase.pool import Pool
from tests.supabase.rest import Rest
from tests.supabase.storage import Storage
from tests.supabase.strikes import struck

_BIGGEST_BODY: Final = 256 * 1024 * 1024
_SECRETS: Final = {"authorization", "apikey", "cookie"}
_KEEP_ALIVE_SECONDS: Final = 75.0


class RestHalf(Protocol):
    """Who answers ``/rest/v1``: the double, or a real PostgREST."""

    def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def answer(self, request: web.BaseRequest, token: str | None) -> web.Response: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """The settings of the project."""

    schemas: tuple[str, ...]
    max_rows: int
    pool_size: int
    acquisition_timeout: float


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that arrived; its headers are without keys."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    at: float


class Gateway:
    """One address for all."""

    def __init__(
        self,
        dsn: str,
        folder: Path,
        keys: Keys,
        limits: Limits,
        faults: Faults,
        record: Callable[[str, str, str, dict[str, str]], None],
        rest: RestHalf | None = None,
    ) -> None:
        self._keys = keys
        self._faults = faults
        self._record = record
        pool = Pool(
            dsn,
            name="PostgREST 14",
            size=limits.pool_size,
            acquisition_timeout=limits.acquisition_timeout,
        )
        double = Rest(dsn, keys, schemas=limits.schemas, max_rows=limits.max_rows, pool=pool)
        self._rest: RestHalf = rest or double
        self._storage = Storage(folder, keys, Pool(dsn, name="Supabase Storage API"))
        self._runner: web.ServerRunner | None = None

    async def start(self, port: int) -> int:
        """Listen on 127.0.0.1; answers the port."""
        server = web.Server(
            self._handle,
            request_factory=_request,
            keepalive_timeout=_KEEP_ALIVE_SECONDS,
            access_log=None,
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port, reuse_address=True, backlog=1024)
        await site.start()
        self._rest.start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Listen no more, and let go of everything."""
        if self._runner is not None:
            await self._runner.cleanup()
        await self._rest.stop()
        self._storage.stop()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.rel_url.raw_path
        if path == "/_faults":
            return await self._script(request)
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _SECRETS}
        self._record(request.method, path, request.rel_url.raw_query_string, headers)
        action = self._faults.strike(request.method, path)
        if action is None:
            return await self._answer(request, path)
        return await struck(request, action, lambda: self._answer(request, path))

    async def _answer(self, request: web.BaseRequest, path: str) -> web.Response:
        if path.startswith("/rest/v1/") or path == "/rest/v1":
            token = self._token(request)
            if isinstance(token, web.Response):
                return token
            return await self._rest.answer(request, token)
        if path.startswith("/storage/v1/"):
            return await self._storage.answer(request, self._token_of_storage(request))
        if path == "/auth/v1/.well-known/jwks.json":
            return _json(200, self._keys.jwks())
        return _json(404, {"message": "no Route matched with those values"})

    # ─── keys ────────────────────────────────────────────────────────────────────────────────────

    def _token(self, request: web.BaseRequest) -> str | web.Response:
        """The JWT that PostgREST gets: an opaque key is exchanged for one of its role."""
        key = request.headers.get("apikey") or request.rel_url.query.get("apikey")
        if not key:
            hint = "No `apikey` request header or url param was found."
            return _json(401, {"message": "No API key found in request", "hint": hint})
        role = self._keys.role_of(key)
        if role is None:
            hint = "Double check your Supabase `anon` or `service_role` API key."
            return _json(401, {"message": "Invalid API key", "hint": hint})
        token = _bearer(request)
        return self._jwt(role) if token in (None, key) else str(token)

    def _token_of_storage(self, request: web.BaseRequest) -> str | None:
        """Signed and public files need no key; an opaque one is exchanged here as well."""
        token = _bearer(request)
        key = request.headers.get("apikey")
        role = self._keys.role_of(token or key or "")
        return self._jwt(role) if role else token

    def _jwt(self, role: str) -> str:
        return self._keys.service_key if role == "service_role" else self._keys.anon_key

    # ─── faults ──────────────────────────────────────────────────────────────────────────────────

    async def _script(self, request: web.BaseRequest) -> web.Response:
        """``/_faults``, for those who drive it from another process."""
        match request.method:
            case "POST":
                wanted = orjson.loads(await request.read())
                if "down" in wanted:
                    half = wanted.get("half")
                    (self._faults.down if wanted["down"] else self._faults.up)(half)
                elif wanted.get("action") not in ACTIONS:
                    return _json(400, {"message": f"action is one of {', '.join(ACTIONS)}"})
                else:
                    options = {"path", "method", "writes", "every", "times"} & wanted.keys()
                    self._faults.add(named(wanted), **{name: wanted[name] for name in options})
            case "DELETE":
                self._faults.clear()
        rules = [
            {"action": rule.action.kind, "path": rule.path, "seen": rule.seen, "hits": rule.hits}
            for rule in self._faults.rules
        ]
        return _json(200, {"hits": self._faults.hits, "rules": rules})


def _request(*arguments: Any) -> web.BaseRequest:
    message, payload, protocol, writer, task = arguments
    loop = asyncio.get_running_loop()
    return web.BaseRequest(
        message, payload, protocol, writer, task, loop, client_max_size=_BIGGEST_BODY
    )


def _bearer(request: web.BaseRequest) -> str | None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _json(status: int, body: Any) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(body), content_type="application/json")
