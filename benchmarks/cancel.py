"""From the user's stop to the provider's closed socket, while other answers are being written.

The provider is the fault laboratory of the tests, in the process that measures: one clock. The worker is
the one that is shipped, with its adapter for OpenAI. What is counted is the call of ``Client.stop``, the
row in Postgres, the message to the worker, the executor that ends, and the connection as the laboratory
sees it close.
"""

from __future__ import annotations

__all__ = ["run"]

import asyncio
import random
import socket
import time

from benchmarks.result import Result
from benchmarks.site import Site, median, quantile, site
from tests.executors.providers.lab import VENDORS
from tests.executors.providers.lab.faults import Paced
from tests.executors.providers.lab.openai import OpenAILab
from tests.executors.providers.lab.server import Asked, Lab
from uvian_worker.client import Client

STOPS = 60
BESIDE = 20  # answers that go on meanwhile
PAUSE = 0.02  # seconds between tokens
WORDS = 6000  # of an answer: two minutes


def run() -> list[Result]:
    """p50 and p95 of ``STOPS`` answers, each stopped at a random moment."""
    lab = Lab(VENDORS, port=_free_port())
    openai = next(vendor for vendor in lab.vendors if isinstance(vendor, OpenAILab))
    openai.reply = "word " * WORDS
    with (
        site() as servers,
        servers.worker(
            "uvian_worker.WorkerSettings",
            UVIAN_MAX_JOBS=str(BESIDE + 5),
            **openai.exports(lab.url),
        ),
    ):
        took = asyncio.run(_stop_all(servers, lab))
    label = f"stop → provider's socket closed, {BESIDE} answers beside"
    return [
        Result(f"{label}, p95", quantile(took, 0.95), "ms", 250),
        Result("… p50", median(took), "ms"),
        Result("… longest", max(took), "ms"),
    ]


async def _stop_all(servers: Site, lab: Lab) -> list[float]:
    client = await Client.connect(
        database_url=servers.postgres.migrator_dsn, redis_url=servers.redis.url
    )
    lab.script(Paced(PAUSE), forever=True)
    async with lab, client:
        beside = [(await _begin(servers, client, lab))[0] for _ in range(BESIDE)]
        took = []
        for _ in range(STOPS):
            conversation, asked = await _begin(servers, client, lab)
            await asyncio.sleep(random.uniform(0.05, 0.25))
            began = time.monotonic()
            await client.conversations.stop_answer(conversation, user_id=servers.user_id)
            await asyncio.wait_for(asked.over.wait(), 30)
            assert asked.closed_at is not None, "the answer was written to its end"
            took.append((asked.closed_at - began) * 1000)
        for conversation in beside:
            await client.conversations.stop_answer(conversation)
    return took


async def _begin(servers: Site, client: Client, lab: Lab) -> tuple[str, Asked]:
    """A conversation in which an answer is being written, and the request behind it."""
    before = len(lab.asked)
    conversation = await client.conversations.create(servers.user_id)
    await client.conversations.post(servers.user_id, conversation, "Tell me everything.")
    return conversation, await lab.until_asked(before + 1, within=60)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
