"""One installation and one browser for all of these tests; each has its own people and windows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import redis as blocking_redis
from playwright.async_api import Browser

from tests.adapters import OverPostgres
from tests.e2e.pictures import keep
from tests.e2e.site import Person, Site, opened
from tests.e2e.visitor import Visitor, chromium
from tests.processes.site import opened as opened_workers
from tests.servers import CleanDatabase, Clones
from uvian_worker.local.embedded import EmbeddedRedis

#: Whoever comes to the page: a new person or this one, in a window of this kind.
Visit = Callable[..., Awaitable[Visitor]]

_FAILED = pytest.StashKey[bool]()


@pytest.fixture(scope="package")
def installed_database(database_template: Clones) -> Iterator[CleanDatabase]:
    """A migrated database for all tests of the folder."""
    database = database_template.clone()
    yield database
    database_template.drop(database)


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def site(
    installed_database: CleanDatabase,
    redis_server: EmbeddedRedis,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Site]:
    """Gateway and worker on a real Postgres and a real Redis. A generation costs 2 credits."""
    with blocking_redis.Redis.from_url(redis_server.url) as connection:
        connection.flushall()
    folder: Path = tmp_path_factory.mktemp("site")
    adapter = OverPostgres(installed_database)
    async with (
        opened_workers(adapter, redis_server, folder) as workers,
        opened(workers, folder) as site,
    ):
        yield site


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def browser() -> AsyncIterator[Browser]:
    """Chromium."""
    async with chromium() as browser:
        yield browser


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let fixtures know that their test has failed."""
    report = yield
    if report.when == "call" and report.failed:
        item.stash[_FAILED] = True
    return report


@pytest_asyncio.fixture(loop_scope="package")
async def visit(
    site: Site, browser: Browser, request: pytest.FixtureRequest
) -> AsyncIterator[Visit]:
    """Opens windows; when the test is over, none of their consoles may have complained.

    What a window showed when its test failed is kept in ``.uvian/e2e``.
    """
    visitors: list[Visitor] = []

    async def arrive(person: Person | None = None, **window: Any) -> Visitor:
        who = person or await site.person()
        visitor = await Visitor.arrive(browser, site, who, **window)
        visitors.append(visitor)
        return visitor

    yield arrive
    if request.node.stash.get(_FAILED, False):
        for number, visitor in enumerate(visitors):
            keep(f"failed-{request.node.name}-{number}", await visitor.page.screenshot())
    for visitor in visitors:
        await visitor.leave()
