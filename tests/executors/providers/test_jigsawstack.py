"""Pictures by JigsawStack: in each form, changed, cancelled, refused."""

from __future__ import annotations

import asyncio
import io
import time
from typing import Any, Literal

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import SecretStr

from executors.errors import (
    AccountRefused,
    ExecutorError,
    ProviderRejected,
    ProviderUnavailable,
    RateLimited,
)
from executors.providers.jigsawstack.images import (
    JigsawStackImageModel,
    jigsawstack_vendor,
    size_of,
)
from executors.providers.transport.http import RetryBudget, VendorClient
from executors.providers.transport.results import Results
from tests.executors.providers.conftest import ONCE
from tests.executors.providers.lab import faults
from tests.executors.providers.lab.faults import Fault, Status
from tests.executors.providers.lab.jigsawstack import BASE, JigsawStackLab
from tests.executors.providers.lab.pictures import painted
from tests.executors.providers.lab.server import LAB_KEY, Lab
from tests.executors.providers.models import no_internet

ASKED: dict[str, Any] = {"subject": "a fox", "theme": "autumn woods", "size": 300}


@pytest.fixture
def own(lab: Lab) -> JigsawStackLab:
    """The laboratory's JigsawStack."""
    return next(vendor for vendor in lab.vendors if isinstance(vendor, JigsawStackLab))


@pytest.fixture
def model(lab: Lab, session: aiohttp.ClientSession) -> JigsawStackImageModel:
    """A model in the laboratory that asks once."""
    return model_in(lab, session)


def model_in(
    lab: Lab, session: aiohttp.ClientSession, retry_budget: RetryBudget = ONCE
) -> JigsawStackImageModel:
    """A model in the laboratory."""
    vendor = jigsawstack_vendor(lab.url + BASE, SecretStr(LAB_KEY))
    client = VendorClient(session, vendor, retry_budget=retry_budget)
    return JigsawStackImageModel(client, Results(session, vendor, no_internet, largest=100_000))


async def failure(model: JigsawStackImageModel) -> ExecutorError:
    """What it raised."""
    with pytest.raises(ExecutorError) as caught:
        await model.generate(**ASKED)
    return caught.value


def routes(lab: Lab) -> list[str]:
    """What was asked, in order."""
    return [asked.route.removeprefix("jigsawstack.") for asked in lab.asked]


@pytest.mark.parametrize("form", [None, "url", "base64", "binary"])
async def test_a_picture(
    lab: Lab,
    own: JigsawStackLab,
    model: JigsawStackImageModel,
    form: Literal["url", "base64", "binary"] | None,
) -> None:
    """Bytes are asked for; whatever comes is understood."""
    own.answers = form
    made = await model.generate(**ASKED, style="flat", seed=7)
    assert Image.open(io.BytesIO(made.content)).size == (300, 300)
    assert (made.provider, made.model, made.seed) == ("jigsawstack", "image_generation", 7)
    assert lab.asked[0].body == {
        "prompt": "a fox\nColours and mood: autumn woods\nStyle: flat",
        "width": 300,
        "height": 300,
        "output_format": "png",
        "return_type": "binary",
        "advance_config": {"seed": 7},
    }
    assert [LAB_KEY in str(dict(a.headers)) for a in lab.asked] == [True, False][: len(lab.asked)]


async def test_base64_without_a_prefix(
    own: JigsawStackLab, model: JigsawStackImageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vendor's documentation shows both."""
    own.answers = "base64"
    fetched = model._results.decoded

    async def bare(text: str) -> bytes:
        return await fetched(text.partition("base64,")[2])

    monkeypatch.setattr(model._results, "decoded", bare)
    assert Image.open(io.BytesIO((await model.generate(**ASKED)).content)).size == (300, 300)


async def test_a_picture_from_another(
    lab: Lab, own: JigsawStackLab, model: JigsawStackImageModel
) -> None:
    """The original is stored there, named, and deleted again."""
    original = painted(640, 320)
    made = await model.refine(original=original, prompt="bluer", width=640, height=320)
    assert Image.open(io.BytesIO(made.content)).size == (640, 320)
    assert routes(lab) == ["upload", "images", "delete"]
    assert lab.asked[0].body == original
    assert lab.asked[1].body["file_store_key"].startswith("uvian-")
    assert own.files == {}


@pytest.mark.parametrize("fault", [Status(500), Status(400), faults.Cut(after=1), faults.Html()])
async def test_the_original_is_deleted_whatever_happens(
    lab: Lab, own: JigsawStackLab, model: JigsawStackImageModel, fault: Fault
) -> None:
    """A change that fails leaves no picture of a user behind."""
    lab.script(fault, key="jigsawstack.images")
    with pytest.raises(ExecutorError):
        await model.refine(original=painted(256, 256), prompt="bluer", width=256, height=256)
    assert (routes(lab)[-1], own.files) == ("delete", {})


async def test_the_original_is_deleted_when_the_user_cancels(
    lab: Lab, own: JigsawStackLab, model: JigsawStackImageModel
) -> None:
    """The connection closes, and the file goes."""
    lab.script(faults.Silence(), key="jigsawstack.images")
    task = asyncio.create_task(
        model.refine(original=painted(256, 256), prompt="bluer", width=256, height=256)
    )
    asked = await lab.until_asked(2)
    while asked.fault is None:
        await asyncio.sleep(0.002)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(asked.over.wait(), 10)
    assert asked.closed_at is not None
    assert own.files == {}


async def test_a_file_that_cannot_be_deleted_costs_nothing(
    lab: Lab, model: JigsawStackImageModel
) -> None:
    """The picture is there all the same."""
    lab.script(Status(500), key="jigsawstack.delete", forever=True)
    made = await model.refine(original=painted(256, 256), prompt="b", width=256, height=256)
    assert Image.open(io.BytesIO(made.content)).size == (256, 256)


async def test_cancelling_closes_the_connection(lab: Lab, model: JigsawStackImageModel) -> None:
    """There is nothing else to call off."""
    lab.script(faults.Silence())
    task = asyncio.create_task(model.generate(**ASKED))
    asked = await lab.until_asked(1)
    while asked.fault is None:
        await asyncio.sleep(0.002)
    began = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(asked.over.wait(), 10)
    assert asked.closed_at is not None
    assert asked.closed_at - began < 2


async def test_its_rate_limit_is_a_date_in_milliseconds(
    lab: Lab, model: JigsawStackImageModel
) -> None:
    """``x-jigsaw-rate-limit-reset``, read by the vendor's own clock."""
    headers = {
        "Date": "Tue, 24 Nov 2026 12:00:00 GMT",
        "x-jigsaw-rate-limit-limit": "50",
        "x-jigsaw-rate-limit-remaining": "0",
        "x-jigsaw-rate-limit-reset": "1795521630500",  # 12:00:30.5
    }
    lab.script(Status(429, "rate_limit", headers=headers))
    error = await failure(model)
    assert isinstance(error, RateLimited)
    assert error.retry_after == pytest.approx(30.5, abs=0.01)


async def test_short_troubles_stay_in_the_call(lab: Lab, session: aiohttp.ClientSession) -> None:
    """One that passes is repeated at once, the upload with its bytes too."""
    lab.script(Status(503), key="jigsawstack.upload")
    lab.script(Status(503), key="jigsawstack.images")
    model = model_in(lab, session, RetryBudget())
    made = await model.refine(original=painted(256, 256), prompt="b", width=256, height=256)
    assert Image.open(io.BytesIO(made.content)).size == (256, 256)
    assert routes(lab) == ["upload", "upload", "images", "images", "delete"]
    assert lab.asked[0].body == lab.asked[1].body == painted(256, 256)


@pytest.mark.parametrize(
    ("fault", "expected", "words"),
    [
        (Status(400, "validation_error"), ProviderRejected, "refuses the request"),
        (Status(400, message="The prompt has NSFW content"), ProviderRejected, "its rules"),
        (Status(422, "missing_required_fields"), ProviderRejected, "refuses the request"),
        (Status(401), AccountRefused, "refuses the key"),
        (Status(403), AccountRefused, "refuses the key"),
        (Status(402), AccountRefused, "paid for"),
        (Status(429), RateLimited, "rate limit"),
        (Status(500), ProviderUnavailable, "internal fault"),
        (faults.Html(), ProviderUnavailable, "cannot be read"),
        (faults.Mislabelled("text/html"), ProviderUnavailable, "cannot be read"),
        (faults.Cut(after=1), ProviderUnavailable, "broke off"),
        (faults.Endless(), ProviderUnavailable, "larger answer"),
        (faults.Expired(), ProviderUnavailable, "left its picture"),
    ],
)
async def test_faults_and_what_they_are(
    lab: Lab, model: JigsawStackImageModel, fault: Fault, expected: type[ExecutorError], words: str
) -> None:
    """Each fault is one error, in a sentence for the user."""
    lab.script(fault)
    error = await failure(model)
    assert type(error) is expected
    assert words in error.message


@pytest.mark.parametrize(
    "content",
    [
        b"{}",
        b"[]",
        b'{"success": true}',
        b'{"url": 7}',
        b'{"url": ""}',
        b"{",
        b'{"url": "\xc2\xa7"}',
    ],
)
async def test_answers_without_a_picture(model: JigsawStackImageModel, content: bytes) -> None:
    """Whatever stands there in place of one: the provider's fault, tried again."""
    with pytest.raises(ProviderUnavailable):
        await model._picture("application/json", content)


async def test_a_failure_under_a_good_status(model: JigsawStackImageModel) -> None:
    """``success: false`` is what it says."""
    content = b'{"success": false, "message": "no worker"}'
    with pytest.raises(ProviderUnavailable, match="internal fault"):
        await model._picture("application/json", content)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ((1024, 1024), (1024, 1024)),
        ((64, 64), (256, 256)),
        ((2048, 2048), (1920, 1920)),
        ((3840, 1920), (1920, 960)),
        ((4000, 100), (1920, 256)),
        ((100, 200), (256, 512)),
    ],
)
def test_sizes(asked: tuple[int, int], expected: tuple[int, int]) -> None:
    """The same shape, within what the vendor takes."""
    assert size_of(*asked) == expected


@given(st.integers(1, 8192), st.integers(1, 8192))
def test_every_size_is_one_that_the_vendor_takes(width: int, height: int) -> None:
    """No side below 256 pixels or above 1920."""
    assert all(256 <= side <= 1920 for side in size_of(width, height))
