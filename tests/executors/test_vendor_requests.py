"""A base image from a vendor with requests of its own: what is kept of them, resumed, and dropped."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from executors import errors
from executors.events import JobProgress
from executors.providers.base import GeneratedImage, VendorRequest
from tests.executors.bench import JOB, Bench, MemoryJobs, Model, Pictures, picture

ASKED = {"logo_description": "a fox", "theme_description": "autumn", "num_palettes": 1, "size": 256}


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A generation of one small variation."""
    bench = Bench(MemoryJobs(ASKED), Pictures(tmp_path / "images"), Model())
    yield bench
    await bench.pictures.close()


class Vendor:
    """An ``ImageModel`` of a vendor with requests of its own: each is paid for once, however it ends."""

    name = "vendor"

    def __init__(self) -> None:
        self.paid: list[str] = []
        self.resumed: list[str] = []
        self.answers: list[bytes | Exception] = []

    async def generate(self, *, request: VendorRequest, **_: Any) -> GeneratedImage:
        own = request.at(self.name)
        if own.id is None:
            self.paid.append(f"r{len(self.paid) + 1}")
            await own.save(self.paid[-1])
        else:
            self.resumed.append(own.id)
        own.report("Third in the queue")
        answer = self.answers.pop(0) if self.answers else picture()
        if isinstance(answer, Exception):
            raise answer
        return GeneratedImage(answer, self.name, "v-1")


async def test_a_vendors_request_is_resumed_by_the_next_run(bench: Bench) -> None:
    """What was asked, and paid for, before the worker lost its way is not asked again."""
    bench.model = vendor = Vendor()
    vendor.answers = [errors.ProviderUnavailable("cut")]
    await bench.run()
    assert (await bench.run())["outcome"] == "completed"
    assert (vendor.paid, vendor.resumed) == (["r1"], ["r1"])


async def test_an_image_that_cannot_be_used_is_not_fetched_again(bench: Bench) -> None:
    """Resumed, the same request would answer with the same bytes, for ever."""
    bench.model = vendor = Vendor()
    vendor.answers = [b"no picture"]
    assert (await bench.run())["outcome"] == "retry"
    assert (await bench.run())["outcome"] == "completed"
    assert (vendor.paid, vendor.resumed) == (["r1", "r2"], [])


async def test_a_request_for_something_else_is_not_resumed(bench: Bench) -> None:
    """A hand that changes the input of a queued job gets what it then asks for."""
    bench.model = vendor = Vendor()
    vendor.answers = [errors.ProviderUnavailable("cut")]
    await bench.run()
    bench.jobs.input["logo_description"] = "an owl"
    await bench.run()
    assert (vendor.paid, vendor.resumed) == (["r1", "r2"], [])


async def test_nothing_is_paid_once_the_lease_is_lost(bench: Bench) -> None:
    """The id cannot be kept: whoever has the job now asks for itself."""
    bench.model = vendor = Vendor()
    bench.jobs.loses_at_checkpoint = True
    await bench.runner.run(JOB, 1)
    assert bench.jobs.settled == []
    assert vendor.paid == ["r1"]


async def test_what_a_vendor_waits_for_is_told(bench: Bench) -> None:
    """Its words are the progress message; the progress itself stays where it is."""
    bench.model = Vendor()
    await bench.run()
    told = [event for _, event in bench.told if isinstance(event, JobProgress)]
    assert (told[0].message, told[0].fraction) == ("Third in the queue", 0.0)
