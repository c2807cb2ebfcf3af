"""Requests in FAL's queue that nobody wants any more are cancelled there, in whatever phase they are."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any

import pytest

from executors.errors import LeaseLost
from executors.providers.fal import FalImageModel
from executors.providers.transport.limits import CallLimits
from tests.executors.providers.asking import Asking
from tests.executors.providers.conftest import FalModels, fal_routes, fal_submits
from tests.executors.providers.lab import faults
from tests.executors.providers.lab.faults import Fault, Status
from tests.executors.providers.lab.server import Lab

ASKED: dict[str, Any] = {"subject": "a fox", "theme": "autumn woods", "size": 128}


async def waiting(lab: Lab, model: FalImageModel, asking: Asking) -> asyncio.Task[Any]:
    """A task whose request is in the queue."""
    task = asyncio.create_task(model.generate(**ASKED, request=asking.request))
    async with asyncio.timeout(30):
        while not asking.told:
            await asyncio.sleep(0.002)
    return task


async def cancels(lab: Lab) -> list[float]:
    """When the vendor was told that its answer is not wanted."""
    await asyncio.sleep(0)
    return [asked.at for asked in lab.asked if asked.route == "fal.cancel"]


@pytest.mark.parametrize("fault", [faults.Waiting(), faults.DoneAfterCancel()])
async def test_cancelling_calls_the_request_off(
    lab: Lab, fal_models: FalModels, fault: Fault
) -> None:
    """Before whoever was cancelled is gone, and whatever the vendor makes of it."""
    lab.script(fault)
    lab.script(faults.Silence(), key="fal.result")
    task = await waiting(lab, fal_models(), Asking())
    began = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (told,) = await cancels(lab)
    assert told - began < 2


async def test_a_full_line_does_not_hold_a_cancel_back(lab: Lab, fal_models: FalModels) -> None:
    """Cancels have a line of their own: that of the requests may be full of silent ones."""
    fal_model = fal_models(limits=CallLimits(concurrency=1))
    lab.script(faults.Waiting(), faults.Silence(), key="fal.submit")
    task = await waiting(lab, fal_model, Asking())
    silent = asyncio.create_task(fal_model.generate(**ASKED))
    async with asyncio.timeout(30):
        while fal_submits(lab) < 2:
            await asyncio.sleep(0.002)
    task.cancel()
    await asyncio.wait([task])
    assert len(await cancels(lab)) == 1
    silent.cancel()
    await asyncio.wait([silent])


async def test_cancelled_while_the_request_is_sent(lab: Lab, fal_model: FalImageModel) -> None:
    """The id comes too late for the cancelled caller, and in time to cancel the request."""
    lab.script(faults.Slow(0.2))
    task = asyncio.create_task(fal_model.generate(**ASKED))
    await lab.until_asked(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert fal_routes(lab) == ["submit", "cancel"]


async def test_cancelled_while_the_submit_is_silent(lab: Lab, fal_model: FalImageModel) -> None:
    """Without an id nothing can be cancelled: the connection closes after a second."""
    lab.script(faults.Silence())
    task = asyncio.create_task(fal_model.generate(**ASKED))
    asked = await lab.until_asked(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(asked.over.wait(), 10)
    assert asked.closed_at is not None


async def test_cancelled_while_it_looks(lab: Lab, fal_model: FalImageModel) -> None:
    """The poll's connection closes, and the request is cancelled."""
    lab.script(faults.Silence(), key="fal.status")
    task = asyncio.create_task(fal_model.generate(**ASKED))
    asked = await lab.until_asked(2)
    task.cancel()
    await asyncio.wait([task])
    await asyncio.wait_for(asked.over.wait(), 10)
    assert asked.closed_at is not None
    assert len(await cancels(lab)) == 1


async def test_cancelled_twice(lab: Lab, fal_model: FalImageModel) -> None:
    """The second time ends the waiting for the vendor's word, not the call itself."""
    lab.script(faults.Waiting())
    lab.script(faults.Slow(0.5), key="fal.cancel")
    task = await waiting(lab, fal_model, Asking())
    task.cancel()
    async with asyncio.timeout(30):
        while not await cancels(lab):
            await asyncio.sleep(0.002)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (asked,) = (a for a in lab.asked if a.route == "fal.cancel")
    assert not asked.over.is_set()
    await asyncio.wait_for(asked.over.wait(), 10)
    assert asked.closed_at is None


@pytest.mark.parametrize("fault", [Status(500), Status(404), faults.Html(), faults.Cut()])
async def test_a_cancel_that_fails_changes_nothing(
    lab: Lab, fal_model: FalImageModel, fault: Fault
) -> None:
    """Who is cancelled is cancelled."""
    lab.script(faults.Waiting())
    lab.script(fault, key="fal.cancel", forever=True)
    task = await waiting(lab, fal_model, Asking())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_a_later_run_comes_back_for_is_left(lab: Lab, fal_models: FalModels) -> None:
    """A worker that stops, or has lost its lease, leaves the request to whoever has the job next."""
    lab.script(faults.Waiting(20))
    asking = Asking()
    asking.comes_back = True
    task = await waiting(lab, fal_models(), asking)
    task.cancel()
    await asyncio.wait([task])
    assert await cancels(lab) == []
    assert (await fal_models().generate(**ASKED, request=asking.request)).content
    assert fal_submits(lab) == 1


async def test_a_request_whose_id_cannot_be_saved_is_cancelled(
    lab: Lab, fal_model: FalImageModel
) -> None:
    """The job is another worker's: nothing of this run may be paid for."""
    asking = Asking()
    asking.lost = True
    with pytest.raises(LeaseLost):
        await fal_model.generate(**ASKED, request=asking.request)
    assert fal_routes(lab) == ["submit", "cancel"]


async def test_how_fast_the_vendor_is_told(lab: Lab, fal_model: FalImageModel) -> None:
    """Twenty requests cancelled one after the other: 95 of 100 within 250 ms."""
    lab.script(faults.Waiting(), key="fal.submit", forever=True)
    delays = []
    for _ in range(20):
        task = await waiting(lab, fal_model, Asking())
        began = time.monotonic()
        task.cancel()
        await asyncio.wait([task])
        delays.append((await cancels(lab))[-1] - began)
    assert statistics.quantiles(delays, n=20)[18] < 0.25
