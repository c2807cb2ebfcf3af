"""A database of each kind, with something in every table that somebody could want."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.adapters import OverPostgres
from tests.lifecycle.world import World, opened
from tests.servers import CleanDatabase, Clones


@pytest.fixture(scope="session")  # whoever else has its turn in between
def old_defaults(clones: Clones) -> Clones:
    """A template as projects made before 30 October 2026 have it: everything granted to everybody."""
    clones.prepare(template="uvian_old_defaults", old_defaults=True)
    return clones


@pytest.fixture
def old_database(old_defaults: Clones) -> Iterator[CleanDatabase]:
    """A database with the old default privileges."""
    database = old_defaults.clone("uvian_old_defaults")
    yield database
    old_defaults.drop(database)


@pytest.fixture(params=["strict", "old"])
def any_database(request: pytest.FixtureRequest) -> CleanDatabase:
    """A database of each kind of default privileges."""
    name = "database" if request.param == "strict" else "old_database"
    database: CleanDatabase = request.getfixturevalue(name)
    return database


@pytest.fixture
async def world(any_database: CleanDatabase) -> AsyncIterator[World]:
    """A world with something in every table."""
    async with opened(OverPostgres(any_database)) as world:
        yield world


@pytest.fixture
async def owner(world: World) -> str:
    """A user with a row in every table that has users' rows."""
    await world.type(price=1)
    user = await world.user(100)
    await world.worker("w1", "noop")
    job = await world.started(user)
    concept = {
        "id": str(uuid.uuid4()),
        "logo_description": "a",
        "theme_description": "b",
        "image_path": "c",
        "width": 1,
        "height": 1,
    }
    variation = {
        "id": str(uuid.uuid4()),
        "position": 0,
        "name": "n",
        "palette": [],
        "image_path": "c",
        "width": 1,
        "height": 1,
    }
    await world.call(
        "save_checkpoints",
        worker="w1",
        jobs=[{"id": job["id"], "run": 1, "checkpoints": {}, "files": ["c"]}],
    )
    await world.call(
        "store_concept",
        worker="w1",
        job_id=job["id"],
        run=1,
        concept=concept,
        variations=[variation],
    )
    await world.settle(job)
    await world.started(user)
    conversation = await world.conversation(user)
    await world.post(conversation, user)
    await world.service.call(
        "invite_members", conversation_id=conversation, members=[str(uuid.uuid4())]
    )
    return user
