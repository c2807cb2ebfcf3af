"""What operators and APIs say to workers."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis

from tests.redis_servers import Backend, eventually
from uvian_worker.events.control import (
    CONTROL_TYPES,
    CancelJob,
    Control,
    ControlMessage,
    DrainWorker,
    PauseWorker,
    ResumeWorker,
)
from uvian_worker.redis.keys import Keys

KEYS = Keys("uvian")


class Listener:
    """A worker that listens, and what it received."""

    def __init__(self, backend: Backend, name: str) -> None:
        self.received: list[ControlMessage] = []
        self.control = Control(backend.client(), "uvian", silence=0.2)
        self._name = name
        self._task = asyncio.create_task(self._listen())
        backend.defer(self.close)

    async def _listen(self) -> None:
        async for message in self.control.listen(self._name):
            self.received.append(message)

    async def receives(self, *messages: ControlMessage) -> None:
        """Wait until exactly this was received."""
        await eventually(lambda: len(self.received) >= len(messages))
        assert self.received == list(messages)

    async def close(self) -> None:
        """Stop listening."""
        self._task.cancel()
        await asyncio.wait([self._task])
        await self.control.close()


@pytest.fixture
def control(backend: Backend) -> Control:
    """Whoever sends."""
    control = Control(backend.client(), "uvian")
    backend.defer(control.close)
    return control


async def connected(client: Redis, count: int) -> None:
    """Wait until so many listen."""

    async def listening() -> bool:
        channel: Any = KEYS.control
        return dict(await client.pubsub_numsub(channel)) == {channel.encode(): count}

    await eventually(listening)


async def test_every_worker_hears_of_a_cancellation(
    backend: Backend, control: Control, client: Redis
) -> None:
    """Nobody knows where a job runs, so all get it."""
    workers = [Listener(backend, "a"), Listener(backend, "b")]
    await connected(client, 2)
    assert await control.send(CancelJob("j1")) == 2
    for worker in workers:
        await worker.receives(CancelJob("j1"))


async def test_one_worker_can_be_meant(backend: Backend, control: Control, client: Redis) -> None:
    """A message to one worker does not reach another."""
    meant, other = Listener(backend, "a"), Listener(backend, "b")
    await connected(client, 2)
    await control.send(DrainWorker("a"))
    await control.send(DrainWorker())
    await meant.receives(DrainWorker("a"), DrainWorker())
    await other.receives(DrainWorker())


@pytest.mark.parametrize("worker", [None, "late"])
async def test_a_pause_holds_for_workers_that_start_later(
    backend: Backend, control: Control, client: Redis, worker: str | None
) -> None:
    """Who pauses everything and deploys finds everything paused."""
    await control.send(PauseWorker(worker))
    late = Listener(backend, "late")
    await late.receives(PauseWorker("late"))
    await connected(client, 1)
    await control.send(ResumeWorker(worker))
    await late.receives(PauseWorker("late"), ResumeWorker(worker))
    assert not await client.exists(KEYS.paused)


async def test_a_message_that_was_missed_shows_in_the_key(backend: Backend, client: Redis) -> None:
    """A pause and a resume that were published into the void arrive all the same."""
    worker = Listener(backend, "a")
    await connected(client, 1)
    raw: Any = client
    await raw.sadd(KEYS.paused, "*")
    await worker.receives(PauseWorker("a"))
    await client.delete(KEYS.paused)
    await worker.receives(PauseWorker("a"), ResumeWorker("a"))


async def test_what_is_not_understood_is_skipped(
    backend: Backend, control: Control, client: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """A newer release, or a typo, does not end the listening."""
    worker = Listener(backend, "a")
    await connected(client, 1)
    for raw in (b"not json", b"[]", b'{"type":"job.dance"}', b'{"type":"job.cancel"}'):
        await client.publish(KEYS.control, raw)
    await control.send(CancelJob("j1"))
    await worker.receives(CancelJob("j1"))
    assert "not understood" in caplog.text


async def test_a_message_on_the_wire(backend: Backend, control: Control) -> None:
    """``type`` and the fields: what any language sends."""
    pubsub: Any = backend.client().pubsub()
    await pubsub.subscribe(KEYS.control)
    await pubsub.get_message(timeout=5)
    await control.send(CancelJob("j1", 2))
    message = await pubsub.get_message(timeout=5)
    assert orjson.loads(message["data"]) == {"type": "job.cancel", "job_id": "j1", "run": 2}
    await pubsub.aclose()


def test_types_are_unique() -> None:
    """Every control message has a name of its own."""
    assert len(CONTROL_TYPES) == 4
