"""Pictures from FAL's queue: sent once, waited for, resumed, cancelled, refused."""

from __future__ import annotations

import asyncio
import base64
import io
import logging
from typing import Any

import pytest
from PIL import Image

from executors.errors import (
    AccountRefused,
    ExecutorError,
    ProviderFailed,
    ProviderRejected,
    ProviderUnavailable,
    RateLimited,
)
from executors.providers.fal import FalImageModel
from executors.providers.transport.http import RetryBudget, Timeouts
from tests.executors.providers.asking import Asking
from tests.executors.providers.conftest import FalModels, fal_routes, fal_submits
from tests.executors.providers.lab import faults
from tests.executors.providers.lab.faults import Failed, Fault, Status
from tests.executors.providers.lab.pictures import painted
from tests.executors.providers.lab.server import LAB_KEY, Lab

ASKED: dict[str, Any] = {"subject": "a fox", "theme": "autumn woods", "size": 128}


async def failure(model: FalImageModel, asking: Asking) -> ExecutorError:
    """What it raised."""
    with pytest.raises(ExecutorError) as caught:
        await model.generate(**ASKED, request=asking.request)
    return caught.value


async def test_a_picture(lab: Lab, fal_model: FalImageModel) -> None:
    """Sent, kept, waited for, read, fetched; the user hears where the request stands."""
    asking = Asking()
    made = await fal_model.generate(**ASKED, style="flat", seed=7, request=asking.request)
    assert Image.open(io.BytesIO(made.content)).size == (128, 128)
    assert (made.provider, made.model, made.seed) == ("fal", "lab/draw/fast", 7)
    assert fal_routes(lab) == ["submit", "status", "result", "files"]
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


async def test_the_seed_that_the_vendor_chose(fal_model: FalImageModel) -> None:
    """Who names none learns which one it was."""
    assert (await fal_model.generate(**ASKED)).seed == 42


async def test_a_picture_from_another(lab: Lab, fal_model: FalImageModel) -> None:
    """The original goes in the request itself: nobody has to be able to fetch it."""
    original = painted(64, 32)
    await fal_model.refine(original=original, prompt="bluer", width=64, height=32, strength=0.0)
    assert lab.asked[0].path == "/fal/lab/draw/image-to-image"
    body = lab.asked[0].body
    assert base64.b64decode(body["image_url"].removeprefix("data:image/png;base64,")) == original
    assert (body["prompt"], body["strength"]) == ("bluer", 0.01)


async def test_the_key_stays_with_the_queue(lab: Lab, fal_model: FalImageModel) -> None:
    """Every call to the queue carries it, the download does not."""
    await fal_model.generate(**ASKED)
    carriers = {a.route for a in lab.asked if LAB_KEY in str(dict(a.headers))}
    assert carriers == {"fal.submit", "fal.status", "fal.result"}


async def test_behind_a_proxy_the_request_id_leads_through_it(
    fal_model: FalImageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAL names its own address; the key goes nowhere but to the one that is set."""

    async def ask(*_: Any, **__: Any) -> Any:
        return {"status_url": "https://queue.fal.run/lab/draw/requests/9/status"}

    monkeypatch.setattr(fal_model._client, "request", ask)
    assert await fal_model._submit("lab/draw", {}) == "/lab/draw/requests/9"


class Killed(BaseException):
    """The process is gone: nothing of it runs any more."""


@pytest.mark.parametrize("looks", [0, 3, 20], ids=["meanwhile done", "almost done", "waiting"])
async def test_a_later_run_resumes(lab: Lab, fal_models: FalModels, looks: int) -> None:
    """A worker that is killed while it waits leaves its request id: one request, two runs, one picture."""
    lab.script(faults.Waiting(looks))
    asking = Asking()

    def die(_: str) -> None:
        raise Killed

    dying = asking.request
    first = fal_models().generate(**ASKED, request=type(dying)(save=dying.save, report=die))
    with pytest.raises(Killed):
        await first
    made = await fal_models().generate(**ASKED, request=asking.request)
    assert Image.open(io.BytesIO(made.content)).size == (128, 128)
    assert fal_submits(lab) == 1
    assert "fal.cancel" not in [a.route for a in lab.asked]


@pytest.mark.parametrize("kept", ["fal:/lab/draw/requests/none", "openai:7", ""])
async def test_what_cannot_be_resumed_is_asked_anew(
    lab: Lab, fal_model: FalImageModel, kept: str
) -> None:
    """An expired request id, or one of another vendor."""
    asking = Asking(kept)
    assert (await fal_model.generate(**ASKED, request=asking.request)).content
    assert fal_submits(lab) == 1
    assert asking.saved == "fal:/lab/draw/requests/lab-1"


async def test_a_request_that_was_cancelled_is_asked_anew(
    lab: Lab, fal_model: FalImageModel
) -> None:
    """A request that an earlier run has cancelled is no answer."""
    lab.script(faults.Waiting())
    asking = Asking()
    task = asyncio.create_task(fal_model.generate(**ASKED, request=asking.request))
    await lab.until_asked(3)
    task.cancel()
    await asyncio.wait([task])
    assert (await fal_model.generate(**ASKED, request=asking.request)).content
    assert fal_submits(lab) == 2


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
    lab: Lab, fal_model: FalImageModel, route: str, fault: Fault
) -> None:
    """The run ends, the request id stays, the next run resumes it."""
    lab.script(fault, key=route)
    asking = Asking()
    assert isinstance(await failure(fal_model, asking), ProviderUnavailable)
    assert (await fal_model.generate(**ASKED, request=asking.request)).content
    assert fal_submits(lab) == 1


@pytest.mark.parametrize(
    ("fault", "expected", "words"),
    [
        (Failed("runner_server_error", 500), ProviderUnavailable, "internal fault"),
        (Failed("runner_disconnected", 503), ProviderUnavailable, "internal fault"),
        (Failed("request_timeout", 504), ProviderUnavailable, "internal fault"),
        (Failed("", 500), ProviderUnavailable, "internal fault"),
        (Failed("x", 500, retryable=False), ProviderFailed, "would again"),
        (Failed("x", 422, retryable=True), ProviderUnavailable, "internal fault"),
        (Failed("content_policy_violation", 422), ProviderRejected, "against its rules"),
        (Failed("image_too_small", 422), ProviderRejected, "refuses the request"),
        (faults.Expired(), ProviderUnavailable, "left its picture"),
    ],
)
async def test_a_request_that_has_failed_is_not_redeemed_again(
    lab: Lab, fal_model: FalImageModel, fault: Fault, expected: type[ExecutorError], words: str
) -> None:
    """It would stay what it is: the request id is forgotten, and the next run submits anew."""
    lab.script(fault)
    asking = Asking()
    error = await failure(fal_model, asking)
    assert type(error) is expected
    assert words in error.message
    assert asking.saved == ""
    assert (await fal_model.generate(**ASKED, request=asking.request)).content
    assert fal_submits(lab) == 2


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
    lab: Lab, fal_model: FalImageModel, fault: Fault, expected: type[ExecutorError]
) -> None:
    """Nothing is kept, and what it means goes by status."""
    lab.script(fault)
    asking = Asking()
    assert type(await failure(fal_model, asking)) is expected
    assert asking.saved == ""


@pytest.mark.parametrize(
    ("status", "kind", "retryable", "expected"),
    [
        # the kind says it, whatever the status and the hint are
        (400, "runner_connection_error", None, ProviderUnavailable),
        (504, "generation_timeout", "false", ProviderUnavailable),
        (500, "content_policy_violation", "true", ProviderRejected),
        (500, "bad_request", "true", ProviderRejected),
        # else the hint
        (422, "", "true", ProviderUnavailable),
        (422, "image_load_error", "True", ProviderUnavailable),
        (500, "", "false", ProviderFailed),
        (503, "a_new_kind", "false", ProviderFailed),
        # else the status
        (422, "a_new_kind", "false", ProviderRejected),
        (500, "a_new_kind", "perhaps", ProviderUnavailable),
        # what is about the key, the place or the pace stays what it is
        (401, "internal_error", "true", AccountRefused),
        (404, "", "true", ProviderRejected),
        (429, "runner_scheduling_failure", "false", RateLimited),
        (409, "", "false", ProviderUnavailable),
    ],
)
async def test_whether_an_error_passes(
    lab: Lab,
    fal_model: FalImageModel,
    status: int,
    kind: str,
    retryable: str | None,
    expected: type[ExecutorError],
) -> None:
    """By its kind, then by FAL's hint, then by its status; both come in headers."""
    said = {"X-Fal-Error-Type": kind or None, "X-Fal-Retryable": retryable}
    lab.script(Status(status, headers={name: value for name, value in said.items() if value}))
    assert type(await failure(fal_model, Asking())) is expected


@pytest.mark.parametrize(
    "headers", [{"X-Fal-Error-Type": "request_timeout"}, {"X-Fal-Retryable": "true"}], ids=str
)
async def test_a_result_that_fal_answers_is_none_of_a_proxy(
    lab: Lab, fal_model: FalImageModel, headers: dict[str, str]
) -> None:
    """A header of FAL's own says that the request has failed, and not this look at it."""
    lab.script(faults.Html(503, headers), key="fal.result")
    asking = Asking()
    await failure(fal_model, asking)
    assert asking.saved == ""


async def test_a_request_that_is_lost_at_the_vendor(lab: Lab, fal_model: FalImageModel) -> None:
    """Forgotten before it was answered: the next run asks anew."""
    lab.script(faults.Forgotten())
    asking = Asking()
    assert "has dropped the request" in (await failure(fal_model, asking)).message
    assert asking.saved == ""


async def test_short_troubles_stay_in_the_call(lab: Lab, fal_models: FalModels) -> None:
    """A submit or a look that fails once is repeated at once."""
    lab.script(Status(429, headers={"Retry-After": "0.1"}), key="fal.submit")
    lab.script(Status(502), key="fal.status")
    assert (await fal_models(RetryBudget()).generate(**ASKED)).content
    assert fal_submits(lab) == 2  # the first was refused


async def test_a_picture_that_the_filter_blackened(
    fal_model: FalImageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused content, and no picture of anything."""

    async def result(_: str) -> Any:
        return {"images": [{"url": "https://x/1.png"}], "has_nsfw_concepts": [True]}

    monkeypatch.setattr(fal_model, "_result", result)
    error = await failure(fal_model, Asking())
    assert (type(error), "its rules" in error.message) == (ProviderRejected, True)


@pytest.mark.parametrize(
    "document",
    [[], {}, {"images": []}, {"images": [{}]}, {"images": "x"}, {"image": {"url": 7}}, None],
)
async def test_answers_without_a_picture(
    fal_model: FalImageModel, monkeypatch: pytest.MonkeyPatch, document: Any
) -> None:
    """Whatever stands there in place of one: the provider's fault, and asked anew."""

    async def result(_: str) -> Any:
        return document

    monkeypatch.setattr(fal_model, "_result", result)
    asking = Asking()
    assert type(await failure(fal_model, asking)) is ProviderUnavailable
    assert asking.saved == ""


async def test_no_trace_and_no_key_is_told(
    lab: Lab, fal_model: FalImageModel, caplog: pytest.LogCaptureFixture
) -> None:
    """What the platform says of its machinery stays out of what the user reads."""
    caplog.set_level(logging.DEBUG)
    lab.script(Failed("runner_server_error", 500, f"boom {LAB_KEY}"))
    error = await failure(fal_model, Asking())
    assert "Traceback" not in error.message
    assert LAB_KEY not in f"{error} {error.__cause__} {caplog.text}"
