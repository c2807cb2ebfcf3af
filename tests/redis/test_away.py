"""Each way in which a Redis can be away, at each place that uses it: it is waited for, nothing is lost."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import exceptions

from executors import events
from executors.events import Appended
from tests.events.events import job
from tests.queue.jobs import RunningWorker, dispatch_of
from tests.redis.sick import ACTIONS, REPLIES, SickRedis, Strike
from tests.redis_servers import eventually
from uvian_worker.events.envelope import Envelope
from uvian_worker.events.publisher import Publisher
from uvian_worker.events.reader import Reader
from uvian_worker.events.subscriptions import STALE, Subscriptions
from uvian_worker.queue.arq_adapter import waiting
from uvian_worker.queue.arq_adapter.pool import WakingArqRedis, arq_redis_from_url
from uvian_worker.queue.dispatch import Dispatched, Dispatcher
from uvian_worker.queue.taker import Taker
from uvian_worker.redis.connection import DedicatedConnection, redis_from_url
from uvian_worker.redis.errors import (
    RedisAway,
    RedisDenied,
    RedisState,
    away_of_error,
    away_of_reply,
)
from uvian_worker.redis.keys import Keys

KEYS = Keys("uvian")
STARTED = events.JobStarted(job_type="chat", worker="w1")
COMPLETED = events.JobCompleted(output={})


# ─── what a reply means ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("reply", REPLIES)
def test_a_reply_that_blames_no_command_is_redis_being_away(reply: str) -> None:
    """Whoever made the client: redis-py takes some codes off, and hands on the rest."""
    away = away_of_reply(reply)
    assert isinstance(away, RedisAway)
    assert not isinstance(away, RedisDenied)
    plain: Any = exceptions.ResponseError(reply)
    assert isinstance(away_of_error(plain), RedisAway)


@pytest.mark.parametrize(
    "reply",
    [
        "ERR unknown command 'FOO'",
        "ERR value is not an integer or out of range",
        (
            "ERR Error running script (call to f_1): @user_script:3: @user_script: 3: "
            "WRONGTYPE Operation against a key holding the wrong kind of value"
        ),
        "ERR user_script:3: attempt to index a nil value script: 1, on @user_script:3.",
        "ERR Error running script (call to f_1): @user_script:9: user_script:9: attempt to compare nil",
        "WRONGTYPE Operation against a key holding the wrong kind of value",
        "NOSCRIPT No matching script. Please use EVAL.",
        "BUSYGROUP Consumer Group name already exists",
        "BUSYKEY Target key name already exists.",
        "EXECABORT Transaction discarded because of previous errors.",
    ],
)
def test_a_reply_that_blames_the_command_is_not(reply: str) -> None:
    """Waiting would not help, and neighbours must go on."""
    assert away_of_reply(reply) is None


@pytest.mark.parametrize(
    "reply",
    [
        "NOPERM this user has no permissions to run the 'info' command or its subcommand",
        "NOPERM User uvian has no permissions to run the 'evalsha' command",
        "NOPERM No permissions to access a channel",
        (
            "ERR Error running script (call to f_1): @user_script:1: @user_script: 1: "
            "The user executing the script can't run this command or subcommand"
        ),
        "ERR ACL failure in script: No permissions to access a key script: f_1, on @user_script:1.",
        "NOPERM ACL failure in script: User u has no permissions to run the 'publish' command",
    ],
)
def test_a_right_that_is_missing_is_named(reply: str) -> None:
    """By both releases, and inside of scripts too."""
    denied = away_of_reply(reply)
    assert isinstance(denied, RedisDenied)
    assert "does not allow it" in str(denied)
    assert not denied.passes


@given(st.from_regex(r"[A-Z]{4,12} [a-z ]{0,40}", fullmatch=True))
def test_any_code_is_read_the_same_wherever_it_stands(reply: str) -> None:
    """Bare, handed on by a script of 6.2 or 7, or by a transaction."""
    code = away_of_reply(reply)
    handed_on = (
        f"ERR Error running script (call to f_1): @user_script:10: @user_script: 4: -{reply}",
        f"ERR Error running script (call to f_1): @user_script:10: user_script:4: {reply}",
        f"user_script:4: {reply}",
        f"EXECABORT Transaction discarded because of: {reply}",
    )
    for text in handed_on:
        found = away_of_reply(text)
        assert type(found) is type(code), text
        assert found is None or code is None or found.code == code.code


def test_a_state_is_logged_once_and_its_end_too(caplog: pytest.LogCaptureFixture) -> None:
    """A thousand commands meet the same state: one line, and one when a write was carried out."""
    state = RedisState()
    full, loading = away_of_reply("OOM x"), away_of_reply("LOADING x")
    assert full is not None
    assert loading is not None
    with caplog.at_level(logging.INFO, logger="uvian.redis"):
        for _ in range(1000):
            state.note(full, "r:1")
            state.note(loading, "r:1")
        assert state.away is loading
        state.works()
        state.works()
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING", "INFO"]
    assert "is full and takes no writes" in caplog.text


def test_a_connection_that_breaks_once_is_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is opened again at once; an outage that lasts is logged."""
    state = RedisState()
    gone = RedisAway("has closed the connection")
    with caplog.at_level(logging.INFO, logger="uvian.redis"):
        state.note(gone, "r:1")
        state.works()
        assert not caplog.records
        state.note(gone, "r:1")
        state._since -= 1
        state.note(gone, "r:1")
    assert len(caplog.records) == 1


# ─── each of them, at each seam ──────────────────────────────────────────────────────────────────


@pytest.fixture
async def sick(redis_url: str) -> AsyncIterator[SickRedis]:
    """A sick Redis before the session's."""
    proxy = SickRedis(urlsplit(redis_url).port or 0)
    await proxy.start()
    yield proxy
    await proxy.close()


@pytest.fixture
def sick_url(sick: SickRedis, redis_url: str) -> str:
    """Its URL."""
    return redis_url.replace(str(urlsplit(redis_url).port), str(sick.port))


def named(*names: str) -> Callable[[tuple[bytes, ...]], bool]:
    """Picks commands by their names."""
    wanted = {name.encode() for name in names}
    return lambda command: command[0].upper() in wanted


EVERY_ANSWER = (*REPLIES, *ACTIONS)
#: Quick: a silence is noticed within 0.2 s.
QUICK: dict[str, Any] = {"socket_timeout": 0.2, "socket_connect_timeout": 0.2}


def _quick(line: DedicatedConnection) -> None:
    line._client.connection_pool.connection_kwargs["socket_timeout"] = 0.2


async def types_in(redis: Any, job_id: str) -> list[str]:
    """The types of what stands in a job's log."""
    entries = await redis.xrange(KEYS.log(f"job:{job_id}"))
    return [Envelope.parse(fields[b"e"]).type for _, fields in entries]


async def waits(strike: Strike, task: asyncio.Future[Any], *, hits: int = 2) -> None:
    """The fault was the answer, also to the repetition; the caller waits."""
    try:
        async with asyncio.timeout(5):
            while strike.hits < hits:
                strike.hit.clear()
                await strike.hit.wait()
    except TimeoutError:
        pytest.fail(f"{strike.answer}: {strike.hits} of {hits}, {task}")
    assert not task.done(), (strike.answer, task)


@pytest.mark.database
@pytest.mark.parametrize("seam", ["AUTH", "PING", "SELECT", "GET", "EXEC"])
async def test_handshakes_commands_and_pipelines_wait(
    sick: SickRedis, sick_url: str, seam: str
) -> None:
    """With the patience they were given; then they are carried out, once where nothing got lost."""
    url = sick_url.replace("/0", "/1")
    for answer in EVERY_ANSWER:
        redis = redis_from_url(url, patience=20, **QUICK)
        async with sick.struck(named(seam), answer) as strike:

            async def ask(client: Any = redis) -> Any:
                async with client.pipeline(transaction=True) as pipe:
                    if seam == "WATCH":
                        await pipe.watch("n")
                        pipe.multi()
                    pipe.get("n")
                    pipe.incr("n")
                    return await pipe.execute()

            task = asyncio.ensure_future(ask())
            await waits(strike, task)
        async with asyncio.timeout(5):
            await task
        await redis.aclose()


@pytest.mark.database
async def test_patience_ends_with_one_kind_of_error(sick: SickRedis, sick_url: str) -> None:
    """A client without patience raises ``RedisAway``, which redis-py sees as a broken connection."""
    for answer in EVERY_ANSWER:
        for seam in ("AUTH", "GET", "EVALSHA"):
            redis: Any = redis_from_url(sick_url, patience=0, **QUICK)
            async with sick.struck(named(seam), answer):
                with pytest.raises(RedisAway) as caught:
                    await (redis.evalsha("0" * 40, 0) if seam == "EVALSHA" else redis.get("x"))
            assert isinstance(caught.value, exceptions.ConnectionError)
            await redis.aclose()


@pytest.mark.database
async def test_events_wait_in_order_and_none_is_lost(sick: SickRedis, sick_url: str) -> None:
    """Whatever the script, its text, or the question for the server's identity is answered."""
    redis = redis_from_url(sick_url, **QUICK)
    for answer in EVERY_ANSWER:
        publisher = Publisher(redis, "uvian")
        _quick(publisher._connection)
        ref = job()
        async with sick.struck(named("EVALSHA", "EVAL", "INFO"), answer) as strike:
            told = [publisher.emit(ref, event) for event in (STARTED, COMPLETED)]
            await waits(strike, told[0])
        async with asyncio.timeout(5):
            assert await asyncio.gather(*told) == [Appended.APPENDED] * 2, answer
        assert await types_in(redis, ref.id) == ["job.started", "job.completed"], answer
        await publisher.close()
    await redis.aclose()


@pytest.mark.database
async def test_dispatches_are_lost_to_the_sweeper_and_never_an_error(
    sick: SickRedis, sick_url: str
) -> None:
    """The row is there; the taker finds nothing, and lets in what arq has picked."""
    redis = redis_from_url(sick_url, patience=0, **QUICK)
    for answer in EVERY_ANSWER:
        dispatcher, taker = Dispatcher(redis, "uvian", patience=0), Taker(redis, "uvian")
        _quick(dispatcher._connection)
        async with sick.struck(named("EVALSHA", "EVAL"), answer):
            if answer != "half":  # that one was carried out
                assert await dispatcher.dispatch([dispatch_of()]) == [Dispatched.LOST], answer
                assert await taker.enter("j1", 1)
                assert await taker.next() is None
            with pytest.raises(RedisAway):
                await dispatcher.overdue()
        assert await dispatcher.dispatch([dispatch_of()]) == [Dispatched.QUEUED], answer
        await dispatcher.close()
        await taker.close()
    await redis.aclose()


@pytest.mark.database
async def test_followers_wait_and_receive_everything(sick: SickRedis, sick_url: str) -> None:
    """Whatever a subscription, a read or a ping is answered: nothing is missed."""
    redis = redis_from_url(sick_url, patience=0.05, **QUICK)
    for answer in EVERY_ANSWER:
        if answer == "half":
            continue  # a proxy of this kind cannot cut a stream of messages
        reader = Reader(redis, "uvian", subscriptions=Subscriptions(redis, ping=0.1), silence=1)
        publisher = Publisher(redis, "uvian")
        ref = job()

        async def follow(reader: Reader = reader, topic: str = f"job:{ref.id}") -> str:
            last = ""
            async for event in reader.follow(topic):
                last = event.type if isinstance(event, Envelope) else ""
            return last

        async with sick.struck(named("SUBSCRIBE", "EVALSHA"), answer) as strike:
            task = asyncio.ensure_future(follow())
            await waits(strike, task, hits=1)
            told = [publisher.emit(ref, event) for event in (STARTED, COMPLETED)]
        async with asyncio.timeout(10):
            await asyncio.gather(*told)
            assert await task == "job.completed", answer
        await reader.close()
        await publisher.close()
    await redis.aclose()


@pytest.mark.database
async def test_a_subscription_that_is_refused_is_made_again(sick: SickRedis, sick_url: str) -> None:
    """Also when it does not answer: its listener has to read again."""
    redis = redis_from_url(sick_url, **QUICK)
    subscriptions = Subscriptions(redis, ping=0.05)
    async with (
        sick.struck(named("SUBSCRIBE"), "LOADING Redis is loading") as strike,
        subscriptions.listen("uvian:control") as inbox,
    ):
        async with asyncio.timeout(5):
            await strike.hit.wait()
        sick.strike = None
        assert await inbox.get(5) is STALE
    await subscriptions.close()
    await redis.aclose()


@pytest.mark.database
@pytest.mark.parametrize(
    "seam",
    ["ZRANGEBYSCORE", "BLPOP", "WATCH", "EXISTS", "EXEC", "PSETEX", "MULTI", "GET", "DEL", "ZCARD"],
)
async def test_arqs_loop_outlives_whatever_it_is_answered(
    sick: SickRedis, sick_url: str, seam: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each of its commands, also by refusals: stock arq goes on, and runs what waits."""
    monkeypatch.setattr(waiting, "_BLOCK", 0.03)
    pool: WakingArqRedis = arq_redis_from_url(sick_url, "uvian", **QUICK)
    redis = redis_from_url(sick_url, **QUICK)
    dispatcher, ran = Dispatcher(redis, "uvian"), []

    async def run(job_id: str, _run: int) -> None:
        ran.append(job_id)
        await redis.zrem("uvian:queue", f"{job_id}:1")

    worker = RunningWorker(pool, run, health_check_interval=0.05)
    await eventually(lambda: pool.reader.is_waiting)
    refusals = (
        "WRONGTYPE Operation against a key",
        "ERR whatever",
        "NOPERM User u has no permissions",
    )
    for number, answer in enumerate((*EVERY_ANSWER, *refusals)):
        async with sick.struck(named(seam), answer) as strike:
            if seam != "BLPOP":  # that one is asked while there is nothing to do
                await dispatcher.dispatch([dispatch_of(f"j{number}")])
            async with asyncio.timeout(5):
                await strike.hit.wait()
            await asyncio.sleep(0.01)
            assert not worker.task.done(), (answer, worker.task)
        # A pick of which the reply was lost is locked: the sweeper finds it and dispatches it again.
        await dispatcher.dispatch([dispatch_of(f"j{number}")])
        await eventually(lambda job_id=f"j{number}": job_id in ran, within=10)
    await worker.close()
    await dispatcher.close()
    await redis.aclose()


@pytest.mark.database
async def test_connections_accepted_and_closed_are_a_redis_that_is_away(
    sick: SickRedis, sick_url: str
) -> None:
    """A proxy before a dead server: no RecursionError, no spin, and everything goes on after it."""
    redis = redis_from_url(sick_url, **QUICK)
    publisher = Publisher(redis, "uvian")
    assert await redis.ping()
    sick.refuses = True
    sick.cut()
    told = publisher.emit(job(), STARTED)
    ping = asyncio.ensure_future(redis.ping())
    began = time.monotonic()
    await eventually(lambda: sick.refused > 6)
    assert time.monotonic() - began > 0.05
    assert not told.done()
    assert not ping.done()
    with pytest.raises(RedisAway, match="closes connections without an answer"):
        await redis_from_url(sick_url, patience=0).ping()
    sick.refuses = False
    assert await told is Appended.APPENDED
    assert await ping
    await publisher.close()
    await redis.aclose()


@pytest.mark.database
async def test_tls_where_none_is_spoken_is_named(sick: SickRedis, sick_url: str) -> None:
    """``redis://`` to a port that expects TLS is answered by an alert; the error says what to write."""
    async with sick.struck(lambda _: True, "tls"):
        with pytest.raises(RedisAway, match="expects TLS: write rediss://"):
            await redis_from_url(sick_url, patience=0).ping()
