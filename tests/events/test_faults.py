"""A Redis that is killed, comes back, or comes back without its last writes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from redis.asyncio import SSLConnection

from executors import events
from executors.events import Appended
from tests.events.events import Followed, append, job, texts
from tests.redis_servers import Backend, eventually
from uvian_worker.events.envelope import Envelope
from uvian_worker.events.publisher import Publisher
from uvian_worker.events.reader import Expired, Reader, Resume, Snapshot
from uvian_worker.events.subscriptions import Subscriptions
from uvian_worker.local.embedded import EmbeddedRedis
from uvian_worker.redis import connection
from uvian_worker.redis.connection import DedicatedConnection, RedisAway, redis_from_url

pytestmark = pytest.mark.database

STARTED = events.JobStarted(job_type="chat", worker="w1")
COMPLETED = events.JobCompleted(output={})


def stage(name: str) -> events.StageStarted:
    """A stage begins."""
    return events.StageStarted(stage=name, label=name)


@pytest_asyncio.fixture
async def mortal(own_redis: EmbeddedRedis) -> AsyncIterator[Backend]:
    """Clients of a server that the test may kill."""
    backend = Backend(own_redis.url)
    yield backend
    await backend.close()


@pytest.fixture
def publisher(mortal: Backend) -> Publisher:
    """A publisher of that server."""
    publisher = Publisher(mortal.client(), "uvian")
    mortal.defer(publisher.close)
    return publisher


@pytest.fixture
def reader(mortal: Backend) -> Reader:
    """A reader of that server."""
    reader = Reader(mortal.client(), "uvian")
    mortal.defer(reader.close)
    return reader


async def save(backend: Backend) -> None:
    """Write down what a restart will find."""
    await backend.client().save()


async def test_lost_writes_make_a_new_epoch(
    own_redis: EmbeddedRedis, mortal: Backend, publisher: Publisher, reader: Reader
) -> None:
    """Who saw a write that the server then lost is never resumed across it."""
    ref = job()
    await append(publisher, ref, STARTED, stage("a"))
    await save(mortal)
    await append(publisher, ref, stage("lost"))
    whole = await reader.read(f"job:{ref.id}")
    assert isinstance(whole, Resume)
    own_redis.restart(lose_data=False)
    assert isinstance(await reader.read(f"job:{ref.id}", whole.cursor), Snapshot)
    await append(publisher, ref, stage("b"), stage("c"))
    assert isinstance(await reader.read(f"job:{ref.id}", whole.cursor), Snapshot)
    # Who had seen nothing of what was lost just goes on.
    answer = await reader.read(f"job:{ref.id}", whole.events[1].id)
    assert isinstance(answer, Resume)
    assert [(event.seq, event.data["stage"]) for event in answer.events] == [(3, "b"), (4, "c")]
    assert answer.events[0].cursor.epoch != whole.events[0].cursor.epoch


async def test_without_an_identity_the_check_still_tells(
    own_redis: EmbeddedRedis,
    mortal: Backend,
    publisher: Publisher,
    reader: Reader,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Hole: where INFO is forbidden the epoch stays and a seq is used twice."""

    async def nobody(_: object) -> str:
        return ""

    monkeypatch.setattr(connection, "_identity", nobody)
    ref = job()
    await append(publisher, ref, STARTED)
    await save(mortal)
    await append(publisher, ref, stage("lost"))
    lost = await reader.read(f"job:{ref.id}")
    assert isinstance(lost, Resume)
    own_redis.restart(lose_data=False)
    await append(publisher, ref, stage("b"), stage("c"))
    now = await reader.read(f"job:{ref.id}")
    assert isinstance(now, Resume)
    assert now.events[1].cursor.epoch == lost.events[1].cursor.epoch
    assert now.events[1].seq == lost.events[1].seq
    assert isinstance(await reader.read(f"job:{ref.id}", lost.cursor), Snapshot)


async def test_a_follower_outlives_the_server(
    own_redis: EmbeddedRedis, mortal: Backend, publisher: Publisher, reader: Reader
) -> None:
    """Killed and back with everything: the follower misses nothing and gets nothing twice."""
    ref = job()
    await append(publisher, ref, STARTED, stage("a"))
    follower = Followed(reader, f"job:{ref.id}")
    await follower.sees(2)
    await save(mortal)
    await asyncio.to_thread(own_redis.kill)
    waiting = [publisher.emit(ref, stage("b")), publisher.emit(ref, COMPLETED)]
    await asyncio.to_thread(own_redis.start)
    assert await asyncio.gather(*waiting) == [Appended.APPENDED] * 2
    seen = await follower.until_end()
    assert [event.seq for event in seen] == [1, 2, 3, 4]


async def test_a_follower_across_lost_writes_is_told(
    own_redis: EmbeddedRedis, mortal: Backend, publisher: Publisher, reader: Reader
) -> None:
    """The state so far replaces what it believed, and then everything is live again."""
    ref = job()
    await append(publisher, ref, STARTED)
    await save(mortal)
    await append(publisher, ref, stage("lost"))
    follower = Followed(reader, f"job:{ref.id}")
    await follower.sees(2)
    await asyncio.to_thread(own_redis.restart, lose_data=False)
    await follower.sees(3)
    snapshot = follower.seen[2]
    assert isinstance(snapshot, Snapshot)
    assert texts(snapshot.state) == ["job.started"]
    await append(publisher, ref, COMPLETED)
    assert texts(await follower.until_end())[-1] == "job.completed"


async def test_a_server_that_lost_everything(
    own_redis: EmbeddedRedis, publisher: Publisher, reader: Reader
) -> None:
    """Events go on at once; followers are sent to the row; the rest of the job is whole."""
    ref = job()
    await append(publisher, ref, STARTED, stage("a"))
    follower = Followed(reader, f"job:{ref.id}")
    await follower.sees(2)
    await asyncio.to_thread(own_redis.restart)
    await eventually(lambda: isinstance(follower.seen[-1], Expired))
    assert await append(publisher, ref, stage("b"), COMPLETED) == [Appended.APPENDED] * 2
    seen = await follower.until_end()
    assert [event.type for event in seen[-2:]] == ["stage.started", "job.completed"]


async def test_a_cut_subscription_is_noticed(
    mortal: Backend, publisher: Publisher, reader: Reader
) -> None:
    """Hole: redis-py subscribes again without a word; what came in between is read."""
    ref = job()
    await append(publisher, ref, STARTED)
    follower = Followed(reader, f"job:{ref.id}")
    await follower.sees(1)
    client: Any = mortal.client()
    killed = await client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    assert killed == 1
    await append(publisher, ref, stage("in between"), COMPLETED)
    assert [event.seq for event in await follower.until_end()] == [1, 2, 3]


async def test_a_subscription_without_a_sign_of_life_is_made_anew(
    mortal: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection cut without a word looks like a quiet one: unanswered pings give it away."""
    subscriptions = Subscriptions(mortal.client(), ping=0.02)
    mortal.defer(subscriptions.close)
    async with subscriptions.listen("uvian:events:job:x") as inbox:
        await inbox.get(5)
        first = subscriptions._pubsub
        assert first is not None

        async def mute(**_: object) -> None:
            await asyncio.sleep(0.02)

        monkeypatch.setattr(first, "get_message", mute)
        await eventually(lambda: subscriptions._pubsub not in {None, first})
        await inbox.get(5)
        client: Any = mortal.client()
        await client.publish("uvian:events:job:x", "received")
        assert await inbox.get(5) == b"received"


async def test_a_quiet_subscription_is_left_alone(mortal: Backend) -> None:
    """Pings that are answered keep a connection, however quiet."""
    subscriptions = Subscriptions(mortal.client(), ping=0.02)
    mortal.defer(subscriptions.close)
    async with subscriptions.listen("uvian:events:job:x") as inbox:
        await inbox.get(5)
        first = subscriptions._pubsub
        await asyncio.sleep(0.3)
        assert subscriptions._pubsub is first


async def test_a_line_knows_the_server_behind_it(own_redis: EmbeddedRedis, mortal: Backend) -> None:
    """After a restart at the same address a connection names another server, on its first call."""
    dedicated = DedicatedConnection(mortal.client(), "uvian")
    mortal.defer(dedicated.close)
    before, _ = await dedicated.request("PING")
    assert len(before) == 81
    own_redis.restart()
    with pytest.raises(RedisAway):
        # The first call on the broken connection fails, for it carries the old name …
        await dedicated.call(connection.Script("return ARGV[2]"))
    after = (await dedicated.call(connection.Script("return ARGV[2]"))).decode()
    assert after not in {before, ""}


async def test_a_cancellation_is_never_swallowed(own_redis: EmbeddedRedis) -> None:
    """Hole: redis-py sends through ``wait_for``; one cancellation in a few then did nothing."""
    redis = redis_from_url(own_redis.url)

    async def speak() -> None:
        while True:
            await redis.ping()

    for number in range(300):
        task = asyncio.create_task(speak())
        await asyncio.sleep(number % 10 * 0.0002)
        task.cancel()
        _, pending = await asyncio.wait([task], timeout=1)
        assert not pending, number
    await redis.aclose()


async def test_patience_ends(own_redis: EmbeddedRedis) -> None:
    """A command waits for Redis for its patience, over all layers, and then fails."""
    redis = redis_from_url(own_redis.url, patience=0.2)
    assert await redis.ping()
    own_redis.kill()
    began = time.monotonic()
    with pytest.raises(connection.FAULTS):
        await redis.ping()
    assert 0.1 < time.monotonic() - began < 2
    own_redis.start()
    assert await redis.ping()
    await redis.aclose()


async def test_an_ending_waits_for_redis(own_redis: EmbeddedRedis, publisher: Publisher) -> None:
    """Events emitted while Redis is away are appended when it is back, in order."""
    ref = job()
    own_redis.kill()
    futures = [publisher.emit(ref, event) for event in (STARTED, stage("a"), COMPLETED)]
    await asyncio.wait(futures, timeout=0.1)
    assert publisher.waiting == 3
    own_redis.start()
    assert await asyncio.gather(*futures) == [Appended.APPENDED] * 3


def test_a_url_has_user_database_and_tls() -> None:
    """ACL users, database numbers and TLS options of the URL reach the connection."""
    redis = redis_from_url("rediss://jo:pa%3Ass@example.org:6380/3?ssl_cert_reqs=none")
    kwargs = redis.connection_pool.connection_kwargs
    assert (kwargs["username"], kwargs["password"], kwargs["db"]) == ("jo", "pa:ss", 3)
    assert kwargs["ssl_cert_reqs"] == "none"
    assert issubclass(redis.connection_pool.connection_class, SSLConnection)
    local = redis_from_url("unix:///tmp/redis.sock?db=2")
    assert local.connection_pool.connection_kwargs["db"] == 2
    pool: Any = local.connection_pool
    pool.make_connection()


def test_an_envelope_of_a_newer_release_is_read() -> None:
    """Fields this release does not know are left out."""
    raw = (
        b'{"id":"e-1-c","seq":1,"topic":"t","key":"k","type":"new.thing","at":"","job_id":null,'
        b'"run":1,"attempt":0,"data":{"x":1},"invented":true}'
    )
    assert Envelope.parse(raw).data == {"x": 1}
