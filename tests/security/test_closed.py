"""From the first migration on nothing is open, and nobody's jobs are without limit."""

from __future__ import annotations

import uuid

import asyncpg
import pytest

from tests.adapters import OverPostgres
from tests.lifecycle.world import opened
from tests.security.caller import Caller
from tests.servers import CleanDatabase
from uvian_worker.schema.history import load
from uvian_worker.schema.migrate import bootstrap, migrate

pytestmark = pytest.mark.database


async def test_every_type_is_closed_and_limited_until_the_operator_speaks(
    blank_database: CleanDatabase,
) -> None:
    """Those of ours, after each migration; and one that a worker makes known afterwards."""
    await bootstrap(blank_database.superuser_dsn)
    await migrate(blank_database.dsn)
    async with opened(OverPostgres(blank_database)) as world:
        await world.worker("w1", "theirs", "chat")
        types = (await world.call("list_types"))["types"]
        assert {each["type"] for each in types} >= {"generation", "refinement", "chat", "theirs"}
        for each in types:
            assert (each["browser"], each["anonymous"]) == (False, False), each
            limits = each["max_queued_per_user"], each["max_running_per_user"]
            assert limits == (50, 4), each
        user = await world.user()
        connection = await asyncpg.connect(blank_database.authenticator_dsn)
        browser = Caller(connection, "authenticated", user)
        for each in types:
            with pytest.raises(asyncpg.PostgresError, match="type_not_open"):
                await browser.fetch("select uvian.submit_job($1, '{}')", each["type"])
        with pytest.raises(asyncpg.PostgresError, match="type_not_open"):
            await browser.fetch("select uvian.create_conversation()")
        await connection.close()


async def test_two_thousand_jobs_are_fifty(blank_database: CleanDatabase) -> None:
    """Even where the operator opened a type and thought of nothing else: four run, the others wait."""
    await bootstrap(blank_database.superuser_dsn)
    await migrate(blank_database.dsn)
    async with opened(OverPostgres(blank_database)) as world:
        user = await world.user()
        item = {"user_id": user, "type": "generation", "input": {}, "door": "browser"}
        await world.type("generation", browser=True)
        answers = [a for _ in range(4) for a in await world.ask(*[item] * 500)]
        made = [a["job"] for a in answers if "job" in a]
        refused = {a["code"] for a in answers if "code" in a}
        assert (len(made), refused) == (50, {"too_many_queued"})
        assert sum(a["dispatch"] for a in answers if "job" in a) == 4
        other = {**item, "user_id": await world.user(), "id": str(uuid.uuid4())}
        assert "job" in (await world.ask(other))[0]


def test_no_file_opens_anything() -> None:
    """Nor will the next one."""
    for file in load().files:
        lines = [line.partition("--")[0] for line in file.sql.splitlines()]
        for line in lines:
            opens = "into uvian.job_types" in line and ("browser" in line or "anonymous" in line)
            assert not opens, (file.label, line)
