"""Users who ask without pause, and browsers that follow: all of it through the proxies."""

from __future__ import annotations

__all__ = ["Load", "opened"]

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson

from tests.chaos.place import Place
from tests.processes.test_chats import Browser
from uvian_worker.client import Client
from uvian_worker.client.calls import DatabaseAway

T = TypeVar("T")

CONVERSATIONS = 4
PRICES = {"noop": "1", "wait": "1", "generation": "4", "chat": "2"}
_BALANCE = "1000000"


@dataclass
class Load:
    """What was asked for."""

    place: Place
    client: Client
    browsers: list[Browser]
    jobs: dict[str, str] = field(default_factory=dict)  #: id and type
    answers: dict[str, str] = field(default_factory=dict)  #: the chat's job, and its answer
    unheard: int = 0  #: requests that had to be sent again

    async def run(self, seconds: float, pause: float) -> None:
        """Ask every ``pause`` seconds, and wait until all was taken."""
        asked: list[asyncio.Task[None]] = []
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while loop.time() < until:
            asked.append(asyncio.create_task(self._ask(f"order {len(asked)}")))
            await asyncio.sleep(self.place.chance.uniform(0, 2 * pause))
        await asyncio.gather(*asked)

    async def _ask(self, key: str) -> None:
        chance = self.place.chance
        kind = chance.choices(("noop", "wait", "generation", "chat"), (4, 6, 1, 3))[0]
        if kind == "chat":
            await self._post(key)
        else:
            await self._submit(kind, key)

    async def _submit(self, kind: str, key: str) -> None:
        inputs: dict[str, dict[str, Any]] = {
            "noop": {},
            "wait": {"seconds": self.place.chance.uniform(0, 8)},
            "generation": {
                "logo_description": "a fox",
                "theme_description": "autumn",
                "size": 256,
                "num_palettes": 2,
            },
        }
        user = self.place.site.user_id
        made = await self._until_heard(
            lambda: self.client.submit(user, kind, inputs[kind], idempotency_key=key)
        )
        self.jobs[made.id] = kind

    async def _post(self, key: str) -> None:
        chance = self.place.chance
        content = {"pieces": chance.randint(1, 120), "pause": 0.02}
        conversation = chance.choice(self.browsers).conversation_id
        posted = await self._until_heard(
            lambda: self.client.conversations.post(
                self.place.site.user_id,
                conversation,
                orjson.dumps(content).decode(),
                idempotency_key=key,
            )
        )
        self.jobs[posted.job.id] = "chat"
        self.answers[posted.job.id] = posted.answer_id

    async def _until_heard(self, ask: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await ask()
            except DatabaseAway:
                self.unheard += 1
                await asyncio.sleep(0.3)


@contextlib.asynccontextmanager
async def opened(place: Place) -> AsyncIterator[Load]:
    """Prices, credits, conversations, and a browser in each."""
    async with AsyncExitStack() as stack:
        for type_, amount in PRICES.items():
            await place.site.price(type_, amount, balance=_BALANCE)
        await place.site.execute(
            "update uvian.job_types set max_queued_per_user = 100000, max_running_per_user = 40"
        )

        async def client() -> Client:
            way = place.site.adapter.client(place.redis_url)
            return await stack.enter_async_context(way)

        browsers = []
        for _ in range(CONVERSATIONS):
            follower = await client()
            conversation = await follower.conversations.create(place.site.user_id)
            browsers.append(Browser(follower, conversation))
        load = Load(place, await client(), browsers)
        watching = [asyncio.create_task(browser.watch()) for browser in browsers]
        try:
            yield load
        finally:
            for task in watching:
                task.cancel()
            ends = await asyncio.gather(*watching, return_exceptions=True)
            for end in ends:
                if not isinstance(end, asyncio.CancelledError):
                    place.ended_by_themselves.append(f"a browser: {end!r}")
