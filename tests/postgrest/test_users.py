"""What a stranger is refused over HTTP, and a storm of users and workers, through a real PostgREST."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.adapters import Adapter, OverPostgres, OverSupabase
from tests.lifecycle.test_storm import (  # noqa: F401 - collected here once more
    test_a_storm_of_everything_ends_with_everything_ended,
)
from tests.lifecycle.world import World, opened
from tests.security.conftest import owner  # noqa: F401 - a fixture
from tests.security.test_http import *  # noqa: F403
from tests.servers import CleanDatabase
from tests.supabase.platform import Platform

pytestmark = pytest.mark.e2e


@pytest.fixture
def any_database(database: CleanDatabase) -> CleanDatabase:
    """Of a project with the new default privileges: the old ones are asked for elsewhere."""
    return database


@pytest.fixture  # type: ignore[no-redef]  # theirs is a double
def project(platform: Platform) -> Platform:
    """The one whose PostgREST is real."""
    return platform


@pytest.fixture
def adapter(database: CleanDatabase, platform: Platform) -> Adapter:
    """Workers over the same API."""
    return OverSupabase(database, platform)


@pytest.fixture
async def world(database: CleanDatabase, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """The storm comes over the API; what a stranger is asked about is made beside it."""
    storm = "storm" in request.node.name
    way = request.getfixturevalue("adapter") if storm else OverPostgres(database)
    async with opened(way) as world:
        yield world
