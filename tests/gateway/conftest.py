"""A gateway on the real database and the real Redis, over each adapter."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.adapters import Adapter
from tests.gateway.site import Site, config_of, opened
from tests.lifecycle import world as worlds
from tests.lifecycle.world import World


@pytest.fixture
async def world(adapter: Adapter) -> AsyncIterator[World]:
    """What is behind the gateway, and a hand in it."""
    async with worlds.opened(adapter) as world:
        yield world


@pytest.fixture
async def site(world: World, redis_url: str, tmp_path: Path) -> AsyncIterator[Site]:
    """A gateway that listens; the type ``noop`` is open to browsers."""
    async with opened(world, config_of(world.adapter, redis_url, tmp_path)) as site:
        await site.open()
        yield site
