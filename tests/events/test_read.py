"""What a reader is answered: everything after its cursor, the state so far, or that it must read the row."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from executors import events
from tests.events.events import append, job, texts
from tests.redis_servers import Backend
from uvian_worker.events.envelope import Cursor
from uvian_worker.events.publisher import Publisher
from uvian_worker.events.reader import Expired, Reader, Resume, Snapshot
from uvian_worker.redis.keys import Keys

KEYS = Keys("uvian")
STARTED = events.JobStarted(job_type="chat", worker="w1")
COMPLETED = events.JobCompleted(output={})


@pytest.fixture
def publisher(backend: Backend) -> Publisher:
    """A publisher of the backend."""
    publisher = Publisher(backend.client(), "uvian")
    backend.defer(publisher.close)
    return publisher


@pytest.fixture
def reader(client: Redis) -> Reader:
    """A reader of the backend."""
    return Reader(client, "uvian")


def stage(name: str, kind: type[events.Event] = events.StageStarted) -> events.Event:
    """A stage begins, or ends."""
    if kind is events.StageFinished:
        return events.StageFinished(stage=name, label=name, status="completed", ms=1.0)
    return events.StageStarted(stage=name, label=name)


async def forget_entries(client: Redis, topic: str, first_left: int) -> None:
    """What trimming does to a long log."""
    await client.xtrim(KEYS.log(topic), minid=f"{first_left}-0", approximate=False)


async def forget_last_write(client: Any, topic: str) -> None:
    """The server comes back without it, and under the same name."""
    *entries, _ = await client.xrange(KEYS.log(topic))
    await client.delete(KEYS.log(topic))
    for position, fields in entries:
        await client.xadd(KEYS.log(topic), fields, id=position)
    await client.hset(KEYS.topic(topic), "seq", str(len(entries)))


async def test_a_newcomer_gets_a_job_from_its_beginning(
    publisher: Publisher, reader: Reader
) -> None:
    """Who comes late to a job has missed nothing."""
    ref = job()
    await append(publisher, ref, STARTED, stage("a"), stage("b"))
    answer = await reader.read(f"job:{ref.id}")
    assert isinstance(answer, Resume)
    assert texts(answer.events) == ["job.started", "stage.started", "stage.started"]
    assert answer.cursor == answer.events[-1].id
    assert not answer.ended


async def test_a_cursor_resumes_after_itself(publisher: Publisher, reader: Reader) -> None:
    """Every cursor of a topic gets exactly what follows it."""
    ref = job()
    await append(publisher, ref, STARTED, stage("a"), stage("b"), COMPLETED)
    whole = await reader.read(f"job:{ref.id}")
    assert isinstance(whole, Resume)
    for index, event in enumerate(whole.events, 1):
        answer = await reader.read(f"job:{ref.id}", event.id)
        assert isinstance(answer, Resume)
        assert answer.events == whole.events[index:]
        assert answer.ended


async def test_pages_are_one_answer(
    publisher: Publisher, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long log is read in pages, and answered whole."""
    monkeypatch.setattr("uvian_worker.events.reader._PAGE", 7)
    ref = job()
    await append(publisher, ref, STARTED, *(stage(f"s{n}") for n in range(30)), COMPLETED)
    answer = await reader.read(f"job:{ref.id}")
    assert isinstance(answer, Resume)
    assert [event.seq for event in answer.events] == list(range(1, 33))
    assert answer.ended


async def test_the_same_seq_used_twice_is_noticed(
    publisher: Publisher, reader: Reader, client: Redis
) -> None:
    """After a lost write another event has that seq: only the check in the cursor shows it."""
    ref = job()
    await append(publisher, ref, STARTED, stage("a"), stage("lost"))
    [*_, seen] = (await reader.read(f"job:{ref.id}")).events  # type: ignore[union-attr]
    await forget_last_write(client, f"job:{ref.id}")
    await append(publisher, ref, stage("another"), stage("more"))
    [now] = await client.xrange(KEYS.log(f"job:{ref.id}"), "3-0", "3-0")
    assert seen.cursor.epoch.encode() in now[1][b"e"]
    answer = await reader.read(f"job:{ref.id}", seen.id)
    assert isinstance(answer, Snapshot)


@pytest.mark.parametrize(
    "cursor",
    [
        "nonsense",
        "0-0-0",
        "-1-1-1",
        "a-999-b",
        "A" * 300,
        "é-1-a",
        f"a-{'9' * 27}-b",
        f"a-{2**64}-b",
    ],
)
async def test_a_cursor_nobody_issued_is_not_resumed(
    publisher: Publisher, reader: Reader, cursor: str
) -> None:
    """What a stranger sends as a cursor is answered like one that has expired."""
    ref = job()
    await append(publisher, ref, STARTED)
    assert isinstance(await reader.read(f"job:{ref.id}", cursor), Snapshot)
    assert isinstance(await reader.read(f"user:{ref.user_id}", cursor), Expired)


async def test_an_unknown_topic_sends_the_reader_to_the_row(
    publisher: Publisher, reader: Reader
) -> None:
    """Nothing is known: the row is, and the cursor that comes with the answer follows from here."""
    ref = job()
    answer = await reader.read(f"job:{ref.id}")
    assert isinstance(answer, Expired)
    await append(publisher, ref, STARTED)
    following = await reader.read(f"job:{ref.id}", answer.cursor)
    assert isinstance(following, Resume)
    assert texts(following.events) == ["job.started"]


async def test_a_place_before_the_first_event_does_not_survive_a_flush(
    publisher: Publisher, reader: Reader, client: Redis
) -> None:
    """Between that place and what begins after a flush there may have been events."""
    ref = job()
    before = await reader.read(f"user:{ref.user_id}")
    await append(publisher, ref, STARTED)
    await client.flushall()
    await append(publisher, ref, stage("b"))
    assert isinstance(await reader.read(f"user:{ref.user_id}", before.cursor), Expired)


async def test_a_job_that_began_before_a_flush_is_not_whole(
    publisher: Publisher, reader: Reader, client: Redis
) -> None:
    """A log that starts in the middle of a job must not look like its beginning."""
    ref = job()
    await append(publisher, ref, STARTED, stage("a"))
    await client.flushall()
    await append(publisher, ref, stage("b"))
    answer = await reader.read(f"job:{ref.id}")
    assert isinstance(answer, Expired)
    await append(publisher, ref, COMPLETED)
    following = await reader.read(f"job:{ref.id}", answer.cursor)
    assert isinstance(following, Resume)
    assert texts(following.events) == ["job.completed"]


async def test_a_trimmed_job_is_answered_by_its_state(
    publisher: Publisher, reader: Reader, client: Redis
) -> None:
    """When the log no longer reaches back: status, progress, stages, images, the message so far."""
    ref = job()
    image = events.ImageReady(kind="base", index=0, path="p", width=1, height=1, preview="")
    await append(publisher, ref, STARTED, stage("a"), events.JobProgress(fraction=0.1))
    await append(
        publisher,
        ref,
        stage("a", events.StageFinished),
        image,
        events.MessageStarted(message_id="m", conversation_id="c"),
        events.MessageDelta(message_id="m", offset=0, text="Grü"),
        events.JobProgress(fraction=0.7),
        events.MessageDelta(message_id="m", offset=4, text="ße"),
    )
    await forget_entries(client, f"job:{ref.id}", 5)
    answer = await reader.read(f"job:{ref.id}")
    assert isinstance(answer, Snapshot)
    assert texts(answer.state) == [
        "job.started",
        "stage.finished",
        "image.ready",
        "message.started",
        "job.progress",
        "message.snapshot",
    ]
    assert answer.state[4].data["fraction"] == 0.7
    assert answer.state[5].data == {"message_id": "m", "text": "Grüße"}
    await append(publisher, ref, COMPLETED)
    following = await reader.read(f"job:{ref.id}", answer.cursor)
    assert isinstance(following, Resume)
    assert texts(following.events) == ["job.completed"]


async def test_the_state_of_a_new_run_is_free_of_the_old(
    publisher: Publisher, reader: Reader, client: Redis
) -> None:
    """Progress and stages of an earlier run are void; its images are still there."""
    ref = job()
    image = events.ImageReady(kind="base", index=0, path="p", width=1, height=1, preview="")
    await append(publisher, ref, STARTED, stage("a"), image, events.JobProgress(fraction=0.9))
    again = ref._replace(run=2)
    await append(publisher, again, events.JobRequeued(job_type="x"), STARTED, stage("b"))
    await forget_entries(client, f"job:{ref.id}", 99)
    answer = await reader.read(f"job:{ref.id}")
    assert isinstance(answer, Snapshot)
    assert texts(answer.state) == ["image.ready", "job.started", "stage.started"]
    assert answer.state[2].data["stage"] == "b"


async def test_a_newcomer_to_a_conversation_gets_the_message_in_flight(
    publisher: Publisher, reader: Reader
) -> None:
    """Messages that are complete are rows; the one being written is in the snapshot."""
    ref = job()
    topic = f"conversation:{ref.conversation_id}"
    delta = events.MessageDelta(message_id="m", offset=0, text="Hi")
    await append(
        publisher,
        ref,
        events.MessageStarted(message_id="m", conversation_id="c", reply_to="q"),
        delta,
    )
    answer = await reader.read(topic)
    assert isinstance(answer, Snapshot)
    assert texts(answer.state) == ["message.started", "message.snapshot"]
    assert answer.state[1].data["text"] == "Hi"
    completed = events.MessageCompleted(
        message_id="m", role="assistant", status="completed", length=2, sha256=""
    )
    await append(publisher, ref, completed)
    done = await reader.read(topic)
    assert isinstance(done, Snapshot)
    assert done.state == ()
    resumed = await reader.read(topic, answer.cursor)
    assert isinstance(resumed, Resume)
    assert texts(resumed.events) == ["message.completed"]


async def test_after_a_flush_a_snapshot_restores_the_message(
    publisher: Publisher, reader: Reader, client: Redis
) -> None:
    """The writer's snapshot is enough for newcomers, though the message's start is lost."""
    ref = job()
    await append(publisher, ref, events.MessageStarted(message_id="m", conversation_id="c"))
    await client.flushall()
    assert isinstance(await reader.read(f"conversation:{ref.conversation_id}"), Expired)
    await append(publisher, ref, events.MessageSnapshot(message_id="m", text="all of it"))
    answer = await reader.read(f"conversation:{ref.conversation_id}")
    assert isinstance(answer, Snapshot)
    assert [event.data["text"] for event in answer.state] == ["all of it"]


async def test_a_newcomer_to_a_long_job_gets_its_state(
    publisher: Publisher, reader: Reader
) -> None:
    """A late reader of an answer of two thousand deltas gets the text, not the deltas."""
    ref = job()
    started = events.MessageStarted(message_id="m", conversation_id="c")
    deltas = [events.MessageDelta(message_id="m", offset=n, text="x") for n in range(2000)]
    await append(publisher, ref, STARTED, started, *deltas)
    answer = await reader.read(f"job:{ref.id}")
    assert isinstance(answer, Snapshot)
    assert texts(answer.state) == ["job.started", "message.started", "message.snapshot"]
    assert answer.state[2].data["text"] == "x" * 2000
    completed = events.MessageCompleted(
        message_id="m",
        role="assistant",
        status="completed",
        length=2000,
        sha256="",
        text="x" * 2000,
    )
    await append(publisher, ref, completed, COMPLETED)
    answer = await reader.read(f"job:{ref.id}")
    assert isinstance(answer, Snapshot)
    assert texts(answer.state) == ["message.completed", "job.completed"]
    again = ref._replace(run=2)
    await append(publisher, again, STARTED, events.MessageReset(message_id="m"), started)
    answer = await reader.read(f"job:{ref.id}")
    assert isinstance(answer, Snapshot)
    assert texts(answer.state) == ["job.started", "message.started", "message.snapshot"]


async def test_who_must_read_the_row_is_told_what_no_row_has(
    publisher: Publisher, reader: Reader, client: Redis
) -> None:
    """After a flush the job is in its row, and the message in flight in the answer."""
    ref = job()
    await append(publisher, ref, STARTED)
    await client.flushall()
    await append(publisher, ref, stage("b"), events.MessageSnapshot(message_id="m", text="so far"))
    answer = await reader.read(f"job:{ref.id}")
    assert isinstance(answer, Expired)
    assert [event.data["text"] for event in answer.state] == ["so far"]


async def test_a_newcomer_to_a_user_reads_the_rows(publisher: Publisher, reader: Reader) -> None:
    """All jobs of a user are no state to send; from the cursor on nothing is missing."""
    ref = job()
    await append(publisher, ref, STARTED)
    answer = await reader.read(f"user:{ref.user_id}")
    assert isinstance(answer, Expired)
    await append(publisher, ref, COMPLETED)
    resumed = await reader.read(f"user:{ref.user_id}", answer.cursor)
    assert isinstance(resumed, Resume)
    assert texts(resumed.events) == ["job.completed"]


async def test_ended_is_the_latest_run(publisher: Publisher, reader: Reader) -> None:
    """A job that runs again has not ended, though its log contains a terminal event."""
    ref = job()
    await append(publisher, ref, STARTED, COMPLETED)
    assert (await reader.read(f"job:{ref.id}")).ended
    await append(publisher, ref._replace(run=2), events.JobRequeued(job_type="x"))
    assert not (await reader.read(f"job:{ref.id}")).ended


words = st.text("0123456789abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=16)


@given(words, st.integers(0, 10**14), words)
def test_cursors_survive_being_written_down(epoch: str, seq: int, check: str) -> None:
    """A cursor is what it was after a client has stored it as text."""
    cursor = Cursor(epoch, seq, check)
    assert Cursor.parse(str(cursor)) == cursor


@given(st.text())
def test_any_text_may_be_offered_as_a_cursor(text: str) -> None:
    """Parsing answers a cursor or None, and never raises."""
    cursor = Cursor.parse(text)
    assert cursor is None or Cursor.parse(str(cursor)) == cursor
