"""The endpoints that are not JSON in, JSON out for a signed-in user, in OpenAPI's words."""

from __future__ import annotations

__all__ = ["PLAIN_PATHS", "SCHEMES"]

from collections.abc import Mapping
from typing import Any, Final

from uvian_worker.gateway.endpoints.wake import HEADER
from uvian_worker.gateway.http.problems import answers_of

#: How else than by a token in the header somebody may be let in.
SCHEMES: Final[Mapping[str, Any]] = {
    "query": {
        "type": "apiKey",
        "in": "query",
        "name": "access_token",
        "description": "The access token, where a browser cannot set headers.",
    },
    "wake": {"type": "apiKey", "in": "header", "name": HEADER},
}

_LIVE: Final = (
    "unauthorized",
    "invalid_token",
    "token_expired",
    "rate_limited",
    "too_many_sockets",
    "unavailable",
)
_BY_TOKEN: Final[list[dict[str, list[str]]]] = [{"supabase": []}, {"query": []}]


def _json(description: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "required": list(properties), "properties": properties}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _health(summary: str, name: str, **others: Any) -> dict[str, Any]:
    status = {"status": {"type": "string"}}
    return {
        "get": {
            "operationId": name,
            "summary": summary,
            "tags": ["health"],
            "security": [],
            "responses": {"200": _json("OK", status), **others},
        }
    }


_CHECKS: Final = {
    "status": {"type": "string", "enum": ["ok", "degraded"]},
    "checks": {"type": "object", "additionalProperties": {"type": "string"}},
}

PLAIN_PATHS: Final[Mapping[str, Any]] = {
    "/v1/live": {
        "get": {
            "operationId": "live",
            "summary": "A WebSocket for any number of topics; docs/contracts/live.md has its frames",
            "description": "The token may also come as a subprotocol: `uvian, bearer.<token>`.",
            "tags": ["live"],
            "security": _BY_TOKEN,
            "responses": {
                "101": {"description": "Switching Protocols"},
                **answers_of(("bad_request", *_LIVE)),
            },
        }
    },
    "/v1/jobs/{job_id}/events": {
        "get": {
            "operationId": "followJob",
            "summary": "One job's events as Server-Sent Events, on from `Last-Event-ID`, until it ends",
            "tags": ["live"],
            "security": _BY_TOKEN,
            "parameters": [
                {
                    "name": "job_id",
                    "in": "path",
                    "required": True,
                    "schema": {"type": "string", "format": "uuid"},
                },
                {"name": "Last-Event-ID", "in": "header", "schema": {"type": "string"}},
            ],
            "responses": {
                "200": {"description": "OK", "content": {"text/event-stream": {}}},
                **answers_of(("not_found", *_LIVE)),
            },
        }
    },
    "/v1/files/{user_id}/{name}": {
        "get": {
            "operationId": "getFile",
            "summary": "A picture of the local folder, by an address that was signed",
            "tags": ["files"],
            "security": [],
            "parameters": [
                {"name": name, "in": where, "required": True, "schema": {"type": "string"}}
                for name, where in (
                    ("user_id", "path"),
                    ("name", "path"),
                    ("expires", "query"),
                    ("signature", "query"),
                )
            ],
            "responses": {
                "200": {
                    "description": "OK",
                    "content": {kind: {} for kind in ("image/png", "image/webp", "image/jpeg")},
                },
                **answers_of(("forbidden", "not_found", "unavailable")),
            },
        }
    },
    "/v1/wake": {
        "post": {
            "operationId": "wake",
            "summary": "A Supabase Database Webhook says that there is a new row: sweep at once",
            "tags": ["jobs"],
            "security": [{"wake": []}],
            "requestBody": {"content": {"application/json": {"schema": {}}}},
            "responses": {
                "202": _json("Accepted", {"woken": {"type": "boolean"}}),
                **answers_of(("unauthorized", "not_found", "input_too_large")),
            },
        }
    },
    "/health/live": _health("The process answers", "isLive"),
    "/health/ready": _health(
        "Whether requests belong here; without Redis it is `degraded`, and takes jobs all the same",
        "isReady",
        **{"200": _json("OK", _CHECKS), **answers_of(("unavailable",))},
    ),
    "/openapi.json": {
        "get": {
            "operationId": "getDocument",
            "summary": "This document",
            "tags": ["health"],
            "security": [],
            "responses": {"200": {"description": "OK", "content": {"application/json": {}}}},
        }
    },
}
