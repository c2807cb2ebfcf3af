"""Pictures from FAL's queue: sent once, waited for, resumed, called off, refused."""

from __future__ import annotations

import asyncio
import base64
import io
import logging
import time
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from PIL import Image
from pydantic import SecretStr

from executors.errors import (
    AccountRefused,
    ExecutorError,
    LeaseLost,
    ProviderRejected,
    ProviderUnavailable,
    RateLimited,
)
from executors.providers.fal import FalImageModel, fal_vendor
from executors.providers.http import Patience, Timeouts, Wire
from executors.providers.limits import CallLimits
from executors.providers.results import Results
from tests.providers.asking import Asking
from tests.providers.conftest import ONCE
from tests.providers.lab import faults
from tests.providers.lab.fal import BASE
from tests.providers.lab.faults import Failed, Fault, Status
from tests.providers.lab.pictures import painted
from tests.providers.lab.server import LAB_KEY, Lab

ASKED: dict[str, Any] = {"subject": "a fox", "theme": "autumn woods", "size": 128}


async def no_internet(url: str, *, max_bytes: int) -> bytes:
    """Nothing is fetched from outside."""
    raise AssertionError(url, max_bytes)


@pytest.fixture
def make(lab: Lab, session: aiohttp.ClientSession) -> Callable[..., FalImageModel]:
    """Models in the laboratory; each one is that of a worker that has just started."""

    def make(patience: Patience = ONCE, limits: CallLimits | None = None) -> FalImageModel:
        vendor = fal_vendor(lab.url + BASE, SecretStr(LAB_KEY))
        wire = Wire(session, vendor, patience=patience, limits=limits)
        results = Results(session, vendor, no_internet, largest=100_000)
        return FalImageModel(
            wire,
            results,
            model="lab/draw/fast",
            refine_model="lab/draw/image-to-image",
            look_every=0.001,
        )

    return make


@pytest.fixture
def model(make: Callable[..., FalImageModel]) -> FalImageModel:
    """One that asks once."""
    return make()


def routes(lab: Lab) -> list[str]:
    """What was asked, in order; looks that follow each other count once."""
    asked = [a.route.removeprefix("fal.") for a in lab.asked]
    return [route for i, route in enumerate(asked) if i == 0 or route != asked[i - 1]]


def submits(lab: Lab) -> int:
    """How many requests there were to pay for."""
    return sum(asked.route == "fal.submit" for asked in lab.asked)


async def failure(model: FalImageModel, asking: Asking) -> ExecutorError:
    """What it raised."""
    with pytest.raises(ExecutorError) as caught:
        await model.generate(**ASKED, request=asking.request)
    return caught.value


async def test_a_picture(lab: Lab, model: FalImageModel) -> None:
    """Sent, kept, waited for, read, fetched; the user hears where the request stands."""
    asking = Asking()
    made = await model.generate(**ASKED, style="flat", seed=7, request=asking.request)
    assert Image.open(io.BytesIO(made.content)).size == (128, 128)
    assert (made.provider, made.model, made.seed) == ("fal", "lab/draw/fast", 7)
    assert routes(lab) == ["submit", "status", "result", "files"]
    assert lab.asked[0].path == "/fal/lab/draw/fast"
    assert lab.asked[0].body == {
        "prompt": "a fox\nColours and mood: autumn woods\nStyle: flat",
        "image_size": {"width": 128, "height": 128},
        "num_images": 1,
        "seed": 7,
    }
    assert float(lab.asked[0].headers["X-Fal-Request-Timeout"]) == Timeouts().total
    assert asking.history == ["fal:/lab/draw/requests/lab-1"]
    assert asking.told == ["1 ahead in the queue of FAL", "FAL is drawing"]


async def test_the_seed_that_the_vendor_chose(model: FalImageModel) -> None:
    """Who names none learns which one it was."""
    assert (await model.generate(**ASKED)).seed == 42


async def test_a_picture_from_another(lab: Lab, model: FalImageModel) -> None:
    """The original goes in the request itself: nobody has to be able to fetch it."""
    original = painted(64, 32)
    await model.refine(original=original, prompt="bluer", width=64, height=32, strength=0.0)
    assert lab.asked[0].path == "/fal/lab/draw/image-to-image"
    body = lab.asked[0].body
    assert base64.b64decode(body["image_url"].removeprefix("data:image/png;base64,")) == original
    assert (body["prompt"], body["strength"]) == ("bluer", 0.01)


async def test_the_key_stays_with_the_queue(lab: Lab, model: FalImageModel) -> None:
    """Every call to the queue carries it, the download does not."""
    await model.generate(**ASKED)
    carriers = {a.route for a in lab.asked if LAB_KEY in str(dict(a.headers))}
    assert carriers == {"fal.submit", "fal.status", "fal.result"}


async def test_behind_a_proxy_the_ticket_leads_through_it(
    model: FalImageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAL names its own address; the key goes nowhere but to the one that is set."""

    async def ask(*_: Any, **__: Any) -> Any:
        return {"status_url": "https://queue.fal.run/lab/draw/requests/9/status"}

    monkeypatch.setattr(model._wire, "ask", ask)
    assert await model._submit("lab/draw", {}) == "/lab/draw/requests/9"


class Killed(BaseException):
    """The process is gone: nothing of it runs any more."""


@pytest.mark.parametrize("looks", [0, 3, 20], ids=["meanwhile done", "almost done", "waiting"])
async def test_a_later_run_resumes(
    lab: Lab, make: Callable[..., FalImageModel], looks: int
) -> None:
    """A worker that is killed while it waits leaves its ticket: one request, two runs, one picture."""
    lab.script(faults.Waiting(looks))
    asking = Asking()

    def die(_: str) -> None:
        raise Killed

    dying = asking.request
    first = make().generate(**ASKED, request=type(dying)(keep=dying.keep, report=die))
    with pytest.raises(Killed):
        await first
    made = await make().generate(**ASKED, request=asking.request)
    assert Image.open(io.BytesIO(made.content)).size == (128, 128)
    assert submits(lab) == 1
    assert "fal.cancel" not in [a.route for a in lab.asked]


@pytest.mark.parametrize("kept", ["fal:/lab/draw/requests/none", "openai:7", ""])
async def test_what_cannot_be_resumed_is_asked_anew(
    lab: Lab, model: FalImageModel, kept: str
) -> None:
    """An expired ticket, or one of another vendor."""
    asking = Asking(kept)
    assert (await model.generate(**ASKED, request=asking.request)).content
    assert submits(lab) == 1
    assert asking.kept == "fal:/lab/draw/requests/lab-1"


async def test_a_request_that_was_cancelled_is_asked_anew(lab: Lab, model: FalImageModel) -> None:
    """What an earlier run has called off is no answer."""
    lab.script(faults.Waiting())
    asking = Asking()
    task = asyncio.create_task(model.generate(**ASKED, request=asking.request))
    await lab.until_asked(3)
    task.cancel()
    await asyncio.wait([task])
    assert (await model.generate(**ASKED, request=asking.request)).content
    assert submits(lab) == 2


@pytest.mark.parametrize(
    ("route", "fault"),
    [
        ("fal.status", faults.Cut(after=1)),
        ("fal.status", faults.Html()),
        ("fal.status", Status(503)),
        ("fal.result", faults.Cut(after=1)),
        ("fal.result", faults.Html(502)),
    ],
)
async def test_a_fault_on_the_way_costs_no_second_request(
    lab: Lab, model: FalImageModel, route: str, fault: Fault
) -> None:
    """The run ends, the ticket stays, the next run redeems it."""
    lab.script(fault, key=route)
    asking = Asking()
    assert isinstance(await failure(model, asking), ProviderUnavailable)
    assert (await model.generate(**ASKED, request=asking.request)).content
    assert submits(lab) == 1


@pytest.mark.parametrize(
    ("fault", "expected", "words"),
    [
        (Failed("runner_server_error", 500), ProviderUnavailable, "internal fault"),
        (Failed("runner_disconnected", 503), ProviderUnavailable, "internal fault"),
        (Failed("request_timeout", 504), ProviderUnavailable, "internal fault"),
        (Failed("", 500), ProviderUnavailable, "internal fault"),
        (Failed("content_policy_violation", 422), ProviderRejected, "against its rules"),
        (Failed("image_too_small", 422), ProviderRejected, "refuses the request"),
        (faults.Expired(), ProviderUnavailable, "left its picture"),
    ],
)
async def test_a_request_that_has_failed_is_not_redeemed_again(
    lab: Lab, model: FalImageModel, fault: Fault, expected: type[ExecutorError], words: str
) -> None:
    """It would stay what it is: the ticket is thrown away, and a next run asks anew."""
    lab.script(fault)
    asking = Asking()
    error = await failure(model, asking)
    assert type(error) is expected
    assert words in error.message
    assert asking.kept == ""
    assert (await model.generate(**ASKED, request=asking.request)).content
    assert submits(lab) == 2


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Status(401, message="Cannot access application"), AccountRefused),
        (Status(403, message="User is locked. Reason: Exhausted balance."), AccountRefused),
        (Status(404, message="Application not found"), ProviderRejected),
        (Status(422), ProviderRejected),
        (Status(429, headers={"Retry-After": "9"}), RateLimited),
        (Status(409), ProviderUnavailable),
        (Status(503, "runner_scheduling_failure"), ProviderUnavailable),
        (faults.Html(), ProviderUnavailable),
        (faults.Cut(), ProviderUnavailable),
    ],
)
async def test_a_request_that_is_not_taken(
    lab: Lab, model: FalImageModel, fault: Fault, expected: type[ExecutorError]
) -> None:
    """Nothing is kept, and what it means goes by status."""
    lab.script(fault)
    asking = Asking()
    assert type(await failure(model, asking)) is expected
    assert asking.kept == ""


async def test_a_request_that_is_lost_at_the_vendor(lab: Lab, model: FalImageModel) -> None:
    """Forgotten before it was answered: the next run asks anew."""
    lab.script(faults.Forgotten())
    asking = Asking()
    assert "has dropped the request" in (await failure(model, asking)).message
    assert asking.kept == ""


async def test_short_troubles_stay_in_the_call(
    lab: Lab, make: Callable[..., FalImageModel]
) -> None:
    """A submit or a look that fails once is repeated at once."""
    lab.script(Status(429, headers={"Retry-After": "0.1"}), key="fal.submit")
    lab.script(Status(502), key="fal.status")
    assert (await make(Patience()).generate(**ASKED)).content
    assert submits(lab) == 2  # the first was refused


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
    lab: Lab, make: Callable[..., FalImageModel], fault: Fault
) -> None:
    """Within 250 ms, before whoever was cancelled is gone; and whatever the vendor makes of it."""
    lab.script(fault)
    lab.script(faults.Silence(), key="fal.result")
    task = await waiting(lab, make(), Asking())
    began = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (told,) = await cancels(lab)
    assert told - began < 0.25


async def test_a_full_line_does_not_hold_a_cancel_back(
    lab: Lab, make: Callable[..., FalImageModel]
) -> None:
    """Cancels have a line of their own: that of the requests may be full of silent ones."""
    model = make(limits=CallLimits(concurrency=1))
    lab.script(faults.Waiting(), faults.Silence(), key="fal.submit")
    task = await waiting(lab, model, Asking())
    silent = asyncio.create_task(model.generate(**ASKED))
    async with asyncio.timeout(30):
        while submits(lab) < 2:
            await asyncio.sleep(0.002)
    task.cancel()
    await asyncio.wait([task])
    assert len(await cancels(lab)) == 1
    silent.cancel()
    await asyncio.wait([silent])


async def test_cancelled_while_the_request_is_sent(lab: Lab, model: FalImageModel) -> None:
    """The ticket comes too late for who was cancelled, and in time to call the request off."""
    lab.script(faults.Slow(0.2))
    task = asyncio.create_task(model.generate(**ASKED))
    await lab.until_asked(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert routes(lab) == ["submit", "cancel"]


async def test_cancelled_while_the_submit_is_silent(lab: Lab, model: FalImageModel) -> None:
    """No ticket to call off: the connection closes after a second."""
    lab.script(faults.Silence())
    task = asyncio.create_task(model.generate(**ASKED))
    asked = await lab.until_asked(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(asked.over.wait(), 10)
    assert asked.closed_at is not None


async def test_cancelled_while_it_looks(lab: Lab, model: FalImageModel) -> None:
    """The look's connection closes, and the request is called off."""
    lab.script(faults.Silence(), key="fal.status")
    task = asyncio.create_task(model.generate(**ASKED))
    asked = await lab.until_asked(2)
    task.cancel()
    await asyncio.wait([task])
    await asyncio.wait_for(asked.over.wait(), 10)
    assert asked.closed_at is not None
    assert len(await cancels(lab)) == 1


async def test_cancelled_twice(lab: Lab, model: FalImageModel) -> None:
    """The second time ends the waiting for the vendor's word, not the call itself."""
    lab.script(faults.Waiting())
    lab.script(faults.Slow(0.5), key="fal.cancel")
    task = await waiting(lab, model, Asking())
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
    lab: Lab, model: FalImageModel, fault: Fault
) -> None:
    """Who is cancelled is cancelled."""
    lab.script(faults.Waiting())
    lab.script(fault, key="fal.cancel", forever=True)
    task = await waiting(lab, model, Asking())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_a_later_run_comes_back_for_is_left(
    lab: Lab, make: Callable[..., FalImageModel]
) -> None:
    """A worker that stops, or has lost its lease, leaves the request to whoever has the job next."""
    lab.script(faults.Waiting(20))
    asking = Asking()
    asking.comes_back = True
    task = await waiting(lab, make(), asking)
    task.cancel()
    await asyncio.wait([task])
    assert await cancels(lab) == []
    assert (await make().generate(**ASKED, request=asking.request)).content
    assert submits(lab) == 1


async def test_a_ticket_that_cannot_be_kept_is_given_back(lab: Lab, model: FalImageModel) -> None:
    """The job is another worker's: nothing of this run may be paid for."""
    asking = Asking()
    asking.lost = True
    with pytest.raises(LeaseLost):
        await model.generate(**ASKED, request=asking.request)
    assert routes(lab) == ["submit", "cancel"]


async def test_a_picture_that_the_filter_blackened(
    model: FalImageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused content, and no picture of anything."""

    async def result(_: str) -> Any:
        return {"images": [{"url": "https://x/1.png"}], "has_nsfw_concepts": [True]}

    monkeypatch.setattr(model, "_result", result)
    error = await failure(model, Asking())
    assert (type(error), "its rules" in error.message) == (ProviderRejected, True)


@pytest.mark.parametrize(
    "document",
    [[], {}, {"images": []}, {"images": [{}]}, {"images": "x"}, {"image": {"url": 7}}, None],
)
async def test_answers_without_a_picture(
    model: FalImageModel, monkeypatch: pytest.MonkeyPatch, document: Any
) -> None:
    """Whatever stands there in place of one: the provider's fault, and asked anew."""

    async def result(_: str) -> Any:
        return document

    monkeypatch.setattr(model, "_result", result)
    asking = Asking()
    assert type(await failure(model, asking)) is ProviderUnavailable
    assert asking.kept == ""


async def test_no_trace_and_no_key_is_told(
    lab: Lab, model: FalImageModel, caplog: pytest.LogCaptureFixture
) -> None:
    """What the platform says of its machinery stays out of what the user reads."""
    caplog.set_level(logging.DEBUG)
    lab.script(Failed("runner_server_error", 500, f"boom {LAB_KEY}"))
    error = await failure(model, Asking())
    assert "Traceback" not in error.message
    assert LAB_KEY not in f"{error} {error.__cause__} {caplog.text}"
