"""An internet on this machine with a fetcher in it; a worker's inside on real servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from executors.fetching import Fetcher
from tests.executors.fetching.internet import INSIDE, PUBLIC, Internet
from tests.executors.site import Site, open_site
from tests.servers import CleanDatabase


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


@pytest.fixture
async def site(database: CleanDatabase, tmp_path: Path) -> AsyncIterator[Site]:
    """Jobs of several users on the real database and image store."""
    async with open_site(database, tmp_path / "images") as site:
        yield site
