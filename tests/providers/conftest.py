"""A laboratory, a session, and wires that are in a hurry."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from executors.providers.http import open_session
from tests.providers.lab import VENDORS
from tests.providers.lab.server import Lab


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    """The laboratory, open for one test."""
    async with Lab(VENDORS) as lab:
        yield lab


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """The session of the process."""
    async with open_session() as session:
        yield session
