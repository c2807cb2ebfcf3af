"""Every row of the table, through the real runner on the real database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from decimal import Decimal

import aiohttp
import pytest

from repositories.database import Row
from tests.executors.providers.cases import Case, Ending
from tests.executors.providers.jobs import BALANCE, ChatProbe, ImageProbe, Works
from tests.executors.providers.lab.faults import DoneAfterCancel, Waiting
from tests.executors.providers.lab.server import LAB_KEY, Lab
from tests.executors.providers.models import chat_model, image_model
from tests.executors.providers.table import TABLE
from tests.servers import CleanDatabase

pytestmark = pytest.mark.database

#: What costs something.
PAID = {
    "openai.chat",
    "openai.images",
    "fal.submit",
    "runpod.run",
    "jigsawstack.images",
}

TYPES = {"chat": ChatProbe.type, "image": ImageProbe.type}


@pytest.fixture
async def works(database: CleanDatabase) -> AsyncIterator[Works]:
    """A user, a runner, two probes."""
    async with Works.opened(database) as works:
        yield works


@pytest.mark.parametrize("case", TABLE, ids=lambda case: case.id)
async def test_the_job_ends_as_the_table_says(
    case: Case,
    lab: Lab,
    works: Works,
    session: aiohttp.ClientSession,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Status, code, attempts, charge and what the vendor was asked: after a run, and in the end."""
    lab.script(*case.script, key=case.on, forever=case.forever)
    works.asks(
        chat=lambda: chat_model(case.provider, lab, session, case.timeouts),
        image=lambda: image_model(case.provider, lab, session, case.timeouts),
    )
    job = await works.create(TYPES[case.does])
    run = asyncio.create_task(works.runner.run(job, 1))
    if case.cancel:
        await _cancel(works, case, lab, job)
    await run
    row = await works.row(job)
    _check(works, row, case.first)
    if case.first.wait is not None:
        assert case.first.wait <= await works.wait_of(job) + 0.5 <= case.first.wait + 3
    assert sent(lab) == case.asked
    while row["status"] == "queued":
        await works.let_time_pass(job)
        await works.runner.run(job, row["run"])
        row = await works.row(job)
    _check(works, row, case.last)
    assert row["cost"] == case.charge
    assert await works.balance() == (Decimal(BALANCE - case.charge), Decimal(0))
    assert case.in_all in {None, sent(lab)}
    told = f"{caplog.text} {works.sink.told} {row}"
    assert LAB_KEY not in told
    assert "Traceback" not in f"{works.sink.told} {row}"


def _check(works: Works, row: Row, ending: Ending) -> None:
    assert (row["status"], row["attempt"]) == (ending.status, ending.attempts)
    assert works.code == ending.code
    if ending.status == "failed":
        assert row["error"]["code"] == ending.code


def sent(lab: Lab) -> int:
    """The requests there were to pay for: looks at them, cancels and downloads are none."""
    return sum(asked.route in PAID for asked in lab.asked)


async def _cancel(works: Works, case: Case, lab: Lab, job: str) -> None:
    """Cancel when the vendor has been asked; it sees the connection close, or is told."""
    asked = await lab.until_asked(1)
    while asked.fault is None:
        await asyncio.sleep(0.002)
    if isinstance(asked.fault, Waiting | DoneAfterCancel):
        await lab.until_asked(5)
    began = time.monotonic()
    assert works.runner.cancel(job)
    if case.calls_off:
        told = await lab.until_asked_for(f"{case.provider}.cancel")
        assert told.at - began < 5
        return
    await asyncio.wait_for(asked.over.wait(), 10)
    assert asked.closed_at is not None
    assert asked.closed_at - began < 5
