"""One generation, two ways to the database and two image stores: what is left is the same."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import AsyncExitStack
from operator import itemgetter
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest
from redis.asyncio import Redis

from repositories.images import ImageStore
from tests.adapters import Adapter, OverPostgres, OverSupabase
from tests.processes.site import Site, opened
from tests.servers import Clones
from tests.supabase.platform import Platform
from uvian_worker.config import Config
from uvian_worker.local.embedded import EmbeddedRedis
from uvian_worker.process.stores import Stores
from uvian_worker.redis.keys import Keys

pytestmark = pytest.mark.processes

_ASIDE = (  # what two runs of anything differ in
    (re.compile(r'"[^":]+:\d+:[0-9a-f]{6}"'), '"<worker>"'),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[.\d]*\+00:00"), "<time>"),
    (
        re.compile(r'"(ms|offset_ms|score)":\s*[\d.]+'),
        r'"\1": 0',
    ),  # score: when it is due, in milliseconds
)
_HEALING = b"healing"
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@pytest.fixture
def ways(database_template: Clones, tmp_path: Path) -> Iterator[tuple[Adapter, Adapter]]:
    """Both, each with a database of its own."""
    straight, through = database_template.clone(), database_template.clone()
    with Platform(through.authenticator_dsn, tmp_path / "storage") as platform:
        yield OverPostgres(straight), OverSupabase(through, platform)
    for database in (straight, through):
        database_template.drop(database)


async def test_a_generation_leaves_the_same_rows_and_files(
    ways: tuple[Adapter, Adapter], own_redis: EmbeddedRedis, tmp_path: Path
) -> None:
    """Every table of the schema and every stored byte; ids, times and worker names aside."""
    (tables, files), (their_tables, their_files) = [
        await _left_by(way, own_redis, tmp_path / str(number)) for number, way in enumerate(ways)
    ]
    assert len(tables["concept_variations"]) == 3
    assert len(tables["credit_entries"]) == 3
    assert len(files) == 4
    for table, rows in tables.items():
        assert their_tables.pop(table) == rows, table
    assert their_tables == {}
    assert their_files == files


async def _left_by(
    adapter: Adapter, redis: EmbeddedRedis, folder: Path
) -> tuple[dict[str, list[Any]], dict[str, bytes]]:
    """The rows of every table and the files, after one generation."""
    folder.mkdir()
    async with (
        Redis.from_url(redis.url) as connection,
        opened(adapter, redis, folder) as site,
    ):
        await connection.flushall()
        job_id = await _generate(site, connection)
        (job,) = await site.ended(job_id)
        assert job["status"] == "completed", site.workers[0].said
        names = {site.user_id: "<user>", job_id: "<job>", job["result_id"]: "<concept>"}
        return await _tables(adapter, names), await _files(site, names)


async def _generate(site: Site, redis: Redis) -> str:
    """A job's id, once the worker that ran it has told everybody and left."""
    await site.price("generation", "3", balance="10")
    worker = await site.worker()
    async with asyncio.timeout(20):  # a Redis that is new is healed, and that leaves its marks
        while (await redis.get(Keys("uvian").marker) or _HEALING).startswith(_HEALING):
            await asyncio.sleep(0.02)
    job_id = await site.submit(
        "generation",
        logo_description="a mountain and the sun",
        theme_description="alpine morning, pine green and gold",
        num_palettes=3,
        size=256,
        seed=7,
    )
    await site.ended(job_id)
    async with asyncio.timeout(20):
        while await site.execute("select from uvian.job_state where announce_at is not null"):
            await asyncio.sleep(0.02)
    assert await asyncio.to_thread(worker.terminate) == 0, worker.said
    return job_id


async def _tables(adapter: Adapter, names: dict[str, str]) -> dict[str, list[Any]]:
    connection = await asyncpg.connect(adapter.clean.superuser_dsn)
    try:
        tables = await connection.fetch(
            "select relname from pg_class "
            "where relnamespace = 'uvian'::regnamespace and relkind = 'r' order by 1"
        )
        found = {}
        for (table,) in tables:
            rows = await connection.fetch(f"select to_jsonb(t)::text from uvian.{table} t")
            found[table] = [orjson.loads(row) for row in sorted(_plain(r[0], names) for r in rows)]
        for job in found["jobs"]:
            job["stages"].sort(key=itemgetter("name"))  # two run at a time, and either may be first
        return found
    finally:
        await connection.close()


async def _files(site: Site, names: dict[str, str]) -> dict[str, bytes]:
    environment = {n: v for n, v in site.environment().items() if n.startswith("UVIAN_")}
    config = Config.load(
        {}, **{n.removeprefix("UVIAN_").lower(): v for n, v in environment.items()}
    )
    async with AsyncExitStack() as stack:
        store: ImageStore = await Stores(config, stack).images()
        if config.images == "local":
            files = [p for p in config.images_dir.rglob("*") if p.is_file()]
            paths = [str(p.relative_to(config.images_dir)) for p in files]
        else:
            rows = await site.execute("select name from storage.objects")
            paths = [row["name"] for row in rows]
        return {_plain(path, names): await store.get(path) for path in paths}


def _plain(text: str, names: dict[str, str]) -> str:
    for name, plain in names.items():
        text = text.replace(name, plain)
    for aside, plain in _ASIDE:
        text = aside.sub(plain, text)
    return _UUID.sub("<id>", text)
