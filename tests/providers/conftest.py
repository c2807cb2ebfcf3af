"""A laboratory, a session, and lines from one to the other."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from typing import Protocol

import aiohttp
import pytest
from pydantic import SecretStr

from executors.providers.http import Patience, Timeouts, Wire, open_session
from executors.providers.limits import CallLimits
from executors.providers.openai import openai_vendor
from tests.providers.lab import VENDORS
from tests.providers.lab.openai import BASE, OpenAILab
from tests.providers.lab.server import LAB_KEY, Lab

#: One question, one answer: a test that is not about asking again must not.
ONCE = Patience(retries=0)


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


class OpenAIWire(Protocol):
    """Makes a line to the laboratory's OpenAI."""

    def __call__(
        self,
        *,
        timeouts: Timeouts = ...,
        limits: CallLimits = ...,
        patience: Patience = ...,
        key: str = ...,
        base_url: str = ...,
    ) -> Wire: ...


@pytest.fixture
def openai_wire(lab: Lab, session: aiohttp.ClientSession) -> OpenAIWire:
    """A line to the laboratory's OpenAI; patient with a machine that is busy, unless told otherwise."""

    def make(
        *,
        timeouts: Timeouts | None = None,
        limits: CallLimits | None = None,
        patience: Patience | None = None,
        key: str = LAB_KEY,
        base_url: str = "",
    ) -> Wire:
        vendor = openai_vendor(base_url or lab.url + BASE, SecretStr(key), label="OpenAI")
        return Wire(session, vendor, timeouts=timeouts, limits=limits, patience=patience)

    return make
