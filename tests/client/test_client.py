"""The client where APIs use it: beside packages of theirs, over Redis that comes and goes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest
from fakeredis import FakeAsyncRedis as FakeRedis

from tests.adapters import Adapter
from uvian_worker.client import Client, DatabaseAway, JobRefused
from uvian_worker.local.embedded import EmbeddedRedis

ROOT = Path(__file__).parents[2]
USER = str(uuid.uuid4())


def _python(code: str, path: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{path}{os.pathsep}{ROOT}"}
    environment["UVIAN_DATABASE_URL"] = "postgresql://nobody@127.0.0.1/none"
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, env=environment, cwd=path, capture_output=True, text=True, check=False
    )


@pytest.fixture
def strangers(tmp_path: Path) -> Path:
    """A folder that comes first on the path, with packages called like ours."""
    for name in ("executors", "repositories"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
    return tmp_path


def test_the_client_works_beside_packages_of_the_same_names(strangers: Path) -> None:
    """A team's API has ``executors`` and ``repositories`` of its own, and imports our client."""
    done = _python(
        "import executors, uvian_worker, sys\n"
        f"assert executors.__file__.startswith({str(strangers)!r})\n"
        "uvian_worker.Client\n"
        "assert 'arq' not in sys.modules and 'numpy' not in sys.modules",
        strangers,
    )
    assert done.returncode == 0, done.stderr


def test_a_worker_among_strangers_says_so(strangers: Path) -> None:
    """Where Python would import somebody else's package, the worker does not start."""
    done = _python("import uvian_worker; uvian_worker.WorkerSettings", strangers)
    assert done.returncode != 0
    assert "the package 'executors' of uvian-worker should be in" in done.stderr


@pytest.fixture
async def client(adapter: Adapter, superuser_dsn: str, redis_url: str) -> AsyncIterator[Client]:
    """A client, a user, and a type."""
    connection = await asyncpg.connect(superuser_dsn)
    await connection.execute("insert into auth.users (id) values ($1)", uuid.UUID(USER))
    await connection.execute("insert into uvian.job_types (type) values ('noop')")
    await connection.close()
    async with adapter.client(redis_url) as client:
        yield client


class Away:
    """A database that is away for some seconds: it records the calls."""

    def __init__(self, seconds: float) -> None:
        self.back = time.monotonic() + seconds
        self.calls: list[Any] = []

    async def __call__(self, function: str, arguments: dict[str, Any]) -> Any:
        self.calls.append((function, arguments))
        if time.monotonic() < self.back:
            raise DatabaseAway("PGRST002")
        if function == "type_schemas":
            return {"types": {"noop": {}}}
        job = {"id": "1", "status": "queued", "run": 1, "cost": "0"}
        made = {"job": job, "created": True, "dispatch": False}
        return {"jobs": [made], "accounts": []}


async def test_a_call_outlasts_a_database_that_is_away_for_a_moment() -> None:
    """A failover takes longer than a blink: the same request is made until it is answered."""
    away = Away(1.2)
    async with Client(away, FakeRedis()) as client:
        job = await client.submit(USER, "noop", {})
    assert job.id == "1"
    assert 4 <= len(away.calls) <= 9
    assert all(call == away.calls[0] for call in away.calls[:-1])
    assert away.calls[-1][0] == "create_jobs"


async def test_a_job_is_made_once_though_its_answer_comes_late() -> None:
    """The same request is made until it is answered, with its id: it cannot make two."""
    away = Away(0)
    async with Client(away, FakeRedis()) as client:
        await client.submit(USER, "noop", {})
        away.back = time.monotonic() + 1.2
        await client.submit(USER, "noop", {})
    assert 4 <= len(away.calls) <= 9
    assert all(call == away.calls[2] for call in away.calls[2:])


async def test_a_call_gives_up_when_its_patience_ends() -> None:
    """It says so, after a second try at least; what might be done twice is tried once."""
    away = Away(60)
    async with Client(away, FakeRedis(), patience=0) as client:
        with pytest.raises(DatabaseAway):
            await client.submit(USER, "noop", {})
        assert len(away.calls) == 2
        with pytest.raises(DatabaseAway):
            await client.conversations.stop_answer("c")
        assert len(away.calls) == 3


@pytest.mark.database
async def test_the_same_key_makes_one_job(client: Client) -> None:
    """A request that is sent again is answered with the job it made."""
    first = await client.submit(USER, "noop", {}, idempotency_key="order-1")
    again = await client.submit(USER, "noop", {}, idempotency_key="order-1")
    assert (first.created, again.created) == (True, False)
    assert first.id == again.id
    with pytest.raises(JobRefused, match="idempotency_conflict"):
        await client.submit(USER, "noop", {"other": 1}, idempotency_key="order-1")


@pytest.mark.database
async def test_refusals_have_codes(client: Client) -> None:
    """What the database refuses is an error with a stable code."""
    with pytest.raises(JobRefused, match="unknown_type"):
        await client.submit(USER, "nonsense", {})
    with pytest.raises(JobRefused, match="unknown_user"):
        await client.submit(str(uuid.uuid4()), "noop", {})
    job = await client.submit(USER, "noop", {})
    with pytest.raises(JobRefused, match="not_found"):
        await client.cancel(job.id, user_id=str(uuid.uuid4()))
    with pytest.raises(JobRefused, match="not_retryable"):
        await client.retry(job.id, expected_run=1)


@pytest.mark.database
async def test_cancel_of_a_waiting_job_is_told_at_once(client: Client) -> None:
    """A job that never ran ends with its terminal event in the log, and can be retried."""
    job = await client.submit(USER, "noop", {})
    cancelled = await client.cancel(job.id, user_id=USER)
    assert cancelled.status == "cancelled"
    types = [getattr(event, "type", event) async for event in client.follow(job.id)]
    assert types == ["job.queued", "job.cancelled"]
    again = await client.retry(job.id, expected_run=cancelled.run, user_id=USER)
    assert (again.status, again.run) == ("queued", 2)


@pytest.mark.database
async def test_submitting_works_without_redis(
    adapter: Adapter, superuser_dsn: str, tmp_path: Path
) -> None:
    """The row is the job: while Redis is away it is created all the same."""
    connection = await asyncpg.connect(superuser_dsn)
    await connection.execute("insert into auth.users (id) values ($1)", uuid.UUID(USER))
    with EmbeddedRedis(tmp_path / "redis") as redis:
        url = redis.url
    fields = {"logo_description": "A fox", "theme_description": "woods"}
    async with adapter.client(url) as client:
        job = await asyncio.wait_for(
            client.submit(USER, "generation", fields, max_cost=Decimal(0)), timeout=10
        )
    status = await connection.fetchval("select status from uvian.jobs where id = $1", job.id)
    await connection.close()
    assert status == "queued"


@pytest.mark.database
async def test_a_lost_connection_does_not_make_two_jobs(client: Client, superuser_dsn: str) -> None:
    """Backends are cut while jobs are submitted: each call makes exactly one."""
    connection = await asyncpg.connect(superuser_dsn)

    async def cut() -> None:
        until = time.monotonic() + 0.25  # a client has patience for about a second
        while time.monotonic() < until:
            await connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where datname = current_database() and pid <> pg_backend_pid()"
            )
            await asyncio.sleep(0.01)

    async def submit(number: int) -> str:
        await asyncio.sleep(number * 0.005)
        return (await client.submit(USER, "noop", {"n": number})).id

    ids, _ = await asyncio.gather(asyncio.gather(*(submit(n) for n in range(40))), cut())
    made = await connection.fetch("select id from uvian.jobs")
    await connection.close()
    assert sorted(ids) == sorted(str(row["id"]) for row in made)


@pytest.mark.database
async def test_a_delayed_job_waits_in_the_queue(client: Client, redis_url: str) -> None:
    """``run_at`` is the job's score in the queue."""
    from redis.asyncio import Redis

    later = datetime.now(UTC) + timedelta(hours=1)
    job = await client.submit(USER, "noop", {}, run_at=later)
    redis = Redis.from_url(redis_url)
    score = await redis.zscore("uvian:queue", f"{job.id}:1")
    await redis.aclose()
    assert score == pytest.approx(later.timestamp() * 1000, abs=1)


@pytest.fixture
async def mute() -> AsyncIterator[str]:
    """The URL of a server that accepts and never answers."""
    accepted: list[asyncio.StreamWriter] = []

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(writer)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    server.close()
    for writer in accepted:
        writer.close()


@pytest.mark.database
async def test_a_mute_redis_does_not_hang_the_api(
    client: Client, adapter: Adapter, superuser_dsn: str, mute: str
) -> None:
    """Redis accepts and never answers: every call of the client takes seconds at most."""
    await _register(superuser_dsn)
    async with adapter.client(mute) as slow:
        async with asyncio.timeout(3):
            job = await slow.submit(USER, "noop", {})
        async with asyncio.timeout(3):
            jobs = await asyncio.gather(*(slow.submit(USER, "noop", {"n": n}) for n in range(20)))
        await _claim(superuser_dsn, job.id)
        async with asyncio.timeout(3):
            assert (await slow.cancel(job.id)).status == "processing"
        async with asyncio.timeout(3):
            assert (await slow.cancel(jobs[0].id)).status == "cancelled"
        async with asyncio.timeout(3):
            await slow.retry(jobs[0].id, expected_run=1)
        async with asyncio.timeout(10):
            await slow.close()


@pytest.mark.database
async def test_a_cancel_is_kept_though_redis_is_away(
    client: Client, adapter: Adapter, superuser_dsn: str, tmp_path: Path
) -> None:
    """The row has the request, so that the caller gets no error; the worker reads it there."""
    await _register(superuser_dsn)
    job = await client.submit(USER, "noop", {})
    await _claim(superuser_dsn, job.id)
    with EmbeddedRedis(tmp_path / "redis") as redis:
        url = redis.url
    async with adapter.client(url) as alone:
        assert (await alone.cancel(job.id)).status == "processing"
    connection = await asyncpg.connect(superuser_dsn)
    assert await connection.fetchval("select cancel_requested from uvian.job_leases")
    await connection.close()


@pytest.mark.database
async def test_members_are_removed_though_redis_is_away(
    client: Client, adapter: Adapter, superuser_dsn: str, mute: str, tmp_path: Path
) -> None:
    """Gone or mute: gateways find out by themselves, and the caller gets no error."""
    other = str(uuid.uuid4())
    connection = await asyncpg.connect(superuser_dsn)
    await connection.execute("insert into auth.users (id) values ($1)", uuid.UUID(other))
    with EmbeddedRedis(tmp_path / "redis") as redis:
        gone = redis.url
    for url in (gone, mute):
        async with adapter.client(url) as alone:
            at = await alone.conversations.create(USER)
            await alone.conversations.add_members(at, [other])
            async with asyncio.timeout(4):
                await alone.conversations.remove_member(at, other)
            assert await connection.fetchval("select count(*) from uvian.conversation_members") == 1
            async with asyncio.timeout(4):
                await alone.conversations.delete(at)
            assert not await connection.fetchval("select count(*) from uvian.conversations")
    await connection.close()


@pytest.mark.database
@pytest.mark.parametrize(
    "arguments",
    [
        {"input": {"text": "a\0b"}},
        {"input": {"text": "half \ud83d"}},
        {"input": {"text": object()}},
        {"input": {}, "priority": 10**6},
        {"input": {}, "idempotency_key": "x" * 256},
    ],
)
async def test_what_the_database_cannot_hold_is_refused_in_words(
    client: Client, arguments: dict[str, Any]
) -> None:
    """U+0000, half a character, a number out of range: the caller's mistake, not a crash."""
    with pytest.raises(JobRefused, match="invalid_input") as refused:
        await client.submit(USER, "noop", **arguments)
    assert refused.value.details["message"]


@pytest.mark.database
async def test_an_id_that_is_none_is_not_found(client: Client) -> None:
    """A hostile id is answered like a missing job."""
    for job_id in ("x", "../1", "a\0b", "", str(uuid.uuid4())):
        with pytest.raises(JobRefused, match="not_found"):
            await client.cancel(job_id, user_id=USER)
        with pytest.raises(JobRefused, match="not_found"):
            await client.retry(job_id, expected_run=1, user_id=USER)


@pytest.mark.database
async def test_a_lost_reply_is_still_our_job(client: Client) -> None:
    """The row was made, the reply was lost, the call is repeated: we have made it."""
    call, lost = client._database._call, iter([OSError("connection reset")])

    async def lose(function: str, arguments: dict[str, Any]) -> Any:
        answer = await call(function, arguments)
        if (error := next(lost, None)) is not None:
            raise error
        return answer

    client._database._call = lose
    assert (await client.submit(USER, "noop", {}, idempotency_key="k")).created
    assert not (await client.submit(USER, "noop", {}, idempotency_key="k")).created


@pytest.mark.database
async def test_cancel_races_with_claim(client: Client, superuser_dsn: str) -> None:
    """Whoever comes first: the job ends as cancelled at once, or its worker gets a request to stop."""
    await _register(superuser_dsn)

    async def race(number: int) -> None:
        job = await client.submit(USER, "noop", {"n": number})
        cancelled, _ = await asyncio.gather(client.cancel(job.id), _claim(superuser_dsn, job.id))
        connection = await asyncpg.connect(superuser_dsn)
        row = await connection.fetchrow(
            "select j.status, l.cancel_requested from uvian.jobs j "
            "left join uvian.job_leases l on l.job_id = j.id where j.id = $1",
            uuid.UUID(job.id),
        )
        await connection.close()
        assert row is not None
        if cancelled.status == "cancelled":
            assert tuple(row) == ("cancelled", None)
        else:
            assert tuple(row) == ("processing", True)

    for number in range(15):
        await race(number)


@pytest.mark.database
async def test_a_cancelled_jobs_id_in_the_queue_claims_nothing(
    client: Client, superuser_dsn: str
) -> None:
    """Cancelled between dispatch and claim: its id is still in Redis, and stale for Postgres."""
    await _register(superuser_dsn)
    job = await client.submit(USER, "noop", {})
    await client.cancel(job.id)
    assert await _claim(superuser_dsn, job.id) == "stale"
    again = await client.retry(job.id, expected_run=1)
    assert await _claim(superuser_dsn, job.id) == "stale"
    assert await _claim(superuser_dsn, job.id, run=again.run) is None


@pytest.mark.database
async def test_many_retries_make_one_run(client: Client) -> None:
    """Two tabs press retry at once, again and again: the job is queued once more, not twice."""
    job = await client.submit(USER, "noop", {})
    await client.cancel(job.id)
    handles = await asyncio.gather(*(client.retry(job.id, expected_run=1) for _ in range(10)))
    assert {(handle.status, handle.run) for handle in handles} == {("queued", 2)}


@pytest.mark.database
async def test_following_a_job_that_has_ended(client: Client, redis_url: str) -> None:
    """Whoever comes late gets everything, and an end; after the log is gone, ``Expired``."""
    from redis.asyncio import Redis

    from uvian_worker.events.reader import Expired

    job = await client.submit(USER, "noop", {})
    await client.cancel(job.id)
    for _ in range(2):
        async with asyncio.timeout(5):
            seen = [getattr(event, "type", "") async for event in client.follow(job.id)]
        assert seen == ["job.queued", "job.cancelled"]
    redis = Redis.from_url(redis_url)
    await redis.flushall()
    await redis.aclose()
    following = client.follow(job.id)
    async with asyncio.timeout(5):
        assert isinstance(await anext(following), Expired)
    await following.aclose()  # type: ignore[attr-defined] # it is a generator


@pytest.mark.database
async def test_a_conversation_is_shared_changed_and_deleted(
    client: Client, superuser_dsn: str
) -> None:
    """In the name of a user; open chats of who leaves, and of what is deleted, end for their followers."""
    other = str(uuid.uuid4())
    connection = await asyncpg.connect(superuser_dsn)
    await connection.execute("insert into auth.users (id) values ($1)", uuid.UUID(other))
    at = await client.conversations.create(USER, title="Hello")
    with pytest.raises(JobRefused, match="unknown_user"):
        await client.conversations.add_members(at, [str(uuid.uuid4())])
    await client.conversations.invite(at, [other, USER, str(uuid.uuid4())], user_id=USER)
    with pytest.raises(JobRefused, match="not_found"):
        await client.conversations.post(other, at, "May I?")
    await client.conversations.answer_invitation(at, user_id=other)
    with pytest.raises(JobRefused, match="owner_only"):
        await client.conversations.update(at, title="Mine", user_id=other)
    await client.conversations.update(at, metadata={"a": [1]}, user_id=USER)
    row = await connection.fetchrow("select title, metadata::text from uvian.conversations")
    assert tuple(row) == ("Hello", '{"a": [1]}')
    theirs = await client.conversations.post(other, at, "Why?")
    ours = await client.conversations.post(USER, at, "How?")
    assert (theirs.position, ours.position) == (1, 2)
    await client.conversations.remove_member(at, other, user_id=other)
    with pytest.raises(JobRefused, match="not_found"):
        await client.conversations.post(other, at, "Still there?")
    await client.conversations.delete(at, user_id=USER)
    for posted in (theirs, ours):
        types = [getattr(each, "type", "") async for each in client.follow(posted.job.id)]
        assert types[-1] == "job.cancelled"
    for gone in (
        client.conversations.delete(at, user_id=USER),
        client.conversations.remove_member("no id", "nor this"),
    ):
        with pytest.raises(JobRefused, match="not_found"):
            await gone
    await connection.close()


async def _register(superuser_dsn: str) -> None:
    """A worker that can claim."""
    connection = await asyncpg.connect(superuser_dsn)
    await connection.execute(
        """select uvian.register_worker('{"worker": "w", "types": [{"type": "noop"}]}')"""
    )
    await connection.close()


async def _claim(superuser_dsn: str, job_id: str, run: int = 1) -> str | None:
    """Claim a run; why not."""
    connection = await asyncpg.connect(superuser_dsn)
    request = orjson.dumps({"worker": "w", "jobs": [{"id": job_id, "run": run}]}).decode()
    answer = await connection.fetchval("select uvian.claim_jobs($1::text::jsonb)::text", request)
    await connection.close()
    (claim,) = orjson.loads(answer)["jobs"]
    return claim.get("reason")  # type: ignore[no-any-return]


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/New_York"])
async def test_a_time_without_a_zone_is_refused(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows which moment is meant, not even where the process has a zone."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    async with Client(Away(0), FakeRedis()) as client:
        for naive in (datetime.now(), datetime(2040, 1, 1)):  # noqa: DTZ001, DTZ005 - that is the point
            with pytest.raises(JobRefused, match="invalid_input") as refused:
                await client.submit(USER, "noop", {}, run_at=naive)
            assert refused.value.details["field"] == "run_at"
            assert (await client.submit(USER, "noop", {}, run_at=naive.astimezone())).id == "1"
    monkeypatch.undo()
    time.tzset()


@pytest.mark.database
@pytest.mark.parametrize(
    "written", [str.upper, lambda id_: "{" + id_ + "}", lambda id_: id_.replace("-", "")]
)
async def test_an_id_is_the_same_job_however_it_is_written(
    client: Client, redis_url: str, written: Callable[[str], str]
) -> None:
    """Followed, cancelled (its worker gets the id that it knows) and run again."""
    job = await client.submit(USER, "noop", {})
    async with asyncio.timeout(5):
        assert (await anext(client.follow(written(job.id)))).type == "job.queued"  # type: ignore[union-attr]
    assert (await client.cancel(written(job.id), user_id=written(USER))).status == "cancelled"
    assert (await client.retry(written(job.id), expected_run=1, user_id=written(USER))).run == 2
    conversation = await client.conversations.create(USER)
    posted = await client.conversations.post(USER, written(conversation), "Why?")
    assert await client.conversations.stop_answer(
        written(conversation), job_id=written(posted.job.id)
    )
