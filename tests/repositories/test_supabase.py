"""The adapter over PostgREST: the contract, its places, and what it says of a project that is not set up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from supabase import AsyncClient, AsyncClientOptions

from repositories import errors
from repositories.database import Order
from repositories.supabase import Supabase, SupabaseDatabase, connect_supabase
from tests.contracts.database import DatabaseContract, job
from tests.servers import CleanDatabase
from tests.supabase.faults import (
    Action,
    delay,
    hang,
    status,
)
from tests.supabase.platform import Platform


class SupabaseContract(DatabaseContract):
    """It keeps the promises of the port, with a key of either kind."""

    @pytest.fixture(params=["secret_key", "service_key"])
    async def port(
        self, platform: Platform, request: pytest.FixtureRequest
    ) -> AsyncIterator[SupabaseDatabase]:
        supabase = connect_supabase(platform.url, getattr(platform, request.param))
        port = await SupabaseDatabase.connect(supabase)
        yield port
        await port.close()
        await supabase.close()

    @pytest.fixture
    def user(self, user: str) -> str:
        return user


@pytest.mark.database
class TestSupabaseDatabase(SupabaseContract):
    """On the double of a project."""


# ─── time and places ─────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def hasty(platform: Platform) -> AsyncIterator[SupabaseDatabase]:
    """An adapter that waits for a second."""
    supabase = connect_supabase(platform.url, platform.secret_key)
    yield await SupabaseDatabase.connect(supabase, timeout=1)
    await supabase.close()


@pytest.mark.database
@pytest.mark.parametrize("fault", [hang, delay(30)])
async def test_a_call_has_a_deadline_of_our_own(
    platform: Platform, hasty: SupabaseDatabase, fault: Action
) -> None:
    """Not supabase-py's of 120 s, and its pauses of 1, 2 and 4 s are not waited out."""
    platform.faults.add(fault)
    started = time.monotonic()
    with pytest.raises(errors.TimedOut):
        await hasty.call("calculate_cost", type="generation", input={})
    with pytest.raises(errors.TimedOut):
        await hasty.select("jobs")
    assert time.monotonic() - started < 5
    platform.faults.clear()
    platform.faults.add(status(503, "<html></html>", "text/html"), method="GET")
    started = time.monotonic()
    with pytest.raises(errors.Transient):
        await hasty.select("jobs")
    assert time.monotonic() - started < 2.5


@pytest.mark.database
async def test_a_connection_that_hangs_costs_its_own_call_only(
    platform: Platform, hasty: SupabaseDatabase
) -> None:
    """However many were given up, none is left in the way of the next."""
    platform.faults.add(hang, path="/rpc/", every=2)
    for _ in range(5):
        calls = (hasty.call("calculate_cost", type="generation", input={}) for _ in range(4))
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert any(isinstance(answer, errors.TimedOut) for answer in answers)
        assert 0 in answers
    platform.faults.clear()
    assert await hasty.call("calculate_cost", type="generation", input={}) == 0


@pytest.mark.database
async def test_what_is_given_up_makes_room(platform: Platform, service: SupabaseDatabase) -> None:
    """Whoever asked is cancelled: the call's place and its connection are free again."""
    platform.faults.add(hang, path="/rpc/calculate_cost", times=6)
    calls = [
        asyncio.create_task(service.call("calculate_cost", type="generation", input={}))
        for _ in range(6)
    ]
    await _until(lambda: len(platform.asked("calculate_cost")) == 3)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    platform.faults.clear()
    assert await service.call("calculate_cost", type="generation", input={}) == 0


@pytest.mark.database
async def test_at_most_four_calls_are_in_flight_and_renewals_never_queue(
    platform: Platform, service: SupabaseDatabase
) -> None:
    """Three of all kinds, and one place that is kept for leases."""
    rule = platform.faults.add(hang, path="/rest/v1/", when=lambda _, path: "renew" not in path)
    waiting: list[asyncio.Task[Any]] = [
        asyncio.create_task(service.call("calculate_cost", type="generation", input={}))
        for _ in range(6)
    ]
    waiting += [asyncio.create_task(service.select("jobs")) for _ in range(6)]
    await _until(lambda: rule.hits == 3)
    answer = await service.call("renew_leases", request={"worker": "w", "jobs": []})
    assert answer == {"lost": [], "cancel": []}
    assert rule.hits == 3
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.01)


@pytest.mark.database
async def test_connections_that_were_closed_meanwhile_are_replaced(
    platform: Platform, service: SupabaseDatabase
) -> None:
    """The gateway restarts between two calls of a worker: nobody hears of it."""
    for _ in range(3):
        calls = (service.call("calculate_cost", type="generation", input={}) for _ in range(3))
        assert await asyncio.gather(*calls) == [0, 0, 0]
        platform.stop()
        platform.start()


@pytest.mark.database
async def test_a_connection_stays_open_from_call_to_call(
    platform: Platform, service: SupabaseDatabase
) -> None:
    """A new one for each would cost three round trips more."""
    before = service._supabase._http._transport._pool.connections  # type: ignore[attr-defined]
    for _ in range(5):
        await service.select("jobs")
    after = service._supabase._http._transport._pool.connections  # type: ignore[attr-defined]
    assert len(before) == len(after) == 1
    assert before[0] is after[0]


# ─── how the project is set up ───────────────────────────────────────────────────────────────────


async def refusal(platform: Platform, key: str | None = None) -> str:
    """What a worker is told that does not get in."""
    supabase = connect_supabase(platform.url, key or platform.secret_key)
    try:
        with pytest.raises(errors.Misconfigured) as refused:
            await SupabaseDatabase.connect(supabase)
    finally:
        await supabase.close()
    return str(refused.value)


@pytest.mark.database
async def test_a_schema_that_is_not_exposed_says_so(
    database: CleanDatabase, tmp_path: Path
) -> None:
    """PGRST106: the setting in the dashboard, by its name."""
    with Platform(database.authenticator_dsn, tmp_path / "files", schemas=("public",)) as platform:
        said = await refusal(platform)
    assert "Project Settings > Data API > Exposed schemas" in said


@pytest.mark.database
async def test_a_missing_grant_says_so(
    platform: Platform, hand: asyncpg.Connection[Any], user: str
) -> None:
    """42501: the key's role and the command that grants; at start, and of a function as well."""
    await hand.execute("revoke all on uvian.schema_migrations from service_role")
    said = await refusal(platform)
    assert "permission denied" in said
    assert "uvian migrate" in said
    assert "UVIAN_SUPABASE_KEY" in said
    await hand.execute("grant select on uvian.schema_migrations to service_role")
    await hand.execute("revoke execute on function uvian.claim_jobs(jsonb) from service_role")
    supabase = connect_supabase(platform.url, platform.service_key)
    service = await SupabaseDatabase.connect(supabase)
    with pytest.raises(errors.NotGranted, match="uvian migrate"):
        await service.call("claim_jobs", request={"worker": "w", "jobs": []})
    await supabase.close()


@pytest.mark.database
async def test_a_schema_that_is_not_there_says_so(
    platform: Platform, hand: asyncpg.Connection[Any]
) -> None:
    """Exposed, but never migrated."""
    await hand.execute("drop schema uvian cascade; create schema uvian")
    await hand.execute("grant usage on schema uvian to service_role")
    assert "uvian migrate" in await refusal(platform)


@pytest.mark.database
async def test_a_function_of_a_newer_release_says_so(
    platform: Platform, service: SupabaseDatabase, hand: asyncpg.Connection[Any]
) -> None:
    """PGRST202: the schema is older than this release."""
    await hand.execute("drop function uvian.sweep_jobs(jsonb)")
    with pytest.raises(errors.SchemaMissing, match="uvian migrate"):
        await service.call("sweep_jobs", request={})


@pytest.mark.database
async def test_a_key_that_was_revoked_says_so(platform: Platform, tmp_path: Path) -> None:
    """While the worker runs: permanent, and it names the setting."""
    supabase = connect_supabase(platform.url, platform.secret_key)
    service = await SupabaseDatabase.connect(supabase)
    expired = status(401, '{"code":"PGRST303","details":null,"hint":null,"message":"JWT expired"}')
    for fault in (expired, status(401, '{"message":"Unregistered API key","hint":"rotated"}')):
        platform.faults.clear()
        platform.faults.add(fault)
        with pytest.raises(errors.NotGranted, match="UVIAN_SUPABASE_KEY"):
            await service.call("sweep_jobs", request={})
    await supabase.close()


@pytest.mark.database
async def test_answers_are_whole_however_few_rows_the_api_gives(
    database: CleanDatabase, tmp_path: Path, user: str
) -> None:
    """``max_rows`` is the operator's to lower."""
    with Platform(database.authenticator_dsn, tmp_path / "files", max_rows=3) as platform:
        supabase = connect_supabase(platform.url, platform.secret_key)
        service = SupabaseDatabase(supabase)
        rows = [job(user, priority=n % 2) for n in range(10)]
        made = await service.insert("jobs", rows)
        assert len(made) == 10
        found = await service.select("jobs", order=[Order("priority")])
        assert {row["id"] for row in found} == {row["id"] for row in rows}
        assert len(await service.select("jobs", limit=8)) == 8
        assert len(await service.select("jobs", limit=50)) == 10
        answer = await service.call("create_jobs", request={"jobs": [job(user) for _ in range(9)]})
        assert len(answer["jobs"]) == 9
        await supabase.close()


@pytest.mark.parametrize(
    ("there", "asked"), [(0, 21), (5, 21), (20, 21), (21, 21), (50, 1000), (99, 100)]
)
async def test_a_short_page_is_one_request(there: int, asked: int) -> None:
    """Fewer rows than any project cuts at are all there are."""
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        first = int(request.url.params.get("offset", 0))
        return httpx.Response(200, json=[{"id": str(n)} for n in range(first, there)][:1000])

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        options = AsyncClientOptions(schema="uvian", httpx_client=http)
        client = AsyncClient(
            "https://abcdefghijklmnopqrst.supabase.co", "sb_secret_abcdef", options
        )
        service = SupabaseDatabase(Supabase(client, http))
        assert len(await service.select("jobs", columns=("id",), limit=asked)) == there
    assert len(requests) == 1


@pytest.mark.database
async def test_listening_needs_a_connection_besides_the_api(
    platform: Platform, database: CleanDatabase, service: SupabaseDatabase, user: str
) -> None:
    """Without one the answer is no; with one a row made by hand is heard of."""
    assert not await service.listen("uvian_jobs", lambda _: None)
    supabase = connect_supabase(platform.url, platform.secret_key)
    listening = await SupabaseDatabase.connect(supabase, listen_dsn=database.dsn)
    heard: asyncio.Queue[str] = asyncio.Queue()
    assert await listening.listen("uvian_jobs", heard.put_nowait)
    await asyncio.wait_for(heard.get(), 30)
    await service.insert("jobs", [job(user)])
    await asyncio.wait_for(heard.get(), 30)
    await listening.close()
    await supabase.close()


@pytest.mark.database
async def test_nothing_runs_beside_the_calls(service: SupabaseDatabase) -> None:
    """No realtime socket, no refreshing of tokens."""
    await service.select("jobs")
    assert asyncio.all_tasks() == {asyncio.current_task()}
