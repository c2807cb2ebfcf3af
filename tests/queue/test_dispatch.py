"""Who puts a job into the queue: once, in order, and never a run that is over."""

from __future__ import annotations

import asyncio
import math
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import arq.constants
import fakeredis
import pytest
from arq.jobs import deserialize_job_raw
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from executors import events
from tests.events.events import append
from tests.queue.jobs import QUEUE, dispatch_of, soon
from tests.redis_servers import Backend
from uvian_worker.events.publisher import Publisher
from uvian_worker.events.reader import Reader, Resume
from uvian_worker.local.embedded import EmbeddedRedis
from uvian_worker.queue import dispatch
from uvian_worker.queue.arq_adapter import names
from uvian_worker.queue.arq_adapter.pool import deserialize
from uvian_worker.queue.dispatch import Dispatch, Dispatched, Dispatcher
from uvian_worker.queue.taker import Taker
from uvian_worker.redis import connection
from uvian_worker.redis.connection import RedisAway
from uvian_worker.redis.keys import Keys, parsed_queue_id

KEYS = Keys("uvian")
WEEK = 7 * 24 * 3_600_000


@pytest.fixture
def dispatcher(backend: Backend) -> Dispatcher:
    """A dispatcher of the backend."""
    dispatcher = Dispatcher(backend.client(), "uvian")
    backend.defer(dispatcher.close)
    return dispatcher


@pytest.fixture
def taker(backend: Backend) -> Taker:
    """A taker of the backend."""
    taker = Taker(backend.client(), "uvian")
    backend.defer(taker.close)
    return taker


async def events_of(client: Redis, topic: str) -> list[Any]:
    """Everything in a topic."""
    answer = await Reader(client, "uvian").read(topic)
    assert isinstance(answer, Resume)
    return list(answer.events)


async def age_claiming(client: Any, seconds: float) -> None:
    """Let time pass in the claiming set."""
    for member, score in await client.zrange(KEYS.claiming, 0, -1, withscores=True):
        await client.zadd(KEYS.claiming, {member: score - seconds * 1000})


async def test_a_dispatched_job_is_what_arq_reads(dispatcher: Dispatcher, client: Redis) -> None:
    """Id, payload and score are those of arq's own ``enqueue_job``, in JSON."""
    before = time.time() * 1000
    assert await dispatcher.dispatch([dispatch_of("j1", 3)]) == [Dispatched.QUEUED]
    [(member, score)] = await client.zrange(QUEUE, 0, -1, withscores=True)
    assert parsed_queue_id(member) == ("j1", 3)
    assert abs(score - before) < 5_000
    raw = await client.get("uvian:arq:job:j1:3")
    assert raw is not None
    read: tuple[Any, ...] = deserialize_job_raw(raw, deserializer=deserialize)
    assert read[:4] == ("run_job", ["j1", 3], {}, None)
    assert WEEK - 60_000 < await client.pttl("uvian:arq:job:j1:3") <= WEEK


async def test_dispatching_twice_is_dispatching_once(dispatcher: Dispatcher, client: Redis) -> None:
    """One id, one ``job.queued``, one wake-up, the place in the queue unchanged."""
    await dispatcher.dispatch([dispatch_of("j1")])
    queue = await client.zrange(QUEUE, 0, -1, withscores=True)
    again = [dispatch_of("j1"), dispatch_of("j1")]
    assert await dispatcher.dispatch(again) == [Dispatched.WAITING] * 2
    assert await client.zrange(QUEUE, 0, -1, withscores=True) == queue
    assert [event.type for event in await events_of(client, "job:j1")] == ["job.queued"]
    wake: Any = client
    assert await wake.llen(KEYS.wake) == 1


async def test_queued_and_requeued_have_the_fields_of_their_events(
    dispatcher: Dispatcher, client: Redis
) -> None:
    """What the script appends is what the event classes declare."""
    later = datetime(2031, 2, 3, 4, 5, 6, 789000, tzinfo=UTC)
    await dispatcher.dispatch([dispatch_of("j1", priority=7)])
    reason = {"outcome": "retry", "attempt": 1, "error": {"message": 'a "quote" and é'}}
    await dispatcher.dispatch([dispatch_of("j1", 2, run_at=later, attempt=1, reason=reason)])
    queued, requeued = await events_of(client, "job:j1")
    assert events.JobQueued(**queued.data) == events.JobQueued(job_type="chat", priority=7)
    assert events.JobRequeued(**requeued.data) == events.JobRequeued(
        job_type="chat", run_at="2031-02-03T04:05:06.789Z", reason=reason
    )
    assert (requeued.type, requeued.run, requeued.attempt) == ("job.requeued", 2, 1)
    assert requeued.key == "j1:2:queued"
    assert abs(datetime.fromisoformat(queued.at) - datetime.now(UTC)) < timedelta(seconds=5)
    answer = await Reader(client, "uvian").read("user:u-j1")
    assert answer.cursor.split("-")[1] == "2"


async def test_a_run_that_is_over_is_not_dispatched(
    backend: Backend, dispatcher: Dispatcher, client: Redis
) -> None:
    """A sweeper that was slow dispatches neither an overtaken run nor one that has ended."""
    publisher = Publisher(backend.client(), "uvian")
    ref = events.JobRef("j1", "u-j1", 2, 0)
    await append(publisher, ref, events.JobStarted(job_type="chat", worker="w"))
    assert await dispatcher.dispatch([dispatch_of("j1", 1)]) == [Dispatched.FENCED]
    await append(publisher, ref, events.JobCompleted(output={}))
    assert await dispatcher.dispatch([dispatch_of("j1", 2)]) == [Dispatched.SEALED]
    assert await dispatcher.dispatch([dispatch_of("j1", 3)]) == [Dispatched.QUEUED]
    await publisher.close()
    assert await client.zcard(QUEUE) == 1


async def test_a_delayed_job_is_not_due_early(
    dispatcher: Dispatcher, taker: Taker, client: Redis
) -> None:
    """Its score is its time, priority gives it no head start, and nobody takes it before."""
    at = soon(60)
    await dispatcher.dispatch([dispatch_of("j1", run_at=at, priority=3600)])
    [(_, score)] = await client.zrange(QUEUE, 0, -1, withscores=True)
    assert score == round(at.timestamp() * 1000)
    assert await taker.next() is None
    assert await client.pttl("uvian:arq:job:j1:1") > WEEK
    assert not await client.exists(KEYS.wake)


async def test_priority_is_a_head_start(dispatcher: Dispatcher, taker: Taker) -> None:
    """An urgent job overtakes those of its last seconds, and nobody starves."""
    past = soon(-10)
    await dispatcher.dispatch([dispatch_of("first"), dispatch_of("urgent", priority=5)])
    await dispatcher.dispatch([dispatch_of("waits", run_at=past)])
    order = [await taker.next() for _ in range(4)]
    assert order == [("waits", 1), ("urgent", 1), ("first", 1), None]


async def test_a_score_is_never_zero(dispatcher: Dispatcher, client: Redis) -> None:
    """arq takes a score of 0 for a missing one."""
    await dispatcher.dispatch([dispatch_of("j1", priority=10**10)])
    assert await client.zscore(QUEUE, "j1:1") == 1


async def test_what_was_just_taken_is_left_alone(
    dispatcher: Dispatcher, taker: Taker, client: Redis
) -> None:
    """Between queue and claim an id is dispatched again only after five seconds."""
    await dispatcher.dispatch([dispatch_of("j1")])
    assert await taker.next() == ("j1", 1)
    assert await dispatcher.dispatch([dispatch_of("j1")]) == [Dispatched.CLAIMING]
    assert await dispatcher.overdue() == []
    await age_claiming(client, 5)
    assert await dispatcher.overdue() == [("j1", 1)]
    assert await dispatcher.dispatch([dispatch_of("j1")]) == [Dispatched.QUEUED]
    assert await dispatcher.overdue() == []
    assert await client.exists("uvian:arq:job:j1:1")
    assert len(await events_of(client, "job:j1")) == 1


async def test_a_worker_killed_after_its_pick_blocks_nobody(
    dispatcher: Dispatcher, taker: Taker, client: Redis
) -> None:
    """Hole: arq's lock outlives the worker for an hour and the id stays in the queue."""
    await dispatcher.dispatch([dispatch_of("j1")])
    await client.set("uvian:arq:in-progress:j1:1", "1", px=3_600_000)
    await client.delete(KEYS.wake)
    assert await taker.next() is None
    assert await dispatcher.overdue() == []
    await age_claiming(client, 5)
    assert await dispatcher.overdue() == [("j1", 1)]
    assert await dispatcher.dispatch([dispatch_of("j1")]) == [Dispatched.WAITING]
    assert await client.exists(KEYS.wake)
    assert await taker.next() == ("j1", 1)


async def test_what_needs_nothing_more_is_forgotten(
    dispatcher: Dispatcher, taker: Taker, client: Redis
) -> None:
    """A row that was settled otherwise is taken off the list."""
    await dispatcher.dispatch([dispatch_of("j1")])
    await taker.next()
    await age_claiming(client, 60)
    await dispatcher.forget(await dispatcher.overdue())
    await dispatcher.forget([])
    assert await dispatcher.depth() == (0, 0)


async def test_many_at_once(dispatcher: Dispatcher, client: Redis) -> None:
    """A thousand jobs go in a few calls; the wake list stays short."""
    answers = await dispatcher.dispatch(dispatch_of() for _ in range(1000))
    assert answers == [Dispatched.QUEUED] * 1000
    assert (await dispatcher.depth()).queued == 1000
    wake: Any = client
    assert await wake.llen(KEYS.wake) == 64


async def test_a_lost_reply_is_no_second_dispatch(
    dispatcher: Dispatcher, client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call was carried out and the connection broke: the repetition finds it waiting."""
    line = dispatcher._connection
    real, replies = line.call, iter([False])

    async def loses_first_reply(*arguments: Any) -> Any:
        answer = await real(*arguments)
        if not next(replies, True):
            raise RedisAway("cut")
        return answer

    monkeypatch.setattr(line, "call", loses_first_reply)
    assert await dispatcher.dispatch([dispatch_of("j1")]) == [Dispatched.WAITING]
    assert len(await events_of(client, "job:j1")) == 1


async def test_without_redis_a_dispatch_is_lost_and_not_an_error(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row is there and the sweeper will find it; the second caller does not even wait."""
    dispatcher = Dispatcher(backend.client(), "uvian", patience=0.05)
    calls = 0

    async def away(*_: object) -> object:
        nonlocal calls
        calls += 1
        raise RedisAway("away")

    monkeypatch.setattr(connection, "run_script", away)
    assert await dispatcher.dispatch([dispatch_of()]) == [Dispatched.LOST]
    before = calls
    assert await dispatcher.dispatch([dispatch_of()]) == [Dispatched.LOST]
    assert (before > 1, calls - before) == (True, 1)
    monkeypatch.undo()
    assert await dispatcher.dispatch([dispatch_of()]) == [Dispatched.QUEUED]
    await dispatcher.close()
    assert await dispatcher.dispatch([dispatch_of()]) == [Dispatched.LOST]


async def test_a_flush_is_noticed(dispatcher: Dispatcher, client: Redis) -> None:
    """The marker goes with the queue."""
    assert await dispatcher.redis_lost()
    await dispatcher.mark_redis()
    assert not await dispatcher.redis_lost()
    await client.flushall()
    assert await dispatcher.redis_lost()


async def test_a_second_flush_while_healing_is_noticed(
    backend: Backend, dispatcher: Dispatcher, client: Redis
) -> None:
    """What was dispatched between the two is lost as well: the mark is not set, healing goes on."""
    assert await dispatcher.redis_lost()
    await client.flushall()
    assert await dispatcher.redis_lost()
    await dispatcher.mark_redis()
    assert await dispatcher.redis_lost()
    await dispatcher.mark_redis()
    assert not await dispatcher.redis_lost()


async def test_another_sweeper_may_heal(backend: Backend, dispatcher: Dispatcher) -> None:
    """Two sweepers that notice a loss do not undo each other's mark."""
    other = Dispatcher(backend.client(), "uvian")
    assert await dispatcher.redis_lost()
    assert await other.redis_lost()
    await other.mark_redis()
    await dispatcher.mark_redis()
    assert not await dispatcher.redis_lost()
    assert not await other.redis_lost()
    await other.close()


@pytest.mark.database
async def test_a_restart_is_noticed(own_redis: EmbeddedRedis) -> None:
    """The marker is still there, and names a server that is gone."""
    backend = Backend(own_redis.url)
    dispatcher = Dispatcher(backend.client(), "uvian")
    await dispatcher.mark_redis()
    await backend.client().save()
    own_redis.restart(lose_data=False)
    with pytest.raises(RedisAway):  # the connection it had
        await dispatcher.redis_lost()
    assert await dispatcher.redis_lost()
    await dispatcher.mark_redis()
    assert not await dispatcher.redis_lost()
    await dispatcher.close()
    await backend.close()


def test_a_time_without_a_zone_is_refused() -> None:
    """``datetime.now()`` would be hours off, silently."""
    with pytest.raises(ValueError, match="time zone"):
        Dispatch("j", 1, "u", "chat", run_at=datetime(2031, 1, 1))  # noqa: DTZ001 — the mistake


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.datetimes(datetime(1971, 1, 1), datetime(2400, 12, 31), timezones=st.just(UTC)))  # noqa: DTZ001
def test_times_are_written_as_python_writes_them(moment: datetime) -> None:
    """The script turns milliseconds into ISO 8601 itself, for callers in every language."""
    moment = moment.replace(microsecond=moment.microsecond // 1000 * 1000)

    async def written() -> str:
        client = fakeredis.FakeAsyncRedis()
        dispatcher = Dispatcher(client, "uvian")
        await dispatcher.dispatch([dispatch_of("j1", run_at=moment)])
        [event] = await events_of(client, "job:j1")
        await dispatcher.close()
        await client.aclose()
        return str(event.data["run_at"])

    text = asyncio.run(written())
    assert datetime.fromisoformat(text) == moment
    assert text == moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def test_arqs_names_are_arqs() -> None:
    """The constants repeated for light clients, in Python and in Lua, are those of arq."""
    assert arq.constants.job_key_prefix == names.ARQ_JOB
    assert arq.constants.in_progress_key_prefix == names.ARQ_IN_PROGRESS
    assert arq.constants.retry_key_prefix == names.ARQ_RETRY
    for name in (names.ARQ_JOB, names.ARQ_IN_PROGRESS, names.ARQ_RETRY):
        assert f"ARQ .. '{name.removeprefix(names.ARQ)}'" in dispatch.DISPATCH_SCRIPT.text
    assert names.ARQ_FUNCTION in dispatch.DISPATCH_SCRIPT.text


@pytest.mark.parametrize(
    "module",
    ["queue.dispatch", "events.reader", "events.control", "events.log"],
)
def test_an_api_loads_nothing_of_the_work(module: str) -> None:
    """Enqueuing and listening import neither arq nor executors nor repositories."""
    program = (
        f"import sys, uvian_worker.{module}; "
        "print({m.partition('.')[0] for m in sys.modules} & {'arq', 'executors', 'repositories'})"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert said.stdout.strip() == b"set()"


def test_the_claim_time_is_that_of_the_script() -> None:
    """Python and Lua agree on how long a claim may take."""
    assert math.isclose(dispatch.CLAIM_SECONDS, 5)
    assert "CLAIM_TIME = 5000" in dispatch.DISPATCH_SCRIPT.text
