"""Sockets that say more than anybody could mean, streams that are too many: cut off, and nobody notices."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import WSMsgType
from redis.asyncio import Redis

from executors import events
from tests.adapters import over_postgres_only
from tests.gateway.live.sockets import PATIENCE, Happenings, Socket, connected
from tests.gateway.site import Caller, Site, config_of, opened, someone
from tests.lifecycle.world import World
from uvian_worker.gateway.live import outbox as outboxes
from uvian_worker.gateway.live import pace, sse
from uvian_worker.gateway.live.session import Close, Session

pytestmark = [pytest.mark.database, over_postgres_only]


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """Where things happen."""
    redis = Redis.from_url(redis_url)
    yield redis
    await redis.aclose()


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[Session]:
    """The other ends of all sockets."""
    seen: list[Session] = []
    begin = Session.__init__

    def noted(self: Session, *given: Any) -> None:
        begin(self, *given)
        seen.append(self)

    monkeypatch.setattr(Session, "__init__", noted)
    return seen


def said(caller: Caller, kind: str) -> tuple[int, bytes]:
    """Opcode and payload of one frame of this kind."""
    frames: dict[str, tuple[WSMsgType, Any]] = {
        "ping": (WSMsgType.TEXT, {"op": "ping"}),
        "ping in binary": (WSMsgType.BINARY, {"op": "ping"}),
        "unsubscribe": (WSMsgType.TEXT, {"op": "unsubscribe", "topic": f"job:{someone()}"}),
        "unsubscribe nonsense": (WSMsgType.TEXT, {"op": "unsubscribe", "topic": "x" * 100}),
        "auth": (WSMsgType.TEXT, {"op": "auth", "token": caller.token}),
        "auth refused": (WSMsgType.TEXT, {"op": "auth", "token": f"{caller.token[:-4]}AAAA"}),
        "subscribe": (WSMsgType.TEXT, {"op": "subscribe", "topic": f"user:{caller.user_id}"}),
        "subscribe refused": (WSMsgType.TEXT, {"op": "subscribe", "topic": f"job:{someone()}"}),
        "protocol ping": (WSMsgType.PING, b"x" * 125),
        "protocol pong": (WSMsgType.PONG, b"x" * 125),
    }
    opcode, payload = frames[kind]
    return opcode, payload if isinstance(payload, bytes) else orjson.dumps(payload)


KINDS = (
    "ping",
    "ping in binary",
    "unsubscribe",
    "unsubscribe nonsense",
    "auth",
    "auth refused",
    "subscribe",
    "subscribe refused",
    "protocol ping",
    "protocol pong",
)


@pytest.mark.parametrize(
    ("kind", "reads"),
    [
        *((kind, "reading nothing") for kind in KINDS),
        ("ping", "reading all"),
        ("protocol ping", "reading all"),
    ],
)
async def test_a_socket_that_does_not_stop_is_cut_off(
    site: Site,
    sessions: list[Session],
    kind: str,
    reads: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Frames of every kind are limited alike; what waits for it is little, and others are answered."""
    monkeypatch.setattr(pace, "PATIENCE", 0.3)
    caller, other = await site.user(), await site.user()
    opcode, payload = said(caller, kind)
    async with connected(caller, max_msg_size=0) as flooder:
        if reads == "reading nothing":
            flooder.socket._reader._protocol.pause_reading()
        largest = 0

        async def flood() -> None:
            with contextlib.suppress(ConnectionError):
                while not flooder.socket.closed:
                    await flooder.socket.send_frame(payload, WSMsgType(opcode))
                    await asyncio.sleep(0)

        flooding = asyncio.create_task(flood())
        slowest = 0.0
        for _ in range(8):
            began = time.monotonic()
            assert (await other.get("/v1/credits")).status == 200
            slowest = max(slowest, time.monotonic() - began)
            largest = max(largest, sessions[0].outbox.size)
            await asyncio.sleep(0.05)
        assert largest <= outboxes.ROOM_BYTES + 100_000
        assert slowest < 2  # of a machine that is busy
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)
        flooder.socket._reader._protocol.resume_reading()
        # Told why, or, where it goes on and on, cut off in the middle of it.
        assert (await flooder.closed()) in {Close.FLOOD, aiohttp.WSCloseCode.ABNORMAL_CLOSURE}


@pytest.mark.parametrize(
    ("frames", "why"),
    [
        ([(WSMsgType.TEXT, b'{"op":"unheard of"}')] * 20, "makes no sense"),
        ([(WSMsgType.BINARY, bytes(range(256)))] * 20, "makes no sense"),
        ([(WSMsgType.TEXT, b"x" * 17_000)], "is too large"),
    ],
    ids=["unknown", "binary", "large"],
)
async def test_what_makes_no_sense_ends_a_socket(
    site: Site, frames: list[tuple[WSMsgType, bytes]], why: str
) -> None:
    """By its own codes, and before it is a flood."""
    async with connected(await site.user()) as socket:
        for opcode, payload in frames:
            await socket.socket.send_frame(payload, opcode)
        code = await socket.closed()
        assert code == (aiohttp.WSCloseCode.MESSAGE_TOO_BIG if "large" in why else Close.MISTAKES)


@pytest.mark.parametrize("kind", ["empty pieces", "pieces without an end", "compressed", "whole"])
async def test_bytes_that_become_no_frame_are_counted_too(site: Site, kind: str) -> None:
    """Pieces of messages are put together before anybody sees them; a compressed one is not even that."""
    caller = await site.user()
    url = site.url.removeprefix("http://")
    host, _, port = url.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"GET /v1/live HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
        f"Sec-WebSocket-Extensions: permessage-deflate\r\n"
        f"Authorization: Bearer {caller.token}\r\n\r\n".encode()
    )
    head = await reader.readuntil(b"\r\n\r\n")
    assert b" 101 " in head
    assert b"deflate" not in head
    masked, large = b"\0\0\0\0", b"\xfe\x3e\x80\0\0\0\0" + b"x" * 16_000
    first, more = {
        "empty pieces": (b"\x01\x80" + masked, (b"\x00\x80" + masked) * 10_000),
        "pieces without an end": (
            b"\x01\x81" + masked + b"x",
            (b"\x00\x81" + masked + b"x") * 5_000,
        ),
        "compressed": (b"\xc1\x85" + masked + b"xxxxx", b"\xc1\x80" + masked),
        "whole": (b"", (b"\x82" + large) * 20),
    }[kind]
    writer.write(first)
    sent = 0
    try:
        async with asyncio.timeout(PATIENCE):
            while sent < 20_000_000 and not reader.at_eof():
                writer.write(more)
                sent += len(more)
                await writer.drain()
                await asyncio.sleep(0.002)
    except ConnectionError:
        pass
    assert sent < 20_000_000  # it was cut off before
    writer.transport.abort()
    assert (await caller.get("/health/live")).status == 200


async def test_a_history_longer_than_a_client_can_mean_is_told_as_the_state(
    site: Site, sessions: list[Session], redis: Redis
) -> None:
    """Who subscribes to it again and again, and reads nothing, has one answer waiting."""
    caller = await site.user()
    job = (await site.made(caller))["id"]
    happenings = Happenings(redis, job, caller.user_id)
    await happenings.begin()
    stages = (events.StageStarted(stage=f"{n % 3}", label="x" * 4_000) for n in range(400))
    await happenings.tell(*stages)
    epoch = (await redis.hget(f"uvian:topic:job:{job}", "epoch")).decode()  # type: ignore[misc]
    frame = orjson.dumps({"op": "subscribe", "topic": f"job:{job}", "cursor": f"{epoch}-0-0"})
    async with connected(caller, max_msg_size=0) as socket:
        assert (await socket.subscribe(f"job:{job}", f"{epoch}-0-0"))["mode"] == "snapshot"
        socket.socket._reader._protocol.pause_reading()
        largest = 0
        for _ in range(40):
            await socket.socket.send_frame(frame, WSMsgType.TEXT)
            await asyncio.sleep(0.02)
            largest = max(largest, sessions[0].outbox.size)
        assert largest < 3_000_000
        socket.socket._reader._protocol.resume_reading()
    await happenings.close()


# ─── how many ────────────────────────────────────────────────────────────────────────────────────


async def test_sockets_and_streams_of_one_user_are_counted_together(
    world: World, redis_url: str, tmp_path: Path
) -> None:
    """Others have their own; a place is free again when one has gone."""
    config = config_of(world.adapter, redis_url, tmp_path, limit_sockets=3)
    async with opened(world, config) as site, AsyncExitStack() as stack:
        await site.open()
        caller, other = await site.user(), await site.user()
        job = (await site.made(caller))["id"]
        sockets = [await stack.enter_async_context(connected(caller)) for _ in range(2)]
        headers = {"Authorization": f"Bearer {caller.token}"}
        url = f"{site.url}/v1/jobs/{job}/events"
        stream = await stack.enter_async_context(site.session.get(url, headers=headers))
        assert stream.status == 200
        refused = await caller.get(f"/v1/jobs/{job}/events")
        assert (refused.status, refused.code) == (429, "too_many_sockets")
        with pytest.raises(aiohttp.WSServerHandshakeError, match="429"):
            await connected(caller).__aenter__()
        await stack.enter_async_context(connected(other))
        await sockets[0].socket.close()
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    await stack.enter_async_context(connected(caller))
                    break
                except aiohttp.WSServerHandshakeError:
                    await asyncio.sleep(0.05)


async def test_behind_a_proxy_an_address_is_the_one_it_forwards(
    world: World, redis_url: str, tmp_path: Path
) -> None:
    """However many users sit there; and what a client wrote itself is not believed."""
    config = config_of(world.adapter, redis_url, tmp_path, limit_address=2)
    async with opened(world, config) as site, AsyncExitStack() as stack:
        forwarded = {"X-Forwarded-For": "192.0.2.1, 198.51.100.7"}
        for n in range(2):
            spoofed = {"X-Forwarded-For": f"192.0.2.{n}, 198.51.100.7"}
            caller = await site.user()
            await stack.enter_async_context(connected(caller, headers=spoofed))
        caller = await site.user()
        with pytest.raises(aiohttp.WSServerHandshakeError, match="429"):
            await connected(caller, headers=forwarded).__aenter__()
        elsewhere = {"X-Forwarded-For": "198.51.100.8"}
        await stack.enter_async_context(connected(caller, headers=elsewhere))


async def test_a_stream_that_is_not_read_waits_for_few_bytes(
    site: Site, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is ended, and its client comes again with its last id."""
    streams: list[Any] = []
    begin = sse._Stream.__init__

    def noted(self: Any) -> None:
        begin(self)
        streams.append(self)

    monkeypatch.setattr(sse._Stream, "__init__", noted)
    monkeypatch.setattr(sse, "_SEND_SECONDS", 1.0)
    caller = await site.user()
    job = (await site.made(caller))["id"]
    happenings = Happenings(redis, job, caller.user_id)
    await happenings.begin()
    headers = {"Authorization": f"Bearer {caller.token}"}
    async with site.session.get(f"{site.url}/v1/jobs/{job}/events", headers=headers) as response:
        assert response.connection is not None
        response.connection.transport.pause_reading()  # type: ignore[union-attr]
        for n in range(400):
            await happenings.tell(events.StageStarted(stage=f"{n}", label="x" * 20_000))
            if streams[0]._full:
                break
        assert streams[0]._size < 3_000_000
        assert streams[0]._full
    await happenings.close()


# ─── secrets ─────────────────────────────────────────────────────────────────────────────────────


async def test_a_client_that_offers_its_token_alone_finds_it_in_no_log(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """aiohttp warns of subprotocols that it does not know, and quotes them."""
    caplog.set_level(logging.DEBUG)
    caller = await site.user()
    async with caller.session.ws_connect(
        f"{caller.url}/v1/live", protocols=(f"bearer.{caller.token}",)
    ) as socket:
        await Socket(socket).say(op="ping")
        await Socket(socket).hears("pong")
    assert caller.token[-20:] not in caplog.text


@pytest.mark.parametrize("name", ["Last-Event-ID", "Idempotency-Key", "Origin", "X-Forwarded-For"])
async def test_a_header_that_is_no_text_harms_nobody(site: Site, name: str) -> None:
    """Bytes that are no UTF-8 come as half characters, which nothing behind can write."""
    caller = await site.user()
    job = (await site.made(caller))["id"]
    rubbish = b"\xff" + secrets.token_hex(4).encode()
    host, _, port = site.url.removeprefix("http://").rpartition(":")
    for method, path, body in (
        ("GET", f"/v1/jobs/{job}/events", b""),
        ("POST", "/v1/jobs", b'{"type":"noop"}'),
    ):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {caller.token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n{name}: ".encode()
            + rubbish
            + b"\r\n\r\n"
            + body
        )
        async with asyncio.timeout(PATIENCE):
            status = int((await reader.readline()).split()[1])
            assert status < 500
            if path.endswith("/events"):
                assert status == 200
                await reader.readuntil(b"event: ")
        writer.transport.abort()
