"""The application: every operation on one router, behind the same few rules."""

from __future__ import annotations

__all__ = ["Gateway", "application"]

import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
from aiohttp import web

from repositories.database import Database
from repositories.images import ImageStore
from repositories.local_images import LocalImages
from uvian_worker import __version__
from uvian_worker.client import Client
from uvian_worker.eventstream.reader import Reader
from uvian_worker.gateway.auth import TokenVerifier, User
from uvian_worker.gateway.concepts import concept_operations
from uvian_worker.gateway.files import FolderFiles, file_operations
from uvian_worker.gateway.health import Health
from uvian_worker.gateway.jobs import job_operations
from uvian_worker.gateway.limits import Limits
from uvian_worker.gateway.live.feeds import Feeds
from uvian_worker.gateway.live.session import Rules
from uvian_worker.gateway.live.sse import JobStreams
from uvian_worker.gateway.live.topics import Topics
from uvian_worker.gateway.live.websocket import LiveSockets
from uvian_worker.gateway.openapi import document_of
from uvian_worker.gateway.operations import Operation, handler_of
from uvian_worker.gateway.page import Page
from uvian_worker.gateway.problems import Problem, problem_of
from uvian_worker.health import Checks
from uvian_worker.sweeper import Sweeper

log = logging.getLogger("uvian.gateway")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

#: On everything that is answered; the page adds a policy of its own.
_SECURITY_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Strict-Transport-Security": "max-age=31536000",
}
_SENT: Final = "Authorization, Content-Type, Idempotency-Key, Last-Event-ID"
_WRITES: Final = ("POST", "PATCH", "DELETE")


@dataclass(frozen=True, slots=True)
class Gateway:
    """What the endpoints stand on: built once per process, by ``uvian_worker.gateway.serving``."""

    database: Database
    client: Client
    reader: Reader
    images: ImageStore
    verifier: TokenVerifier
    limits: Limits
    sweeper: Sweeper
    checks: Checks
    origins: frozenset[str]  #: that may call from a browser; "*" is all
    pictures_from: tuple[str, ...]  #: other origins that signed addresses have
    max_body: int  #: bytes


def application(gateway: Gateway) -> web.Application:
    """All endpoints; starting and closing what they stand on is the caller's."""
    operations = [
        *job_operations(gateway.database, gateway.client),
        *concept_operations(gateway.database, gateway.images),
        *file_operations(gateway.images),
    ]
    feeds, topics = Feeds(gateway.reader), Topics(gateway.database)
    sockets = LiveSockets(
        Rules(feeds, topics, gateway.verifier, gateway.limits), _live_admission(gateway)
    )
    streams = JobStreams(feeds, topics, _live_admission(gateway), clock=time.time)
    app = web.Application(
        client_max_size=gateway.max_body,
        middlewares=[_told(), _across_origins(gateway.origins)],
    )
    for operation in operations:
        handler = handler_of(operation, _admission(gateway))
        app.router.add_route(operation.method, operation.route, handler)
    app.router.add_get("/v1/live", sockets.handle)
    app.router.add_get("/v1/jobs/{job_id}/events", streams.handle)
    health = Health(gateway.checks)
    app.router.add_get("/health/live", health.live)
    app.router.add_get("/health/ready", health.ready)
    app.router.add_get("/openapi.json", _document(operations))
    if isinstance(gateway.images, LocalImages):
        app.router.add_get("/v1/files/{path:.+}", FolderFiles(gateway.images).handle)
    app.router.add_routes(Page(pictures_from=gateway.pictures_from).routes())

    async def hang_up(_: web.Application) -> None:
        await sockets.close()
        await feeds.close()

    app.on_shutdown.append(hang_up)
    return app


def _admission(gateway: Gateway) -> Callable[[web.Request, Operation], Awaitable[User]]:
    async def admit(request: web.Request, operation: Operation) -> User:
        user = await gateway.verifier.verify(_bearer(request))
        kind = "write" if operation.method in _WRITES else "read"
        await gateway.limits.spend(kind, user.id)
        return user

    return admit


def _live_admission(gateway: Gateway) -> Callable[[web.Request, str], Awaitable[User]]:
    async def admit(_: web.Request, token: str) -> User:
        if not token:
            raise Problem("unauthorized", "Send the access token.")
        user = await gateway.verifier.verify(token)
        await gateway.limits.spend("connect", user.id)
        return user

    return admit


def _bearer(request: web.Request) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Problem("unauthorized", "Send the access token: Authorization: Bearer <token>.")
    return token.strip()


# ─── rules for all ───────────────────────────────────────────────────────────────────────────────


def _told() -> Any:
    """Every error becomes a problem document, every answer has an id; what nobody foresaw is logged."""

    @web.middleware
    async def told(request: web.Request, handler: Handler) -> web.StreamResponse:
        request_id = secrets.token_hex(8)
        try:
            response = await handler(request)
        except web.HTTPException as error:
            response = _problem(_of_aiohttp(error), request_id)
        except Exception as error:  # noqa: BLE001 - the client is told, and so is the log
            response = _problem(_noted(error, request, request_id), request_id)
        if not response.prepared:
            for name, value in {**_SECURITY_HEADERS, "X-Request-Id": request_id}.items():
                response.headers.setdefault(name, value)
        return response

    return told


def _noted(error: Exception, request: web.Request, request_id: str) -> Problem:
    problem = problem_of(error)
    # The route, not the path: ids of users stay out of the log, and tokens in a query even more so.
    resource = request.match_info.route.resource
    where = f"{request.method} {resource.canonical if resource else '?'} ({request_id})"
    if problem.kind.status == 500:
        log.error("%s: %s", where, error, exc_info=error)
    elif problem.kind.status == 503:
        log.warning("%s: %s: %s", where, type(error).__name__, error)
    return problem


def _of_aiohttp(error: web.HTTPException) -> Problem:
    match error:
        case web.HTTPNotFound():
            return Problem("not_found", "There is nothing at this address.")
        case web.HTTPMethodNotAllowed():
            return Problem("method_not_allowed", headers={"Allow": error.headers["Allow"]})
        case web.HTTPRequestEntityTooLarge():
            return Problem("input_too_large")
        case _ if error.status < 400:
            raise error  # a redirection is no error
        case _:
            return Problem("bad_request")


def _problem(problem: Problem, request_id: str) -> web.Response:
    return web.Response(
        body=orjson.dumps(problem.document(request_id)),
        status=problem.kind.status,
        headers={"Cache-Control": "no-store", **problem.headers},
        content_type="application/problem+json",
    )


def _across_origins(origins: frozenset[str]) -> Any:
    """CORS for those who were named; credentials are tokens in a header, never cookies."""

    @web.middleware
    async def across(request: web.Request, handler: Handler) -> web.StreamResponse:
        origin = request.headers.get("Origin")
        allowed = origin is not None and ("*" in origins or origin in origins)
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            response: web.StreamResponse = web.Response(status=204)
        else:
            response = await handler(request)
        if allowed and origin is not None and not response.prepared:
            response.headers.update(
                {
                    "Access-Control-Allow-Origin": origin,
                    "Access-Control-Allow-Methods": "GET, POST, PATCH, DELETE",
                    "Access-Control-Allow-Headers": _SENT,
                    "Access-Control-Expose-Headers": "Retry-After, X-Request-Id, Location",
                    "Access-Control-Max-Age": "600",
                    "Vary": "Origin",
                }
            )
        return response

    return across


def _document(operations: Sequence[Operation]) -> Handler:
    body = orjson.dumps(document_of(operations, version=__version__))

    async def handle(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    return handle
