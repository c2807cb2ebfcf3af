"""What holds for every answer: errors are problem documents, headers are safe, other origins are named."""

from __future__ import annotations

__all__ = ["across_origins", "answer_to", "dressed", "errors_as_problems"]

import logging
import secrets
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Final

import orjson
from aiohttp import web

from uvian_worker.gateway.http.auth import KeysAway  # logged once, where it is found
from uvian_worker.gateway.http.problems import Problem, problem_of

log = logging.getLogger("uvian.gateway")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

#: On everything that is answered; the page brings a policy of its own.
_SECURITY_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Strict-Transport-Security": "max-age=31536000",
}
#: Of the request that this task answers: in its headers, in the log, in a problem's ``instance``.
_ID: Final[ContextVar[str]] = ContextVar("uvian request")

_ACROSS: Final = {
    "Access-Control-Allow-Methods": "GET, POST, PATCH, DELETE",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Idempotency-Key, Last-Event-ID",
    "Access-Control-Expose-Headers": "Retry-After, X-Request-Id, Location",
    "Access-Control-Max-Age": "600",
}


@web.middleware
async def errors_as_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error becomes a problem document; what nobody foresaw is logged."""
    _ID.set(secrets.token_hex(8))
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:  # a redirection is no error
            raise
        return _said(_of_aiohttp(error))
    except ConnectionResetError:
        if request.transport is None:
            raise  # the client has gone: no answer can reach it
        return _said(Problem("unavailable"))
    except Exception as error:  # noqa: BLE001 - the client gets it, and the log has it
        return _said(_noted(error, request))


def across_origins(origins: frozenset[str]) -> tuple[Any, Any]:
    """CORS for those who were named, as a middleware (preflights) and a signal (everything).

    Credentials are tokens in a header, never cookies. A page of an origin that was not named may
    send a request, but cannot read the answer.
    """

    @web.middleware
    async def preflight(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            return web.Response(status=204)
        return await handler(request)

    async def allow(request: web.Request, response: web.StreamResponse) -> None:
        origin = request.headers.get("Origin")
        response.headers.add("Vary", "Origin")
        if origin is not None and origin.isascii() and ("*" in origins or origin in origins):
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers.update(_ACROSS)

    return preflight, allow


async def dressed(_: web.Request, response: web.StreamResponse) -> None:
    """The signal that gives every answer its headers, streams and sockets included."""
    if isinstance(response, web.HTTPExpectationFailed):  # aiohttp's own, before any middleware
        _ID.set(secrets.token_hex(8))
        _become(response, Problem("expectation_failed"))
    _dress(response)


def _become(response: web.Response, problem: Problem) -> None:
    body = orjson.dumps(problem.document(_ID.get()))
    response.body = body
    response.headers["Content-Type"] = "application/problem+json"
    response.headers["Content-Length"] = str(len(body))
    response.force_close()


def answer_to(problem: Problem) -> web.Response:
    """An answer to what is no request at all: no middleware has seen it, and none will."""
    _ID.set(secrets.token_hex(8))
    answer = _said(problem)
    _dress(answer)
    return answer


def _dress(response: web.StreamResponse) -> None:
    for name, value in _SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers["Server"] = "uvian"
    response.headers["X-Request-Id"] = _ID.get()


def _noted(error: Exception, request: web.Request) -> Problem:
    problem = problem_of(error)
    # The route, not the path: ids of users stay out of the log, and tokens in a query even more so.
    resource = request.match_info.route.resource
    where = f"{request.method} {resource.canonical if resource else '?'} ({_ID.get()})"
    if problem.kind.status == 500:
        log.error("%s: %s", where, error, exc_info=error)
    elif problem.kind.status == 503 and problem is not error and not isinstance(error, KeysAway):
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
        case _:
            return Problem("bad_request")


def _said(problem: Problem) -> web.Response:
    return web.Response(
        body=orjson.dumps(problem.document(_ID.get())),
        status=problem.kind.status,
        headers={"Cache-Control": "no-store", **problem.headers},
        content_type="application/problem+json",
    )
