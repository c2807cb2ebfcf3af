"""A real server with a real model, chosen by its base URL alone: llama.cpp's (``make openai``).

The model has random weights (``scripts/tiny_model.py``): what it says means nothing, but it is said
word by word, counted, held to a schema and cut short by a server that nobody here has written.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from executors.errors import ProviderRejected
from executors.providers.base import ChatDelta, ChatMessage, ChatModel
from tests.providers.cases import PRICE
from tests.providers.jobs import BALANCE, ChatProbe, Works
from tests.servers import CleanDatabase
from uvian_worker.config import Config
from uvian_worker.providers import open_models

pytestmark = pytest.mark.real

LLAMA = Path(__file__).parents[2] / ".venv" / "llama"
QUESTION = [ChatMessage("user", "the fox")]


@pytest.fixture(scope="module")
def base_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the server is."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("llama") / "log"
    command = [str(LLAMA / "bin" / "python"), "-m", "llama_cpp.server", "--port", str(port)]
    command += ["--model", str(LLAMA / "babble.gguf"), "--n_ctx", "512", "--n_threads", "1"]
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            url = f"http://127.0.0.1:{port}/v1"
            _until_it_answers(f"{url}/models", process, log)
            yield url
        finally:
            process.terminate()


def _until_it_answers(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, TimeoutError):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(log.read_text())
            time.sleep(0.1)


async def no_internet(url: str, *, max_bytes: int) -> bytes:
    """Nothing is fetched."""
    raise AssertionError(url, max_bytes)


@pytest.fixture
async def model(base_url: str) -> AsyncIterator[ChatModel]:
    """What the settings choose: nothing is set but who answers chats, and where."""
    config = Config.load({}, _env_file=None, chat_model="openai", openai_base_url=base_url)
    async with open_models(config, no_internet) as models:
        yield models.chat


async def heard(model: ChatModel, **asked: Any) -> list[ChatDelta]:
    """All of an answer."""
    return [delta async for delta in model.stream(QUESTION, **asked)]


async def test_it_answers_word_by_word_and_as_long_as_it_may(model: ChatModel) -> None:
    """Many pieces, cut off where the job said, and who said them."""
    deltas = await heard(model, max_tokens=40)
    assert sum(bool(delta.text) for delta in deltas) > 5
    assert deltas[-1].finish_reason in {"length", "stop"}
    assert deltas[-1].model


async def test_it_keeps_to_a_schema(model: ChatModel) -> None:
    """Even a model that babbles writes the document that was asked for: the server sees to it."""
    schema = {
        "type": "object",
        "properties": {"colour": {"enum": ["red", "blue"]}, "dark": {"type": "boolean"}},
        "required": ["colour", "dark"],
        "additionalProperties": False,
    }
    text = "".join(delta.text for delta in await heard(model, schema=schema, max_tokens=200))
    document = json.loads(text)
    assert document["colour"] in {"red", "blue"}
    assert isinstance(document["dark"], bool)


async def test_a_closed_stream_frees_the_server(model: ChatModel) -> None:
    """It answers one at a time: the next answer begins when the one before was cancelled."""
    for _ in range(5):
        answer = model.stream(QUESTION, max_tokens=450)
        await anext(answer)
        await answer.aclose()
    assert await asyncio.wait_for(heard(model, max_tokens=5), 30)


async def test_what_is_too_long_is_refused(model: ChatModel) -> None:
    """The server's own words for it are understood."""
    with pytest.raises(ProviderRejected, match="too long for this model"):
        await anext(model.stream([ChatMessage("user", "a fox " * 2000)], max_tokens=5))


async def test_a_real_job(model: ChatModel, database: CleanDatabase) -> None:
    """From a row on a real Postgres to the server and back, charged."""
    async with Works.opened(database) as works:
        works.asks(chat=lambda: model, image=lambda: pytest.fail("nobody asks for pictures"))
        job = await works.create(ChatProbe.type)
        await works.runner.run(job, 1)
        row = await works.row(job)
        assert row["status"] == "completed", row
        assert row["output"]["text"]
        assert (await works.balance())[0] == BALANCE - PRICE
