"""``/health/live`` and ``/health/ready``: for an orchestrator and a load balancer, without a token.

Redis is reported and does not decide: without it jobs are still taken, and run when it is back.
"""

from __future__ import annotations

__all__ = ["Health"]

import orjson
from aiohttp import web

from uvian_worker.gateway.http.problems import Problem
from uvian_worker.process.health import Checks


class Health:
    """The two endpoints. ``checks`` answers a sentence per part, ``ok`` when it is."""

    def __init__(self, checks: Checks) -> None:
        self._checks = checks

    async def live(self, _: web.Request) -> web.Response:
        """The event loop answers."""
        return _said({"status": "ok"})

    async def ready(self, _: web.Request) -> web.Response:
        """Whether requests belong here: 503 when not."""
        parts = dict(await self._checks())
        faults = {name for name, state in parts.items() if state != "ok"}
        if faults - {"redis"}:
            raise Problem("unavailable", checks=parts)
        return _said({"status": "degraded" if faults else "ok", "checks": parts})


def _said(document: object) -> web.Response:
    return web.Response(
        body=orjson.dumps(document),
        headers={"Cache-Control": "no-store"},
        content_type="application/json",
    )
