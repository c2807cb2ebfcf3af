"""The laboratory passes for the vendor: the vendor's own client says so."""

from __future__ import annotations

import base64
import io
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from tests.executors.providers.lab import faults
from tests.executors.providers.lab.openai import BASE, OpenAILab
from tests.executors.providers.lab.pictures import painted
from tests.executors.providers.lab.server import LAB_KEY, Lab

if TYPE_CHECKING:  # half a second for each process that only collects this file
    import openai
    from openai.types.chat import ChatCompletionMessageParam

QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "How do you do?"}]


@pytest.fixture
async def client(lab: Lab) -> AsyncIterator[openai.AsyncOpenAI]:
    """OpenAI's own client, without retries of its own."""
    import openai

    async with openai.AsyncOpenAI(
        api_key=LAB_KEY, base_url=lab.url + BASE, max_retries=0, timeout=30
    ) as client:
        yield client


async def test_a_chat_in_one_piece(client: openai.AsyncOpenAI) -> None:
    """The client reads text, ending and usage."""
    answer = await client.chat.completions.create(model="m", messages=QUESTION)
    assert answer.choices[0].message.content == "You said: How do you do? 🦊 — that is all."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 4


async def test_a_chat_in_many_pieces(client: openai.AsyncOpenAI) -> None:
    """The client reads a stream with usage in the last chunk, whose choices are empty."""
    stream = await client.chat.completions.create(
        model="m", messages=QUESTION, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == "You said: How do you do? 🦊 — that is all."
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 11


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (faults.Status(400, "context_length_exceeded"), "BadRequestError"),
        (faults.Status(404, "model_not_found"), "NotFoundError"),
        (faults.Status(429, "rate_limit_exceeded"), "RateLimitError"),
        (faults.Status(429, "insufficient_quota"), "RateLimitError"),
        (faults.Status(500), "InternalServerError"),
        (faults.Cut(), "APIConnectionError"),
    ],
)
async def test_errors_are_what_the_client_takes_them_for(
    lab: Lab, client: openai.AsyncOpenAI, fault: faults.Fault, expected: str
) -> None:
    """Status, code and form of each error are the vendor's."""
    import openai

    lab.script(fault)
    with pytest.raises(getattr(openai, expected)) as caught:
        await client.chat.completions.create(model="m", messages=QUESTION)
    if isinstance(fault, faults.Status):
        assert caught.value.code == (fault.code or None)


async def test_a_wrong_key_is_refused(lab: Lab) -> None:
    """The laboratory looks at the key as the vendor does."""
    import openai

    async with openai.AsyncOpenAI(api_key="sk-wrong", base_url=lab.url + BASE) as client:
        with pytest.raises(openai.AuthenticationError):
            await client.chat.completions.create(model="m", messages=QUESTION)


async def test_an_error_in_the_middle_of_a_stream(lab: Lab, client: openai.AsyncOpenAI) -> None:
    """The client takes the error event for an error, after the text that came before it."""
    import openai

    lab.script(faults.ErrorInside(after=2))
    stream = await client.chat.completions.create(model="m", messages=QUESTION, stream=True)
    heard: list[str | None] = []

    async def listen() -> None:
        async for chunk in stream:
            heard.append(chunk.choices[0].delta.content)  # noqa: PERF401 - until it breaks

    with pytest.raises(openai.APIError, match="was told to say this"):
        await listen()
    assert heard == [None, "You", " said:"]


async def test_a_document_by_a_schema(client: openai.AsyncOpenAI) -> None:
    """With a schema the answer is a document of that form."""
    schema: dict[str, object] = {"type": "object", "properties": {"name": {"type": "string"}}}
    answer = await client.chat.completions.create(
        model="m",
        messages=QUESTION,
        response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": schema}},
    )
    assert answer.choices[0].message.content == '{"name": "text"}'


async def test_a_picture(client: openai.AsyncOpenAI) -> None:
    """A picture of the size that was asked for, in the answer or behind a URL."""
    answer = await client.images.generate(model="m", prompt="a fox", size="512x512")
    assert answer.data is not None
    content = base64.b64decode(answer.data[0].b64_json or "")
    assert Image.open(io.BytesIO(content)).size == (512, 512)


async def test_a_picture_behind_a_url(lab: Lab, client: openai.AsyncOpenAI) -> None:
    """The URL leads to the picture, without a key."""
    (vendor,) = (v for v in lab.vendors if isinstance(v, OpenAILab))
    vendor.answers_urls = True
    answer = await client.images.generate(model="m", prompt="a fox")
    assert answer.data is not None
    assert (answer.data[0].url or "").startswith(lab.url + "/files/")


async def test_a_picture_from_another(lab: Lab, client: openai.AsyncOpenAI) -> None:
    """An edit is a form with a PNG in it."""
    answer = await client.images.edit(
        model="m", image=("original.png", painted(64, 64), "image/png"), prompt="bluer"
    )
    assert answer.data is not None
    assert answer.data[0].b64_json
    assert lab.asked[-1].body["image"][2] == painted(64, 64)
