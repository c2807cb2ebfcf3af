"""A world for each test of the lifecycle."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.adapters import Adapter
from tests.lifecycle.world import World, opened


@pytest.fixture
async def world(adapter: Adapter) -> AsyncIterator[World]:
    """A database with the type ``noop``, and nobody in it."""
    async with opened(adapter) as world:
        yield world
