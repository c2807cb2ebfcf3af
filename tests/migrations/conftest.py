"""Databases to migrate, and folders to migrate them from."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from tests.servers import CleanDatabase, Clones
from uvian_worker.schema.history import Migration, Repeatable, load
from uvian_worker.schema.migrate import bootstrap


@pytest.fixture
def new_database(clones: Clones) -> Iterator[Callable[[], Awaitable[CleanDatabase]]]:
    """Makes databases that were neither bootstrapped nor migrated, gone after the test."""
    made: list[CleanDatabase] = []

    async def make() -> CleanDatabase:
        made.append(await asyncio.to_thread(clones.blank))
        return made[-1]

    yield make
    for database in made:
        clones.drop(database)


@pytest.fixture
async def plain(blank_database: CleanDatabase) -> CleanDatabase:
    """A bootstrapped database without the schema."""
    await bootstrap(blank_database.superuser_dsn)
    return blank_database


@pytest.fixture
def release(tmp_path: Path) -> Callable[[int], Path]:
    """Makes the folder of a release that has this release's first so many steps."""

    def make(count: int) -> Path:
        folder = tmp_path / f"release-{count}"
        paragraphs: list[list[str]] = []
        for step in load().steps[:count]:
            for file in step:
                room = "migrations/" if isinstance(file, Migration) else ""
                path = folder / f"{room}{file.label}.sql"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(file.sql, encoding="utf-8")
            paragraphs.append([file.label for file in step if isinstance(file, Repeatable)])
        text = "\n\n".join("\n".join(paragraph) for paragraph in paragraphs if paragraph)
        (folder / "order.txt").write_text(text)
        return folder

    return make


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A team's ``supabase/migrations``, empty."""
    folder = tmp_path / "supabase" / "migrations"
    folder.mkdir(parents=True)
    return folder
