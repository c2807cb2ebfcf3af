"""Requests that are being answered: a gateway that ends waits for them."""

from __future__ import annotations

__all__ = ["InFlight"]

import asyncio
import contextlib
from typing import Any

from aiohttp import web


class InFlight:
    """Counts them. aiohttp's own shutdown would cut off those whose body is still on its way."""

    def __init__(self) -> None:
        self._count = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._last = False

    @property
    def counted(self) -> Any:
        """The middleware."""

        @web.middleware
        async def counted(request: web.Request, handler: Any) -> web.StreamResponse:
            self._count += 1
            self._idle.clear()
            try:
                answer: web.StreamResponse = await handler(request)
                return answer
            finally:
                self._count -= 1
                if not self._count:
                    self._idle.set()

        return counted

    async def said(self, _: web.Request, response: web.StreamResponse) -> None:
        """The signal that ends a connection with its answer, once there shall be no more."""
        if self._last:
            response.force_close()

    async def over(self, seconds: float) -> None:
        """From now on each answer is the last of its connection; wait until none is under way."""
        self._last = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._idle.wait()
