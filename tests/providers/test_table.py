"""Every row of the table, through the real runner on the real database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from decimal import Decimal

import aiohttp
import pytest

from executors.providers.http import Wire
from executors.providers.openai import OpenAIChatModel, OpenAIImageModel
from executors.providers.results import Results
from repositories.database import Row
from tests.providers.conftest import OpenAIWire
from tests.providers.jobs import BALANCE, ChatProbe, ImageProbe, Works
from tests.providers.lab.server import LAB_KEY, Lab
from tests.providers.table import TABLE, Case, Ending
from tests.servers import CleanDatabase

pytestmark = pytest.mark.database

TYPES = {"chat": ChatProbe.type, "image": ImageProbe.type}


@pytest.fixture
async def works(database: CleanDatabase) -> AsyncIterator[Works]:
    """A user, a runner, two probes."""
    async with Works.opened(database) as works:
        yield works


async def no_internet(url: str, *, max_bytes: int) -> bytes:
    """Nothing is fetched from outside."""
    raise AssertionError(url, max_bytes)


@pytest.mark.parametrize("case", TABLE, ids=lambda case: case.id)
async def test_the_job_ends_as_the_table_says(
    case: Case,
    lab: Lab,
    works: Works,
    openai_wire: OpenAIWire,
    session: aiohttp.ClientSession,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Status, code, attempts, charge and what the vendor was asked: after a run, and in the end."""
    lab.script(*case.script, forever=case.forever)

    def wire() -> Wire:
        return openai_wire(timeouts=case.timeouts) if case.timeouts else openai_wire()

    def image() -> OpenAIImageModel:
        line = wire()
        return OpenAIImageModel(line, Results(session, line.vendor, no_internet), model="lab-image")

    works.asks(chat=lambda: OpenAIChatModel(wire(), model="lab-chat"), image=image)
    job = await works.create(TYPES[case.does])
    run = asyncio.create_task(works.runner.run(job, 1))
    if case.cancel:
        await _cancel(works, lab, job)
    await run
    row = await works.row(job)
    _check(works, row, case.first)
    if case.first.wait is not None:
        assert case.first.wait <= await works.wait_of(job) + 0.5 <= case.first.wait + 3
    assert sum(asked.route != "files" for asked in lab.asked) == case.asked
    while row["status"] == "queued":
        await works.let_time_pass(job)
        await works.runner.run(job, row["run"])
        row = await works.row(job)
    _check(works, row, case.last)
    assert row["cost"] == case.charge
    assert await works.balance() == (Decimal(BALANCE - case.charge), Decimal(0))
    assert LAB_KEY not in caplog.text
    assert LAB_KEY not in str(works.sink.told) + str(row)


def _check(works: Works, row: Row, ending: Ending) -> None:
    assert (row["status"], row["attempt"]) == (ending.status, ending.attempts)
    assert works.code == ending.code
    if ending.status == "failed":
        assert row["error"]["code"] == ending.code


async def _cancel(works: Works, lab: Lab, job: str) -> None:
    """Cancel when the vendor has been asked; it sees the connection close."""
    asked = await lab.until_asked(1)
    while asked.fault is None:
        await asyncio.sleep(0.002)
    began = time.monotonic()
    assert works.runner.cancel(job)
    await asyncio.wait_for(asked.over.wait(), 10)
    assert asked.closed_at is not None
    assert asked.closed_at - began < 5
