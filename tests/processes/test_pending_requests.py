"""Real workers and a vendor that answers later: what is sent once is paid for once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from tests.adapters import over_postgres_only
from tests.executors.providers.lab import VENDORS, faults
from tests.executors.providers.lab.fal import FalLab
from tests.executors.providers.lab.server import LAB_KEY, Lab
from tests.processes.site import Site, Worker
from tests.processes.test_providers import ASKED, SETTINGS

pytestmark = pytest.mark.processes


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    """The vendors."""
    async with Lab(VENDORS) as lab:
        yield lab


async def start(site: Site, lab: Lab, **settings: str) -> Worker:
    """A worker as an operator starts it, pointed at the laboratory's FAL."""
    worker = site.start(settings=SETTINGS, **{**FalLab(lab).exports(lab.url), **settings})
    await site.until(lambda: "at a time" in worker.said, worker)
    return worker


def count(lab: Lab, route: str) -> int:
    """How often that was asked."""
    return sum(asked.route == f"fal.{route}" for asked in lab.asked)


async def waiting(lab: Lab) -> None:
    """A request is in the queue, and is looked at."""
    async with asyncio.timeout(60):
        while count(lab, "status") < 2:
            await asyncio.sleep(0.01)


async def test_a_worker_that_is_killed_leaves_its_request_to_the_next(site: Site, lab: Lab) -> None:
    """SIGKILL while a request waits: another worker resumes it. One request, one picture, no key shown."""
    lab.script(faults.Waiting(8), key="fal.submit")
    first = await start(site, lab)
    job = await site.submit("generation", **ASKED)
    await waiting(lab)
    first.kill()
    second = await start(site, lab)
    (row,) = await site.ended(job)
    assert row["status"] == "completed"
    assert (count(lab, "submit"), count(lab, "cancel")) == (1, 0)
    (concept,) = await site.database.select("concepts")
    assert concept["details"]["provider"] == "fal"
    assert LAB_KEY not in f"{first.said} {second.said} {row}"


@over_postgres_only
async def test_a_deploy_leaves_it_too(site: Site, lab: Lab) -> None:
    """SIGTERM without grace: the job is queued again, and the request is not called off."""
    lab.script(faults.Waiting(8), key="fal.submit")
    first = await start(site, lab, UVIAN_DRAIN_GRACE="0")
    job = await site.submit("generation", **ASKED)
    await waiting(lab)
    await asyncio.to_thread(first.terminate)
    await start(site, lab)
    (row,) = await site.ended(job)
    assert (row["status"], row["attempt"]) == ("completed", 0)
    assert (count(lab, "submit"), count(lab, "cancel")) == (1, 0)


@over_postgres_only
async def test_a_cancel_reaches_the_vendors_queue(site: Site, lab: Lab) -> None:
    """From the user's call, through Redis, to the vendor's own cancel."""
    lab.script(faults.Waiting(), key="fal.submit")
    await start(site, lab)
    job = await site.submit("generation", **ASKED)
    await waiting(lab)
    began = time.monotonic()
    await site.client.cancel(job)
    told = await lab.until_asked_for("fal.cancel")
    assert told.at - began < 5
    (row,) = await site.ended(job)
    assert row["status"] == "cancelled"
    assert count(lab, "submit") == 1
