"""Clients that are slow, silent or too many: each way of it ends, and others are answered meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import shutil
import socket
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

from repositories.local import LocalImages
from uvian_worker.gateway.endpoints.files import FolderFiles
from uvian_worker.gateway.http import connections as rules
from uvian_worker.gateway.http.bodies import document_of_body, read_body
from uvian_worker.gateway.http.client_address import Addresses
from uvian_worker.gateway.http.connections import Connections, attended
from uvian_worker.gateway.http.middleware import dressed, errors_as_problems
from uvian_worker.process.listening import listeners

PATIENCE = 20.0
LARGE = b"x" * 300_000
TOKEN = "eyJhbGciOiJIUzI1NiJ9." + "secret" * 2_000


class Served:
    """A server with nothing behind it."""

    def __init__(self, port: int, connections: Connections) -> None:
        self.port = port
        self.connections = connections
        self.answered = 0
        self.let_go = asyncio.Event()
        self._clients: list[asyncio.StreamWriter] = []

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A client."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**20)
        self._clients.append(writer)
        return reader, writer

    async def leave(self) -> None:
        """All clients go."""
        for writer in self._clients:
            writer.transport.abort()
        await asyncio.sleep(0.01)

    async def ask(self, path: str = "/") -> int:
        """The status of an answer to somebody new."""
        reader, writer = await self.connect()
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        try:
            async with asyncio.timeout(PATIENCE):
                return int((await reader.readline()).split()[1])
        finally:
            writer.close()


Serve = Callable[..., Any]


@pytest.fixture
def serve() -> Serve:
    """Opens one, with these limits."""

    @contextlib.asynccontextmanager
    async def opened(
        *,
        most: int = 1_000,
        per_address: int = 1_000,
        proxies: tuple[str, ...] = (),
        **options: Any,
    ) -> AsyncIterator[Served]:
        async def small(_: web.Request) -> web.Response:
            served.answered += 1
            return web.Response(text="ok")

        async def large(_: web.Request) -> web.Response:
            served.answered += 1
            return web.Response(body=LARGE)

        async def slow(_: web.Request) -> web.Response:
            await served.let_go.wait()
            return web.Response(text="ok")

        async def body(request: web.Request) -> web.Response:
            document_of_body(await read_body(request, 100_000))
            return web.Response(text="ok")

        app = web.Application(middlewares=[attended, errors_as_problems])
        app.on_response_prepare.append(dressed)
        app.router.add_get("/", small)
        app.router.add_get("/large", large)
        app.router.add_get("/slow", slow)
        app.router.add_post("/body", body)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        assert runner.server is not None
        (listener,) = listeners("127.0.0.1", 0)
        options = {
            "access_log": None,
            "keepalive_timeout": 5.0,
            "lingering_time": 0.1,
            "auto_decompress": False,
            **options,
        }
        connections = Connections(
            runner.server, Addresses(proxies), most=most, per_address=per_address, **options
        )
        connections.open([listener])
        served = Served(listener.getsockname()[1], connections)
        try:
            yield served
        finally:
            await served.leave()
            await connections.stop()
            await runner.cleanup()

    return opened


async def ended(reader: asyncio.StreamReader, within: float) -> bytes:
    """All that was said, until the other side hung up."""
    said = b""
    async with asyncio.timeout(within):
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(65_536):
                said += piece
    return said


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds are tenths."""
    monkeypatch.setattr(rules, "HEAD_SECONDS", 0.4)
    monkeypatch.setattr(rules, "UNREAD_SECONDS", 0.6)
    monkeypatch.setattr(rules, "_LOOK_EVERY", 0.05)


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"G",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Half: ",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHo",
        b"\r\n\r\n\r\n",
    ],
    ids=["nothing", "a letter", "half a header", "one and a half", "empty lines"],
)
async def test_who_says_no_more_is_hung_up_on(serve: Serve, said: bytes) -> None:
    """Within seconds, whatever it was before; somebody who is between two requests stays longer."""
    async with serve() as served:
        keeping, its_writer = await served.connect()
        its_writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200" in await keeping.readline()
        reader, writer = await served.connect()
        writer.write(said)
        began = time.monotonic()
        await ended(reader, 5)
        assert 0.3 < time.monotonic() - began < 3
        its_writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await keeping.readuntil(b"200")


@pytest.mark.usefixtures("soon")
async def test_a_header_byte_by_byte_is_no_header(serve: Serve) -> None:
    """Each byte in time, all of them too late."""
    async with serve() as served:
        reader, writer = await served.connect()
        began = time.monotonic()
        with contextlib.suppress(ConnectionError, RuntimeError):  # uvloop's word for it
            for letter in b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: " + b"x" * 100:
                writer.write(bytes([letter]))
                await writer.drain()
                await asyncio.sleep(0.05)
        await ended(reader, 5)
        assert time.monotonic() - began < 4


async def test_a_connection_between_two_requests_is_kept_as_long_as_was_set(serve: Serve) -> None:
    """Longer than a load balancer keeps it, and no longer."""
    async with serve(keepalive_timeout=0.5) as served:
        reader, writer = await served.connect()
        for _ in range(3):
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await reader.readuntil(b"ok")
            await asyncio.sleep(0.2)
        assert await ended(reader, 5) == b""


@pytest.mark.parametrize("how", ["half", "byte by byte", "none of it"])
async def test_a_body_that_does_not_come_is_not_waited_for(
    serve: Serve, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer says why; the time grows with what came, up to an end."""
    monkeypatch.setattr("uvian_worker.gateway.http.bodies._FIRST_SECONDS", 0.4)
    async with serve() as served:
        reader, writer = await served.connect()
        writer.write(b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n")
        if how == "half":
            writer.write(b'"' * 2_500)
        began = time.monotonic()

        async def drip() -> None:
            while how == "byte by byte":
                writer.write(b" ")
                await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        said = await ended(reader, 8)
        dripping.cancel()
        assert time.monotonic() - began < 5
        assert b"400 Bad Request" in said
        assert b"The body did not arrive in time." in said


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ("Content-Encoding: gzip\r\nContent-Length: 3", 415),
        ("Content-Encoding: br\r\nContent-Length: 3", 415),
        ("Content-Length: 100001", 413),
        ("Transfer-Encoding: chunked", 413),
    ],
)
async def test_a_body_that_would_grow_is_refused(serve: Serve, headers: str, status: int) -> None:
    """Compressed, announced as too large, or too large without a word."""
    async with serve() as served:
        reader, writer = await served.connect()
        writer.write(f"POST /body HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n".encode())
        if "chunked" in headers:
            writer.write(b"20000\r\n" + b"x" * 0x20000 + b"\r\n")
        async with asyncio.timeout(PATIENCE):
            assert int((await reader.readline()).split()[1]) == status


async def test_who_asks_and_does_not_read_is_not_answered_further(serve: Serve) -> None:
    """A hundred requests in a row: the next is answered when the client has read the last."""
    async with serve() as served:
        reader, writer = await served.connect()
        writer.transport.pause_reading()
        writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
        await asyncio.sleep(0.5)
        assert served.answered < 40  # as much as the kernel's buffers take
        stood_at = served.answered
        await asyncio.sleep(0.3)
        assert served.answered == stood_at
        assert await served.ask() == 200
        writer.transport.resume_reading()
        async with asyncio.timeout(PATIENCE):
            while served.answered < 101:
                await reader.read(2**20)


@pytest.mark.usefixtures("soon")
async def test_who_never_reads_is_cut_off(serve: Serve) -> None:
    """What waits for it is let go."""
    async with serve() as served:
        _, writer = await served.connect()
        writer.transport.pause_reading()
        writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
        async with asyncio.timeout(5):
            while served.connections.open_now:
                await asyncio.sleep(0.05)


async def test_a_picture_is_read_as_fast_as_its_client_reads(tmp_path: Path) -> None:
    """One that does not holds neither the picture nor a file; one that does gets all of it."""
    images = LocalImages(tmp_path, base_url="http://x/v1/files", secret="s" * 20)
    content = bytes(range(256)) * 40_000
    user = str(uuid.uuid4())
    path = (await images.put(user, content, "image/png")).path
    chunks = 0
    read = images.chunk

    async def counted(*asked: Any) -> Any:
        nonlocal chunks
        chunks += 1
        return await read(*asked)

    images.chunk = counted  # type: ignore[method-assign, assignment]
    app = web.Application()
    app.router.add_get("/v1/files/{user_id}/{name}", FolderFiles(images).handle)
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        url = server.make_url(URL((await images.sign([path], expires_in=60))[path]).path_qs)
        async with session.get(url) as response:
            assert await response.read() == content
            assert response.headers["Content-Type"] == "image/png"
        whole, chunks = chunks, 0
        async with session.head(url) as response:
            assert response.headers["Content-Length"] == str(len(content))
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(f"GET {url.path_qs} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await asyncio.sleep(0.3)
        assert chunks < whole
        await asyncio.to_thread(shutil.rmtree, tmp_path / user)  # it is deleted meanwhile
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert len(await ended(reader, 10)) < len(content)
        writer.close()
    await images.close()


async def test_for_a_new_connection_the_longest_silent_one_goes(serve: Serve) -> None:
    """Three hundred strangers who say nothing keep nobody out; who is being answered stays."""
    async with serve(most=40) as served:
        reader, writer = await served.connect()
        writer.write(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        strangers = []
        for n in range(300):
            strangers.append(await served.connect())
            if n % 50 == 0:
                assert await served.ask() == 200
        assert served.connections.open_now <= 41
        assert await served.ask() == 200
        served.let_go.set()
        assert b"200" in await reader.readline()
        for _, each in strangers:
            each.close()


async def test_where_all_are_being_answered_a_new_one_hears_that_there_is_no_room(
    serve: Serve,
) -> None:
    """In HTTP, at once; and is let in when there is."""
    async with serve(most=16) as served:
        busy = [await served.connect() for _ in range(16)]
        for _, writer in busy:
            writer.write(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.sleep(0.2)
        said = await ended((await served.connect())[0], 5)
        head, _, body = said.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After" in head
        assert orjson.loads(body)["code"] == "unavailable"
        served.let_go.set()
        for reader, writer in busy:
            await reader.readline()
            writer.close()
        assert await served.ask() == 200


async def test_one_address_has_so_many_and_a_proxy_as_many_as_there_are(serve: Serve) -> None:
    """Behind a proxy everybody comes from one."""
    for proxies, most in (((), 10), (("127.0.0.0/8",), 30)):
        async with serve(per_address=10, proxies=proxies) as served:
            clients = [await served.connect() for _ in range(30)]
            await asyncio.sleep(0.2)
            assert served.connections.open_now == most
            for _, writer in clients:
                writer.close()


async def test_few_files_are_few_connections_and_one_line_in_the_log(
    serve: Serve, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is looked at when it counts: it may change while we run."""
    caplog.set_level(logging.INFO, "uvian.gateway")
    monkeypatch.setattr(rules, "_LOOK_EVERY", 0.05)
    async with serve() as served:
        for _ in range(50):
            await served.connect()
        monkeypatch.setattr(rules, "file_limit", lambda: 80)
        for _ in range(50):
            await served.connect()
            assert await served.ask() == 200
        await asyncio.sleep(0.1)
        assert served.connections.open_now <= 50
        await served.leave()
        async with asyncio.timeout(PATIENCE):
            while len(caplog.records) < 2:
                await asyncio.sleep(0.05)
    said = [record.getMessage() for record in caplog.records]
    assert [line.partition(":")[0] for line in said] == [
        "40 connections are open",
        "There is room for connections again",
    ]


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ECONNABORTED])
async def test_accepting_goes_on_whatever_the_system_says(
    serve: Serve, code: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No file left, or somebody who has gone again: one line at most, and the next one is let in."""
    loop = asyncio.get_running_loop()
    accept = type(loop).sock_accept
    failing = [True] * 20

    async def fails(self: Any, listener: socket.socket) -> Any:
        if failing:
            failing.pop()
            raise OSError(code, "so it is")
        return await accept(self, listener)

    monkeypatch.setattr(rules, "_FULL_PAUSE", 0.01)
    monkeypatch.setattr(type(loop), "sock_accept", fails)
    async with serve() as served:
        assert await served.ask() == 200
        assert not failing
    said = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert len(said) == (0 if code == errno.ECONNABORTED else 1)


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (f"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n", 431, "headers"),
        (f"GET /?access_token={TOKEN} HTTP/1.1\r\nHost: x\r\n\r\n", 431, "headers"),
        ("GET / HTTP/1.1\r\nHost: x\r\n" + f"A: {TOKEN[:40]}\r\n" * 200 + "\r\n", 431, "headers"),
        (f"GET / HTTP/1.1\r\nHost: x\r\nAuthorization {TOKEN[:40]}\r\n\r\n", 400, "bad_request"),
        (f"GET / HTTP/1.1\r\nAuthorization: Bearer {TOKEN[:40]}\r\n\r\n", 400, "bad_request"),
        (f"{TOKEN[:40]}\r\n\r\n", 400, "bad_request"),
        (f"GET / HTTP/1.1\r\nHost: x\r\nA: {TOKEN[:40]}\0\r\n\r\n", 400, "bad_request"),
    ],
    ids=["header", "query", "many", "no colon", "no host", "no request", "nul"],
)
async def test_what_is_no_request_is_answered_by_a_problem_that_quotes_nothing(
    serve: Serve, caplog: pytest.LogCaptureFixture, request_: str, status: int, code: str
) -> None:
    """Neither does the log: a token may stand anywhere in it."""
    caplog.set_level(logging.DEBUG)
    async with serve() as served:
        reader, writer = await served.connect()
        writer.write(request_.encode())
        said = await ended(reader, 5)
    head, _, body = said.partition(b"\r\n\r\n")
    assert int(head.split()[1]) == status
    assert b"application/problem+json" in head
    assert b"nosniff" in head
    problem = orjson.loads(body)
    assert problem["status"] == status
    assert problem["code"].startswith(code)
    for text in (said.decode(), caplog.text):
        assert TOKEN[:12] not in text
        assert "secret" not in text


@pytest.mark.parametrize("path", ["/", "/nowhere"])
async def test_an_expectation_that_nobody_has_is_a_problem_too(
    serve: Serve, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    """aiohttp answers it before anything of ours is asked, and quotes it."""
    async with serve() as served:
        reader, writer = await served.connect()
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nExpect: {TOKEN[:40]}\r\n\r\n".encode())
        head, _, body = (await ended(reader, 5)).partition(b"\r\n\r\n")
    assert b" 417 " in head.splitlines()[0]
    assert b"nosniff" in head
    assert orjson.loads(body)["code"] == "expectation_failed"
    assert TOKEN[:12] not in (head + body).decode()
    assert not caplog.records


@pytest.mark.parametrize("how", ["100-continue", "half a body", "nothing read"])
async def test_who_leaves_in_the_middle_leaves_no_line_in_the_log(
    serve: Serve, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """Strangers would fill the disk otherwise."""
    async with serve() as served:
        for _ in range(3):
            reader, writer = await served.connect()
            if how == "nothing read":
                writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
            else:
                writer.write(b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n")
                writer.write(b"Expect: 100-continue\r\n\r\n" if "-" in how else b"\r\n{")
            if "-" in how:
                assert await reader.readline() == b"HTTP/1.1 100 Continue\r\n"
            await asyncio.sleep(0.02)
            writer.transport.abort()
        await asyncio.sleep(0.1)
        assert await served.ask() == 200
    assert not caplog.records


# ─── where they come from ────────────────────────────────────────────────────────────────────────


class Asking:
    """A request with these headers, from there."""

    def __init__(self, peer: Any, *forwarded: str) -> None:
        self._peer = peer
        self.headers = self
        self._forwarded = forwarded

    def get_extra_info(self, _: str) -> Any:
        return self._peer

    def getall(self, _: str, default: Any) -> Any:
        return self._forwarded or default


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        (("203.0.113.9", 1), (), "203.0.113.9"),
        (("203.0.113.9", 1), ("198.51.100.1",), "203.0.113.9"),  # anybody may write that
        (("10.0.0.2", 1), ("198.51.100.1",), "198.51.100.1"),
        (("10.0.0.2", 1), ("192.0.2.66, 198.51.100.1, 10.9.9.9",), "198.51.100.1"),
        (("10.0.0.2", 1), ("192.0.2.66", "198.51.100.1:4711"), "198.51.100.1"),
        (("10.0.0.2", 1), (), None),
        (("10.0.0.2", 1), ("unknown",), None),
        (("10.0.0.2", 1), ("192.0.2.66, rubbish\udcff",), None),
        (("10.0.0.2", 1), ("10.9.9.9",), None),
        (("::ffff:203.0.113.9", 1, 0, 0), (), "203.0.113.9"),
        (("::ffff:10.0.0.2", 1, 0, 0), ("[2001:db8::1]:99",), "2001:db8::/64"),
        (("2001:db8::7:1", 1, 0, 0), (), "2001:db8::/64"),
        (("fe80::1%eth0", 1, 0, 1), ("2001:db8:0:1::1",), "2001:db8:0:1::/64"),
        ("", (), None),
        (None, ("198.51.100.1",), "198.51.100.1"),
    ],
)
def test_who_asks_is_the_peer_or_what_our_own_proxy_says(
    peer: Any, forwarded: tuple[str, ...], address: str | None
) -> None:
    """From the right, up to the first that is no proxy of ours; IPv6 by its network."""
    addresses = Addresses(["10.0.0.0/8", "fe80::/10"])
    assert addresses.of(Asking(peer, *forwarded)) == address  # type: ignore[arg-type]


# ─── ports ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("host", "reached"),
    [("::", ("127.0.0.1", "::1")), ("127.0.0.1", ("127.0.0.1",)), ("::1", ("::1",))],
)
def test_a_host_is_reached_by_the_families_that_it_means(
    host: str, reached: tuple[str, ...]
) -> None:
    """``::`` is both, whatever the system's default."""
    opened = listeners(host, 0)
    port = opened[0].getsockname()[1]
    for address in ("127.0.0.1", "::1"):
        with contextlib.ExitStack() as stack:
            if address not in reached:
                stack.enter_context(pytest.raises(OSError, match="refused"))
            stack.enter_context(socket.create_connection((address, port), 5))
    for each in opened:
        each.close()


def test_a_name_of_several_addresses_has_one_port() -> None:
    """``localhost`` is two."""
    opened = listeners("localhost", 0)
    assert len({each.getsockname()[1] for each in opened}) == 1
    for each in opened:
        each.close()


def test_a_port_that_is_taken_is_not_shared() -> None:
    """Nor half of it."""
    (first,) = listeners("127.0.0.1", 0)
    port = first.getsockname()[1]
    for host in ("127.0.0.1", "::"):
        with pytest.raises(OSError, match="in use"):
            listeners(host, port)
    first.close()
