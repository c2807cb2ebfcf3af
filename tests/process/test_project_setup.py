"""What a worker logs about a project that lacks something besides the schema."""

from __future__ import annotations

import logging

import asyncpg
import pytest

from repositories.errors import Unavailable
from tests.adapters import Adapter
from uvian_worker.config import Config
from uvian_worker.process.project_setup import warn_of_missing_parts

LOST = """
    delete from storage.buckets where id = 'uvian-images';
    drop policy uvian_images_owner on storage.objects;
    alter publication supabase_realtime drop table uvian.messages;
"""
LOCAL = Config.load({}, images="local")
STORAGE = Config.load({}, images="supabase", supabase_url="https://x.supabase.co", supabase_key="k")


@pytest.mark.database
async def test_a_worker_warns_once_of_what_it_does_without(
    adapter: Adapter, superuser_dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One line with the next step, over either way; of Storage only where pictures are kept there."""
    async with adapter.database() as database:
        await warn_of_missing_parts(database, LOCAL)
        await warn_of_missing_parts(database, STORAGE)
        assert caplog.records == []
        connection = await asyncpg.connect(superuser_dsn)
        await connection.execute(LOST)
        await connection.close()
        for config, words in ((LOCAL, ["messages"]), (STORAGE, ["policy", "messages"])):
            caplog.clear()
            await warn_of_missing_parts(database, config)
            (said,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
            assert "Next: `uvian migrate`" in said.getMessage()
            assert "\n" not in said.getMessage()
            for word in ("policy", "messages"):
                assert (word in said.getMessage()) is (word in words)
            assert "bucket" not in said.getMessage()  # who needs it has looked for it itself


async def test_a_check_without_an_answer_prevents_no_start(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The start of a worker has better things to wait for."""

    class Away:
        async def call(self, *_: object, **__: object) -> None:
            raise Unavailable("a failover")

    await warn_of_missing_parts(Away(), LOCAL)  # type: ignore[arg-type]
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
