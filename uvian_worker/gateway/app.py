"""The application: every operation on one router, behind the same few rules."""

from __future__ import annotations

__all__ = ["HANG_UP", "Gateway", "application", "document"]

import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import orjson
from aiohttp import web

from repositories.database import Database
from repositories.images import ImageStore
from repositories.local import LocalImages
from uvian_worker import __version__
from uvian_worker.client import Client
from uvian_worker.events.reader import Reader
from uvian_worker.gateway.endpoints.concepts import ConceptEndpoints
from uvian_worker.gateway.endpoints.conversations import ConversationEndpoints
from uvian_worker.gateway.endpoints.credits import CreditEndpoints
from uvian_worker.gateway.endpoints.executors import ExecutorEndpoints
from uvian_worker.gateway.endpoints.files import FileEndpoints, FolderFiles
from uvian_worker.gateway.endpoints.health import Health
from uvian_worker.gateway.endpoints.invitations import InvitationEndpoints
from uvian_worker.gateway.endpoints.jobs import JobEndpoints
from uvian_worker.gateway.endpoints.messages import MessageEndpoints
from uvian_worker.gateway.endpoints.page import Page
from uvian_worker.gateway.endpoints.wake import Wake
from uvian_worker.gateway.http.auth import TokenVerifier, User
from uvian_worker.gateway.http.client_address import Addresses
from uvian_worker.gateway.http.connections import attended
from uvian_worker.gateway.http.in_flight import InFlight
from uvian_worker.gateway.http.middleware import across_origins, dressed, errors_as_problems
from uvian_worker.gateway.http.operations import Endpoints, Operation, handler_of
from uvian_worker.gateway.http.problems import Problem
from uvian_worker.gateway.http.rate_limits import Limits
from uvian_worker.gateway.job_types import JobTypes
from uvian_worker.gateway.live.feeds import Feeds
from uvian_worker.gateway.live.membership import Membership
from uvian_worker.gateway.live.session import Rules
from uvian_worker.gateway.live.slots import Slots
from uvian_worker.gateway.live.sse import JobStreams
from uvian_worker.gateway.live.topics import Topics
from uvian_worker.gateway.live.websocket import LiveSockets
from uvian_worker.gateway.openapi import document_of
from uvian_worker.process.health import Checks, SharedChecks
from uvian_worker.sweep.sweeper import Sweeper

#: In the order in which the OpenAPI document has them.
_ENDPOINTS: Final = (
    JobEndpoints,
    ConversationEndpoints,
    InvitationEndpoints,
    MessageEndpoints,
    ConceptEndpoints,
    CreditEndpoints,
    FileEndpoints,
    ExecutorEndpoints,
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

#: Ends live connections, so that clients connect again elsewhere, and waits so many seconds for requests.
HANG_UP: Final[web.AppKey[Callable[[float], Awaitable[None]]]] = web.AppKey("hang up")


@dataclass(frozen=True, slots=True)
class Gateway:
    """What the endpoints stand on: built once per process, by ``uvian_worker.gateway.serving``."""

    database: Database
    client: Client
    reader: Reader
    images: ImageStore
    verifier: TokenVerifier
    limits: Limits
    slots: Slots
    addresses: Addresses
    membership: Membership
    sweeper: Sweeper
    checks: Checks
    origins: frozenset[str]  #: that may call from a browser; "*" is all
    pictures_from: tuple[str, ...]  #: other origins that signed addresses have
    max_body: int  #: bytes
    wake_secret: str  #: empty: nobody may wake it


def application(gateway: Gateway) -> web.Application:
    """All endpoints; starting and closing what they stand on is the caller's."""
    preflight, allow = across_origins(gateway.origins)
    in_flight = InFlight()
    app = web.Application(
        client_max_size=gateway.max_body,
        middlewares=[attended, in_flight.counted, errors_as_problems, preflight],
    )
    app.on_response_prepare.extend((dressed, allow, in_flight.said))
    _add_operations(app, gateway)
    _add_plain_paths(app, gateway)
    feeds, sockets, streams = _add_live(app, gateway)

    async def hang_up(seconds: float) -> None:
        streams.close()
        await sockets.close()
        await in_flight.over(seconds)
        await feeds.close()

    app[HANG_UP] = hang_up
    return app


def _add_operations(app: web.Application, gateway: Gateway) -> None:
    for endpoints in _endpoints(gateway):
        for operation, answer in endpoints.handlers():
            handler = handler_of(operation, answer, _admission(gateway))
            app.router.add_route(operation.method, operation.route, handler)


def _add_plain_paths(app: web.Application, gateway: Gateway) -> None:
    """Those that are not JSON in, JSON out for a signed-in user."""
    health = Health(SharedChecks(gateway.checks))
    app.router.add_get("/health/live", health.live)
    app.router.add_get("/health/ready", health.ready)
    app.router.add_get("/openapi.json", _document())
    app.router.add_post("/v1/wake", Wake(gateway.sweeper, gateway.wake_secret).handle)
    if isinstance(gateway.images, LocalImages):
        app.router.add_get("/v1/files/{user_id}/{name}", FolderFiles(gateway.images).handle)
    app.router.add_routes(Page(pictures_from=gateway.pictures_from).routes())


def _add_live(app: web.Application, gateway: Gateway) -> tuple[Feeds, LiveSockets, JobStreams]:
    """Where events are followed: sockets and streams, over the same feeds."""
    feeds, topics = Feeds(gateway.reader), Topics(gateway.database)
    sockets = LiveSockets(
        Rules(feeds, topics, gateway.membership, gateway.verifier, gateway.limits),
        _live_admission(gateway),
        gateway.slots,
        gateway.addresses,
    )
    streams = JobStreams(
        feeds,
        topics,
        _live_admission(gateway),
        gateway.slots,
        gateway.addresses,
        clock=time.time,
    )
    app.router.add_get("/v1/live", sockets.handle)
    app.router.add_get("/v1/jobs/{job_id}/events", streams.handle)
    return feeds, sockets, streams


def document() -> dict[str, Any]:
    """The OpenAPI document: that of every gateway of this release."""
    operations = [each for kind in _ENDPOINTS for each in kind.operations.values()]
    return document_of(operations, version=__version__)


def _endpoints(gateway: Gateway) -> Iterator[Endpoints]:
    """All that takes JSON and answers JSON, for signed-in users: one of each of ``_ENDPOINTS``."""
    database, client, images = gateway.database, gateway.client, gateway.images
    types = JobTypes(database)
    yield JobEndpoints(database, client, types)
    yield ConversationEndpoints(database, client)
    yield InvitationEndpoints(database, client)
    yield MessageEndpoints(database, client, types)
    yield ConceptEndpoints(database, images)
    yield CreditEndpoints(database)
    yield FileEndpoints(database, images)
    yield ExecutorEndpoints(database, types)


def _admission(gateway: Gateway) -> Callable[[web.Request, Operation], Awaitable[User]]:
    async def admit(request: web.Request, operation: Operation) -> User:
        user = await gateway.verifier.verify(_bearer(request))
        kind = "read" if operation.reads or operation.method == "GET" else "write"
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


def _document() -> Handler:
    body = orjson.dumps(document())

    async def handle(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    return handle
