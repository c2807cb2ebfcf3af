"""The runs in a topic: within a job they never fall, between jobs they mean nothing."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from redis.asyncio import Redis

from executors import events
from executors.events import Appended, JobRef
from tests.events.events import append, job
from tests.redis_servers import Backend
from uvian_worker.events.envelope import Envelope
from uvian_worker.events.publisher import Publisher
from uvian_worker.redis.keys import Keys

KEYS = Keys("uvian")
CONVERSATION = "shared"


def chat(name: str, run: int) -> JobRef:
    """A run of a chat in the one conversation."""
    return job(run, id=name)._replace(conversation_id=CONVERSATION)


def started(ref: JobRef) -> events.MessageStarted:
    """What a run says first in the conversation."""
    return events.MessageStarted(
        message_id=f"m-{ref.id}", conversation_id=CONVERSATION, reply_to=None
    )


def ended(ref: JobRef) -> events.MessageReset:
    """What is said there of a chat that has failed, by whoever settles or sweeps it."""
    return events.MessageReset(message_id=f"m-{ref.id}", final=True)


async def appended(client: Redis) -> list[Envelope]:
    """The conversation's log."""
    raw = await client.xrange(KEYS.log(f"conversation:{CONVERSATION}"))
    return [Envelope.parse(fields[b"e"]) for _, fields in raw]


def falls(log: Iterable[Envelope]) -> list[Envelope]:
    """The events of a run lower than one that came before, of the same job and epoch."""
    highest: dict[tuple[str | None, str], int] = {}
    fallen = []
    for event in log:
        name = (event.job_id, event.cursor.epoch)
        if event.run < highest.get(name, 0):
            fallen.append(event)
        highest[name] = max(highest.get(name, 0), event.run)
    return fallen


async def test_a_conversation_tells_of_jobs_whose_runs_differ(
    backend: Backend, client: Redis
) -> None:
    """A chat that ran three times is followed by one that runs for the first time: no run has fallen."""
    publisher = Publisher(backend.client(), "uvian")
    first, second = chat("a", 3), chat("b", 1)
    await append(publisher, first, started(first), ended(first))
    assert await append(publisher, second, started(second)) == [Appended.APPENDED]
    await publisher.close()
    log = await appended(client)
    assert [event.run for event in log] == [3, 3, 1]
    assert falls(log) == []


@pytest.mark.parametrize("seed", range(6))
async def test_runs_never_fall_within_a_job_whoever_tells_of_them(
    backend: Backend, client: Redis, seed: int
) -> None:
    """Workers that were overtaken, sweepers and retries, in any order, three jobs in one conversation."""
    chance = random.Random(seed)
    publishers = [Publisher(backend.client(), "uvian") for _ in range(3)]
    answers = []
    for _ in range(60):
        ref = chat(chance.choice("abc"), chance.randint(1, 4))
        what = chance.choice((started, ended))(ref)
        answers += await append(chance.choice(publishers), ref, what)
    for publisher in publishers:
        await publisher.close()
    log = await appended(client)
    assert Appended.FENCED in answers
    assert answers.count(Appended.APPENDED) == len(log)
    assert falls(log) == []


async def test_a_redis_that_was_emptied_begins_another_epoch(
    backend: Backend, client: Redis
) -> None:
    """It has forgotten the fence: a run that was overtaken is appended again, where everybody reads anew."""
    publisher = Publisher(backend.client(), "uvian")
    await append(publisher, chat("a", 2), started(chat("a", 2)))
    before = await appended(client)
    await client.flushall()
    await append(publisher, chat("a", 1), started(chat("a", 1)))
    await append(publisher, chat("a", 2), started(chat("a", 2)))
    assert await append(publisher, chat("a", 1), started(chat("a", 1))) == [Appended.FENCED]
    await publisher.close()
    log = [*before, *await appended(client)]
    assert [event.run for event in log] == [2, 1, 2]
    assert falls(log) == []
