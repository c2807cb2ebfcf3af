"""Connections that can be dropped, not only closed."""

from __future__ import annotations

__all__ = ["Lines", "dropping"]

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import aiohttp
from aiohttp.connector import Connection

_used: ContextVar[list[asyncio.Transport] | None] = ContextVar("used", default=None)


@contextmanager
def dropping() -> Iterator[None]:
    """Drop the connections that the block has used, at once, unless it ends well.

    aiohttp closes them, and a connection that is closed first sends what is still to be sent: to a
    server that has stopped reading in the middle of an upload, for ever.
    """
    used: list[asyncio.Transport] = []
    token = _used.set(used)
    try:
        yield
    except BaseException:
        for transport in used:
            transport.abort()
        raise
    finally:
        _used.reset(token)


class Lines(aiohttp.TCPConnector):
    """Connections, each known to the block that uses it."""

    async def connect(
        self,
        req: Any,
        traces: Any,
        timeout: Any,  # noqa: ASYNC109 - its name in aiohttp
    ) -> Connection:
        """A connection, new or used before."""
        connection = await super().connect(req, traces, timeout)
        used = _used.get()
        if used is not None and isinstance(connection.transport, asyncio.Transport):
            used.append(connection.transport)
        return connection
