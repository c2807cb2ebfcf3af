"""Following a topic: nothing missing, nothing twice, whatever happens to messages and connections."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from executors import events
from tests.events.events import Followed, append, job, texts
from tests.redis_servers import Backend, eventually
from uvian_worker.events.envelope import Envelope
from uvian_worker.events.publisher import Publisher
from uvian_worker.events.reader import Expired, Reader, Resume, Snapshot
from uvian_worker.events.subscriptions import STALE, Inbox, Subscriptions
from uvian_worker.redis.keys import Keys

KEYS = Keys("uvian")
STARTED = events.JobStarted(job_type="chat", worker="w1")
COMPLETED = events.JobCompleted(output={})


def stage(name: str) -> events.StageStarted:
    """A stage begins."""
    return events.StageStarted(stage=name, label=name)


@pytest.fixture
def publisher(backend: Backend) -> Publisher:
    """A publisher of the backend."""
    publisher = Publisher(backend.client(), "uvian")
    backend.defer(publisher.close)
    return publisher


@pytest.fixture
def reader(backend: Backend) -> Reader:
    """A reader of the backend."""
    reader = Reader(backend.client(), "uvian")
    backend.defer(reader.close)
    return reader


def assert_whole(seen: list[Envelope]) -> None:
    """No seq is missing and none is there twice."""
    assert [event.seq for event in seen] == list(range(1, len(seen) + 1))


async def test_a_follower_sees_a_job_from_first_to_last(
    publisher: Publisher, reader: Reader
) -> None:
    """Half of it read, half of it received, and it ends by itself."""
    ref = job()
    await append(publisher, ref, STARTED, stage("a"))
    follower = Followed(reader, f"job:{ref.id}")
    await follower.sees(2)
    await append(publisher, ref, stage("b"), COMPLETED)
    seen = await follower.until_end()
    assert texts(seen) == ["job.started", "stage.started", "stage.started", "job.completed"]
    assert_whole(seen)


async def test_a_follower_goes_on_from_a_cursor(publisher: Publisher, reader: Reader) -> None:
    """A browser that lost its socket hands back the last id it saw."""
    ref = job()
    await append(publisher, ref, STARTED, stage("a"), stage("b"))
    whole = await reader.read(f"job:{ref.id}")
    assert isinstance(whole, Resume)
    follower = Followed(reader, f"job:{ref.id}", whole.events[0].id)
    await append(publisher, ref, COMPLETED)
    assert [event.seq for event in await follower.until_end()] == [2, 3, 4]


async def test_following_a_job_that_is_over_ends_at_once(
    publisher: Publisher, reader: Reader
) -> None:
    """Even from the cursor of its terminal event, after which nothing will ever come."""
    ref = job()
    await append(publisher, ref, STARTED, COMPLETED)
    seen = await Followed(reader, f"job:{ref.id}").until_end()
    assert texts(seen) == ["job.started", "job.completed"]
    assert await Followed(reader, f"job:{ref.id}", seen[-1].id).until_end() == []


async def test_an_ending_in_the_past_is_not_the_end(publisher: Publisher, reader: Reader) -> None:
    """A job that was retried is followed to the terminal event of its latest run."""
    ref = job()
    await append(publisher, ref, STARTED, COMPLETED)
    again = ref._replace(run=2)
    await append(publisher, again, events.JobRequeued(job_type="x"))
    follower = Followed(reader, f"job:{ref.id}")
    await follower.sees(3)
    await append(publisher, again, STARTED, COMPLETED)
    assert len(await follower.until_end()) == 5


async def test_who_follows_before_the_first_event_is_told_to_read_the_row(
    publisher: Publisher, reader: Reader
) -> None:
    """``Expired`` comes first, then every event there is."""
    ref = job()
    follower = Followed(reader, f"job:{ref.id}")
    await follower.sees(1)
    assert isinstance(follower.seen[0], Expired)
    await append(publisher, ref, STARTED, COMPLETED)
    assert_whole(await follower.until_end())


async def test_two_followers_of_one_topic(publisher: Publisher, reader: Reader) -> None:
    """They share a subscription; the one that leaves does not silence the other."""
    ref = job()
    await append(publisher, ref, STARTED)
    first, second = Followed(reader, f"job:{ref.id}"), Followed(reader, f"job:{ref.id}")
    await first.sees(1)
    await second.sees(1)
    await first.close()
    await append(publisher, ref, COMPLETED)
    assert len(await second.until_end()) == 2
    third = Followed(reader, f"job:{ref.id}")
    assert len(await third.until_end()) == 2


async def test_a_subscription_that_nobody_uses_is_given_up(
    publisher: Publisher, reader: Reader, client: Redis
) -> None:
    """Channels do not pile up on the shared connection."""
    ref = job()
    channel = KEYS.channel(f"job:{ref.id}")
    follower = Followed(reader, f"job:{ref.id}")
    await follower.sees(1)
    assert dict(await client.pubsub_numsub(channel)) == {channel.encode(): 1}
    await follower.close()

    async def gone() -> bool:
        return dict(await client.pubsub_numsub(channel)) == {channel.encode(): 0}

    await eventually(gone)


async def test_messages_that_never_arrive_are_read(
    publisher: Publisher, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hole: pub/sub promises nothing. After a silence the follower reads from its cursor."""
    monkeypatch.setattr(Inbox, "put", lambda *_: None)
    reader = Reader(backend.client(), "uvian", silence=0.05)
    backend.defer(reader.close)
    ref = job()
    await append(publisher, ref, STARTED)
    follower = Followed(reader, f"job:{ref.id}")
    await follower.sees(1)
    await append(publisher, ref, stage("a"), COMPLETED)
    assert_whole(await follower.until_end())


async def test_a_jump_in_seq_is_read(
    publisher: Publisher, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hole: one message is lost and the next one arrives; the follower sees both, in order."""
    real, lost = Inbox.put, iter([True])

    def loses_one(inbox: Inbox, message: bytes) -> None:
        if not next(lost, False):
            real(inbox, message)

    ref = job()
    await append(publisher, ref, STARTED)
    follower = Followed(reader, f"job:{ref.id}")
    await follower.sees(1)
    monkeypatch.setattr(Inbox, "put", loses_one)
    await append(publisher, ref, stage("lost"), stage("received"), COMPLETED)
    assert_whole(await follower.until_end())


async def test_a_slow_follower_loses_nothing(publisher: Publisher, backend: Backend) -> None:
    """What does not fit into its inbox is read from the log instead."""
    subscriptions = Subscriptions(backend.client(), inbox=3)
    reader = Reader(backend.client(), "uvian", subscriptions=subscriptions)
    backend.defer(reader.close)
    ref = job()
    await append(publisher, ref, STARTED)
    seen: list[Envelope] = []
    async for event in reader.follow(f"job:{ref.id}"):
        assert isinstance(event, Envelope)
        seen.append(event)
        if event.seq == 1:
            await append(publisher, ref, *(stage(f"s{n}") for n in range(50)), COMPLETED)
    assert_whole(seen)
    assert len(seen) == 52


async def test_a_gap_too_old_is_a_snapshot(
    publisher: Publisher, reader: Reader, client: Redis
) -> None:
    """A follower whose place was trimmed away is handed the state, never a gap."""
    ref = job()
    await append(publisher, ref, STARTED, stage("a"), stage("b"))
    whole = await reader.read(f"job:{ref.id}")
    assert isinstance(whole, Resume)
    await client.xtrim(KEYS.log(f"job:{ref.id}"), maxlen=1, approximate=False)
    follower = Followed(reader, f"job:{ref.id}", whole.events[0].id)
    await follower.sees(1)
    assert isinstance(follower.seen[0], Snapshot)
    await append(publisher, ref, COMPLETED)
    assert texts(await follower.until_end()) == ["job.completed"]


async def test_after_a_flush_nobody_is_left_in_the_dark(
    publisher: Publisher, reader: Reader, client: Redis
) -> None:
    """The epoch changes under a follower: it gets a snapshot, and goes on."""
    ref = job()
    await append(publisher, ref, STARTED, stage("a"))
    follower = Followed(reader, f"job:{ref.id}")
    await follower.sees(2)
    await client.flushall()
    await append(publisher, ref, stage("b"))
    await follower.sees(3)
    assert isinstance(follower.seen[2], Expired)
    await append(publisher, ref, COMPLETED)
    assert texts(await follower.until_end())[-1] == "job.completed"


async def test_five_hundred_topics_on_one_connection(
    backend: Backend, publisher: Publisher, reader: Reader
) -> None:
    """Every follower gets its own job, whole; the double is not here to be fast."""
    jobs = [job() for _ in range(500 if backend.real else 50)]
    followers = [Followed(reader, f"job:{ref.id}") for ref in jobs]
    await asyncio.gather(*[follower.sees(1) for follower in followers])
    await asyncio.gather(*[append(publisher, ref, STARTED, COMPLETED) for ref in jobs])
    for follower, ref in zip(followers, jobs, strict=True):
        seen = await follower.until_end()
        assert_whole(seen)
        assert {event.job_id for event in seen} == {ref.id}


async def test_a_closed_reader_says_so(reader: Reader) -> None:
    """Following after ``close`` is a mistake, not a silence."""
    await reader.close()
    with pytest.raises(RuntimeError, match="closed"):
        await anext(aiter(reader.follow("job:x")))


class ScriptedReader(Reader):
    """A reader of a log in memory, whose inbox gets what a script says."""

    def __init__(self, log: list[Envelope], script: list[Any]) -> None:
        self._keys = KEYS
        self._silence = 1.0
        self._doubt, self._ended_jobs, self._most = 60.0, None, None
        self._reads = asyncio.Semaphore(1)
        self._subscriptions = self  # type: ignore[assignment]
        self._log = log
        self._script = iter(script)
        self.visible = 0  #: so many events were appended so far

    @contextlib.asynccontextmanager
    async def listen(self, _channel: str) -> AsyncIterator[Any]:
        """An inbox that begins as the real one does."""
        yield self

    async def get(self, _silence: float) -> Any:
        """The next answer of the script; when it is over, silence."""
        step = next(self._script, None)
        if step is None:
            self.visible = len(self._log)
            return STALE
        index, stale = step
        self.visible = max(self.visible, index + 1)
        return STALE if stale else raw(self._log[index])

    async def _page(self, topic: str, cursor: str | None) -> tuple[Resume, bool, int]:
        place = int(cursor.split("-")[1]) if cursor else 0
        events = tuple(self._log[place : self.visible])
        last = self._log[self.visible - 1].id if self.visible else "e-0-0"
        return Resume(topic, events, last, self.visible == len(self._log)), False, 0


def raw(event: Envelope) -> bytes:
    """An envelope on the wire."""
    import orjson

    return orjson.dumps({name: getattr(event, name) for name in Envelope.__dataclass_fields__})


def log_of(count: int) -> list[Envelope]:
    """A job's log with its terminal event."""
    types = [*["stage.started"] * (count - 1), "job.completed"]
    return [
        Envelope(f"e-{n}-c{n}", n, "job:j", f"j:1:{n}", type_, "", "j", 1, 0, {})
        for n, type_ in enumerate(types, 1)
    ]


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[int, list[tuple[int, bool]]]:
    """How long the log is, and in what order messages arrive: lost, repeated, late, or announced
    as possibly missing."""
    count = draw(st.integers(1, 12))
    steps = st.tuples(st.integers(0, count - 1), st.booleans())
    return count, [(0, True), *draw(st.lists(steps, max_size=30))]


@given(deliveries())
def test_any_delivery_is_merged_into_the_log(delivery: tuple[int, list[tuple[int, bool]]]) -> None:
    """Whatever pub/sub does with the messages, a follower yields the log: whole, once, in order."""
    count, script = delivery
    log = log_of(count)

    async def follow() -> Iterator[Any]:
        reader = ScriptedReader(log, script)
        return iter([event async for event in reader.follow("job:j")])

    assert list(asyncio.run(follow())) == log
