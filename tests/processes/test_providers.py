"""A real worker and the vendor that its settings choose: from the row to the socket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from tests.adapters import over_postgres_only
from tests.executors.providers.lab import VENDORS, faults
from tests.executors.providers.lab.openai import OpenAILab
from tests.executors.providers.lab.server import LAB_KEY, Lab
from tests.processes.site import Site

pytestmark = pytest.mark.processes

SETTINGS = "uvian_worker.WorkerSettings"
ASKED = {
    "logo_description": "a fox",
    "theme_description": "autumn woods",
    "num_palettes": 1,
    "size": 256,
}


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    """The vendors."""
    async with Lab(VENDORS) as lab:
        yield lab


async def start(site: Site, lab: Lab, **settings: str) -> None:
    """A worker as an operator starts it, pointed at the laboratory's OpenAI."""
    exports = OpenAILab(lab).exports(lab.url)
    worker = site.start(settings=SETTINGS, **{**exports, **settings})
    await site.until(lambda: "at a time" in worker.said, worker)


@over_postgres_only
async def test_a_concept_is_made_from_the_vendors_picture(site: Site, lab: Lab) -> None:
    """Short troubles included; and the key is nowhere but in the vendor's hands."""
    lab.script(faults.Status(503), faults.Status(429, headers={"Retry-After": "0.3"}))
    await start(site, lab)
    job = await site.submit("generation", **ASKED)
    (row,) = await site.ended(job)
    assert (row["status"], row["attempt"]) == ("completed", 0)
    (concept,) = await site.database.select("concepts")
    assert concept["details"]["provider"] == "openai"
    routes = [asked.route for asked in lab.asked]
    assert routes.count("openai.images") == 3
    assert set(routes) == {"openai.images", "openai.chat"}  # which is asked for the palettes
    assert all(LAB_KEY not in worker.said for worker in site.workers)
    assert LAB_KEY not in str(row)


@over_postgres_only
async def test_a_cancel_reaches_the_vendors_socket(site: Site, lab: Lab) -> None:
    """From the user's call, through Redis, to the connection that closes."""
    lab.script(faults.Silence())
    await start(site, lab)
    job = await site.submit("generation", **ASKED)
    asked = await lab.until_asked(1)
    began = time.monotonic()
    await site.client.cancel(job)
    await asyncio.wait_for(asked.over.wait(), 30)
    assert asked.closed_at is not None
    assert asked.closed_at - began < 5
    (row,) = await site.ended(job)
    assert row["status"] == "cancelled"


@over_postgres_only
async def test_sigterm_reaches_it_too(site: Site, lab: Lab) -> None:
    """A worker that stops leaves no request behind, and no attempt is burned."""
    lab.script(faults.Silence())
    await start(site, lab, UVIAN_DRAIN_GRACE="0")
    job = await site.submit("generation", **ASKED)
    asked = await lab.until_asked(1)
    await asyncio.to_thread(site.workers[0].terminate)
    await asyncio.wait_for(asked.over.wait(), 30)
    row = await site.row(job)
    assert (row["status"], row["attempt"]) == ("queued", 0)


@over_postgres_only
async def test_a_worker_without_a_key_does_not_start(site: Site) -> None:
    """One critical line with the setting's name; no job is touched."""
    worker = site.start(settings=SETTINGS, UVIAN_IMAGE_MODEL="openai")
    await asyncio.to_thread(worker.process.wait, 30)
    assert worker.process.returncode != 0
    assert "UVIAN_OPENAI_API_KEY is not set" in worker.said
    assert "Traceback" not in worker.said
