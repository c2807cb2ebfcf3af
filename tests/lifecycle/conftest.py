"""A world for each test of the lifecycle."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.lifecycle.world import World, opened
from tests.servers import CleanDatabase


@pytest.fixture
async def world(database: CleanDatabase) -> AsyncIterator[World]:
    """A database with the type ``noop``, and nobody in it."""
    async with opened(database) as world:
        yield world
