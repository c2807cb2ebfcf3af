"""Streams that no laboratory invents, written byte by byte: as OpenAI-compatible servers write them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from executors.errors import (
    ExecutorError,
    ProviderUnavailable,
    RateLimited,
)
from executors.providers.base import ChatDelta, ChatUsage
from executors.providers.openai import openai_vendor
from executors.providers.openai.answer import Answer
from executors.providers.transport.sse import ServerEvent
from tests.executors.providers.chatting import DONE, END, chunk, failure, heard, piece, text


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (chunk("a\0b") + END, "ab"),
        (chunk("\ud83e") + chunk("\udd8a") + END, "🦊"),
        (chunk("\ud83e") + chunk("x") + END, "x"),
        (chunk([{"type": "thinking", "thinking": []}, {"type": "text", "text": "x"}]) + END, "x"),
        (chunk(reasoning_content="hm") + chunk("x") + END, "x"),
        (b"data: {}\n\n" + b'data: {"choices": null}\n\n' + chunk("x") + END, "x"),
        (
            b'data: {"choices": [{"index": 1, "delta": {"content": "no"}}]}\n\n' + chunk("x") + END,
            "x",
        ),
        (b'data: {"choices": [{"delta": {"content": "x"}, "finish_reason": "eos"}]}\n\n', "x"),
        (b'data: {"choices": [{"delta": {"reasoning": "hm"}}]}\n\n' + chunk("x") + END, "x"),
        (b": ping\r\n\r\ndata:\n\n" + chunk("x").replace(b"\n", b"\r\n") + END, "x"),
        (chunk("x") + chunk(finish="stop"), "x"),
        (chunk("x") + chunk(finish="stop").rstrip(), "x"),
        (chunk("x", "length", usage={"prompt_tokens": "many"}) + b"data: [DONE]\n\n", "x"),
    ],
)
async def test_what_servers_write(raw: Any, stream: bytes, expected: str) -> None:
    """Forms that were seen, and some that were not: the text is the text."""
    model = await raw([stream])
    deltas = await heard(model)
    assert text(deltas) == expected
    assert deltas[-1].finish_reason in {"stop", "length"}


USAGE = {"prompt_tokens": 3, "completion_tokens": 2}


@pytest.mark.parametrize(
    ("stream", "ending"),
    [
        (chunk("x") + DONE, ChatDelta("", "stop")),
        (chunk("x") + b"data:[DONE]", ChatDelta("", "stop")),
        (
            chunk("x") + piece({"choices": [], "usage": USAGE}) + DONE,
            ChatDelta("", "stop", ChatUsage(3, 2)),
        ),
        (chunk("x", "") + DONE, ChatDelta("", "stop")),
        (chunk("x", "max_output_tokens") + DONE, ChatDelta("", "length")),
        (chunk("x", "MAX_TOKENS"), ChatDelta("", "length")),
        (chunk("x", "model_length"), ChatDelta("", "length")),
        (chunk("x", "SAFETY"), ChatDelta("", "content_filter")),
        (chunk("x", "end_turn"), ChatDelta("", "stop")),
        (
            piece({"choices": [{"delta": {"content": "x"}, "finish_reason": {"type": "length"}}]}),
            ChatDelta("", "length"),
        ),
    ],
)
async def test_how_answers_end(raw: Any, stream: bytes, ending: ChatDelta) -> None:
    """Who says [DONE] need not say why; the words for the same reason are many."""
    deltas = await heard(await raw([stream]))
    assert text(deltas) == "x"
    assert deltas[-1] == ending


async def test_a_reason_that_is_none_yet_does_not_end_the_patience(
    raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some write "null" as a word in every piece: the next one may take its time."""
    monkeypatch.setattr("executors.providers.openai.chat._USAGE_WAIT", 0.05)
    model = await raw([chunk("x", "null"), chunk("y", "None"), chunk(finish="stop")], pause=0.2)
    assert text(await heard(model)) == "xy"


PARTS = [{"type": "text", "text": "x"}, {"type": "reasoning", "text": "hm"}, {"type": "weird"}]


@pytest.mark.parametrize(
    "stream",
    [
        chunk(PARTS) + END,
        chunk({"type": "text", "text": "x"}) + END,
        chunk([{"type": "text", "text": {"value": "x"}}]) + END,
        chunk([{"type": "refusal", "refusal": "x"}]) + END,
        piece({"choices": [{"delta": {"refusal": "x"}}]}) + END,
        piece({"choices": [{"index": "0", "delta": {"content": "x"}}]}) + END,
        piece({"choices": [{"text": "x", "finish_reason": "stop"}]}),
        piece({"choices": [{"delta": None, "message": {"content": "x"}}]}) + END,
        piece({"choices": [None, 7, {"delta": "odd"}]}) + chunk("x") + END,
        piece({"choices": {}}) + chunk("x") + END,
        piece({"type": "ping"}) + piece({"error": None, "choices": []}) + chunk("x") + END,
        chunk("x").removeprefix(b"data: ") + END,
        b"event: message\nid: 1\nretry: 5\n" + chunk("x") + END,
        chunk("x").replace(b"\n\n", b"\r\r") + END,
        b"\xef\xbb\xbf" + chunk("x") + END,
    ],
)
async def test_forms_of_a_text(raw: Any, stream: bytes) -> None:
    """Parts, refusals, odd choices, a line without its field: the text is the text, thoughts are not."""
    assert text(await heard(await raw([stream]))) == "x"


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}, None),
        ({"choices": [{"message": {"content": "x"}}], "usage": USAGE}, None),
        ({"error": {"message": "busy", "code": 429}}, RateLimited),
        ({"object": "error", "message": "busy", "code": 429}, RateLimited),
        ({"detail": "busy"}, ProviderUnavailable),
        ({"hello": "world"}, ProviderUnavailable),
        ([], ProviderUnavailable),
    ],
)
async def test_one_document_instead_of_a_stream(
    raw: Any, document: Any, expected: type[ExecutorError] | None
) -> None:
    """Gateways that cannot stream answer at once; an error comes under a good status."""
    model = await raw([json.dumps(document).encode()], kind="application/json")
    if expected is None:
        deltas = await heard(model)
        assert (text(deltas), deltas[-1].finish_reason) == ("x", "stop")
    else:
        assert type(await failure(model)) is expected


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (piece({"choices": [{"delta": {"tool_calls": [{}]}}]}) + END, "called a tool"),
        (piece({"choices": [{"delta": {"tool_calls": [{}]}}]}) + DONE, "called a tool"),
        (b'{"message": {"content": "x"}}\n{"done": true}\n', "no piece of an answer"),
        (piece({"hello": "world"}) + DONE, "hello"),
        (DONE, "no finish_reason"),
        (chunk(reasoning_content="hm") + DONE, "no finish_reason"),
    ],
)
async def test_streams_without_an_answer(raw: Any, stream: bytes, reason: str) -> None:
    """The log says what came instead."""
    error = await failure(await raw([stream]))
    assert type(error) is ProviderUnavailable
    assert reason in f"{error.message} {error.__cause__}"


KEYS = [
    "choices",
    "delta",
    "message",
    "content",
    "index",
    "finish_reason",
    "error",
    "code",
    "type",
    "object",
    "detail",
    "usage",
    "model",
    "text",
    "refusal",
    "tool_calls",
    "status",
    "prompt_tokens",
    "x",
]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(st.lists(json_values, max_size=4))
def test_no_document_breaks_the_reading(documents: list[Any]) -> None:
    """Whatever a server says, it is text or an error of ours."""
    answer = Answer(openai_vendor("http://127.0.0.1", SecretStr("key")), in_form=False)
    for document in documents:
        answer.take([ServerEvent(json.dumps(document))])
        assert answer.fault is None or isinstance(answer.fault, ExecutorError)
    with contextlib.suppress(ExecutorError):
        answer.final_delta()


@pytest.mark.parametrize(
    "stream",
    [
        chunk("x"),
        chunk("x") + b"data: {\n\n",
        chunk("x") + b"data: 7\n\n" + END,
        chunk("x") + b'event: error\ndata: {"message": "out of memory"}\n\n',
        chunk("x") + b'data: {"error": "out of memory"}\n\n',
        chunk("x") + b'data: {"error": {"code": 502, "message": "out of memory"}}\n\n',
        chunk("x", "error") + END,
        chunk("x", "abort") + END,
        chunk("x", "insufficient_system_resource") + END,
        chunk("x") + b"data: " + b"[" * 100_000 + b"\n\n",
        chunk("x") + b"data: " + b"y" * 1_100_000 + b"\n\n" + END,
    ],
)
async def test_streams_that_are_broken(raw: Any, stream: bytes) -> None:
    """Ends without an ending, errors in every form, rubbish: all of them may be tried again."""
    error = await failure(await raw([stream]))
    assert type(error) is ProviderUnavailable
    assert "memory" not in error.message


async def test_a_server_that_never_hangs_up(raw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the answer has ended nobody waits for long that usage may follow."""
    monkeypatch.setattr("executors.providers.openai.chat._USAGE_WAIT", 0.1)
    model = await raw([chunk("x") + chunk(finish="stop")], hold=True)
    deltas = await asyncio.wait_for(heard(model), 10)
    assert deltas[-1] == ChatDelta("", "stop")


STREAM = b"".join(
    [b'data: {"choices": [{"delta": {"role": "assistant", "content": null}}]}\r\n\r\n']
    + [
        b"data: "
        + json.dumps({"choices": [{"delta": {"content": word}}]}, ensure_ascii=False).encode()
        + b"\n\n"
        for word in ("Grüße ", "🦊🦊 ", "日本", " — ", "fin")
    ]
    + [END]
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sets(st.integers(1, len(STREAM) - 1), max_size=30))
async def test_forty_ways_to_cut_the_same_stream(raw: Any, places: set[int]) -> None:
    """However the network cut the bytes, within characters too, the text is the same."""
    edges = [0, *sorted(places), len(STREAM)]
    model = await raw([STREAM[a:b] for a, b in itertools.pairwise(edges)])
    assert text(await heard(model)) == "Grüße 🦊🦊 日本 — fin"
