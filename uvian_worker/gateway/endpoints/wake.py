"""``POST /v1/wake``: a Supabase Database Webhook says that there is a new row; it is dispatched at once.

Whoever only inserts rows is served by the next sweep anyway, within three seconds.
"""

from __future__ import annotations

__all__ = ["HEADER", "Wake"]

import hmac
from typing import Any, Final

import orjson
from aiohttp import web

from uvian_worker.gateway.http.bodies import read_body
from uvian_worker.gateway.http.problems import Problem
from uvian_worker.sweep.sweeper import Sweeper

HEADER: Final = "X-Uvian-Wake"


class Wake:
    """The endpoint; without a secret there is none."""

    def __init__(self, sweeper: Sweeper, secret: str) -> None:
        self._sweeper = sweeper
        self._secret = secret.encode()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """202, and whether the sweeper was woken: rows that are not queued are none of its business."""
        if not self._secret:
            raise Problem("not_found", "There is nothing at this address.")
        shown = request.headers.get(HEADER, "").encode(errors="replace")
        if not hmac.compare_digest(shown, self._secret):
            raise Problem("unauthorized", f"The webhook's secret belongs into the header {HEADER}.")
        woken = _may_be_queued(await read_body(request, request.client_max_size))
        if woken:
            self._sweeper.wake()
        return web.json_response({"woken": woken}, status=202)


def _may_be_queued(body: bytes) -> bool:
    """A webhook sends ``{type, schema, table, record, old_record}``; whatever else comes wakes."""
    try:
        payload: Any = orjson.loads(body)
    except ValueError:
        return True
    record = payload.get("record") if isinstance(payload, dict) else None
    return not isinstance(record, dict) or record.get("status", "queued") == "queued"
