"""Errors in the middle of a stream, in the form of each server: what they are, and what the log says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiohttp import web

from executors.errors import (
    AccountRefused,
    ExecutorError,
    ProviderRejected,
    ProviderUnavailable,
    RateLimited,
)
from executors.providers.openai import OpenAIChatModel
from tests.executors.providers.chatting import DONE, END, chunk, failure, heard, piece, text
from tests.executors.providers.conftest import ONCE, MakeOpenAIClient

TOO_LONG = "This model's maximum context length is 9 tokens."


@pytest.mark.parametrize(
    ("told", "expected", "reason"),
    [
        # vLLM: older, newer
        (
            {"object": "error", "message": "CUDA!", "type": "InternalServerError", "code": 500},
            ProviderUnavailable,
            "500 InternalServerError CUDA!",
        ),
        (
            {"object": "error", "message": TOO_LONG, "type": "BadRequestError", "code": 400},
            ProviderRejected,
            TOO_LONG,
        ),
        (
            {"object": "error", "message": TOO_LONG, "type": "BadRequestError", "code": None},
            ProviderRejected,
            TOO_LONG,
        ),
        (
            {"error": {"message": TOO_LONG, "type": "BadRequestError", "code": 400}},
            ProviderRejected,
            TOO_LONG,
        ),
        # llama.cpp, Ollama, TGI, SGLang
        (
            {"error": {"code": 500, "message": "slot!", "type": "server_error"}},
            ProviderUnavailable,
            "500 server_error slot!",
        ),
        ({"error": "runner stopped"}, ProviderUnavailable, "runner stopped"),
        ({"error": "Model is overloaded", "error_type": "overloaded"}, RateLimited, "overloaded"),
        ({"error": "stopped!", "error_type": "generation"}, ProviderUnavailable, "stopped!"),
        # LiteLLM, OpenRouter, Anthropic's form, Google's, Groq's, Baidu's, FastAPI's
        (
            {"error": {"message": "slow down", "type": "None", "param": "None", "code": "429"}},
            RateLimited,
            "429 slow down",
        ),
        (
            {
                "error": {"code": 502, "message": "gone!"},
                "choices": [{"delta": {"content": ""}, "finish_reason": "error"}],
            },
            ProviderUnavailable,
            "502 gone!",
        ),
        (
            {"type": "error", "error": {"type": "overloaded_error", "message": "later!"}},
            ProviderUnavailable,
            "overloaded_error later!",
        ),
        (
            [{"error": {"code": 429, "message": "quota!", "status": "RESOURCE_EXHAUSTED"}}],
            RateLimited,
            "RESOURCE_EXHAUSTED quota!",
        ),
        (
            {"error": {"message": "no tool!", "type": "invalid_request_error", "status_code": 400}},
            ProviderRejected,
            "no tool!",
        ),
        ({"error_code": 18, "error_msg": "too fast!"}, ProviderUnavailable, "too fast!"),
        ({"detail": [{"msg": "odd!"}]}, ProviderUnavailable, "odd!"),
        ({"message": "bad gateway!", "status": 502}, ProviderUnavailable, "502 bad gateway!"),
    ],
)
@pytest.mark.parametrize("form", ["event", "event: error", "bare line", "error:"])
async def test_an_error_in_the_stream_keeps_its_reason(
    raw: Any, told: Any, expected: type[ExecutorError], reason: str, form: str
) -> None:
    """In each server's form it is the error it is, with its words in the log; the user reads ours."""
    said = json.dumps(told).encode() + b"\n\n"
    wrapped = {
        "event": b"data: " + said,
        "event: error": b"event: error\ndata: " + said,
        "bare line": said if isinstance(told, dict) else b"data: " + said,
        "error:": b"error: " + said,
    }[form]
    pieces: list[str] = []
    error = await failure(await raw([chunk("x") + wrapped + DONE]), pieces)
    assert type(error) is expected
    assert " ".join(reason.split()) in str(error.__cause__)
    assert "!" not in error.message
    assert "".join(pieces) == "x"


async def test_an_error_in_plain_words(raw: Any) -> None:
    """An event of the type error need not be JSON."""
    error = await failure(await raw([chunk("x") + b"event: error\ndata: out of memory!\n\n"]))
    assert type(error) is ProviderUnavailable
    assert "out of memory!" in str(error.__cause__)


async def test_an_error_in_the_stream_tells_no_key(
    raw: Any, openai_client: MakeOpenAIClient
) -> None:
    """Servers quote what they were sent."""
    key = openai_client().vendor.auth["Authorization"].get_secret_value()
    told = {"object": "error", "message": f"bad header {key}, sk-abcdefgh12345678", "code": 401}
    error = await failure(await raw([piece(told)]))
    assert type(error) is AccountRefused
    said = str(error.__cause__)
    assert "bad header" in said
    assert key.rpartition(" ")[2] not in said
    assert "abcdefgh" not in said


@pytest.mark.parametrize(
    ("choice", "expected", "reason"),
    [
        (
            {"finish_reason": {"type": "abort", "message": "oom!"}},
            ProviderUnavailable,
            "oom!",
        ),
        ({"error": {"code": 402, "message": "pay!"}}, AccountRefused, "402 pay!"),
        ({"finish_reason": "network_error"}, ProviderUnavailable, "network_error"),
    ],
)
async def test_an_error_in_a_choice(
    raw: Any, choice: dict[str, Any], expected: type[ExecutorError], reason: str
) -> None:
    """SGLang's, OpenRouter's and Zhipu's."""
    error = await failure(await raw([chunk("x") + piece({"choices": [choice]}) + END]))
    assert type(error) is expected
    assert reason in str(error.__cause__)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (400, "System role not supported"),
        (500, "Jinja Exception: System role not supported"),
        (400, "The model does not support system messages."),
    ],
)
async def test_a_template_without_a_place_for_the_system(
    openai_client: MakeOpenAIClient, status: int, words: str
) -> None:
    """Gemma's: it is told at the beginning of the question, and remembered."""
    asked: list[Any] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append((await request.json())["messages"])
        if asked[-1][0]["role"] == "system":
            return web.json_response({"error": {"message": words, "code": status}}, status=status)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(chunk("x") + END)
        return response

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.05)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    model = OpenAIChatModel(openai_client(base_url=url, retry_budget=ONCE), model="m")
    assert text(await heard(model)) == "x"
    assert text(await heard(model)) == "x"
    await runner.cleanup()
    assert len(asked) == 3
    assert asked[1] == asked[2] == [{"role": "user", "content": "Be kind.\n\nHow do you do?"}]
