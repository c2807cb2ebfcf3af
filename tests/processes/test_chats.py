"""Answers that are written while workers are killed, Redis forgets and clients come and go."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest

from repositories.messages import MessageRepository
from tests.adapters import over_postgres_only
from tests.processes.site import Site
from uvian_worker.client import Client
from uvian_worker.events.assembler import AssembledMessage, MessageAssembler
from uvian_worker.events.envelope import Envelope

pytestmark = pytest.mark.processes

#: A worker that is killed is missed after two or three seconds.
SHORT = {
    "UVIAN_LEASE": "2.5",
    "UVIAN_RENEW_EVERY": "1",
    "UVIAN_SWEEP_EVERY": "0.5",
    "UVIAN_DRAIN_GRACE": "0",
}


@dataclass
class Browser:
    """Follows a conversation over a line that breaks; ``forgetful`` ones are reloaded now and then."""

    client: Client
    conversation_id: str
    forgetful: bool = False
    assembler: MessageAssembler = field(default_factory=MessageAssembler)
    cursor: str | None = None
    drops: int = 0

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            await self._watch_once(random.randint(1, 40))
            self.drops += 1
            await asyncio.sleep(random.uniform(0, 0.05))
            if self.forgetful and random.random() < 0.3:
                self.assembler, self.cursor = MessageAssembler(), None

    async def _watch_once(self, patience: int) -> None:
        events = self.client.conversations.follow(self.conversation_id, self.cursor)
        async for event in events:
            self.assembler.apply(event)
            self.cursor = event.id if isinstance(event, Envelope) else event.cursor
            patience -= 1
            if patience == 0:
                break
        await events.aclose()  # type: ignore[attr-defined] # a generator

    def message(self, id_: str) -> AssembledMessage:
        """What it shows of a message."""
        return self.assembler.messages.get(id_, AssembledMessage(id_, "unknown"))


@dataclass
class Talk:
    """A conversation and three browsers that follow it."""

    site: Site
    conversation_id: str
    browsers: list[Browser]

    async def ask(self, pieces: int, pause: float = 0.005, **more: Any) -> tuple[str, str]:
        """Ids of the chat and of its answer."""
        content = orjson.dumps({"pieces": pieces, "pause": pause}).decode()
        posted = await self.site.client.conversations.post(
            self.site.user_id, self.conversation_id, content, **more
        )
        return posted.job.id, posted.answer_id

    async def hears(self, answer_id: str, length: int, *, run: int) -> None:
        """Wait until the first browser shows so many bytes of this run's answer."""

        def far_enough() -> bool:
            message = self.browsers[0].message(answer_id)
            return message.run == run and len(message.raw) >= length

        await self.site.until(far_enough)

    async def converges(self, answer_id: str) -> str:
        """Wait until all browsers show what is stored; the text."""
        (stored,) = [
            message
            for message in await MessageRepository(self.site.database).list(self.conversation_id)
            if message.id == answer_id
        ]

        def shows_it(browser: Browser) -> bool:
            message = browser.message(answer_id)
            # Who was reloaded when all was over reads the row; nobody goes on showing anything else.
            if browser.forgetful and message.state == "unknown":
                return True
            return message.raw == stored.content.encode() and message.state == stored.status

        await self.site.until(lambda: all(map(shows_it, self.browsers)))
        return stored.content


@pytest.fixture
async def talk(site: Site) -> AsyncIterator[Talk]:
    """Two browsers that keep their cursors, one that forgets; each has a connection of its own."""
    conversation_id = await site.client.conversations.create(site.user_id)
    stack = AsyncExitStack()
    clients = [
        await stack.enter_async_context(site.adapter.client(site.redis.url)) for _ in range(3)
    ]
    browsers = [Browser(client, conversation_id) for client in clients]
    browsers[2].forgetful = True
    tasks = [asyncio.create_task(browser.watch()) for browser in browsers]
    yield Talk(site, conversation_id, browsers)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await stack.aclose()
    for task in tasks:
        assert task.cancelled(), task.exception()


async def test_workers_are_killed_in_the_middle_of_an_answer(site: Site, talk: Talk) -> None:
    """SIGKILL at random tokens, twice: one message is stored, and every client has its very bytes."""
    await site.price("chat", "1", balance="10")
    victim = await site.worker(**SHORT)
    job_id, answer_id = await talk.ask(1200, 0.01)
    for run in (1, 2):
        await talk.hears(answer_id, random.randint(1, 4000), run=run)
        following = await site.worker(**SHORT)
        victim.kill()
        victim = following
    (row,) = await site.ended(job_id, within=60)
    assert (row["status"], row["run"], row["result_id"]) == ("completed", 3, answer_id)
    text = await talk.converges(answer_id)
    assert len(text) > 2000
    assert len(await MessageRepository(site.database).list(talk.conversation_id)) == 2
    assert await site.entries() == [("grant", "10.0"), ("reserve", "1.0"), ("charge", "1.0")]
    assert sum(browser.drops for browser in talk.browsers) > 30


@over_postgres_only
async def test_redis_is_killed_in_the_middle_of_an_answer(site: Site, talk: Talk) -> None:
    """It comes back empty: the answer goes on meanwhile, and every client has its very bytes."""
    await site.worker(**SHORT)
    job_id, answer_id = await talk.ask(1200, 0.01)
    for length in (500, 3000):
        await talk.hears(answer_id, length, run=1)
        await asyncio.to_thread(site.redis.restart, lose_data=True)
    (row,) = await site.ended(job_id)
    assert (row["status"], row["run"]) == ("completed", 1)
    await talk.converges(answer_id)


@over_postgres_only
async def test_deploys_in_the_middle_of_an_answer(site: Site, talk: Talk) -> None:
    """SIGTERM: another worker begins the answer anew, no attempt is burned."""
    worker = await site.worker(**SHORT)
    job_id, answer_id = await talk.ask(1000, 0.01)
    for run in (1, 2):
        await talk.hears(answer_id, 300, run=run)
        following = await site.worker(**SHORT)
        assert await asyncio.to_thread(worker.terminate) == 0
        worker = following
    (row,) = await site.ended(job_id)
    assert (row["status"], row["run"], row["attempt"]) == ("completed", 3, 0)
    await talk.converges(answer_id)


@over_postgres_only
async def test_a_worker_that_was_frozen_says_nothing_more(site: Site, talk: Talk) -> None:
    """A zombie wakes up in the middle of its sentence: nobody hears it, and the answer is the other's."""
    first = await site.worker(**SHORT)
    job_id, answer_id = await talk.ask(1500, 0.01)
    await talk.hears(answer_id, 300, run=1)
    first.process.send_signal(signal.SIGSTOP)
    await site.worker(**SHORT)
    await talk.hears(answer_id, 300, run=2)
    first.process.send_signal(signal.SIGCONT)
    (row,) = await site.ended(job_id)
    assert (row["status"], row["run"]) == ("completed", 2)
    await talk.converges(answer_id)
    await site.until(lambda: f"job {job_id} run 1: lease lost" in first.said, first)


async def test_stop_and_interrupt(site: Site, talk: Talk) -> None:
    """A stopped answer is kept as far as it was told; an interruption stops it and is answered."""
    await site.worker()
    stopped, first = await talk.ask(3000, 0.01)
    await talk.hears(first, 400, run=1)
    assert await site.client.conversations.stop_answer(talk.conversation_id, user_id=site.user_id)
    (row,) = await site.ended(stopped)
    assert (row["status"], row["result_id"]) == ("cancelled", first)
    assert await talk.converges(first)
    interrupted, second = await talk.ask(3000, 0.01)
    await talk.hears(second, 400, run=1)
    last, third = await talk.ask(50, on_busy="interrupt")
    rows = await site.ended(interrupted, last)
    assert {row["id"]: row["status"] for row in rows} == {
        interrupted: "cancelled",
        last: "completed",
    }
    for answer in (second, third):
        assert await talk.converges(answer)
