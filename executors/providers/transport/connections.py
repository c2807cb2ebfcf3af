"""Connections that are aborted, not only closed."""

from __future__ import annotations

__all__ = ["AbortableConnector", "abort_on_error"]

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import aiohttp
from aiohttp.connector import Connection

_used: ContextVar[list[asyncio.Transport] | None] = ContextVar("used", default=None)


@contextmanager
def abort_on_error() -> Iterator[None]:
    """Abort the connections that the block has used, at once, unless it ends without an error.

    aiohttp only closes them. A connection that is closed still sends what is in its buffer, and to a
    server that stopped reading in the middle of an upload it would do so without an end.
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


class AbortableConnector(aiohttp.TCPConnector):
    """Makes connections that the ``abort_on_error`` block around a request can abort."""

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
