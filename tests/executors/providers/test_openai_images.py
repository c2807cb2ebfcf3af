"""Pictures by OpenAI's API: made, changed, fetched, and refused."""

from __future__ import annotations

import base64
import io
import re
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from executors.errors import (
    ExecutorError,
    InvalidInput,
    ProviderRejected,
    ProviderUnavailable,
)
from executors.providers.base import ImageModel
from executors.providers.openai import OpenAIImageModel
from executors.providers.openai.images import size_of
from executors.providers.transport.results import Results
from tests.executors.providers.conftest import ONCE, MakeOpenAIClient
from tests.executors.providers.lab import faults
from tests.executors.providers.lab.faults import Fault, Status
from tests.executors.providers.lab.openai import OpenAILab
from tests.executors.providers.lab.pictures import painted
from tests.executors.providers.lab.server import Lab

ASKED: dict[str, Any] = {"subject": "a fox", "theme": "autumn woods", "size": 128}


class Outside:
    """Stands in for the public internet, which no test reaches."""

    def __init__(self) -> None:
        self.answer: bytes | Exception = painted(32, 32)
        self.urls: list[tuple[str, int]] = []

    async def fetch(self, url: str, *, max_bytes: int) -> bytes:
        self.urls.append((url, max_bytes))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def outside() -> Outside:
    """The public internet."""
    return Outside()


@pytest.fixture
def model(
    openai_client: MakeOpenAIClient, session: aiohttp.ClientSession, outside: Outside
) -> OpenAIImageModel:
    """A model in the laboratory."""
    client = openai_client(retry_budget=ONCE)
    results = Results(session, client.vendor, outside.fetch, largest=100_000)
    return OpenAIImageModel(client, results, model="lab-image")


def size_in(content: bytes) -> tuple[int, int]:
    """How large a picture is."""
    return Image.open(io.BytesIO(content)).size


async def failure(model: ImageModel) -> ExecutorError:
    """What it raised."""
    with pytest.raises(ExecutorError) as caught:
        await model.generate(**ASKED)
    return caught.value


async def test_a_picture(lab: Lab, model: OpenAIImageModel) -> None:
    """One picture, for one prompt with everything that was asked."""
    made = await model.generate(**ASKED, style="flat", seed=7)
    assert size_in(made.content) == (128, 128)
    assert (made.provider, made.model, made.seed) == ("openai", "lab-image", None)
    assert lab.asked[0].body == {
        "model": "lab-image",
        "prompt": "a fox\nColours and mood: autumn woods\nStyle: flat",
        "n": 1,
        "size": "128x128",
        "response_format": "b64_json",
    }


async def test_a_picture_from_another(lab: Lab, model: OpenAIImageModel) -> None:
    """The original goes as a file, the words beside it."""
    made = await model.refine(original=painted(64, 32), prompt="bluer", width=64, height=32)
    assert size_in(made.content) == (64, 32)
    body = lab.asked[0].body
    assert body["image"] == ("original.png", "image/png", painted(64, 32))
    assert (body["prompt"], body["size"], body["n"]) == ("bluer", "64x32", "1")


async def test_a_change_is_asked_again_whole(
    lab: Lab, openai_client: MakeOpenAIClient, session: aiohttp.ClientSession, outside: Outside
) -> None:
    """The form is made anew for the second try: nothing of it is used up."""
    lab.script(Status(503))
    client = openai_client()
    model = OpenAIImageModel(client, Results(session, client.vendor, outside.fetch), model="m")
    await model.refine(original=painted(64, 64), prompt="bluer", width=64, height=64)
    assert [a.body["image"][2] for a in lab.asked] == [painted(64, 64)] * 2


async def test_a_large_original(lab: Lab, model: OpenAIImageModel) -> None:
    """Megabytes go as well as kilobytes, piece by piece."""
    original = painted(64, 64) + bytes(3_000_000)
    await model.refine(original=original, prompt="bluer", width=64, height=64)
    assert lab.asked[0].body["image"][2] == original


async def test_a_picture_beside_the_api(
    lab: Lab, openai_lab: OpenAILab, model: OpenAIImageModel, outside: Outside
) -> None:
    """A server of one's own may leave it on its own address: it is fetched there, without a key."""
    openai_lab.answers_urls = True
    made = await model.generate(**ASKED)
    assert size_in(made.content) == (128, 128)
    assert lab.asked[-1].route == "files"
    assert "Authorization" not in lab.asked[-1].headers
    assert outside.urls == []


@pytest.mark.parametrize("answer", [InvalidInput("no"), ProviderUnavailable("later")])
async def test_a_picture_elsewhere_is_fetched_through_the_guard(
    model: OpenAIImageModel, outside: Outside, monkeypatch: pytest.MonkeyPatch, answer: Exception
) -> None:
    """Any other address is the guard's business, and what goes wrong there the vendor's fault."""

    async def elsewhere(*_: Any, **__: Any) -> Any:
        return {"data": [{"url": "https://cdn.example/1.png"}]}

    monkeypatch.setattr(model._client, "request", elsewhere)
    made = await model.generate(**ASKED)
    assert made.content == painted(32, 32)
    assert outside.urls == [("https://cdn.example/1.png", 100_000)]
    outside.answer = answer
    assert type(await failure(model)) is ProviderUnavailable


async def test_a_model_that_knows_only_one_form_of_answer(
    lab: Lab, openai_lab: OpenAILab, model: OpenAIImageModel
) -> None:
    """Who refuses ``response_format`` is asked without, and not with it again."""
    openai_lab.refuses = {"response_format"}
    await model.generate(**ASKED)
    await model.generate(**ASKED)
    assert ["response_format" in asked.body for asked in lab.asked] == [True, False, False]


@pytest.mark.parametrize(
    ("fault", "expected", "words"),
    [
        (Status(400, "content_policy_violation"), ProviderRejected, "against its rules"),
        (Status(400, "moderation_blocked"), ProviderRejected, "against its rules"),
        (Status(400, message="rejected by our safety system"), ProviderRejected, "its rules"),
        (Status(400, "billing_hard_limit_reached"), ProviderRejected, "to be paid for"),
        (Status(400, "invalid_value", param="size"), ProviderRejected, "refuses the request"),
        (Status(500), ProviderUnavailable, "internal fault"),
        (faults.Html(), ProviderUnavailable, "cannot be read"),
        (faults.Cut(after=1), ProviderUnavailable, "broke off"),
        (faults.Endless(), ProviderUnavailable, "larger answer"),
        (faults.Expired(), ProviderUnavailable, "left its picture"),
    ],
)
async def test_faults_and_what_they_are(
    lab: Lab, model: OpenAIImageModel, fault: Fault, expected: type[ExecutorError], words: str
) -> None:
    """Each fault is one error, in a sentence for the user."""
    lab.script(fault)
    error = await failure(model)
    assert isinstance(error, expected)
    assert words in error.message


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"data": []},
        {"data": [{}]},
        {"data": [{"b64_json": ""}]},
        {"data": [{"b64_json": "§§§"}]},
        {"data": "x"},
        [],
        None,
        {"data": [{"url": "file:///etc/passwd"}]},
        {"data": [{"url": "http://["}]},
        {"data": [{"url": 7}]},
    ],
)
async def test_answers_without_a_picture(
    model: OpenAIImageModel, outside: Outside, monkeypatch: pytest.MonkeyPatch, document: Any
) -> None:
    """Whatever stands there in place of a picture: the provider's fault, tried again."""

    async def answer(*_: Any, **__: Any) -> Any:
        return document

    monkeypatch.setattr(model._client, "request", answer)
    outside.answer = InvalidInput("that may not be fetched")
    assert type(await failure(model)) is ProviderUnavailable


async def test_an_error_under_a_good_status(
    model: OpenAIImageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some gateways say 200 and mean no: what they mean counts."""

    async def answer(*_: Any, **__: Any) -> Any:
        return {"error": {"code": "moderation_blocked", "message": "no"}}

    monkeypatch.setattr(model._client, "request", answer)
    assert type(await failure(model)) is ProviderRejected


async def test_a_picture_in_the_url_itself(
    model: OpenAIImageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ``data:`` URL is the picture."""
    url = "data:image/png;base64," + base64.b64encode(painted(8, 8)).decode()

    async def answer(*_: Any, **__: Any) -> Any:
        return {"data": [{"url": url}]}

    monkeypatch.setattr(model._client, "request", answer)
    assert (await model.generate(**ASKED)).content == painted(8, 8)


@pytest.mark.parametrize(
    ("model", "width", "height", "expected"),
    [
        ("gpt-image-1.5", 256, 256, "1024x1024"),
        ("gpt-image-1-mini", 2048, 2048, "1024x1024"),
        ("chatgpt-image-latest", 800, 600, "1536x1024"),
        ("gpt-image-1.5", 600, 1000, "1024x1536"),
        ("gpt-image-2", 256, 256, "1024x1024"),
        ("gpt-image-2", 1024, 1024, "1024x1024"),
        ("gpt-image-2.5-flare", 2048, 2048, "2048x2048"),
        ("gpt-image-2", 1500, 1500, "1504x1504"),
        ("stable-diffusion", 333, 444, "333x444"),
    ],
)
def test_sizes(model: str, width: int, height: int, expected: str) -> None:
    """Each model is asked for a size that it has."""
    assert size_of(model, width, height) == expected


@given(st.integers(1, 8192), st.integers(1, 8192))
def test_every_size_is_one_that_the_model_takes(width: int, height: int) -> None:
    """Steps of 16, at most three to one, 1024² to 3840 × 2160 pixels, no side above 3840."""
    found = re.fullmatch(r"(\d+)x(\d+)", size_of("gpt-image-2", width, height))
    assert found is not None
    wide, high = int(found[1]), int(found[2])
    assert wide % 16 == high % 16 == 0
    assert max(wide, high) <= 3840
    assert 0.98 * 1024 * 1024 <= wide * high <= 3840 * 2160
    assert max(wide / high, high / wide) <= 3.05
