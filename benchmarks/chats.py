"""Five hundred answers at once from one worker process, against publishing every token by itself.

Every answer gets fifty tokens a second for twenty seconds, and a process of its own listens to all
of them. What is measured is how late a token is there, counted from when it was due: everything the
worker, its event loop and Redis add. In ours that is two topics with cursors, fences and offsets,
a row, credits and a stored message; the peer is one PUBLISH per token and nothing else.
"""

from __future__ import annotations

__all__ = ["run"]

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import psutil

from benchmarks.result import Result
from benchmarks.site import ROOT, Site, site
from repositories.database import Filter
from repositories.postgres import PostgresDatabase
from uvian_worker.client import Client

CHATS = 500
RATE = 50.0  # tokens a second
SECONDS = 20.0
COUNT = int(RATE * SECONDS)
LEAD = 30.0  # seconds to create and claim all of them
PATIENCE = 30.0  # seconds after the last token was due: what is not there by then is lost


@dataclass(frozen=True, slots=True)
class Heard:
    """One round."""

    report: dict[str, Any]  #: of the listener
    cpu: float  #: of the worker, seconds
    redis_cpu: float
    megabytes: float  #: that the worker grew by
    stored: int  #: messages


def run() -> list[Result]:
    """Both in turn, each with its own servers."""
    ours, peer = _round("chat"), _round("naive")
    name = "every token published by itself"
    label = f"{CHATS} chats x {RATE:g} tokens/s"
    return [
        Result(f"{label}: late at a subscriber, p99", ours.report["p99"], "ms", 100,
               peer=peer.report["p99"], peer_name=name),
        Result("… p50", ours.report["p50"], "ms", peer=peer.report["p50"], peer_name=name),
        Result("… tokens lost", _lost(ours), "", 0, peer_name=name, peer=_lost(peer)),
        Result("… wrong offsets or hashes", ours.report["wrong"], "", 0),
        Result("… answers not stored", CHATS - ours.stored, "", 0),
        Result("… messages at the subscriber", ours.report["messages"] / SECONDS, "/s",
               peer=peer.report["messages"] / SECONDS, peer_name=name),
        Result("… CPU of the worker", ours.cpu / SECONDS, "cores",
               peer=peer.cpu / SECONDS, peer_name=name),
        Result("… CPU of Redis", ours.redis_cpu / SECONDS, "cores",
               peer=peer.redis_cpu / SECONDS, peer_name=name),
        Result("… memory per chat", ours.megabytes * 1024 / CHATS, "kB",
               peer=peer.megabytes * 1024 / CHATS, peer_name=name),
    ]  # fmt: skip


def _lost(heard: Heard) -> int:
    return CHATS * COUNT - int(heard.report["tokens"])


def _round(kind: str) -> Heard:
    with (
        site() as servers,
        servers.worker(
            "benchmarks.settings_chat.WorkerSettings",
            UVIAN_MAX_JOBS=str(CHATS),
            UVIAN_LOG_LEVEL="WARNING",
        ) as process,
    ):
        conversations = asyncio.run(_conversations(servers))
        worker = psutil.Process(process.pid)
        asyncio.run(_warm(servers, kind, conversations[0]))
        before = worker.memory_info().rss
        began = time.time() + LEAD
        with _listener(servers, conversations, began + SECONDS + PATIENCE) as listener:
            asyncio.run(_ask(servers, kind, conversations, began))
            time.sleep(max(began - time.time() - 0.5, 0))
            cpu, redis_cpu = _cpu(worker), _redis_cpu(servers)
            time.sleep(max(began + SECONDS - 0.5 - time.time(), 0))
            grown = (worker.memory_info().rss - before) / 2**20
            cpu, redis_cpu = _cpu(worker) - cpu, _redis_cpu(servers) - redis_cpu
            output, _ = listener.communicate()
        stored = asyncio.run(_stored(servers)) if kind == "chat" else 0
        return Heard(orjson.loads(output), cpu, redis_cpu, grown, stored)


@contextlib.contextmanager
def _listener(
    servers: Site, conversations: Sequence[str], until: float
) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "benchmarks.listener", servers.redis.url]
    process = subprocess.Popen(
        [*command, str(CHATS * COUNT), str(until)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    channels = [f"uvian:events:conversation:{id_}" for id_ in conversations]
    process.stdin.write("\n".join(channels).encode())
    process.stdin.close()
    process.stdin = None
    try:
        assert process.stdout.readline() == b"ready\n"
        yield process
    finally:
        process.kill()
        process.wait()


async def _conversations(servers: Site) -> list[str]:
    async with await _client(servers) as client:
        return [await client.conversations.create(servers.user_id) for _ in range(CHATS)]


async def _warm(servers: Site, kind: str, conversation: str) -> None:
    """A short one first: what a worker imports and opens once is not memory of five hundred."""
    async with await _client(servers) as client:
        job = await _speak(client, servers, kind, conversation, time.time(), 3)
        async for _ in client.follow(job):
            pass


async def _ask(servers: Site, kind: str, conversations: Sequence[str], at: float) -> None:
    """Create all chats, whose first tokens are due then (evenly, not all at once)."""
    async with await _client(servers) as client:
        eight = asyncio.Semaphore(8)

        async def ask(number: int, conversation: str) -> None:
            async with eight:
                due = at + number / CHATS / RATE
                await _speak(client, servers, kind, conversation, due, COUNT)

        await asyncio.gather(*(ask(*asked) for asked in enumerate(conversations)))
    assert time.time() < at, "the machine is too slow to begin in time"


async def _speak(
    client: Client, servers: Site, kind: str, conversation: str, at: float, count: int
) -> str:
    """Create a chat; its id."""
    speech = {"at": at, "rate": RATE, "count": count}
    if kind == "chat":
        content = orjson.dumps(speech).decode()
        return (await client.conversations.post(servers.user_id, conversation, content)).job.id
    asked = {**speech, "conversation_id": conversation}
    return (await client.submit(servers.user_id, "naive", asked)).id


async def _client(servers: Site) -> Client:
    return await Client.connect(
        database_url=servers.postgres.migrator_dsn, redis_url=servers.redis.url
    )


async def _stored(servers: Site) -> int:
    database = await PostgresDatabase.connect(servers.postgres.migrator_dsn)
    deadline = time.monotonic() + 60
    while True:
        rows = await database.select(
            "messages",
            columns=("id",),
            where=[Filter("role", "eq", "assistant"), Filter("status", "eq", "completed")],
        )
        if len(rows) == CHATS + 1 or time.monotonic() > deadline:
            await database.close()
            return len(rows) - 1  # without the first, short one
        await asyncio.sleep(0.2)


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _redis_cpu(servers: Site) -> float:
    with servers.connection() as connection:
        info: Any = connection.info("cpu")
    return float(info["used_cpu_user"] + info["used_cpu_sys"])
