"""The adapter over PostgREST: the contract, then every way in which the platform answers otherwise."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from repositories import errors
from repositories.database import SIGNATURES, Filter, Order
from repositories.supabase import SupabaseDatabase
from repositories.supabase_client import connect_supabase
from tests.contracts.database import DatabaseContract, job
from tests.servers import POSTGRES_BINARIES, CleanDatabase
from tests.supabase.faults import (
    Action,
    delay,
    empty_400,
    hang,
    html_502,
    lose_reply,
    lose_request,
    reset,
    status,
    truncate,
)
from tests.supabase.platform import Platform
from uvian_worker.embedded import EmbeddedPostgres
from uvian_worker.migrate import bootstrap, migrate


async def new_user(superuser_dsn: str) -> str:
    """The id of a row in ``auth.users``."""
    connection = await asyncpg.connect(superuser_dsn)
    try:
        return str(await connection.fetchval("insert into auth.users default values returning id"))
    finally:
        await connection.close()


@pytest.mark.database
class TestSupabaseDatabase(DatabaseContract):
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
    async def user(self, superuser_dsn: str) -> str:
        return await new_user(superuser_dsn)


@pytest.fixture
async def port(platform: Platform) -> AsyncIterator[SupabaseDatabase]:
    """The adapter on a migrated database without rows."""
    supabase = connect_supabase(platform.url, platform.secret_key)
    port = await SupabaseDatabase.connect(supabase)
    yield port
    await port.close()
    await supabase.close()


@pytest.fixture
async def hand(database: CleanDatabase) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A superuser with a connection of its own."""
    connection = await asyncpg.connect(database.superuser_dsn)
    yield connection
    await connection.close()


@pytest.fixture
async def user(superuser_dsn: str) -> str:
    """A user who exists."""
    return await new_user(superuser_dsn)


# ─── lost replies ────────────────────────────────────────────────────────────────────────────────


def life(user: str) -> list[tuple[str, dict[str, Any], Callable[[Any], bool]]]:
    """Every function of the service in an order that makes sense: its arguments, and what must be true."""
    first, second, third, concept, nonce = (str(uuid.uuid4()) for _ in range(5))
    mine = {"id": first, "run": 1}
    picture = {"image_path": f"{user}/{'0' * 64}.png", "width": 1, "height": 1}
    return [
        (
            "register_worker",
            {"request": {"worker": "w", "release": "9.9.9", "types": [{"type": "generation"}]}},
            lambda answer: answer == {},
        ),
        (
            "grant_credits",
            {"user_id": user, "amount": "12.5", "reference": "a payment"},
            lambda answer: answer["balance"] == "12.500000",
        ),
        ("calculate_cost", {"type": "generation", "input": {}}, lambda answer: answer == 0),
        (
            "create_jobs",
            {"request": {"jobs": [job(user, id=id_) for id_ in (first, second, third)]}},
            lambda answer: [j["job"]["id"] for j in answer["jobs"]] == [first, second, third],
        ),
        (
            "mark_jobs",
            {"request": {"dispatched": [mine], "announced": []}},
            lambda answer: answer == {},
        ),
        (
            "claim_jobs",
            {"request": {"worker": "w", "lease_seconds": 15, "jobs": [mine]}},
            lambda answer: answer["jobs"][0]["claimed"],
        ),
        (
            "renew_leases",
            {"request": {"worker": "w", "lease_seconds": 15, "jobs": [mine]}},
            lambda answer: answer == {"lost": [], "cancel": []},
        ),
        (
            "save_checkpoints",
            {"request": {"worker": "w", "jobs": [{**mine, "checkpoints": {"base": 1}}]}},
            lambda answer: answer["jobs"][0]["saved"],
        ),
        (
            "store_concept",
            {
                "request": {
                    "worker": "w",
                    "job_id": first,
                    "run": 1,
                    "concept": {
                        "id": concept,
                        "logo_description": "a fox",
                        "theme_description": "autumn",
                        **picture,
                    },
                    "variations": [],
                }
            },
            lambda answer: answer["stored"],
        ),
        (
            "settle_jobs",
            {"request": {"worker": "w", "jobs": [{**mine, "outcome": "completed", "output": {}}]}},
            lambda answer: answer["jobs"][0]["status"] == "completed",
        ),
        (
            "cancel_job",
            {"job_id": second, "user_id": user},
            lambda answer: answer["job"]["status"] == "cancelled",
        ),
        (
            "retry_job",
            {"job_id": second, "expected_run": 1, "user_id": user},
            lambda answer: (answer["job"]["status"], answer["job"]["run"]) == ("queued", 2),
        ),
        (
            "claim_next_jobs",
            {
                "request": {
                    "worker": "w",
                    "nonce": nonce,
                    "types": ["generation"],
                    "limit": 2,
                    "lease_seconds": 15,
                }
            },
            lambda answer: {j["id"] for j in answer["jobs"]} == {second, third},
        ),
        ("sweep_jobs", {"request": {"limit": 500}}, lambda answer: answer["swept"]),
        ("retire_worker", {"request": {"worker": "w"}}, lambda answer: answer == {}),
    ]


@pytest.mark.database
@pytest.mark.parametrize("fault", [lose_reply, lose_request, reset, truncate, html_502, empty_400])
async def test_every_function_survives_a_reply_that_is_lost(
    platform: Platform,
    port: SupabaseDatabase,
    hand: asyncpg.Connection[Any],
    user: str,
    fault: Action,
) -> None:
    """Each is struck once, and answers as if it had not been; nothing was done twice."""
    steps = life(user)
    assert {name for name, _, _ in steps} == set(SIGNATURES) - {"submit_job"}  # which is the users'
    for name, arguments, holds in steps:
        rule = platform.faults.add(fault, path=f"/rpc/{name}", times=1)
        answer = await port.call(name, **arguments)  # type: ignore[arg-type]
        assert holds(answer), (name, answer)
        assert (rule.hits, rule.seen) == (1, 2), name
    assert await hand.fetchval("select count(*) from uvian.jobs") == 3
    assert await hand.fetchval("select sum(amount)::text from uvian.credit_entries") == "12.500000"
    assert await hand.fetchval("select count(*) from uvian.concepts") == 1


@pytest.mark.database
async def test_a_read_survives_a_reply_that_is_lost(
    platform: Platform, port: SupabaseDatabase, user: str
) -> None:
    """On every page of it."""
    await port.insert("job_types", [{"type": f"t{n}"} for n in range(2500)])
    rule = platform.faults.add(lose_reply, path="/job_types", method="GET", every=2)
    rows = await port.select("job_types", where=[Filter("type", "ne", "generation")])
    assert len(rows) == len({row["type"] for row in rows}) == 2500
    assert rule.hits == 2


@pytest.mark.database
async def test_after_a_lost_reply_an_insert_is_the_callers_to_judge(
    platform: Platform, port: SupabaseDatabase, user: str
) -> None:
    """It is not sent again behind the caller's back: with ids of its own, a conflict is its own row."""
    row = job(user)
    rule = platform.faults.add(lose_reply, path="/jobs", method="POST", times=1)
    with pytest.raises(errors.Unavailable):
        await port.insert("jobs", [row])
    assert (rule.hits, rule.seen) == (1, 1)
    with pytest.raises(errors.Conflict):
        await port.insert("jobs", [row])
    assert [r["id"] for r in await port.select("jobs")] == [row["id"]]
    assert await port.insert("jobs", [row], on_conflict=("id",)) == []


@pytest.mark.database
async def test_after_a_lost_reply_a_change_may_be_repeated(
    platform: Platform, port: SupabaseDatabase, user: str
) -> None:
    """An update answers the same again, unless its filter says otherwise; what is deleted is gone."""
    (row,) = await port.insert("jobs", [job(user)])
    mine = [Filter("id", "eq", row["id"])]
    platform.faults.add(lose_reply, method="PATCH", times=1)
    with pytest.raises(errors.Unavailable):
        await port.update("jobs", {"priority": 5}, where=mine)
    (again,) = await port.update("jobs", {"priority": 5}, where=mine)
    assert again["priority"] == 5
    assert (
        await port.update("jobs", {"priority": 6}, where=[*mine, Filter("priority", "eq", 4)]) == []
    )
    platform.faults.add(lose_reply, method="DELETE", times=1)
    with pytest.raises(errors.Unavailable):
        await port.delete("jobs", where=mine)
    assert await port.delete("jobs", where=mine) == []


# ─── answers that pass, and answers that stay ────────────────────────────────────────────────────


def rest_answer(status_: int, code: str) -> Action:
    """What PostgREST itself says."""
    return status(status_, f'{{"code":"{code}","details":null,"hint":null,"message":"said"}}')


@pytest.mark.database
@pytest.mark.parametrize(
    "fault",
    [
        html_502,
        empty_400,
        rest_answer(503, "57P01"),
        rest_answer(503, "PGRST001"),
        rest_answer(503, "PGRST002"),
        rest_answer(504, "PGRST003"),
        rest_answer(500, "40P01"),
        status(429, '{"message":"API rate limit exceeded"}'),
        status(520, "<html>Cloudflare</html>", "text/html"),
        status(400, ""),
    ],
)
async def test_what_passes_is_tried_again_and_then_the_callers(
    platform: Platform, port: SupabaseDatabase, fault: Action
) -> None:
    """A few tries within the call's time; an outage that lasts is transient, for whoever waits."""
    rule = platform.faults.add(fault, times=2)
    assert await port.call("calculate_cost", type="generation", input={}) == 0
    assert rule.hits == 2
    platform.faults.clear()
    rule = platform.faults.add(fault)
    with pytest.raises(errors.Unavailable):
        await port.call("calculate_cost", type="generation", input={})
    assert rule.hits == 3


@pytest.mark.database
async def test_what_stays_is_asked_once(
    platform: Platform, port: SupabaseDatabase, user: str
) -> None:
    """A refusal, a wrong value, a missing column, a wrong key: the same answer would come again."""
    platform.faults.add(status(401, '{"message":"Invalid API key"}'), path="/workers")
    stays: list[tuple[Callable[[], Any], type[Exception]]] = [
        (lambda: port.call("cancel_job", job_id=str(uuid.uuid4())), errors.Refused),
        (lambda: port.call("cancel_job", job_id="x"), errors.DataError),
        (lambda: port.select("jobs", columns=("not_yet",)), errors.SchemaMissing),
        (lambda: port.call("submit_job", type="generation", input={}), errors.NotGranted),
        (lambda: port.select("workers"), errors.NotGranted),
    ]
    for call, expected in stays:
        before = len(platform.requests)
        with pytest.raises(expected):
            await call()
        assert len(platform.requests) == before + 1


@pytest.mark.database
async def test_a_statement_beyond_the_servers_timeout_is_not_tried_again(
    database: CleanDatabase, platform: Platform, hand: asyncpg.Connection[Any], user: str
) -> None:
    """57014 comes as HTTP 500, and is permanent: only a smaller statement may end in time."""
    await hand.execute(
        f"alter role authenticator in database {database.name} set statement_timeout = '300ms'"
    )
    platform.stop()
    platform.start()  # its connections are new
    supabase = connect_supabase(platform.url, platform.secret_key)
    port = await SupabaseDatabase.connect(supabase)
    (made,) = await port.insert("jobs", [job(user)])
    async with hand.transaction():
        await hand.execute("select from uvian.jobs for update")
        with pytest.raises(errors.StatementTooSlow):
            await port.call("cancel_job", job_id=made["id"])
    assert len(platform.asked("cancel_job")) == 1
    await supabase.close()


@pytest.mark.database
async def test_an_exhausted_pool_is_transient(
    database: CleanDatabase, hand: asyncpg.Connection[Any], tmp_path: Path
) -> None:
    """PostgREST waits for a connection of its own, then answers 504: the next call may be luckier."""
    with Platform(
        database.authenticator_dsn, tmp_path / "files", pool_size=1, acquisition_timeout=0.2
    ) as platform:
        supabase = connect_supabase(platform.url, platform.secret_key)
        port = await SupabaseDatabase.connect(supabase)
        async with hand.transaction():
            await hand.execute("lock table uvian.workers")
            holding = asyncio.create_task(port.select("workers"))
            while not await hand.fetchval("select count(*) from pg_locks where not granted"):
                await asyncio.sleep(0.01)
            with pytest.raises(errors.Unavailable, match=r"[Tt]imed out"):
                await port.call("calculate_cost", type="generation", input={})
        assert await holding == []
        assert await port.call("calculate_cost", type="generation", input={}) == 0
        await supabase.close()


@pytest.mark.database
async def test_a_lock_is_waited_for_a_second_at_most(
    platform: Platform, port: SupabaseDatabase, hand: asyncpg.Connection[Any], user: str
) -> None:
    """A hand that holds a row: the lane halves its batch, so it must hear of it."""
    (made,) = await port.insert("jobs", [job(user)])
    async with hand.transaction():
        await hand.execute("select from uvian.jobs for update")
        with pytest.raises(errors.TimedOut, match="lock"):
            await port.call("cancel_job", job_id=made["id"])
    assert len(platform.asked("cancel_job")) == 1


# ─── time and places ─────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def hasty(platform: Platform) -> AsyncIterator[SupabaseDatabase]:
    """An adapter that waits for 0.4 s."""
    supabase = connect_supabase(platform.url, platform.secret_key)
    yield await SupabaseDatabase.connect(supabase, timeout=0.4)
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
    for _ in range(12):
        calls = (hasty.call("calculate_cost", type="generation", input={}) for _ in range(4))
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert any(isinstance(answer, errors.TimedOut) for answer in answers)
        assert 0 in answers
    platform.faults.clear()
    assert await hasty.call("calculate_cost", type="generation", input={}) == 0


@pytest.mark.database
async def test_what_is_given_up_makes_room(platform: Platform, port: SupabaseDatabase) -> None:
    """Whoever asked is cancelled: the call's place and its connection are free again."""
    platform.faults.add(hang, path="/rpc/calculate_cost", times=6)
    calls = [
        asyncio.create_task(port.call("calculate_cost", type="generation", input={}))
        for _ in range(6)
    ]
    await _until(lambda: len(platform.asked("calculate_cost")) == 3)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    platform.faults.clear()
    assert await port.call("calculate_cost", type="generation", input={}) == 0


@pytest.mark.database
async def test_at_most_four_calls_are_in_flight_and_renewals_never_queue(
    platform: Platform, port: SupabaseDatabase
) -> None:
    """Three of all kinds, and one place that is kept for leases."""
    rule = platform.faults.add(hang, path="/rest/v1/", when=lambda _, path: "renew" not in path)
    waiting: list[asyncio.Task[Any]] = [
        asyncio.create_task(port.call("calculate_cost", type="generation", input={}))
        for _ in range(6)
    ]
    waiting += [asyncio.create_task(port.select("jobs")) for _ in range(6)]
    await _until(lambda: rule.hits == 3)
    answer = await port.call("renew_leases", request={"worker": "w", "jobs": []})
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
    platform: Platform, port: SupabaseDatabase
) -> None:
    """The gateway restarts between two calls of a worker: nobody hears of it."""
    for _ in range(3):
        calls = (port.call("calculate_cost", type="generation", input={}) for _ in range(3))
        assert await asyncio.gather(*calls) == [0, 0, 0]
        platform.stop()
        platform.start()


@pytest.mark.database
async def test_a_connection_stays_open_from_call_to_call(
    platform: Platform, port: SupabaseDatabase
) -> None:
    """A new one for each would cost three round trips more."""
    before = port._supabase._http._transport._pool.connections  # type: ignore[attr-defined]
    for _ in range(5):
        await port.select("jobs")
    after = port._supabase._http._transport._pool.connections  # type: ignore[attr-defined]
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
    port = await SupabaseDatabase.connect(supabase)
    with pytest.raises(errors.NotGranted, match="uvian migrate"):
        await port.call("claim_jobs", request={"worker": "w", "jobs": []})
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
    platform: Platform, port: SupabaseDatabase, hand: asyncpg.Connection[Any]
) -> None:
    """PGRST202: the schema is older than this release."""
    await hand.execute("drop function uvian.sweep_jobs(jsonb)")
    with pytest.raises(errors.SchemaMissing, match="uvian migrate"):
        await port.call("sweep_jobs", request={})


@pytest.mark.database
async def test_a_key_that_was_revoked_says_so(platform: Platform, tmp_path: Path) -> None:
    """While the worker runs: permanent, and it names the setting."""
    supabase = connect_supabase(platform.url, platform.secret_key)
    port = await SupabaseDatabase.connect(supabase)
    expired = status(401, '{"code":"PGRST303","details":null,"hint":null,"message":"JWT expired"}')
    for fault in (expired, status(401, '{"message":"Unregistered API key","hint":"rotated"}')):
        platform.faults.clear()
        platform.faults.add(fault)
        with pytest.raises(errors.NotGranted, match="UVIAN_SUPABASE_KEY"):
            await port.call("sweep_jobs", request={})
    await supabase.close()


@pytest.mark.database
async def test_answers_are_whole_however_few_rows_the_api_gives(
    database: CleanDatabase, tmp_path: Path, user: str
) -> None:
    """``max_rows`` is the operator's to lower."""
    with Platform(database.authenticator_dsn, tmp_path / "files", max_rows=3) as platform:
        supabase = connect_supabase(platform.url, platform.secret_key)
        port = SupabaseDatabase(supabase)
        rows = [job(user, priority=n % 2) for n in range(10)]
        made = await port.insert("jobs", rows)
        assert len(made) == 10
        found = await port.select("jobs", order=[Order("priority")])
        assert {row["id"] for row in found} == {row["id"] for row in rows}
        assert len(await port.select("jobs", limit=8)) == 8
        assert len(await port.select("jobs", limit=50)) == 10
        answer = await port.call("create_jobs", request={"jobs": [job(user) for _ in range(9)]})
        assert len(answer["jobs"]) == 9
        await supabase.close()


@pytest.mark.database
async def test_listening_needs_a_connection_besides_the_api(
    platform: Platform, database: CleanDatabase, port: SupabaseDatabase, user: str
) -> None:
    """Without one the answer is no; with one a row made by hand is heard of."""
    assert not await port.listen("uvian_jobs", lambda: None)
    supabase = connect_supabase(platform.url, platform.secret_key)
    listening = await SupabaseDatabase.connect(supabase, listen_dsn=database.dsn)
    heard = asyncio.Event()
    assert await listening.listen("uvian_jobs", heard.set)
    await asyncio.wait_for(heard.wait(), 30)
    heard.clear()
    await port.insert("jobs", [job(user)])
    await asyncio.wait_for(heard.wait(), 30)
    await listening.close()
    await supabase.close()


@pytest.mark.database
async def test_nothing_runs_beside_the_calls(port: SupabaseDatabase) -> None:
    """No realtime socket, no refreshing of tokens."""
    await port.select("jobs")
    assert asyncio.all_tasks() == {asyncio.current_task()}


# ─── Postgres behind it ──────────────────────────────────────────────────────────────────────────


@pytest.mark.processes
@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_a_server_that_stops_and_comes_back(tmp_path: Path, mode: Any) -> None:
    """Stopped or crashed: every answer meanwhile is transient, and then the same adapter works."""
    with EmbeddedPostgres(tmp_path / "pg", binaries=POSTGRES_BINARIES) as server:
        await bootstrap(server.dsn)
        await migrate(server.migrator_dsn)
        with Platform(server.dsn_for(user="authenticator"), tmp_path / "files") as platform:
            supabase = connect_supabase(platform.url, platform.secret_key)
            port = await SupabaseDatabase.connect(supabase)
            server.stop(mode)
            for _ in range(5):
                with pytest.raises(errors.Transient):
                    await port.call("sweep_jobs", request={})
            server.start()
            async with asyncio.timeout(60):
                while True:
                    try:
                        assert (await port.call("sweep_jobs", request={}))["swept"]
                        break
                    except errors.Transient:
                        await asyncio.sleep(0.1)
            await supabase.close()
