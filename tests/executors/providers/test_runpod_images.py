"""Pictures by RunPod's serverless endpoints: sent once, resumed, cancelled, in every form."""

from __future__ import annotations

import asyncio
import base64
import io
import time
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from PIL import Image
from pydantic import SecretStr

from executors.errors import ExecutorError, ProviderUnavailable
from executors.providers.runpod import RunPodImageModel, runpod_vendor
from executors.providers.runpod.outputs import picture_in
from executors.providers.transport.http import VendorClient
from executors.providers.transport.results import Results
from tests.executors.providers.asking import Asking
from tests.executors.providers.conftest import ONCE
from tests.executors.providers.lab import faults
from tests.executors.providers.lab.faults import Failed, Fault, Status
from tests.executors.providers.lab.pictures import painted
from tests.executors.providers.lab.runpod import BASE, Output, RunPodLab
from tests.executors.providers.lab.server import LAB_KEY, Lab
from tests.executors.providers.models import no_internet

ASKED: dict[str, Any] = {"subject": "a fox", "theme": "autumn woods", "size": 130}
OUTPUTS: list[Output] = ["data", "base64", "url", "comfy", "old comfy", "public", "list"]


@pytest.fixture
def runpod_lab(lab: Lab) -> RunPodLab:
    """Its RunPod."""
    (found,) = (vendor for vendor in lab.vendors if isinstance(vendor, RunPodLab))
    return found


@pytest.fixture
def make(lab: Lab, session: aiohttp.ClientSession) -> Callable[[], RunPodImageModel]:
    """Models in the laboratory; each one is that of a worker that has just started."""

    def make() -> RunPodImageModel:
        vendor = runpod_vendor("lab-endpoint", lab.url + BASE, SecretStr(LAB_KEY))
        client = VendorClient(session, vendor, retry_budget=ONCE)
        results = Results(session, vendor, no_internet, largest=100_000)
        return RunPodImageModel(client, results, poll_every=0.001)

    return make


@pytest.fixture
def model(make: Callable[[], RunPodImageModel]) -> RunPodImageModel:
    """One of them."""
    return make()


def count(lab: Lab, what: str) -> int:
    """How often that was asked."""
    return sum(asked.route == f"runpod.{what}" for asked in lab.asked)


@pytest.mark.parametrize("output", OUTPUTS)
async def test_every_form_of_picture(
    lab: Lab, model: RunPodImageModel, runpod_lab: RunPodLab, output: Output
) -> None:
    """Each worker has its own; the size is the nearest that these models have."""
    runpod_lab.output = output
    asking = Asking()
    made = await model.generate(**ASKED, seed=7, request=asking.request)
    assert Image.open(io.BytesIO(made.content)).size == (128, 128)
    assert (made.provider, made.model, made.seed) == ("runpod", "lab-endpoint", 7)
    assert lab.asked[0].body["input"] == {
        "prompt": "a fox\nColours and mood: autumn woods",
        "width": 128,
        "height": 128,
        "num_images": 1,
        "seed": 7,
    }
    assert asking.saved == "runpod:lab-1-u1"


async def test_a_picture_from_another(lab: Lab, model: RunPodImageModel) -> None:
    """The original goes in the request itself."""
    original = painted(64, 32)
    await model.refine(original=original, prompt="bluer", width=64, height=32, strength=0.4)
    body = lab.asked[0].body["input"]
    assert base64.b64decode(body["image_url"].removeprefix("data:image/png;base64,")) == original
    assert (body["strength"], body["width"], body["height"]) == (0.4, 64, 32)


async def test_a_later_run_resumes(lab: Lab, make: Callable[[], RunPodImageModel]) -> None:
    """A worker that stops leaves its request to the next run: it is sent once."""
    lab.script(faults.Waiting(20), key="runpod.run")
    asking = Asking()
    asking.comes_back = True
    task = asyncio.create_task(make().generate(**ASKED, request=asking.request))
    await lab.until_asked(3)
    task.cancel()
    await asyncio.wait([task])
    made = await make().generate(**ASKED, request=asking.request)
    assert Image.open(io.BytesIO(made.content)).size == (128, 128)
    assert (count(lab, "run"), count(lab, "cancel")) == (1, 0)


async def test_what_has_expired_is_asked_anew(lab: Lab, model: RunPodImageModel) -> None:
    """After half an hour RunPod knows nothing of it."""
    asking = Asking("runpod:gone-u1")
    assert (await model.generate(**ASKED, request=asking.request)).content
    assert count(lab, "run") == 1


async def test_cancelling_calls_the_request_off(lab: Lab, model: RunPodImageModel) -> None:
    """In the middle of a cold start."""
    lab.script(faults.Waiting(), key="runpod.run")
    task = asyncio.create_task(model.generate(**ASKED))
    await lab.until_asked(4)
    began = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (told,) = (asked.at for asked in lab.asked if asked.route == "runpod.cancel")
    assert told - began < 2


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Failed(), "has failed to answer"),
        (Failed("TIMED_OUT"), "longer than it is allowed"),
        (Failed("CANCELLED"), "dropped the request"),
        (faults.Expired(), "left its picture"),
        (faults.Forgotten(), "dropped the request"),
    ],
)
async def test_a_request_that_has_failed_is_not_redeemed_again(
    lab: Lab, model: RunPodImageModel, fault: Fault, words: str
) -> None:
    """The request id is forgotten, and the next run submits anew."""
    lab.script(fault, key="runpod.run")
    asking = Asking()
    with pytest.raises(ProviderUnavailable) as caught:
        await model.generate(**ASKED, request=asking.request)
    assert words in caught.value.message
    assert asking.saved == ""
    assert (await model.generate(**ASKED, request=asking.request)).content
    assert count(lab, "run") == 2


@pytest.mark.parametrize("fault", [Status(503), faults.Html(), faults.Cut(after=1)])
async def test_a_fault_on_the_way_costs_no_second_request(
    lab: Lab, model: RunPodImageModel, fault: Fault
) -> None:
    """The run ends, the request id stays, the next run resumes it."""
    lab.script(fault, key="runpod.status")
    asking = Asking()
    with pytest.raises(ExecutorError):
        await model.generate(**ASKED, request=asking.request)
    assert (await model.generate(**ASKED, request=asking.request)).content
    assert count(lab, "run") == 1


@pytest.mark.parametrize("output", [None, {}, [], {"images": []}, {"image": 7}, "", {"seed": 1}, 7])
async def test_answers_without_a_picture(
    model: RunPodImageModel, monkeypatch: pytest.MonkeyPatch, output: Any
) -> None:
    """Whatever stands there in place of one: the provider's fault, and asked anew."""

    async def ended(*_: Any, **__: Any) -> Any:
        return output

    monkeypatch.setattr(model._endpoint, "ended", ended)
    asking = Asking()
    with pytest.raises(ProviderUnavailable, match="cannot be read"):
        await model.generate(**ASKED, request=asking.request)
    assert asking.saved == ""


def test_nesting_has_an_end() -> None:
    """A worker's output is a stranger's data."""
    output: Any = "x"
    for _ in range(1000):
        output = [output]
    assert picture_in(output) == ""
