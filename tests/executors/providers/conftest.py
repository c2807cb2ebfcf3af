"""A laboratory, a session, and clients between them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

import aiohttp
import pytest
from aiohttp import web
from pydantic import SecretStr

from executors.providers.fal import FalImageModel, fal_vendor
from executors.providers.openai import OpenAIChatModel, openai_vendor
from executors.providers.transport import http
from executors.providers.transport.http import RetryBudget, Timeouts, VendorClient, open_session
from executors.providers.transport.limits import CallLimits
from executors.providers.transport.results import Results
from tests.executors.providers.lab import VENDORS
from tests.executors.providers.lab.fal import BASE as FAL
from tests.executors.providers.lab.openai import BASE, OpenAILab
from tests.executors.providers.lab.server import LAB_KEY, Lab
from tests.executors.providers.models import no_internet

#: One question, one answer: a test that is not about asking again must not.
ONCE = RetryBudget(retries=0)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a retry: 50 ms instead of half a second."""
    monkeypatch.setattr(http, "_FIRST_PAUSE", 0.05)


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    """The laboratory, open for one test."""
    async with Lab(VENDORS) as lab:
        yield lab


@pytest.fixture
def openai_lab(lab: Lab) -> OpenAILab:
    """Its OpenAI."""
    (found,) = (vendor for vendor in lab.vendors if isinstance(vendor, OpenAILab))
    return found


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """The session of the process."""
    async with open_session() as session:
        yield session


@pytest.fixture
def unused_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class MakeOpenAIClient(Protocol):
    """Makes a client of the laboratory's OpenAI."""

    def __call__(
        self,
        *,
        timeouts: Timeouts = ...,
        limits: CallLimits = ...,
        retry_budget: RetryBudget = ...,
        key: str = ...,
        base_url: str = ...,
    ) -> VendorClient: ...


@pytest.fixture
def openai_client(lab: Lab, session: aiohttp.ClientSession) -> MakeOpenAIClient:
    """A client of the laboratory's OpenAI; it waits for a busy machine, unless a test says otherwise."""

    def make(
        *,
        timeouts: Timeouts | None = None,
        limits: CallLimits | None = None,
        retry_budget: RetryBudget | None = None,
        key: str = LAB_KEY,
        base_url: str = "",
    ) -> VendorClient:
        vendor = openai_vendor(base_url or lab.url + BASE, SecretStr(key), label="OpenAI")
        return VendorClient(
            session, vendor, timeouts=timeouts, limits=limits, retry_budget=retry_budget
        )

    return make


class FalModels(Protocol):
    """Makes models of the laboratory's FAL; each one is that of a worker that has just started."""

    def __call__(
        self, retry_budget: RetryBudget = ..., limits: CallLimits | None = ...
    ) -> FalImageModel: ...


@pytest.fixture
def fal_models(lab: Lab, session: aiohttp.ClientSession) -> FalModels:
    """Models that ask once, unless told otherwise."""

    def make(retry_budget: RetryBudget = ONCE, limits: CallLimits | None = None) -> FalImageModel:
        vendor = fal_vendor(lab.url + FAL, SecretStr(LAB_KEY))
        client = VendorClient(session, vendor, retry_budget=retry_budget, limits=limits)
        results = Results(session, vendor, no_internet, largest=100_000)
        return FalImageModel(
            client,
            results,
            model="lab/draw/fast",
            refine_model="lab/draw/image-to-image",
            poll_every=0.001,
        )

    return make


@pytest.fixture
def fal_model(fal_models: FalModels) -> FalImageModel:
    """One that asks once."""
    return fal_models()


def fal_routes(lab: Lab) -> list[str]:
    """What was asked, in order; looks that follow each other count once."""
    asked = [a.route.removeprefix("fal.") for a in lab.asked]
    return [route for i, route in enumerate(asked) if i == 0 or route != asked[i - 1]]


def fal_submits(lab: Lab) -> int:
    """How many requests there were to pay for."""
    return sum(asked.route == "fal.submit" for asked in lab.asked)


@pytest.fixture
async def raw(openai_client: MakeOpenAIClient) -> AsyncIterator[Any]:
    """``raw(pieces)`` → a model whose server writes those pieces as they are."""
    runners: list[web.AppRunner] = []

    async def serve(
        pieces: Sequence[bytes],
        *,
        hold: bool = False,
        pause: float = 0,
        kind: str = "text/event-stream",
    ) -> OpenAIChatModel:
        async def answer(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Type": kind})
            await response.prepare(request)
            for piece in pieces:
                await response.write(piece)
                await asyncio.sleep(pause)
            if hold:
                await asyncio.Event().wait()
            return response

        app = web.Application()
        app.router.add_post("/v1/chat/completions", answer)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.05)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        return OpenAIChatModel(openai_client(base_url=url, retry_budget=ONCE), model="m")

    yield serve
    for runner in runners:
        await runner.cleanup()
