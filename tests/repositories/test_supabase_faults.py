"""Lost replies, and answers that pass or stay, over PostgREST."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from repositories import errors
from repositories.conversations import ConversationRepository
from repositories.database import SIGNATURES, Filter
from repositories.messages import MessageRepository
from repositories.supabase import SupabaseDatabase, connect_supabase
from tests.contracts.database import job
from tests.servers import POSTGRES_BINARIES, CleanDatabase
from tests.supabase.faults import (
    Action,
    empty_400,
    html_502,
    lose_reply,
    lose_request,
    reset,
    status,
    truncate,
)
from tests.supabase.platform import Platform
from uvian_worker.local.embedded import EmbeddedPostgres
from uvian_worker.schema.migrate import bootstrap, migrate

# ─── lost replies ────────────────────────────────────────────────────────────────────────────────


#: A function, its arguments, and what must be true of its answer.
Step = tuple[str, dict[str, Any], Callable[[Any], bool]]


def life(user: str) -> list[Step]:
    """Every function of the service in an order that makes sense: its arguments, and what must be true."""
    first, second, third, concept, nonce = (str(uuid.uuid4()) for _ in range(5))
    mine = {"id": first, "run": 1}
    picture: dict[str, Any] = {"image_path": f"{user}/{'0' * 64}.png", "width": 1, "height": 1}
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
            {
                "request": {
                    "worker": "w",
                    "jobs": [{**mine, "checkpoints": {"base": 1}, "files": [f"{user}/left.png"]}],
                }
            },
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
            "served_files",
            {"request": {"user_id": user, "paths": [picture["image_path"], f"{user}/left.png"]}},
            lambda answer: answer["paths"] == [picture["image_path"]],
        ),
        (
            "choose_unnamed_files",
            {"request": {"id": nonce}},
            lambda answer: answer["files"] == [f"{user}/left.png"],
        ),
        (
            "forget_files",
            {"request": {"files": [f"{user}/left.png"]}},
            lambda answer: answer == {},
        ),
        (
            "terminal_events_of",
            {"request": {"jobs": [first]}},
            lambda answer: [ending["id"] for ending in answer["terminal_events"]] == [first],
        ),
        (
            "type_schemas",
            {"request": {}},
            lambda answer: "generation" in answer["types"],
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
        *conversing(user),
        ("sweep_jobs", {"request": {"limit": 500}}, lambda answer: answer["swept"]),
        ("retire_worker", {"request": {"worker": "w"}}, lambda answer: answer == {}),
        ("platform_state", {"request": {}}, lambda answer: answer == {"missing": []}),
        (
            "configure_types",
            {"request": {"types": [{"type": "chat", "price": 2}]}},
            lambda answer: answer["types"][0]["price"] == "2.000000",
        ),
        (
            "list_types",
            {"request": {}},
            lambda answer: "chat" in [t["type"] for t in answer["types"]],
        ),
    ]


def conversing(user: str) -> list[Step]:
    """A conversation from its first message to its end."""
    id_, member = str(uuid.uuid4()), str(uuid.uuid4())
    it = {"conversation_id": id_, "user_id": user}
    return [
        ("create_conversation", {**it, "title": "a"}, lambda answer: answer["id"] == id_),
        ("update_conversation", {**it, "title": "b"}, lambda answer: answer["title"] == "b"),
        (
            "add_members",
            {"conversation_id": id_, "members": [user]},
            lambda answer: len(answer["members"]) == 1,
        ),
        (
            "invite_members",
            {**it, "members": [member]},
            lambda answer: [i["user_id"] for i in answer["invitations"]] == [member],
        ),
        (
            "remove_member",
            {**it, "member": str(uuid.uuid4())},
            lambda answer: not answer["removed"],
        ),
        ("answer_invitation", {**it, "accept": True}, lambda answer: answer["accepted"]),
        (
            "list_invitations",
            {"request": {"user_id": member}},
            lambda answer: [i["conversation_id"] for i in answer["invitations"]] == [id_],
        ),
        (
            "list_conversations",
            {"request": {"user_id": user}},
            lambda answer: [c["id"] for c in answer["conversations"]] == [id_],
        ),
        (
            "post_message",
            {**it, "content": "Why?", "idempotency_key": "once"},
            lambda answer: answer["message"]["content"] == "Why?",
        ),
        (
            "stop_answer",
            {**it, "job_id": str(uuid.uuid4())},
            lambda answer: answer["stopped"] == [],
        ),
    ]


@pytest.mark.database
@pytest.mark.parametrize("fault", [lose_reply, lose_request, reset, truncate, html_502, empty_400])
async def test_every_function_survives_a_reply_that_is_lost(
    platform: Platform,
    service: SupabaseDatabase,
    hand: asyncpg.Connection[Any],
    user: str,
    fault: Action,
) -> None:
    """Each is struck once, and answers as if it had not been; nothing was done twice."""
    steps = life(user)
    # One is the users', and what became of a deletion is the caller's to judge.
    assert {name for name, _, _ in steps} == set(SIGNATURES) - {"submit_job", "delete_conversation"}
    for name, arguments, holds in steps:
        rule = platform.faults.add(fault, path=f"/rpc/{name}", times=1)
        answer = await service.call(name, **arguments)  # type: ignore[arg-type]
        assert holds(answer), (name, answer)
        assert (rule.hits, rule.seen) == (1, 2), name
    assert await hand.fetchval("select count(*) from uvian.jobs") == 3 + 1
    assert await hand.fetchval("select count(*) from uvian.messages") == 1
    assert await hand.fetchval("select sum(amount)::text from uvian.credit_entries") == "12.500000"
    assert await hand.fetchval("select count(*) from uvian.concepts") == 1


@pytest.mark.database
async def test_who_gives_no_id_and_no_key_makes_nothing_twice(
    platform: Platform, service: SupabaseDatabase, hand: asyncpg.Connection[Any], user: str
) -> None:
    """The repositories give them."""
    rules = [
        platform.faults.add(lose_reply, path=f"/rpc/{name}", times=1)
        for name in ("create_conversation", "post_message")
    ]
    made = await ConversationRepository(service).create(user)
    await MessageRepository(service).post(made.id, "Why?", user_id=user)
    assert [(rule.hits, rule.seen) for rule in rules] == [(1, 2), (1, 2)]
    for table in ("conversations", "messages", "jobs"):
        assert await hand.fetchval(f"select count(*) from uvian.{table}") == 1


@pytest.mark.database
async def test_a_stop_that_names_nobody_is_not_repeated(
    platform: Platform, service: SupabaseDatabase, user: str
) -> None:
    """The second would stop the answer after it."""
    made = await ConversationRepository(service).create(user)
    first, second = [
        (await MessageRepository(service).post(made.id, text, user_id=user)).job
        for text in ("1", "2")
    ]
    rule = platform.faults.add(lose_reply, path="/rpc/stop_answer", times=1)
    with pytest.raises(errors.Transient):
        await service.call("stop_answer", conversation_id=made.id, user_id=user)
    assert (rule.hits, rule.seen) == (1, 1)
    rows = await service.select("jobs", where=[Filter("conversation_id", "eq", made.id)])
    assert {row["id"]: row["status"] for row in rows} == {
        first["id"]: "cancelled",
        second["id"]: "queued",
    }


@pytest.mark.database
async def test_a_read_survives_a_reply_that_is_lost(
    platform: Platform, service: SupabaseDatabase, user: str
) -> None:
    """On every page of it."""
    await service.insert("job_types", [{"type": f"t{n}"} for n in range(2500)])
    rule = platform.faults.add(lose_reply, path="/job_types", method="GET", every=2)
    rows = await service.select("job_types", where=[Filter("type", "gte", "t")])
    assert len(rows) == len({row["type"] for row in rows}) == 2500
    assert rule.hits == 2


@pytest.mark.database
async def test_after_a_lost_reply_an_insert_is_the_callers_to_judge(
    platform: Platform, service: SupabaseDatabase, user: str
) -> None:
    """It is not sent again behind the caller's back: with ids of its own, a conflict is its own row."""
    row = job(user)
    rule = platform.faults.add(lose_reply, path="/jobs", method="POST", times=1)
    with pytest.raises(errors.Unavailable):
        await service.insert("jobs", [row])
    assert (rule.hits, rule.seen) == (1, 1)
    with pytest.raises(errors.Conflict):
        await service.insert("jobs", [row])
    assert [r["id"] for r in await service.select("jobs")] == [row["id"]]
    assert await service.insert("jobs", [row], on_conflict=("id",)) == []


@pytest.mark.database
async def test_after_a_lost_reply_a_change_may_be_repeated(
    platform: Platform, service: SupabaseDatabase, user: str
) -> None:
    """An update answers the same again, unless its filter says otherwise; what is deleted is gone."""
    (row,) = await service.insert("jobs", [job(user)])
    mine = [Filter("id", "eq", row["id"])]
    platform.faults.add(lose_reply, method="PATCH", times=1)
    with pytest.raises(errors.Unavailable):
        await service.update("jobs", {"priority": 5}, where=mine)
    (again,) = await service.update("jobs", {"priority": 5}, where=mine)
    assert again["priority"] == 5
    assert (
        await service.update("jobs", {"priority": 6}, where=[*mine, Filter("priority", "eq", 4)])
        == []
    )
    platform.faults.add(lose_reply, method="DELETE", times=1)
    with pytest.raises(errors.Unavailable):
        await service.delete("jobs", where=mine)
    assert await service.delete("jobs", where=mine) == []


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
    platform: Platform, service: SupabaseDatabase, fault: Action
) -> None:
    """A few tries within the call's time; an outage that lasts is transient, for whoever waits."""
    rule = platform.faults.add(fault, times=2)
    assert await service.call("calculate_cost", type="generation", input={}) == 0
    assert rule.hits == 2
    platform.faults.clear()
    rule = platform.faults.add(fault)
    with pytest.raises(errors.Unavailable):
        await service.call("calculate_cost", type="generation", input={})
    assert rule.hits == 3


@pytest.mark.database
async def test_what_stays_is_asked_once(
    platform: Platform, service: SupabaseDatabase, user: str
) -> None:
    """A refusal, a wrong value, a missing column, a wrong key: the same answer would come again."""
    platform.faults.add(status(401, '{"message":"Invalid API key"}'), path="/workers")
    stays: list[tuple[Callable[[], Any], type[Exception]]] = [
        (lambda: service.call("cancel_job", job_id=str(uuid.uuid4())), errors.Refused),
        (lambda: service.call("cancel_job", job_id="x"), errors.DataError),
        (lambda: service.select("jobs", columns=("not_yet",)), errors.SchemaMissing),
        (lambda: service.call("submit_job", type="generation", input={}), errors.NotGranted),
        (lambda: service.select("workers"), errors.NotGranted),
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
    service = await SupabaseDatabase.connect(supabase)
    (made,) = await service.insert("jobs", [job(user)])
    async with hand.transaction():
        await hand.execute("select from uvian.jobs for update")
        with pytest.raises(errors.StatementTooSlow):
            await service.call("cancel_job", job_id=made["id"])
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
        service = await SupabaseDatabase.connect(supabase)
        async with hand.transaction():
            await hand.execute("lock table uvian.workers")
            holding = asyncio.create_task(service.select("workers"))
            while not await hand.fetchval("select count(*) from pg_locks where not granted"):
                await asyncio.sleep(0.01)
            with pytest.raises(errors.Unavailable, match=r"[Tt]imed out"):
                await service.call("calculate_cost", type="generation", input={})
        assert await holding == []
        assert await service.call("calculate_cost", type="generation", input={}) == 0
        await supabase.close()


@pytest.mark.database
async def test_a_lock_is_waited_for_a_second_at_most(
    platform: Platform, service: SupabaseDatabase, hand: asyncpg.Connection[Any], user: str
) -> None:
    """A manual edit that holds a row: the batcher halves its batch, so it must get the error."""
    (made,) = await service.insert("jobs", [job(user)])
    async with hand.transaction():
        await hand.execute("select from uvian.jobs for update")
        with pytest.raises(errors.TimedOut, match="lock"):
            await service.call("cancel_job", job_id=made["id"])
    assert len(platform.asked("cancel_job")) == 1


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
            service = await SupabaseDatabase.connect(supabase)
            server.stop(mode)
            for _ in range(5):
                with pytest.raises(errors.Transient):
                    await service.call("sweep_jobs", request={})
            server.start()
            async with asyncio.timeout(60):
                while True:
                    try:
                        assert (await service.call("sweep_jobs", request={}))["swept"]
                        break
                    except errors.Transient:
                        await asyncio.sleep(0.1)
            await supabase.close()
