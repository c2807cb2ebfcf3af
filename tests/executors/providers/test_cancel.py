"""A call that is cancelled closes its connection, whatever it is doing, and at once."""

from __future__ import annotations

import asyncio
import socket
import statistics
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import pytest

from executors.errors import ProviderUnavailable
from executors.providers.base import ChatMessage
from executors.providers.openai import OpenAIChatModel
from executors.providers.transport.connections import AbortableConnector
from executors.providers.transport.http import Call, RetryBudget, Timeouts
from executors.providers.transport.limits import CallLimits
from tests.executors.providers.conftest import MakeOpenAIClient
from tests.executors.providers.lab import faults
from tests.executors.providers.lab.server import Lab

CALL = Call(
    url="/chat/completions", body={"model": "m", "messages": [{"content": "Hi"}]}, bucket="m"
)
QUESTION = [ChatMessage("user", "one two three four five six")]


async def cancelled(work: Any, *, when: Callable[[], bool]) -> float:
    """Cancel it once ``when``; how long it took to end, in seconds."""
    task = asyncio.ensure_future(work)
    async with asyncio.timeout(30):
        while not when():
            await asyncio.sleep(0.002)
    began = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return time.monotonic() - began


@pytest.mark.parametrize(
    "fault",
    [faults.Silence(), faults.Silence(after=0), faults.Silence(after=1)],
    ids=["waiting for the head", "waiting for the body", "in the middle of the body"],
)
async def test_the_vendor_sees_the_connection_close(
    lab: Lab, openai_client: MakeOpenAIClient, fault: faults.Fault
) -> None:
    """In each phase of a call, and long before any timeout."""
    lab.script(fault)
    took = await cancelled(
        openai_client().request(CALL), when=lambda: bool(lab.asked and lab.asked[0].fault)
    )
    await asyncio.wait_for(lab.asked[0].over.wait(), 10)
    assert lab.asked[0].closed_at is not None
    assert took < 1


class Mute:
    """A server that accepts connections and never says a word."""

    def __init__(self) -> None:
        self.came = asyncio.Event()
        self.left = asyncio.Event()
        self.port = 0

    async def listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Hear one client out."""
        self.came.set()
        await reader.read()  # to the end of the connection
        writer.close()
        self.left.set()


@pytest.fixture
async def mute() -> AsyncIterator[Mute]:
    """Such a server."""
    mute = Mute()
    server = await asyncio.start_server(mute.listen, "127.0.0.1", 0)
    mute.port = server.sockets[0].getsockname()[1]
    yield mute
    server.close()


async def test_in_the_handshake(openai_client: MakeOpenAIClient, mute: Mute) -> None:
    """Half of a TLS handshake is a connection too: the server sees it close."""
    vendor_client = openai_client(base_url=f"https://127.0.0.1:{mute.port}/v1")
    await cancelled(vendor_client.request(CALL), when=mute.came.is_set)
    await asyncio.wait_for(mute.left.wait(), 10)


async def test_a_handshake_has_its_timeout(openai_client: MakeOpenAIClient, mute: Mute) -> None:
    """Connecting includes TLS, and ends in time."""
    vendor_client = openai_client(
        base_url=f"https://127.0.0.1:{mute.port}/v1", timeouts=Timeouts(connect=0.2)
    )
    with pytest.raises(ProviderUnavailable, match="cannot be reached"):
        await vendor_client.request(CALL)
    await asyncio.wait_for(mute.left.wait(), 10)


class Deaf(asyncio.Protocol):
    """A server that accepts a connection and never reads."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.pause_reading()
        self.transport = transport


async def test_in_the_middle_of_an_upload(
    openai_client: MakeOpenAIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection with words left to say, and nobody who listens, is dropped and not closed."""
    used: list[asyncio.BaseTransport] = []
    connect = AbortableConnector.connect

    async def remember(self: AbortableConnector, *call: Any, **more: Any) -> Any:
        connection = await connect(self, *call, **more)
        assert connection.transport is not None
        used.append(connection.transport)
        return connection

    monkeypatch.setattr(AbortableConnector, "connect", remember)
    deaf = Deaf()
    server = await asyncio.get_running_loop().create_server(lambda: deaf, "127.0.0.1", 0)
    vendor_client = openai_client(
        base_url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    )
    call = Call(url="/images/edits", form=lambda: bytes(20_000_000))
    began = time.monotonic()
    await cancelled(
        vendor_client.request(call), when=lambda: bool(used) and time.monotonic() > began + 0.5
    )
    await asyncio.sleep(0)  # dropped in the next turn of the loop
    await asyncio.sleep(0)
    assert used[0].get_extra_info("socket").fileno() == -1
    assert deaf.transport is not None
    deaf.transport.abort()
    server.close()


async def test_while_connecting(openai_client: MakeOpenAIClient) -> None:
    """A server that does not even accept: the attempt ends at once."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        crowd = [socket.socket() for _ in range(3)]
        for one in crowd:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        vendor_client = openai_client(base_url=f"http://127.0.0.1:{full.getsockname()[1]}/v1")
        began = time.monotonic()
        took = await cancelled(
            vendor_client.request(CALL), when=lambda: time.monotonic() > began + 0.2
        )
        assert took < 1
        for one in crowd:
            one.close()


async def test_while_it_waits_to_ask_again(lab: Lab, openai_client: MakeOpenAIClient) -> None:
    """A pause between two tries is no shelter."""
    lab.script(faults.Status(503, headers={"Retry-After": "20"}), forever=True)
    vendor_client = openai_client(retry_budget=RetryBudget(seconds=60))
    took = await cancelled(
        vendor_client.request(CALL), when=lambda: bool(lab.asked and lab.asked[0].over.is_set())
    )
    assert took < 1
    assert len(lab.asked) == 1


async def test_while_it_stands_in_line(lab: Lab, openai_client: MakeOpenAIClient) -> None:
    """Who is cancelled in line leaves it, and takes nobody's place."""
    vendor_client = openai_client(limits=CallLimits(concurrency=1))
    lab.script(faults.Silence())
    first = asyncio.ensure_future(vendor_client.request(CALL))
    await lab.until_asked(1)
    await cancelled(vendor_client.request(CALL), when=lambda: True)
    await cancelled(first, when=lambda: True)
    await asyncio.wait_for(vendor_client.request(CALL), 10)  # the place is free
    assert len(lab.asked) == 2


async def test_in_the_middle_of_a_stream(lab: Lab, openai_client: MakeOpenAIClient) -> None:
    """Cancelling whoever reads a chat closes it; so does closing the generator."""
    model = OpenAIChatModel(openai_client(), model="m")
    heard: list[str] = []

    async def listen() -> None:
        async for delta in model.stream(QUESTION):
            heard.append(delta.text)  # noqa: PERF401 - told as it comes

    lab.script(faults.Silence(after=2), forever=True)
    await cancelled(listen(), when=lambda: "".join(heard) == "You said:")
    async with aclosing(model.stream(QUESTION)) as answer:
        await anext(answer)
    for asked in lab.asked:
        await asyncio.wait_for(asked.over.wait(), 10)
        assert asked.closed_at is not None
    assert len(lab.asked) == 2


async def test_a_late_total_timeout_closes_as_well(
    lab: Lab, openai_client: MakeOpenAIClient
) -> None:
    """A call that its timeout gives up is given up at the vendor too."""
    lab.script(faults.Silence(after=1))
    with pytest.raises(Exception, match="took longer"):
        await openai_client(timeouts=Timeouts(total=0.3)).request(CALL)
    await asyncio.wait_for(lab.asked[0].over.wait(), 10)
    assert lab.asked[0].closed_at is not None


async def test_how_fast_the_vendor_sees_it(lab: Lab, openai_client: MakeOpenAIClient) -> None:
    """Forty streams cancelled one after the other: 95 of 100 are closed within 250 ms."""
    model = OpenAIChatModel(openai_client(), model="m")
    lab.script(faults.Silence(after=3), forever=True)
    delays = []
    for number in range(40):
        answer = model.stream(QUESTION)
        heard = ""
        while heard != "You said: one":
            heard += (await anext(answer)).text
        began = time.monotonic()
        await answer.aclose()
        asked = lab.asked[number]
        await asyncio.wait_for(asked.over.wait(), 10)
        assert asked.closed_at is not None
        delays.append(asked.closed_at - began)
    assert statistics.quantiles(delays, n=20)[18] < 0.25
