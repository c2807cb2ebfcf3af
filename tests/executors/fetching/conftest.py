"""The internet of a test, and a fetcher in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from executors.fetching import Fetcher
from tests.executors.fetching.internet import INSIDE, PUBLIC, Internet


@pytest.fixture
async def internet() -> AsyncIterator[Internet]:
    """Both servers, running."""
    internet = Internet(names={"public.example": [PUBLIC]})
    public = await asyncio.start_server(internet.serve, str(PUBLIC), 0)
    inside = await asyncio.start_server(internet.intrude, str(INSIDE), 0)
    internet.port = public.sockets[0].getsockname()[1]
    internet.inside_port = inside.sockets[0].getsockname()[1]
    async with public, inside:
        yield internet


@pytest.fixture
async def fetcher(internet: Internet) -> AsyncIterator[Fetcher]:
    """A fetcher that may use http."""
    fetcher = internet.fetcher()
    yield fetcher
    await fetcher.close()
