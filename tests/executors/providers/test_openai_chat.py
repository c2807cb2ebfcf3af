"""Chats by OpenAI's API: what is asked, what is heard, and how each server is understood."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from executors.errors import (
    AccountRefused,
    ExecutorError,
    ProviderRejected,
    ProviderUnavailable,
    RateLimited,
)
from executors.providers.base import ChatDelta, ChatMessage, ChatUsage
from executors.providers.openai import OpenAIChatModel
from executors.providers.transport.http import Timeouts
from executors.providers.transport.limits import CallLimits
from tests.executors.providers.chatting import QUESTION, failure, heard, text
from tests.executors.providers.conftest import ONCE, MakeOpenAIClient
from tests.executors.providers.lab import faults
from tests.executors.providers.lab.faults import ErrorInside, Fault, Status
from tests.executors.providers.lab.openai import OpenAILab
from tests.executors.providers.lab.server import Lab

ANSWER = "You said: How do you do? 🦊 — that is all."
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}},
    "required": ["name"],
    "additionalProperties": False,
}


@pytest.fixture
def model(openai_client: MakeOpenAIClient) -> OpenAIChatModel:
    """A model in the laboratory."""
    return OpenAIChatModel(openai_client(retry_budget=ONCE), model="lab-chat")


async def test_a_chat(lab: Lab, model: OpenAIChatModel) -> None:
    """The text, why it ended, what it used, and who said it."""
    deltas = await heard(model, temperature=0.5, max_tokens=99)
    assert text(deltas) == ANSWER
    assert deltas[-1] == ChatDelta("", "stop", ChatUsage(6, 11), "lab-chat-2026")
    assert all(delta.finish_reason is None for delta in deltas[:-1])
    assert lab.asked[0].body == {
        "model": "lab-chat",
        "stream": True,
        "temperature": 0.5,
        "max_tokens": 99,
        "stream_options": {"include_usage": True},
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "How do you do?"},
        ],
    }


async def test_the_asked_model_wins(lab: Lab, model: OpenAIChatModel) -> None:
    """A job may name a model of its own."""
    async for _ in model.stream(QUESTION, model="better"):
        pass
    assert lab.asked[0].body["model"] == "better"


async def test_a_long_conversation(lab: Lab, model: OpenAIChatModel) -> None:
    """Megabytes of history go out as they are."""
    history = [ChatMessage("user", "ü🦊 " * 300_000)]
    async for _ in model.stream([*history, *QUESTION]):
        pass
    assert lab.asked[0].body["messages"][0]["content"] == history[0].content


async def test_text_comes_while_it_is_written(lab: Lab, model: OpenAIChatModel) -> None:
    """Nobody waits for the end to hear the beginning."""
    lab.script(faults.Silence(after=2))
    answer = model.stream(QUESTION)
    said = ""
    while said != "You said:":
        said += (await asyncio.wait_for(anext(answer), 10)).text
    await answer.aclose()


async def test_a_hundred_streams_keep_to_the_limit(
    lab: Lab, openai_client: MakeOpenAIClient
) -> None:
    """A stream counts until it ends; all of them end."""
    most = 0

    def count(_: object) -> None:
        nonlocal most
        most = max(most, sum(not asked.over.is_set() for asked in lab.asked))

    lab.on_asked = count
    lab.script(faults.Slow(0.03, after=2), forever=True)
    limits = CallLimits(concurrency=9, per_second=10_000)
    model = OpenAIChatModel(openai_client(limits=limits), model="m")
    answers = await asyncio.gather(*(heard(model) for _ in range(100)))
    assert all(text(answer) == ANSWER for answer in answers)
    assert 7 <= most <= 9


@pytest.mark.parametrize(
    ("fault", "said", "expected"),
    [
        (faults.NoEnd(), ANSWER, ProviderUnavailable),
        (faults.Cut(after=2), "You said:", ProviderUnavailable),
        (ErrorInside(after=2), "You said:", ProviderUnavailable),
        (ErrorInside(after=2, code="rate_limit_exceeded"), "You said:", RateLimited),
        (ErrorInside(after=1, code="insufficient_quota"), "You", AccountRefused),
        (ErrorInside(after=1, code="content_filter"), "You", ProviderRejected),
        (ErrorInside(after=1, code="weird"), "You", ProviderUnavailable),
        (faults.Html(), "", ProviderUnavailable),
        (faults.Mislabelled("application/json"), "", ProviderUnavailable),
        (faults.Mislabelled("image/png"), "", ProviderUnavailable),
        (faults.Endless(), "", ProviderUnavailable),
        (Status(400, "context_length_exceeded"), "", ProviderRejected),
        (
            Status(400, message="This model's maximum context length is 9 tokens."),
            "",
            ProviderRejected,
        ),
        (Status(400, "exceed_context_size_error"), "", ProviderRejected),
        (Status(404, "model_not_found"), "", ProviderRejected),
        (Status(400, "content_filter"), "", ProviderRejected),
        (Status(429, "rate_limit_exceeded"), "", RateLimited),
        (Status(429, "rate_limit_exceeded", "Request too large for m"), "", ProviderRejected),
        (Status(429, "insufficient_quota"), "", AccountRefused),
        (Status(529), "", ProviderUnavailable),
    ],
)
async def test_faults_and_what_they_are(
    lab: Lab, model: OpenAIChatModel, fault: Fault, said: str, expected: type[ExecutorError]
) -> None:
    """Each fault becomes one error; what was said before it was passed on; nothing is retried."""
    lab.script(fault)
    pieces: list[str] = []
    error = await failure(model, pieces)
    assert type(error) is expected
    # What a broken connection had brought in, and nobody had read yet, is lost with it.
    broken = isinstance(fault, faults.Cut)
    assert said.startswith("".join(pieces)) if broken else "".join(pieces) == said
    assert len(lab.asked) == 1


@pytest.mark.parametrize(
    "fault",
    [
        faults.Shuffled(),
        faults.Trailing(),
        faults.Mislabelled("text/plain"),
        faults.Slow(0.05, after=0),
        faults.Slow(0.05, after=3),
    ],
)
async def test_oddities_that_do_no_harm(lab: Lab, model: OpenAIChatModel, fault: Fault) -> None:
    """An ending before the last words, words after the end, a wrong label, a pause."""
    lab.script(fault)
    deltas = await heard(model)
    assert text(deltas) == ANSWER
    assert deltas[-1].finish_reason == "stop"
    assert sum(delta.finish_reason is not None for delta in deltas) == 1


async def test_what_is_said_twice_is_heard_twice(lab: Lab, model: OpenAIChatModel) -> None:
    """OpenAI's pieces have no numbers: a repeated piece cannot be told from a repeated word."""
    lab.script(faults.Repeated())
    deltas = await heard(model)
    assert text(deltas).startswith("YouYou said: said:")
    assert deltas[-1].usage == ChatUsage(6, 11)


@pytest.mark.parametrize(
    ("fault", "timeouts"),
    [
        (faults.Silence(), Timeouts(first_byte=0.3)),
        (faults.Silence(after=0), Timeouts(idle=0.3)),
        (faults.Silence(after=2), Timeouts(idle=0.3)),
    ],
    ids=["no head", "no first word", "no next word"],
)
async def test_silence_has_an_end(
    lab: Lab, openai_client: MakeOpenAIClient, fault: Fault, timeouts: Timeouts
) -> None:
    """A vendor that stops talking, wherever it does, is given up in time."""
    lab.script(fault)
    error = await failure(OpenAIChatModel(openai_client(timeouts=timeouts), model="m"))
    assert type(error) is ProviderUnavailable
    assert len(lab.asked) == 1


@pytest.mark.parametrize(
    ("refuses", "with_max", "with_schema"),
    [
        ({"stream_options"}, False, False),
        ({"max_tokens"}, True, False),
        ({"stream_options", "max_tokens"}, True, False),
        ({"response_format"}, False, True),
        ({"stream_options", "max_tokens", "response_format"}, True, True),
    ],
)
async def test_servers_that_know_less(
    lab: Lab,
    openai_lab: OpenAILab,
    model: OpenAIChatModel,
    refuses: set[str],
    with_max: bool,
    with_schema: bool,
) -> None:
    """What a server refuses by name is put otherwise, at once; what it took is remembered."""
    openai_lab.refuses = refuses
    asked: dict[str, Any] = {"max_tokens": 9} if with_max else {}
    asked |= {"schema": SCHEMA} if with_schema else {}
    assert (await heard(model, **asked))[-1].finish_reason == "stop"
    first = len(lab.asked)
    assert 1 < first <= 6
    body = lab.asked[-1].body
    assert not refuses & set(body)
    if with_max:
        assert body["max_completion_tokens"] == 9
    if with_schema:
        assert json.dumps(SCHEMA) in body["messages"][0]["content"]
    await heard(model, **asked)
    assert len(lab.asked) == first + 1


async def test_a_refusal_that_is_called_an_internal_fault(lab: Lab, model: OpenAIChatModel) -> None:
    """llama-cpp-python's words for a form of answer that it does not know, under status 500."""
    words = (
        "1 validation error:\n  {'type': 'literal_error', 'loc': ('body', 'response_format', 'type'), "
        "'msg': \"Input should be 'text' or 'json_object'\", 'input': 'json_schema'}"
    )
    lab.script(Status(500, message=words))
    await heard(model, schema=SCHEMA)
    await heard(model, schema=SCHEMA)
    sent = [asked.body["response_format"]["type"] for asked in lab.asked]
    assert sent == ["json_schema", "json_object", "json_object"]
    assert lab.asked[1].body["response_format"]["schema"] == SCHEMA


async def test_a_refusal_for_another_reason_is_one(lab: Lab, model: OpenAIChatModel) -> None:
    """A limit that is too high is named as well, and no other name helps: two tries, then the truth."""
    lab.script(
        Status(400, "invalid_value", "max_tokens is too large: 9.", param="max_tokens"),
        forever=True,
    )
    error = await failure(model, max_tokens=9)
    assert type(error) is ProviderRejected
    assert len(lab.asked) == 2


async def test_openai_itself_is_sent_the_name_that_all_its_models_take(
    openai_client: MakeOpenAIClient,
) -> None:
    """The rule of the names, by the host."""
    client = openai_client(base_url="https://api.openai.com/v1")
    assert OpenAIChatModel(client, model="m")._usual.limit == "max_completion_tokens"


async def test_a_document_by_a_schema(lab: Lab, model: OpenAIChatModel) -> None:
    """A closed schema is held to strictly; an open one is sent all the same."""
    deltas = await heard(model, schema=SCHEMA)
    assert json.loads(text(deltas)) == {"name": "text"}
    sent = lab.asked[0].body["response_format"]["json_schema"]
    assert (sent["strict"], sent["schema"]) == (True, SCHEMA)
    await heard(model, schema={"type": "object", "properties": {"name": {"type": "string"}}})
    assert lab.asked[1].body["response_format"]["json_schema"]["strict"] is False


async def test_connections_of_chats_are_used_again(lab: Lab, model: OpenAIChatModel) -> None:
    """A chat that was heard out gives its connection back: the next one shakes no hands."""
    for _ in range(5):
        await heard(model)
    connector: Any = model._client._session.connector
    assert sum(map(len, connector._conns.values())) == 1
