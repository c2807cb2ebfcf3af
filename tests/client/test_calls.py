"""What the database's errors mean to an API's client: refusals, outages, and a project that is not set up."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from supabase import AsyncClient, AsyncClientOptions

from tests.servers import CleanDatabase
from tests.supabase.faults import (
    Action,
    empty_400,
    hang,
    html_502,
    lose_reply,
    reset,
    status,
    truncate,
)
from tests.supabase.platform import Platform
from uvian_worker.client import Client, DatabaseAway, JobRefused, NotSetUp, calls

pytestmark = pytest.mark.database

USER = str(uuid.uuid4())


@pytest.fixture
async def hand(superuser_dsn: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A superuser, who has made a user and a type."""
    connection = await asyncpg.connect(superuser_dsn)
    await connection.execute("insert into auth.users (id) values ($1)", uuid.UUID(USER))
    await connection.execute("insert into uvian.job_types (type) values ('noop')")
    yield connection
    await connection.close()


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    """What carries the requests of an API's own supabase client."""
    async with httpx.AsyncClient() as http:
        yield http


def over(platform: Platform, http: httpx.AsyncClient, redis_url: str, key: str = "") -> Client:
    """A client as an API makes it, by default with the secret key."""
    options = AsyncClientOptions(httpx_client=http)
    supabase = AsyncClient(platform.url, key or platform.secret_key, options)
    return Client.over_supabase(supabase, redis_url)


@pytest.fixture
async def client(
    platform: Platform, http: httpx.AsyncClient, redis_url: str
) -> AsyncIterator[Client]:
    """A client over the API."""
    async with over(platform, http, redis_url) as client:
        yield client


@pytest.mark.parametrize("fault", [lose_reply, reset, truncate, html_502, empty_400])
async def test_every_call_survives_a_reply_that_is_lost(
    platform: Platform, client: Client, hand: asyncpg.Connection[Any], fault: Action
) -> None:
    """One job, made by this call, cancelled and retried once."""
    for name in ("create_jobs", "cancel_job", "retry_job"):
        platform.faults.add(fault, path=f"/rpc/{name}", times=1)
    job = await client.submit(USER, "noop", {})
    assert job.created
    assert (await client.cancel(job.id)).status == "cancelled"
    again = await client.retry(job.id, expected_run=1)
    assert (again.status, again.run) == ("queued", 2)
    assert platform.faults.hits == 3
    assert await hand.fetchval("select count(*) from uvian.jobs") == 1


async def test_every_refusal_has_its_code(
    client: Client, hand: asyncpg.Connection[Any], platform: Platform
) -> None:
    """Those in the answer, and those that a function raises, whatever their status; called once."""
    with pytest.raises(JobRefused, match="unknown_type"):
        await client.submit(USER, "nonsense", {})
    with pytest.raises(JobRefused, match="not_found") as refused:
        await client.cancel(str(uuid.uuid4()))
    assert refused.value.details["message"] == "There is no such job."
    for code in ("PT402", "PT404", "PT409", "PT418", "PT429"):
        body = f'{{"code":"{code}","message":"said_no","details":"A sentence.","hint":null}}'
        rule = platform.faults.add(status(int(code[2:]), body))
        with pytest.raises(JobRefused, match="said_no") as refused:
            await client.cancel(str(uuid.uuid4()))
        assert refused.value.details == {"message": "A sentence."}
        assert rule.hits == 1
        platform.faults.clear()


async def test_an_outage_is_told_as_one(
    client: Client,
    platform: Platform,
    hand: asyncpg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a second try at least; a page in the place of a document is no answer either."""
    monkeypatch.setattr(client._database, "_patience", 0)
    page = status(200, "<html>Welcome</html>", "text/html")
    for fault in (html_502, page, status(503, '{"code":"PGRST002","message":"away"}')):
        rule = platform.faults.add(fault)
        with pytest.raises(DatabaseAway):
            await client.submit(USER, "noop", {})
        assert rule.hits == 2
        platform.faults.clear()
    platform.stop()
    with pytest.raises(DatabaseAway):
        await client.submit(USER, "noop", {})
    platform.start()
    assert (await client.submit(USER, "noop", {})).created


async def test_a_server_that_hangs_is_not_waited_for(
    client: Client, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client of supabase-py's own making would wait for two minutes."""
    monkeypatch.setattr(calls, "_SECONDS", 0.3)
    monkeypatch.setattr(client._database, "_patience", 0.5)
    platform.faults.add(hang)
    started = time.monotonic()
    with pytest.raises(DatabaseAway):
        await client.submit(USER, "noop", {})
    assert time.monotonic() - started < 10


async def test_what_is_not_set_up_is_told_at_once(
    database: CleanDatabase,
    platform: Platform,
    http: httpx.AsyncClient,
    redis_url: str,
    hand: asyncpg.Connection[Any],
    tmp_path: Path,
) -> None:
    """A browser's key, another project's, a schema that is not exposed, an old one: what to do."""
    for key in (platform.publishable_key, platform.anon_key, "sb_secret_of_somebody_else"):
        async with over(platform, http, redis_url, key) as client:
            with pytest.raises(NotSetUp, match="secret or service_role key"):
                await client.submit(USER, "noop", {})
    with Platform(database.authenticator_dsn, tmp_path / "other", schemas=("public",)) as closed:
        async with over(closed, http, redis_url) as client:
            with pytest.raises(NotSetUp, match="Exposed schemas"):
                await client.submit(USER, "noop", {})
    await hand.execute("drop function uvian.create_jobs(jsonb)")
    async with over(platform, http, redis_url) as client:
        with pytest.raises(NotSetUp, match="uvian migrate"):
            await client.submit(USER, "noop", {})


async def test_over_a_connection_it_is_told_in_the_same_words(
    database: CleanDatabase, redis_url: str, hand: asyncpg.Connection[Any]
) -> None:
    """No server, no rights, no function."""
    url = "postgresql://nobody@127.0.0.1:9/none"
    away = await Client.connect(database_url=url, redis_url=redis_url, patience=0)
    async with away as client:
        with pytest.raises(DatabaseAway):
            await client.submit(USER, "noop", {})
    login = database.authenticator_dsn
    async with await Client.connect(database_url=login, redis_url=redis_url) as client:
        with pytest.raises(NotSetUp, match="the schema's owner"):
            await client.submit(USER, "noop", {})
    await hand.execute("drop function uvian.create_jobs(jsonb)")
    async with await Client.connect(database_url=database.dsn, redis_url=redis_url) as client:
        with pytest.raises(NotSetUp, match="uvian migrate"):
            await client.submit(USER, "noop", {})
