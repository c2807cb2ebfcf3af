"""Jobs that have ended and whose events are gone: the row says how, and following ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from executors import events
from tests.events.events import Followed, append, job
from tests.redis_servers import Backend
from uvian_worker.client import Client
from uvian_worker.events.envelope import Envelope
from uvian_worker.events.publisher import Publisher
from uvian_worker.events.reader import Expired, Reader, Resume

STARTED = events.JobStarted(job_type="noop", worker="w1")


class Rows:
    """What the database returns for jobs, and how often it was called."""

    def __init__(self, *, failures: int = 0) -> None:
        self.ended: dict[str, Mapping[str, Any]] = {}
        self.failures = failures
        self.calls = 0

    def end(self, ref: events.JobRef, status: str = "completed") -> None:
        """This job has ended so."""
        self.ended[ref.id] = {
            "id": ref.id,
            "user_id": ref.user_id,
            "run": ref.run,
            "attempt": 0,
            "status": status,
            "output": {"a": 1},
            "result_id": None,
            "error": {"code": "timeout"},
            "error_message": "It took too long.",
            "stages": [],
            "cost": "2",
            "conversation_id": None,
            "message": None,
            "finished_at": "2026-01-02T03:04:05.678901+01:00",
        }

    async def __call__(self, job_ids: list[str]) -> Sequence[Mapping[str, Any]]:
        self.calls += 1
        if self.failures:
            self.failures -= 1
            raise OSError("the database is away")
        return [self.ended[job_id] for job_id in job_ids if job_id in self.ended]


def reader_of(backend: Backend, rows: Rows, **options: Any) -> Reader:
    """A reader that may look rows up."""
    reader = Reader(backend.client(), "uvian", ended_jobs=rows, **options)
    backend.defer(reader.close)
    return reader


@pytest.fixture
def publisher(backend: Backend) -> Publisher:
    """A publisher of the backend."""
    publisher = Publisher(backend.client(), "uvian")
    backend.defer(publisher.close)
    return publisher


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
async def test_a_job_whose_events_are_gone_is_told_from_its_row(
    backend: Backend, status: str
) -> None:
    """That there are none, how it ended and when; then nothing follows."""
    rows, ref = Rows(), job()
    rows.end(ref, status)
    follower = Followed(reader_of(backend, rows), f"job:{ref.id}")
    await follower.until_end()
    (answer,) = follower.seen
    assert isinstance(answer, Expired)
    assert answer.ended
    (terminal,) = answer.state
    assert (terminal.type, terminal.run, terminal.topic) == (f"job.{status}", 1, f"job:{ref.id}")
    assert terminal.at == "2026-01-02T02:04:05.678Z"
    assert terminal.data["cost"] == "2"
    assert terminal.key == f"{ref.id}:1:end"
    assert answer.cursor == terminal.id


async def test_a_client_hears_the_ending_as_the_last_event(backend: Backend) -> None:
    """Whoever loops over ``follow`` sees it, and the loop ends."""
    rows, ref = Rows(), job()
    rows.end(ref)

    async def call(function: str, arguments: dict[str, Any]) -> Any:
        assert function == "terminal_events_of"
        return {"terminal_events": await rows(arguments["request"]["jobs"])}

    async with Client(call, backend.client()) as client, asyncio.timeout(20):
        expired, terminal = [event async for event in client.follow(ref.id)]
    assert isinstance(expired, Expired)
    assert expired.state == ()
    assert isinstance(terminal, Envelope)
    assert terminal.ends_job


async def test_a_job_that_goes_on_is_followed(backend: Backend, publisher: Publisher) -> None:
    """After one look at the row, though its events began in the middle."""
    rows, ref = Rows(), job()
    follower = Followed(reader_of(backend, rows), f"job:{ref.id}")
    await follower.sees(1)
    await append(publisher, ref, STARTED, events.JobCompleted(output={}))
    assert [event.type for event in await follower.until_end()] == ["job.started", "job.completed"]
    assert rows.calls == 1


async def test_a_job_that_is_heard_of_needs_no_look_at_its_row(
    backend: Backend, publisher: Publisher
) -> None:
    """The database is not read for what the log has."""
    rows, ref = Rows(), job()
    await append(publisher, ref, events.JobQueued(job_type="noop"), STARTED)
    follower = Followed(reader_of(backend, rows), f"job:{ref.id}")
    await follower.sees(2)
    await append(publisher, ref, events.JobCompleted(output={}))
    await follower.until_end()
    assert rows.calls == 0


async def test_an_ending_that_redis_lost_is_found_in_the_row(
    backend: Backend, publisher: Publisher
) -> None:
    """A log without its end is silent: after a while the row is read, though the database was away."""
    rows, ref = Rows(failures=1), job()
    await append(publisher, ref, events.JobQueued(job_type="noop"), STARTED)
    reader = reader_of(backend, rows, silence=0.05, doubt=0.1)
    follower = Followed(reader, f"job:{ref.id}")
    await follower.sees(2)
    rows.end(ref)
    began = time.monotonic()
    seen = await follower.until_end()
    assert [event.type for event in seen] == ["job.queued", "job.started", "job.completed"]
    assert [event.seq for event in seen] == [1, 2, 3]
    assert time.monotonic() - began < 5


async def test_a_database_that_is_away_keeps_nobody_from_following(
    backend: Backend, publisher: Publisher
) -> None:
    """Events are yielded; the row is read again later."""
    rows, ref = Rows(failures=1_000), job()
    follower = Followed(reader_of(backend, rows), f"job:{ref.id}")
    await follower.sees(1)
    await append(publisher, ref, STARTED, events.JobCompleted(output={}))
    assert len(await follower.until_end()) == 2


async def test_who_comes_back_with_a_told_ending_misses_nothing_of_the_next_run(
    backend: Backend, publisher: Publisher
) -> None:
    """Its id continues no log: an event that has its place now is not taken for it."""
    rows, ref = Rows(), job()
    rows.end(ref)
    reader = reader_of(backend, rows)
    follower = Followed(reader, f"job:{ref.id}")
    await follower.until_end()
    answer = follower.seen[0]
    assert isinstance(answer, Expired)
    rows.ended.clear()
    again = ref._replace(run=2)
    await append(publisher, again, events.JobRequeued(job_type="noop"), STARTED)
    assert not isinstance(await reader.read(f"job:{ref.id}", answer.cursor), Resume)
    late = Followed(reader, f"job:{ref.id}", answer.cursor)
    await late.sees(1)
    await append(publisher, again, events.JobCompleted(output={}))
    assert (await late.until_end())[-1].type == "job.completed"


async def test_who_is_behind_by_more_than_is_read_is_told_the_state(
    backend: Backend, publisher: Publisher
) -> None:
    """By bytes: an event may be long. Without a limit all of it is read, page by page."""
    ref = job()
    stages = (events.StageStarted(stage=f"{n % 3}", label="x" * 5_000) for n in range(300))
    await append(publisher, ref, events.JobQueued(job_type="noop"), *stages)
    first = (await Reader(backend.client(), "uvian").read(f"job:{ref.id}")).cursor
    topic = f"job:{ref.id}"
    everything = await Reader(backend.client(), "uvian").read(topic, f"{first.split('-')[0]}-0-0")
    assert isinstance(everything, Resume)
    assert [event.seq for event in everything.events] == list(range(1, 302))
    some = await Reader(backend.client(), "uvian", most=1_000_000).read(
        topic, f"{first.split('-')[0]}-0-0"
    )
    assert not isinstance(some, Resume)
    assert some.cursor == first
