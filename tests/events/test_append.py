"""What one call appends, and what it refuses."""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis

from executors import events
from executors.events import Appended, JobRef
from executors.running.terminal_events import terminal_events_of
from tests.events.events import append, job, texts
from tests.redis_servers import Backend
from uvian_common.terminal_events import TERMINAL_TYPES
from uvian_worker.events import append as appending
from uvian_worker.events.append import append_of_event
from uvian_worker.events.envelope import Envelope
from uvian_worker.events.log import Appender
from uvian_worker.events.publisher import Publisher
from uvian_worker.events.reader import Reader, Resume
from uvian_worker.events.terminal_events import terminal_appends
from uvian_worker.redis.connection import RedisAway
from uvian_worker.redis.keys import Keys

KEYS = Keys("uvian")
STARTED = events.JobStarted(job_type="chat", worker="w1")
COMPLETED = events.JobCompleted(output={"answer": 42})


def progress(fraction: float) -> events.JobProgress:
    """How far."""
    return events.JobProgress(fraction=fraction)


def stage(name: str) -> events.StageStarted:
    """A stage begins."""
    return events.StageStarted(stage=name, label=name.capitalize())


def delta(offset: int, text: str) -> events.MessageDelta:
    """A piece of the message ``m``."""
    return events.MessageDelta(message_id="m", offset=offset, text=text)


@pytest.fixture
def publisher(backend: Backend) -> Publisher:
    """A publisher of the backend."""
    publisher = Publisher(backend.client(), "uvian")
    backend.defer(publisher.close)
    return publisher


async def log_of(client: Redis, topic: str) -> list[Envelope]:
    """Everything in a topic's log."""
    return [Envelope.parse(fields[b"e"]) for _, fields in await client.xrange(KEYS.log(topic))]


async def test_an_event_is_in_every_topic_of_its_audience(
    publisher: Publisher, client: Redis
) -> None:
    """Job events are in the job's and the user's topic with one key and two cursors."""
    ref = job()
    assert await append(publisher, ref, STARTED) == [Appended.APPENDED]
    [of_job] = await log_of(client, f"job:{ref.id}")
    [of_user] = await log_of(client, f"user:{ref.user_id}")
    assert of_job.key == of_user.key
    assert (of_job.topic, of_user.topic) == (f"job:{ref.id}", f"user:{ref.user_id}")
    assert of_job.data == {"job_type": "chat", "worker": "w1"}
    assert (of_job.job_id, of_job.run, of_job.attempt) == (ref.id, 1, 0)


async def test_message_events_are_not_in_the_users_topic(
    publisher: Publisher, client: Redis
) -> None:
    """Deltas go to the conversation and the job, never to the user's topic."""
    ref = job()
    await append(
        publisher, ref, events.MessageStarted(message_id="m", conversation_id="c"), delta(0, "Hi")
    )
    for topic in (f"conversation:{ref.conversation_id}", f"job:{ref.id}"):
        assert texts(await log_of(client, topic)) == ["message.started", "message.delta"]
    assert await log_of(client, f"user:{ref.user_id}") == []


async def test_a_job_without_a_conversation_has_no_conversation_topic(
    publisher: Publisher, client: Redis
) -> None:
    """A message event of such a job is in the job's topic alone."""
    ref = job()._replace(conversation_id=None)
    await append(publisher, ref, events.MessageStarted(message_id="m", conversation_id="c"))
    assert len(await log_of(client, f"job:{ref.id}")) == 1
    assert not await client.keys("*conversation*")


async def test_seq_has_no_gaps_with_two_publishers(backend: Backend, client: Redis) -> None:
    """Two processes that append to one topic share its seq."""
    publishers = [Publisher(backend.client(), "uvian") for _ in range(2)]
    jobs = [job(id=f"two-{index}")._replace(user_id="shared") for index in range(2)]
    await asyncio.gather(
        *(
            publisher.emit(ref, stage(f"s{number}"))
            for number in range(40)
            for publisher, ref in zip(publishers, jobs, strict=True)
        )
    )
    log = await log_of(client, "user:shared")
    assert [event.seq for event in log] == list(range(1, 81))
    assert len({event.id for event in log}) == 80
    for publisher in publishers:
        await publisher.close()


async def test_what_is_published_is_what_is_in_the_log(
    publisher: Publisher, client: Redis, backend: Backend
) -> None:
    """A plain subscriber gets the very bytes of the log entry."""
    ref = job()
    pubsub: Any = backend.client().pubsub()
    await pubsub.subscribe(KEYS.channel(f"job:{ref.id}"))
    assert (await pubsub.get_message(timeout=5))["type"] == "subscribe"
    await append(publisher, ref, STARTED)
    message = await pubsub.get_message(timeout=5)
    [(_, fields)] = await client.xrange(KEYS.log(f"job:{ref.id}"))
    assert message["data"] == fields[b"e"]
    await pubsub.aclose()


async def test_a_run_that_was_overtaken_is_fenced(publisher: Publisher, client: Redis) -> None:
    """A zombie writes nothing once a later run has written, not even a terminal event."""
    ref = job()
    await append(publisher, ref, STARTED)
    await append(publisher, ref._replace(run=2), STARTED)
    answers = await append(publisher, ref, progress(0.5), COMPLETED, delta(0, "x"))
    assert answers == [Appended.FENCED] * 3
    assert [event.run for event in await log_of(client, f"job:{ref.id}")] == [1, 2]


async def test_an_ending_seals_its_run(publisher: Publisher, client: Redis) -> None:
    """After the terminal event nothing of the run is appended, and appending it again changes nothing."""
    ref = job()
    answers = await append(publisher, ref, COMPLETED, COMPLETED, stage("late"), delta(0, "x"))
    assert answers == [
        Appended.APPENDED,
        Appended.DUPLICATE,
        Appended.SEALED,
        Appended.SEALED,
    ]
    assert texts(await log_of(client, f"user:{ref.user_id}")) == ["job.completed"]


async def test_the_sweeper_may_announce_what_the_worker_has(
    backend: Backend, publisher: Publisher, client: Redis
) -> None:
    """A terminal event is known by its run, whichever process appends it, and with whatever data."""
    ref = job()
    await append(publisher, ref, COMPLETED)
    sweeper = Publisher(backend.client(), "uvian")
    failed = events.JobFailed(error={}, error_message="")
    assert await append(sweeper, ref, failed) == [Appended.DUPLICATE]
    await sweeper.close()
    assert texts(await log_of(client, f"job:{ref.id}")) == ["job.completed"]


async def test_a_new_run_opens_what_an_ending_sealed(publisher: Publisher) -> None:
    """A retried job goes on in the same topic."""
    ref = job()
    await append(publisher, ref, COMPLETED)
    requeued = events.JobRequeued(job_type="chat")
    answers = await append(publisher, ref._replace(run=2), requeued, STARTED, COMPLETED)
    assert answers == [Appended.APPENDED] * 3


async def test_a_repeated_event_is_a_duplicate(backend: Backend, client: Redis) -> None:
    """What is sent again after a lost reply is recognised by its number."""
    ref = job()
    engine = Appender(backend.client(), "uvian")
    items = [append_of_event(ref, stage(f"s{number}"), number) for number in (7, 8)]
    first = await asyncio.gather(*[engine.submit(item) for item in items])
    second = await asyncio.gather(*[engine.submit(item) for item in items])
    await engine.close()
    assert (first, second) == (["appended"] * 2, ["duplicate"] * 2)
    assert len(await log_of(client, f"job:{ref.id}")) == 2


async def test_a_lost_reply_is_no_lost_event(
    publisher: Publisher, client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis carried out the call and the connection broke: appended once, and reported so."""
    connection = publisher._connection
    real = connection.call
    replies = iter([False])

    async def loses_first_reply(*arguments: object) -> object:
        answer = await real(*arguments)  # type: ignore[arg-type]
        if not next(replies, True):
            raise RedisAway("cut")
        return answer

    monkeypatch.setattr(connection, "call", loses_first_reply)
    ref = job()
    answers = await append(publisher, ref, STARTED, stage("a"), COMPLETED, stage("late"))
    assert answers == [*[Appended.APPENDED] * 3, Appended.SEALED]
    assert len(await log_of(client, f"job:{ref.id}")) == 3


async def test_a_delta_that_does_not_fit_appends_nothing(
    publisher: Publisher, client: Redis
) -> None:
    """The offset of a delta must be the bytes so far; a snapshot makes it right again."""
    ref = job()
    answers = await append(
        publisher,
        ref,
        events.MessageStarted(message_id="m", conversation_id="c"),
        delta(0, "Grüße "),
        delta(6, "wrong: characters, not bytes"),
        delta(8, "🎨"),
        delta(12, "!"),
    )
    assert answers == [
        Appended.APPENDED,
        Appended.APPENDED,
        Appended.MISMATCH,
        Appended.APPENDED,
        Appended.APPENDED,
    ]
    await client.flushall()
    snapshot = events.MessageSnapshot(message_id="m", text="Grüße 🎨!!")
    answers = await append(publisher, ref, delta(13, "!"), snapshot, delta(14, "?"))
    assert answers == [Appended.MISMATCH, Appended.APPENDED, Appended.APPENDED]
    assert await client.get(KEYS.text("m")) == "Grüße 🎨!!?".encode()


async def test_a_reset_empties_the_text(publisher: Publisher) -> None:
    """Another run begins its message at offset 0."""
    ref = job()
    await append(
        publisher,
        ref,
        events.MessageStarted(message_id="m", conversation_id="c"),
        delta(0, "half an ans"),
    )
    again = ref._replace(run=2)
    answers = await append(
        publisher,
        again,
        events.MessageReset(message_id="m"),
        events.MessageStarted(message_id="m", conversation_id="c"),
        delta(0, "whole"),
    )
    assert answers == [Appended.APPENDED] * 3


async def test_the_end_of_a_message_is_told_once(publisher: Publisher, client: Redis) -> None:
    """``message.completed`` is known by its message: the sweeper may append it again."""
    ref = job()
    completed = events.MessageCompleted(
        message_id="m", role="assistant", status="completed", length=2, sha256="", text="Hi"
    )
    answers = await append(publisher, ref, STARTED, delta(0, "Hi"), completed, completed)
    assert answers == [*[Appended.APPENDED] * 3, Appended.DUPLICATE]
    assert not await client.exists(KEYS.text("m"))


async def test_a_delta_continues_its_own_run_only(publisher: Publisher, client: Redis) -> None:
    """After a flush a zombie's text may be there, by chance as long as ours: nobody goes on with it."""
    ref = job(run=2)
    zombie = events.MessageSnapshot(message_id="m", text="old")
    await client.flushall()
    assert await append(publisher, ref._replace(run=1), zombie) == [Appended.APPENDED]
    snapshot = events.MessageSnapshot(message_id="m", text="new!")
    answers = await append(publisher, ref, delta(3, "!"), snapshot, delta(4, "?"))
    assert answers == [Appended.MISMATCH, Appended.APPENDED, Appended.APPENDED]
    assert await client.get(KEYS.text("m")) == b"new!?"


async def test_balances_only_grow_in_version(publisher: Publisher, client: Redis) -> None:
    """An older balance never overwrites a newer one, and a sealed job does not matter."""
    ref = job()

    def balance(version: int) -> events.CreditsChanged:
        return events.CreditsChanged(balance="1", reserved="0", version=version)

    await append(publisher, ref, COMPLETED)
    answers = await append(publisher, ref, balance(3), balance(3), balance(2), balance(4))
    assert [str(answer) for answer in answers] == [
        "appended",
        "duplicate",
        "duplicate",
        "appended",
    ]
    nobody = JobRef("", ref.user_id, 0, 0)
    assert await append(publisher, nobody, balance(5)) == [Appended.APPENDED]
    assert (await log_of(client, f"user:{ref.user_id}"))[-1].job_id is None


async def test_after_a_flush_there_is_a_new_epoch(publisher: Publisher, client: Redis) -> None:
    """A topic that lost its state begins anew, under a name that no old cursor fits."""
    ref = job()
    await append(publisher, ref, STARTED, stage("a"))
    before = (await log_of(client, f"job:{ref.id}"))[0].cursor
    await client.flushall()
    await append(publisher, ref, stage("b"))
    [after] = await log_of(client, f"job:{ref.id}")
    assert after.seq == 1
    assert after.cursor.epoch != before.epoch


async def test_a_log_without_its_fences_is_not_continued(
    publisher: Publisher, client: Redis
) -> None:
    """If only the topic's hash was evicted, the entries beside it belong to a forgotten epoch."""
    ref = job()
    await append(publisher, ref, STARTED, stage("a"))
    await client.delete(KEYS.topic(f"job:{ref.id}"))
    assert await append(publisher, ref, stage("b")) == [Appended.APPENDED]
    assert texts(await log_of(client, f"job:{ref.id}")) == ["stage.started"]


async def test_everything_expires(publisher: Publisher, client: Redis) -> None:
    """No key of the event stream outlives the last event by much more than 24 hours."""
    ref = job()
    await append(
        publisher,
        ref,
        STARTED,
        events.MessageStarted(message_id="m", conversation_id="c"),
        delta(0, "x"),
    )
    await append(publisher, ref, progress(0.5))
    hours = 3_600_000
    for key in await client.keys("*"):
        assert 23.9 * hours < await client.pttl(key) < 24.2 * hours, key


async def test_keys_are_those_of_keys_py(publisher: Publisher, client: Redis) -> None:
    """The scripts make up the same names as ``keys.py``."""
    ref = job(id="known")
    await append(
        publisher,
        ref,
        STARTED,
        events.MessageStarted(message_id="m", conversation_id="c"),
        delta(0, "x"),
    )
    topics = ("job:known", "user:u-known", "conversation:c-known")
    expected = {KEYS.topic(t) for t in topics} | {KEYS.log(t) for t in topics}
    expected |= {KEYS.state("job:known"), KEYS.state("conversation:c-known"), KEYS.text("m")}
    assert {key.decode() for key in await client.keys("*")} == expected


async def test_namespaces_do_not_meet(backend: Backend, client: Redis) -> None:
    """Two installations on one Redis have nothing in common."""
    ref = job()
    other = Publisher(backend.client(), "other")
    await append(other, ref, STARTED)
    await other.close()
    assert all(key.startswith(b"other:") for key in await client.keys("*"))
    with pytest.raises(ValueError, match="not usable"):
        Keys("a b")


async def test_progress_that_waits_is_replaced(publisher: Publisher, client: Redis) -> None:
    """Of a job's progress only the latest is sent; whoever waits for an older one gets its answer."""
    first, second = job(), job()
    futures = [publisher.emit(first, progress(n / 10)) for n in range(5)]
    futures += [publisher.emit(second, progress(0.9)), publisher.emit(first, stage("a"))]
    assert set(await asyncio.gather(*futures)) == {Appended.APPENDED}
    log = await log_of(client, f"job:{first.id}")
    assert [event.data.get("fraction") for event in log] == [0.4, None]


async def away(*_: object) -> object:
    """A call while Redis is away."""
    raise RedisAway("away")


async def test_a_full_buffer_drops_progress_first_and_endings_never(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While Redis is away the oldest progress goes first, then the oldest of the rest."""
    publisher = Publisher(backend.client(), "uvian", limit=20)
    monkeypatch.setattr(publisher._connection, "call", away)
    await asyncio.wait([publisher.emit(job(), STARTED)], timeout=0.05)
    futures = [publisher.emit(job(), progress(0.5)) for _ in range(5)]
    futures += [publisher.emit(job(), STARTED) for _ in range(10)]
    futures += [publisher.emit(job(), COMPLETED) for _ in range(20)]
    monkeypatch.undo()
    answers = await asyncio.gather(*futures)
    await publisher.close()
    assert answers == [*[Appended.LOST] * 15, *[Appended.APPENDED] * 20]


async def test_a_buffer_that_cannot_shrink_costs_no_more_with_each_event(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hole: beyond the limit each terminal event, or balance, made room anew by looking at all that wait."""
    publisher = Publisher(backend.client(), "uvian", limit=1_000)
    monkeypatch.setattr(publisher._connection, "call", away)
    queue: Any = publisher._queue
    looks, real = 0, queue._shrink

    def counted() -> None:
        nonlocal looks
        looks += 1
        real()

    monkeypatch.setattr(queue, "_shrink", counted)
    balances = [
        publisher.emit(job(), events.CreditsChanged(balance="1", reserved="0", version=1))
        for _ in range(3_000)
    ]
    assert looks <= 25
    assert publisher.waiting <= 1_100
    terminal = [publisher.emit(job(), COMPLETED) for _ in range(3_000)]
    assert looks <= 60
    assert not any(
        future.done() for future in terminal
    )  # the oldest balances went, no terminal event
    assert sum(future.done() for future in balances) > 2_000
    await publisher.close(patience=0)


async def test_closing_without_redis_ends(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be delivered is lost, and nobody waits for it for ever."""
    publisher = Publisher(backend.client(), "uvian")
    monkeypatch.setattr(publisher._connection, "call", away)
    future = publisher.emit(job(), STARTED)
    await asyncio.wait([future], timeout=0.01)
    await publisher.close(patience=0.05)
    assert await future is Appended.LOST
    assert await publisher.emit(job(), STARTED) is Appended.LOST
    await publisher.close()


async def test_one_bad_event_does_not_take_its_neighbours(
    publisher: Publisher, client: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """What Redis refuses is found by halving; the rest of the batch is appended once."""
    jobs = [job() for _ in range(7)]
    await client.set(KEYS.topic(f"job:{jobs[3].id}"), "not a hash")
    with caplog.at_level(logging.ERROR):
        answers = await asyncio.gather(*[publisher.emit(ref, STARTED) for ref in jobs])
    assert [str(answer) for answer in answers] == [
        *["appended"] * 3,
        "lost",
        *["appended"] * 3,
    ]
    assert jobs[3].id in caplog.text
    for ref in jobs[:3] + jobs[4:]:
        assert len(await log_of(client, f"user:{ref.user_id}")) == 1


async def test_what_json_cannot_hold_is_lost_and_logged(
    publisher: Publisher, caplog: pytest.LogCaptureFixture
) -> None:
    """A lone surrogate in an event must not end the job that emits it."""
    answers = await append(publisher, job(), delta(0, "\ud800"), STARTED)
    assert answers == [Appended.LOST, Appended.APPENDED]
    assert "cannot be encoded" in caplog.text


async def test_a_server_that_forgot_the_script_gets_it_again(
    publisher: Publisher, client: Redis
) -> None:
    """SCRIPT FLUSH costs one round trip and no event."""
    await append(publisher, job(), STARTED)
    await client.script_flush()
    assert await append(publisher, job(), STARTED) == [Appended.APPENDED]


async def test_ids_need_no_quoting(publisher: Publisher, client: Redis) -> None:
    """A quote or a backslash in an id does not break the envelope."""
    ref = JobRef('a"b\\c', 'u"', 1, 0)
    await append(publisher, ref, STARTED)
    [event] = await log_of(client, f"job:{ref.id}")
    assert event.topic == f"job:{ref.id}"


@pytest.mark.database
async def test_a_log_is_bounded(redis_url: str) -> None:
    """Beyond 10,000 events the oldest go."""
    backend = Backend(redis_url)
    publisher = Publisher(backend.client(), "uvian")
    ref = job()
    for number in range(10_300):
        publisher.emit(ref, stage(f"s{number % 5}"))
    await publisher.flush()
    client = backend.client()
    length = await client.xlen(KEYS.log(f"job:{ref.id}"))
    assert 10_000 <= length < 10_300
    reader = Reader(client, "uvian")
    assert not isinstance(await reader.read(f"job:{ref.id}"), Resume)
    await publisher.close()
    await backend.close()


def test_terminal_types_are_those_of_the_executors_classes() -> None:
    """The types that end a job are named where clients without executors find them."""
    ends = {events.JobCompleted.type, events.JobFailed.type, events.JobCancelled.type}
    assert ends == TERMINAL_TYPES


@pytest.mark.parametrize("cls", events.EVENT_TYPES.values(), ids=lambda cls: str(cls.type))
def test_every_event_goes_to_the_topics_of_its_audience(cls: type[events.Event]) -> None:
    """The table of what is appended knows every class, and its audience."""
    assert appending._RULES[cls.type].audience == cls.audience.name.lower()


ANSWER = {
    "id": "m",
    "role": "assistant",
    "status": "completed",
    "length": 1,
    "sha256": "x",
    "text": "y",
}


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
@pytest.mark.parametrize("conversation", [None, "c"])
@pytest.mark.parametrize("message", [None, ANSWER])
def test_terminal_events_from_a_row_are_what_a_worker_appends(
    status: str, conversation: str | None, message: dict[str, Any] | None
) -> None:
    """An API that imports no executors appends the same as a worker, the answer's event before the job's."""
    job_id = str(uuid.uuid4())
    row = {
        "id": job_id, "user_id": "u", "run": 2, "attempt": 1, "status": status, "stages": None,
        "cost": "1.5", "output": {"warnings": [{"code": "w"}]}, "result_id": "r",
        "error": {"code": "x"}, "error_message": "no",
        "conversation_id": conversation, "message": message,
    }  # fmt: skip
    ref = JobRef(job_id, "u", 2, 1, conversation)
    by_worker = [append_of_event(ref, event, 1) for event in terminal_events_of(row)]
    assert len(by_worker) == (1 if conversation is None else 2)
    for item, expected in zip(terminal_appends(row), by_worker, strict=True):
        assert item._replace(body=b"") == expected._replace(body=b"")
        document, wanted = (orjson.loads(b"{" + i.body) for i in (item, expected))
        assert document | {"at": ""} == wanted | {"at": ""}


def test_a_balance_from_its_row_has_the_fields_of_its_event() -> None:
    """… and the same balance."""
    row = {"user_id": "u", "balance": "1", "reserved": "0", "version": 3, "more": 1}
    item = appending.credits_changed(row)
    event = events.CreditsChanged(balance="1", reserved="0", version=3)
    expected = append_of_event(JobRef("", "u", 0, 0), event, 1)
    assert expected._replace(body=b"") == item._replace(body=b"")
    mine, theirs = orjson.loads(b"{" + item.body), orjson.loads(b"{" + expected.body)
    assert {**mine, "at": ""} == {**theirs, "at": ""}
