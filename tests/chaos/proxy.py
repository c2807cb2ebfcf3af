"""A TCP proxy that is told how to fail: what stands between a process and its servers."""

from __future__ import annotations

__all__ = ["Mode", "Proxy"]

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Literal, Self

Mode = Literal["open", "refused", "closing", "hole"]
Dial = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]

_CHUNK = 65_536


class Proxy:
    """Listens on 127.0.0.1 and passes on to what ``dial`` connects to.

    ``refused``: nobody listens. ``closing``: connections are accepted and closed. ``hole``: what is
    sent goes nowhere, on old connections as well. ``delay`` seconds are added to every piece, and a
    share ``losing`` of the answers is lost with its connection, after the server has done the work.
    """

    def __init__(self, dial: Dial, chance: random.Random) -> None:
        self._dial = dial
        self._chance = chance
        self._mode: Mode = "open"
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server: asyncio.Server | None = None
        self._pairs: set[asyncio.Task[None]] = set()
        self.delay = 0.0
        self.losing = 0.0
        self.port = 0

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._hang_up()
        self.cut()

    async def set(self, mode: Mode) -> None:
        """Behave so from now on; whatever changes the way cuts what is on it."""
        self._mode = mode
        if mode == "hole":
            self._flowing.clear()
            return
        self._flowing.set()
        if mode == "open":
            await self._listen()
            return
        if mode == "refused":
            await self._hang_up()
        self.cut()

    def cut(self) -> None:
        """Cut every connection, in the middle of what it carries."""
        for pair in self._pairs:
            pair.cancel()

    @contextlib.asynccontextmanager
    async def behaving(self, mode: Mode) -> AsyncIterator[None]:
        """For a while."""
        await self.set(mode)
        try:
            yield
        finally:
            await self.set("open")
            self.cut()

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _hang_up(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._mode == "closing":
            writer.close()
            return
        pair = asyncio.current_task()
        assert pair is not None
        self._pairs.add(pair)
        try:
            await self._carry(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # cut, by us or by either side
        finally:
            self._pairs.discard(pair)
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._flowing.wait()
        upstream, to_upstream = await self._dial()
        ways = [
            asyncio.create_task(self._pump(reader, to_upstream)),
            asyncio.create_task(self._pump(upstream, writer, answers=True)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            to_upstream.transport.abort()

    async def _pump(
        self, source: asyncio.StreamReader, to: asyncio.StreamWriter, *, answers: bool = False
    ) -> None:
        while piece := await source.read(_CHUNK):
            await self._flowing.wait()
            if self.delay:
                await asyncio.sleep(self.delay)
            if answers and self.losing and self._chance.random() < self.losing:
                return
            to.write(piece)
            await to.drain()
