"""On a million rows every function finds its rows by an index, however old the statistics are."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest

from repositories.concepts import UserConcepts
from repositories.conversations import ConversationRepository, UserConversations
from repositories.database import Filter, Order
from repositories.jobs import Followups, JobRepository
from repositories.messages import MessageRepository, UserMessages
from tests.plans.life import life, runs
from tests.plans.million import JOBS, Explained, add_backlog, fill
from tests.servers import CleanDatabase, Clones

pytestmark = pytest.mark.database

#: A call of up to 500 items may look at so many rows of one table in one place.
MOST_ROWS = 5_000


@pytest.fixture(scope="module", params=["never analyzed", "analyzed"])
def million(request: pytest.FixtureRequest) -> CleanDatabase:
    """A million jobs, once with the statistics of an empty table and once with their own.

    A plan is cached while the table grows: what is right only after the next analyze is wrong.
    """
    database: CleanDatabase = request.getfixturevalue("million_database")
    if request.param == "analyzed":
        asyncio.run(_execute(database.superuser_dsn, "analyze"))
    return database


@pytest.fixture(scope="module")
def million_database(database_template: Clones) -> Iterator[CleanDatabase]:
    """Made once; the tests take back what they do."""
    database = database_template.clone()
    asyncio.run(fill(database.superuser_dsn))
    yield database
    database_template.drop(database)


async def _execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(statement)
    await connection.close()


@pytest.fixture
async def explained(million: CleanDatabase) -> AsyncIterator[Explained]:
    """A connection whose plans are heard, in a transaction that is taken back."""
    async with Explained.opened(million.superuser_dsn) as explained:
        transaction = explained.connection.transaction()
        await transaction.start()
        yield explained
        await transaction.rollback()


async def some(explained: Explained, status: str, number: int) -> list[dict[str, Any]]:
    """Jobs of this status, found without being heard."""
    rows = await explained.connection.fetch(
        "select id::text, user_id::text, run from uvian.jobs where status = $1 and admitted "
        "order by id limit $2",
        status,
        number,
    )
    await explained.forget()
    return [dict(row) for row in rows]


async def check(explained: Explained) -> None:
    """No sequential scan of a growing table, no scan that looks at more than it must, no compiler."""
    await explained.catch_up()
    assert explained.told, "nothing was explained"
    for relation, how, rows, statement in explained.scans():
        assert not how.startswith("Seq Scan"), f"{how} of {relation} in {statement}"
        assert rows <= MOST_ROWS, f"{how} of {relation} looks at {rows} rows in {statement}"
    assert explained.compiled() == []


async def test_there_are_a_million(explained: Explained) -> None:
    """The test would prove nothing on less, and the ear hears a sequential scan when there is one."""
    assert await explained.connection.fetchval("select count(*) from uvian.jobs") == JOBS
    with pytest.raises(AssertionError, match="Scan"):
        await check(explained)


async def test_create(explained: Explained) -> None:
    """New ones, known ones by id and by key, with parents, prices and limits."""
    await explained.connection.execute("update uvian.job_types set max_queued_per_user = 100000")
    known = await some(explained, "completed", 50)
    items = [{"user_id": job["user_id"], "type": "other", "input": {}} for job in known]
    items += [{**item, "idempotency_key": str(n)} for n, item in enumerate(items)]
    items += [{**item, "parent_id": job["id"]} for item, job in zip(items[:50], known, strict=True)]
    items += [{**item, "id": job["id"]} for item, job in zip(items[:50], known, strict=True)]
    await explained.port.call("create_jobs", request={"jobs": items})
    await check(explained)


@pytest.mark.parametrize("number", [1, 200, 500])
async def test_claim(explained: Explained, number: int) -> None:
    """By id, one and many."""
    jobs = await some(explained, "queued", number)
    answer = await explained.port.call("claim_jobs", request={"worker": "w", "jobs": runs(jobs)})
    assert sum(job["claimed"] for job in answer["jobs"]) > number / 2
    await check(explained)


@pytest.mark.parametrize("limit", [1, 20])
async def test_claim_next(explained: Explained, limit: int) -> None:
    """The oldest due, past those of other types, delayed or waiting."""
    request = {
        "worker": "w",
        "nonce": str(uuid.uuid4()),
        "types": ["noop", "other"],
        "limit": limit,
    }
    answer = await explained.port.call("claim_next_jobs", request=request)
    assert len(answer["jobs"]) == limit
    await check(explained)


async def test_what_a_worker_does_meanwhile(explained: Explained) -> None:
    """Renewal with progress, marks, checkpoints."""
    jobs = await some(explained, "processing", 200)
    worker = await explained.connection.fetchval(
        "select worker from uvian.job_leases where job_id = $1", uuid.UUID(jobs[0]["id"])
    )
    await explained.forget()
    items = runs(jobs, stage="s", progress=0.5, message="m")
    await explained.port.call("renew_leases", request={"worker": worker, "jobs": items})
    queued = await some(explained, "queued", 200)
    await explained.port.call(
        "mark_jobs", request={"dispatched": runs(queued), "announced": runs(jobs)}
    )
    items = runs(jobs, checkpoints={"a": 1})
    await explained.port.call("save_checkpoints", request={"worker": worker, "jobs": items})
    await check(explained)


@pytest.mark.parametrize("outcome", ["completed", "failed", "cancelled", "retry", "not_mine"])
async def test_settle(explained: Explained, outcome: str) -> None:
    """Ended or queued again, with concepts, answers, credits and what is let in next."""
    await explained.connection.execute("update uvian.job_types set max_running_per_user = 1000")
    jobs = await some(explained, "processing", 300)
    await explained.connection.execute("update uvian.job_leases set worker = 'w'")
    await explained.forget()
    items = runs(jobs, outcome=outcome, message={"content": "Because."})
    answer = await explained.port.call("settle_jobs", request={"worker": "w", "jobs": items})
    assert all(job["settled"] for job in answer["jobs"])
    if outcome in ("completed", "cancelled"):
        assert sum(job.get("message") is not None for job in answer["jobs"]) > 20
    await check(explained)


@pytest.mark.parametrize("more", [{}, {"redis_lost_at": "2100-01-01"}, {"claiming": 200}])
async def test_sweep(explained: Explained, more: dict[str, Any]) -> None:
    """Expired leases, orphans, what is due, what is to be announced; also after Redis was lost.

    job_leases may be scanned: its rows are the running jobs, and an index on the expiry would make
    each renewal several times as expensive.
    """
    if "claiming" in more:
        more = {"claiming": runs(await some(explained, "queued", more["claiming"]))}
    await explained.connection.execute("update uvian.sweeps set last_at = now()")
    await explained.forget()
    began = time.monotonic()
    answer = await explained.port.call("sweep_jobs", request={"limit": 500, **more})
    assert answer["swept"]
    assert answer["dispatch"]
    assert answer["announce"]
    assert answer["expired"]
    assert time.monotonic() - began < 4, "well within the API's 8 s"
    await check(explained)


async def test_what_users_do(explained: Explained) -> None:
    """Cancel, retry, grants, and a hand that deletes."""
    await explained.connection.execute("update uvian.job_types set max_running_per_user = 1000")
    (queued,), (failed,) = await some(explained, "queued", 1), await some(explained, "failed", 1)
    await explained.forget()
    await explained.port.call("cancel_job", job_id=queued["id"])
    await explained.port.call("retry_job", job_id=failed["id"], expected_run=1)
    await explained.port.call("grant_credits", user_id=queued["user_id"], amount="1", reference="r")
    await explained.port.delete("jobs", where=[Filter("id", "eq", queued["id"])])
    await check(explained)


async def test_lists(explained: Explained) -> None:
    """The newest jobs of a user and of all, a user's concepts, a user's entries."""
    (job,) = await some(explained, "completed", 1)
    nobody: Any = Followups
    repository = JobRepository(explained.port, "w", nobody)
    assert len(await repository.list(user_id=job["user_id"])) == 20
    assert len(await repository.list()) == 20
    assert await repository.find(job["id"])
    assert len(await UserConcepts(explained.port, job["user_id"]).list()) == 20
    await explained.port.select(
        "credit_entries",
        where=[Filter("user_id", "eq", job["user_id"])],
        order=[Order("id", descending=True)],
        limit=20,
    )
    await check(explained)


async def test_a_users_own_list_through_row_level_security(explained: Explained) -> None:
    """What supabase-js asks for: the policy is a condition of the index."""
    (job,) = await some(explained, "completed", 1)
    connection = explained.connection
    await connection.execute(
        "select set_config('request.jwt.claims', $1, true)", f'{{"sub": "{job["user_id"]}"}}'
    )
    await connection.execute("set local role authenticated")
    await explained.forget()
    rows = await connection.fetch("select * from uvian.jobs order by created_at desc limit 20")
    assert len(rows) == 20
    await check(explained)


async def talk(explained: Explained) -> tuple[str, str]:
    """A conversation in which somebody has the turn and others wait, and its user."""
    row = await explained.connection.fetchrow(
        "select conversation_id::text, min(user_id::text) from uvian.jobs where status = 'queued' "
        "and conversation_id is not null group by 1 having count(*) > 4 and bool_or(its_turn) limit 1"
    )
    assert row is not None
    await explained.forget()
    return row[0], row[1]


@pytest.mark.parametrize("on_busy", ["enqueue", "interrupt"])
async def test_posts(explained: Explained, on_busy: str) -> None:
    """A message and its chat, beside others or in their place; chats in many conversations at once."""
    conversation, user = await talk(explained)
    port = explained.port
    post = {"conversation_id": conversation, "user_id": user, "content": "Why?", "on_busy": on_busy}
    for _ in range(2):
        await port.call("post_message", **post, idempotency_key="k")
    chats = await explained.connection.fetch(
        "select id::text, user_id::text from uvian.conversations"
    )
    await explained.forget()
    items = [
        {"user_id": chat["user_id"], "type": "chat", "input": {"conversation_id": chat["id"]}}
        for chat in chats[:500]
    ]
    made = await port.call("create_jobs", request={"jobs": items})
    assert all("job" in answer for answer in made["jobs"])
    await check(explained)


async def test_what_becomes_of_conversations(explained: Explained) -> None:
    """Changed, shared, left, deleted."""
    conversation, user = await talk(explained)
    conversations = ConversationRepository(explained.port)
    (other,) = await some(explained, "failed", 1)
    await conversations.update(conversation, title="t", user_id=user)
    await conversations.invite(conversation, [other["user_id"]], user_id=user)
    assert len(await conversations.invitations(other["user_id"])) == 1
    await conversations.answer_invitation(conversation, other["user_id"], accept=True)
    await conversations.add_members(conversation, [other["user_id"]])
    await explained.port.call(
        "post_message", conversation_id=conversation, user_id=other["user_id"], content="Why?"
    )
    await conversations.remove_member(conversation, other["user_id"])
    assert (await conversations.delete(conversation, user_id=user))["deleted"]
    await check(explained)


async def test_messages_are_read_in_pages(explained: Explained) -> None:
    """In both directions, in a conversation of 25,000, and as a chat reads them."""
    big, user = await explained.connection.fetchrow(
        "select id::text, user_id::text from uvian.conversations where id = "
        "(select conversation_id from uvian.messages group by 1 order by count(*) desc limit 1)"
    )
    await explained.forget()
    messages = MessageRepository(explained.port)
    page = await messages.list(big, after_position=500_000)
    page += await messages.list(big, before_position=500_000, newest_first=True)
    assert len(page) == 100
    mine = UserMessages(explained.port, user)
    assert await mine.history(big, up_to=page[0].id, before_position=page[-1].position)
    assert await mine.get(page[0].id) == page[0]
    assert len(await UserConversations(explained.port, user).list()) == 10
    await check(explained)


async def test_a_users_own_conversations_through_row_level_security(explained: Explained) -> None:
    """What supabase-js asks for: the array of one's conversations is a condition of the index."""
    conversation, user = await talk(explained)
    connection = explained.connection
    await explained.port.call(
        "post_message", conversation_id=conversation, user_id=user, content="Why?"
    )
    await connection.execute(
        "select set_config('request.jwt.claims', $1, true)", f'{{"sub": "{user}"}}'
    )
    await connection.execute("set local role authenticated")
    await explained.forget()
    for statement, rows in (
        ("select * from uvian.conversations order by last_message_at desc limit 20", 10),
        ("select * from uvian.conversation_members", 10),
    ):
        assert len(await connection.fetch(statement)) == rows
    page = "select * from uvian.messages where conversation_id = $1 order by position desc limit 20"
    assert await connection.fetch(page, uuid.UUID(conversation))
    await check(explained)


async def test_plans_of_an_empty_database_hold_when_it_is_full(database: CleanDatabase) -> None:
    """A worker's connections plan when the queue is empty, and keep the plans when it is not.

    Scanning all that is queued, or joining by a hash of it, is the cheapest plan for an empty queue.
    """
    async with Explained.opened(database.superuser_dsn) as explained:
        connection = explained.connection
        user = str(await connection.fetchval("insert into auth.users default values returning id"))
        await connection.execute("insert into uvian.job_types (type) values ('noop')")
        await connection.execute(
            "insert into uvian.job_prices values ('noop', 0.001), ('chat', 0.001)"
        )
        await explained.port.call("grant_credits", user_id=user, amount="1000", reference="r")
        conversation = (await ConversationRepository(explained.port).create(user)).id
        await connection.execute("alter table uvian.jobs set (autovacuum_enabled = false)")
        await connection.execute("alter table uvian.job_state set (autovacuum_enabled = false)")
        for _ in range(7):  # from the sixth on, plans are generic
            await life(explained.port, user, conversation, 2)
        await add_backlog(database.superuser_dsn, user, conversation, 20_000)
        await explained.forget()
        await life(explained.port, user, conversation, 100)
        await check(explained)
