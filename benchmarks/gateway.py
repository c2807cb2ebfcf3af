"""A gateway as a process, its sockets in another, against the same work without it or by a peer.

The peer of the fan-out is python-socketio with its Redis manager, in an environment of its own:
``scripts/setup_socketio`` makes it, and without it the peer is left out.
"""

from __future__ import annotations

__all__ = ["run"]

import asyncio
import contextlib
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import jwt
import orjson
import psutil

from benchmarks.gateway_speech import Speech
from benchmarks.result import Result
from benchmarks.site import ROOT, Site, quantile, site, wait_until
from uvian_worker.client import Client
from uvian_worker.events.envelope import Envelope
from uvian_worker.events.reader import Reader
from uvian_worker.redis.connection import redis_from_url
from uvian_worker.redis.keys import conversation_topic, user_topic

JOBS = 200
WARM_UP = 20
SOCKETS = 1000  #: of one conversation
CHATS = 500
SECONDS = 10.0
LEAD = 2.0  #: until the first token is due
PATIENCE = 15.0  #: seconds after the last one was due: what is not there by then is lost
HEALTHY = 200
FILES = 8192  #: descriptors that a process may have open

_SECRET = "a-secret-of-measurements-of-thirty-two-characters"
_PEER = ROOT / ".venv/socketio/bin/python"
_PEER_NAME = "python-socketio"
#: Nobody is limited: it is the same user on all sockets.
_SETTINGS = {
    "UVIAN_GATEWAY_PORT": "0",
    "UVIAN_JWT_SECRETS": _SECRET,
    **{
        f"UVIAN_LIMIT_{kind}": "1000000"
        for kind in ("READ", "WRITE", "CONNECT", "SUBSCRIBE", "SOCKETS")
    },
}


@dataclass(frozen=True, slots=True)
class Server:
    """A gateway, ours or the peer's."""

    url: str
    process: psutil.Process
    token: str  #: empty: the peer's

    def cpu(self) -> float:
        """Seconds so far."""
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def rss(self) -> int:
        """Bytes."""
        return int(self.process.memory_info().rss)


@dataclass(frozen=True, slots=True)
class Load:
    """Who says what to how many."""

    chats: int
    each: int  #: sockets of one chat
    rate: float  #: tokens a second and chat
    pad: int = 0  #: bytes that a token is longer
    stall: bool = False  #: the last socket reads nothing until all is said


@dataclass(frozen=True, slots=True)
class Round:
    """What one speech to many sockets came to."""

    report: dict[str, Any]  #: of the clients
    cpu: float  #: of the gateway, in cores: what it took over how long was spoken
    kilobytes: float  #: a socket, subscribed, before anything is said

    @property
    def cpu_per_token(self) -> float:
        """Microseconds for one token at one socket."""
        return self.cpu * SECONDS * 1e6 / float(self.report["heard"])


def run() -> list[Result]:
    """All three, each on servers of its own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(FILES, hard)), hard))
    return [*_latency(), *_one_conversation(), *_many_chats(), *_stalled()]


def _latency() -> list[Result]:
    """No-op jobs, one at a time."""
    worker = "benchmarks.settings_uvian.WorkerSettings"
    with site() as servers, servers.worker(worker), _ours(servers) as gateway:
        asyncio.run(_open_to_browsers(servers))
        ours = asyncio.run(_over_http(servers, gateway))
        direct = asyncio.run(_without_gateway(servers))
    name = "Client and Reader without a gateway"
    return [
        Result(
            "submit → job.completed at a WebSocket, p50",
            quantile(ours, 0.5),
            "ms",
            12,
            peer=quantile(direct, 0.5),
            peer_name=name,
        ),
        Result("… p99", quantile(ours, 0.99), "ms", peer=quantile(direct, 0.99), peer_name=name),
    ]


def _one_conversation() -> list[Result]:
    return _against_peer(f"one chat to {SOCKETS:,} sockets", Load(1, SOCKETS, rate=5))


def _many_chats() -> list[Result]:
    return _against_peer(f"{CHATS} chats x 50 tokens/s to {CHATS} sockets", Load(CHATS, 1, rate=50))


def _against_peer(label: str, load: Load) -> list[Result]:
    peer = None
    with site() as servers:
        with _ours(servers) as gateway:
            ours = _round(servers, gateway, load)
        if _PEER.exists():
            with _socketio(servers) as gateway:
                peer = _round(servers, gateway, load)
        else:
            print("without python-socketio: scripts/setup_socketio installs it", file=sys.stderr)

    def result(
        name: str, unit: str, of: Callable[[Round], float], target: float | None = None
    ) -> Result:
        other = of(peer) if peer else None
        return Result(name, of(ours), unit, target, peer=other, peer_name=_PEER_NAME)

    return [
        result(f"{label}: late, p99", "ms", lambda it: it.report["p99"]),
        result("… p50", "ms", lambda it: it.report["p50"]),
        result("… tokens lost", "", lambda it: it.report["lost"], 0),
        result("… CPU of the gateway", "cores", lambda it: it.cpu),
        result("… per token and socket", "µs", lambda it: it.cpu_per_token),
        result("… memory per socket", "kB", lambda it: it.kilobytes),
    ]


def _stalled() -> list[Result]:
    """A reader that stops, among those that do not; what it misses is more than its share."""
    alone = Load(1, HEALTHY, rate=5, pad=40_000)
    with site() as servers, _ours(servers) as gateway:
        healthy = [_round(servers, gateway, alone)]
        stalled = _round(servers, gateway, replace(alone, each=HEALTHY + 1, stall=True))
        healthy.append(_round(servers, gateway, alone))
    # Before and after, since the machine is not as fast in one minute as in the next.
    without = sum(each.report["p95"] for each in healthy) / len(healthy)
    report = stalled.report
    return [
        Result(
            f"{HEALTHY} sockets while one more stalls: late, p95",
            report["p95"],
            "ms",
            1.25 * without + 5,
            peer=without,
            peer_name="none stalls",
        ),
        Result("… the stalled one has all, after it reads again", report["converged"], "s", 5),
        Result(
            "… in so many frames",
            report["stalled_frames"],
            "",
            peer=int(alone.rate * SECONDS),
            peer_name="tokens",
        ),
        Result("… tokens lost", report["lost"], "", 0),
    ]


def _round(servers: Site, gateway: Server, load: Load) -> Round:
    """New chats, their sockets, and what these hear."""
    rooms = asyncio.run(_conversations(servers, load.chats))
    count = int(load.rate * SECONDS)
    before = gateway.rss()
    clients = _started([sys.executable, "-m", "benchmarks.gateway_clients"])
    with _ended(clients):
        assert clients.stdin is not None
        assert clients.stdout is not None
        asked = {
            "url": gateway.url,
            "token": gateway.token,
            "rooms": rooms * load.each,
            "tokens": count,
            "patience": LEAD + SECONDS + PATIENCE,
            "stall": LEAD + SECONDS + 1 if load.stall else 0,
        }
        clients.stdin.write(orjson.dumps(asked) + b"\n")
        clients.stdin.flush()
        ready = clients.stdout.readline().split()
        assert ready, "the clients could not subscribe"
        grown = gateway.rss() - before
        at = float(ready[1]) + LEAD
        speech = Speech(servers.redis.url, at, load.rate, count, rooms, load.pad)
        with _ended(_speaking(gateway, speech)):
            time.sleep(max(at - time.time(), 0))
            cpu = gateway.cpu()
            output, _ = clients.communicate(timeout=LEAD + SECONDS + 2 * PATIENCE)
            cpu = gateway.cpu() - cpu  # until the last token was heard, however late
    report = orjson.loads(output)
    return Round(report, cpu / SECONDS, grown / 1024 / (load.chats * load.each))


def _speaking(gateway: Server, speech: Speech) -> subprocess.Popen[bytes]:
    ours = [sys.executable, "-m", "benchmarks.gateway_speech"]
    process = _started(
        ours if gateway.token else [str(_PEER), "-m", "benchmarks.gateway_socketio", "speak"]
    )
    assert process.stdin is not None
    process.stdin.write(orjson.dumps(speech))
    process.stdin.close()
    return process


def _started(command: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


@contextlib.contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def _ours(servers: Site) -> Iterator[Server]:
    """``uvian gateway``, until the block ends."""
    settings = {
        "UVIAN_DATABASE_URL": servers.postgres.migrator_dsn,
        "UVIAN_REDIS_URL": servers.redis.url,
        "UVIAN_IMAGES_DIR": str(servers.folder / "images"),
        **_SETTINGS,
    }
    claims = {
        "sub": servers.user_id,
        "role": "authenticated",
        "aud": "authenticated",
        "exp": int(time.time()) + 3600,
    }
    command = [sys.executable, "-m", "uvian_worker.cli", "gateway"]
    with _serving(command, servers.folder / "gateway.log", settings) as (url, process):
        yield Server(url, process, jwt.encode(claims, _SECRET))


@contextlib.contextmanager
def _socketio(servers: Site) -> Iterator[Server]:
    """The peer, until the block ends."""
    command = [str(_PEER), "-m", "benchmarks.gateway_socketio", "serve", servers.redis.url]
    with _serving(command, servers.folder / "socketio.log", {}) as (url, process):
        yield Server(url, process, "")


@contextlib.contextmanager
def _serving(
    command: Sequence[str], log: Path, settings: dict[str, str]
) -> Iterator[tuple[str, psutil.Process]]:
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **settings}, stdout=out, stderr=out
        )
    try:
        yield _address(log, process), psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)


def _address(log: Path, process: subprocess.Popen[bytes]) -> str:
    said = re.compile(r"gateway on (http://\S+)")
    wait_until(lambda: bool(said.search(log.read_text())) or process.poll() is not None)
    found = said.search(log.read_text())
    assert found, log.read_text()
    return found[1]


async def _over_http(servers: Site, gateway: Server) -> list[float]:
    """Milliseconds from the request to the event at a socket that hears of all the user's jobs."""
    headers = {"Authorization": f"Bearer {gateway.token}"}
    async with (
        aiohttp.ClientSession(gateway.url, headers=headers) as session,
        session.ws_connect("/v1/live") as live,
    ):
        await live.send_json({"op": "subscribe", "topic": user_topic(servers.user_id)})
        assert (await live.receive_json())["op"] == "subscribed"

        async def one() -> float:
            began = time.perf_counter()
            async with session.post("/v1/jobs", json={"type": "noop"}) as response:
                job = (await response.json())["id"]
            while True:
                event = orjson.loads(await live.receive_str()).get("event", {})
                if event.get("type") == "job.completed" and event["job_id"] == job:
                    return (time.perf_counter() - began) * 1000

        return await _measured(one)


async def _without_gateway(servers: Site) -> list[float]:
    """The same by a backend: straight to Postgres and Redis."""
    redis = redis_from_url(servers.redis.url)
    reader = Reader(redis, "uvian")
    client = await Client.connect(
        database_url=servers.postgres.migrator_dsn, redis_url=servers.redis.url
    )
    async with client:
        events = reader.follow(user_topic(servers.user_id))

        async def one() -> float:
            began = time.perf_counter()
            job = await client.submit(servers.user_id, "noop", {})
            async for event in events:
                if not isinstance(event, Envelope):
                    continue  # what happened before
                if event.type == "job.completed" and event.job_id == job.id:
                    break
            return (time.perf_counter() - began) * 1000

        times = await _measured(one)
    await reader.close()
    await redis.aclose()
    return times


async def _measured(one: Callable[[], Awaitable[float]]) -> list[float]:
    async with asyncio.timeout(60):
        for _ in range(WARM_UP):
            await one()
        return [await one() for _ in range(JOBS)]


async def _open_to_browsers(servers: Site) -> None:
    connection = await asyncpg.connect(servers.postgres.dsn)
    await connection.execute("update uvian.job_types set browser = true")
    await connection.close()


async def _conversations(servers: Site, count: int) -> list[str]:
    """Topics that the user may hear."""
    client = await Client.connect(
        database_url=servers.postgres.migrator_dsn, redis_url=servers.redis.url
    )
    async with client:
        return [
            conversation_topic(await client.conversations.create(servers.user_id))
            for _ in range(count)
        ]
