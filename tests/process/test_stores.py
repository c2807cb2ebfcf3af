"""Which adapters the settings choose, tried before anything is built on them."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from repositories.errors import Misconfigured, SchemaMissing, Unavailable
from repositories.local import LocalImages
from repositories.postgres import PostgresDatabase
from repositories.supabase import SupabaseDatabase, SupabaseImages, connect_supabase
from tests.servers import CleanDatabase
from tests.supabase.platform import Platform
from uvian_worker.config import Config
from uvian_worker.process.stores import Stores

pytestmark = pytest.mark.database


@pytest.fixture
def settings(database: CleanDatabase, platform: Platform, tmp_path: Path) -> dict[str, Any]:
    """Everything there is to choose from."""
    return {
        "database_url": database.dsn,
        "supabase_url": platform.url,
        "supabase_key": platform.service_key,
        "images_dir": tmp_path / "images",
    }


CHOICES = [
    ({"database": "postgres"}, PostgresDatabase, LocalImages),
    ({"database": "postgres", "images": "supabase"}, PostgresDatabase, SupabaseImages),
    ({"database": "supabase"}, SupabaseDatabase, SupabaseImages),
    ({"database": "supabase", "images": "local"}, SupabaseDatabase, LocalImages),
]


@pytest.mark.parametrize(("choice", "rows_in", "files_in"), CHOICES)
async def test_the_settings_choose(
    settings: dict[str, Any], choice: dict[str, Any], rows_in: type, files_in: type
) -> None:
    """Each beside the other; and both work."""
    async with AsyncExitStack() as stack:
        opened = Stores(Config.load({}, **settings, **choice), stack)
        rows, files = await opened.database(), await opened.images()
        assert (type(rows), type(files)) == (rows_in, files_in)
        assert await rows.select("jobs") == []
        stored = await files.put(str(uuid4()), b"x", "image/png")
        assert await files.get(stored.path) == b"x"


async def test_a_process_has_one_client(
    settings: dict[str, Any], platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Built once, shared by database and images, closed with them: nothing is left behind."""
    made: list[Any] = []

    def connect(url: str, key: str) -> Any:
        made.append(connect_supabase(url, key))
        return made[-1]

    monkeypatch.setattr("repositories.supabase.connect_supabase", connect)
    async with AsyncExitStack() as stack:
        opened = Stores(Config.load({}, **settings, database="supabase"), stack)
        database, _ = await opened.database(), await opened.images()
        assert len(made) == 1
    with pytest.raises(Unavailable):
        await database.select("jobs")
    assert made[0]._http.is_closed
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("choice", ["postgres", "supabase"])
async def test_an_old_or_a_newer_schema_says_so(
    settings: dict[str, Any], superuser_dsn: str, choice: str
) -> None:
    """The history is read over whatever transport there is, and a half start is closed."""
    hand = await asyncpg.connect(superuser_dsn)
    latest = await hand.fetchrow(
        "select * from uvian.schema_migrations order by version desc nulls last"
    )
    assert latest is not None
    config = Config.load({}, **settings, database=choice)
    await hand.execute("delete from uvian.schema_migrations where version = $1", latest["version"])
    async with AsyncExitStack() as stack:
        with pytest.raises(
            SchemaMissing, match=f"too old .* run `uvian migrate` .*{latest['name']}"
        ):
            await Stores(config, stack).database()
    await hand.execute(
        "insert into uvian.schema_migrations (version, name, checksum, min_code, release) "
        "values ($1, $2, $3, $4, $5), ($1 + 1, '9999_later', '', '99.0.0', '99.0.0')",
        *(latest[name] for name in ("version", "name", "checksum", "min_code", "release")),
    )
    await hand.close()
    async with AsyncExitStack() as stack:
        with pytest.raises(Misconfigured, match="needs uvian-worker 99"):
            await Stores(config, stack).database()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_missing_bucket_is_found_before_the_first_job(
    settings: dict[str, Any], superuser_dsn: str
) -> None:
    """Not by a job that has paid for its picture."""
    hand = await asyncpg.connect(superuser_dsn)
    await hand.execute("set session_replication_role = replica; delete from storage.buckets")
    await hand.close()
    async with AsyncExitStack() as stack:
        opened = Stores(Config.load({}, **settings, database="supabase"), stack)
        await opened.database()
        with pytest.raises(Misconfigured, match="uvian-images"):
            await opened.images()


async def test_storage_that_is_away_at_the_start_is_waited_for_by_jobs(
    settings: dict[str, Any], platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    """The process starts, because it has other work too, and logs one line."""
    platform.faults.down("storage")
    async with AsyncExitStack() as stack:
        opened = Stores(Config.load({}, **settings, database="supabase"), stack)
        files = await opened.images()
        assert caplog.text.count("the image store is away at the start") == 1
        platform.faults.up("storage")
        stored = await files.put(str(uuid4()), b"x", "image/png")
        assert await files.get(stored.path) == b"x"


async def test_postgres_that_is_away_is_named(settings: dict[str, Any]) -> None:
    """Host and setting, and no password."""
    away = {**settings, "database_url": "postgresql://u:hidden@127.0.0.1:9/app"}
    async with AsyncExitStack() as stack:
        with pytest.raises(Unavailable, match=r"127\.0\.0\.1:9/app \(UVIAN_DATABASE_URL\)") as said:
            await Stores(Config.load({}, **away), stack).database()
    assert "hidden" not in str(said.value)


async def test_a_storage_that_does_not_answer_prevents_no_start(
    settings: dict[str, Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It accepts, and never answers: chats need no pictures, and a gateway has to listen."""
    monkeypatch.setattr("uvian_worker.process.stores._BUCKET_SECONDS", 0.2)

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)
        writer.close()

    server = await asyncio.start_server(deaf, "127.0.0.1", 0)
    settings["supabase_url"] = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with AsyncExitStack() as stack:
        config = Config.load({}, **settings, database="postgres", images="supabase")
        async with asyncio.timeout(10):
            assert isinstance(await Stores(config, stack).images(), SupabaseImages)
    assert "Storage does not answer" in caplog.text
    server.close()
