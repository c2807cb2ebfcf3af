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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from executors.errors import ProviderUnavailable
from executors.providers.base import ChatDelta, ChatMessage, ChatModel
from executors.providers.offline.images import LocalImageModel
from tests.executors.providers.cases import PRICE
from tests.executors.providers.jobs import BALANCE, ChatProbe, Works
from tests.servers import CleanDatabase
from uvian_worker.config import Config
from uvian_worker.worker.models import open_models

pytestmark = pytest.mark.real

LLAMA = Path(__file__).parents[3] / ".venv" / "llama"
QUESTION = [ChatMessage("user", "the fox")]


@dataclass(frozen=True)
class Server:
    """Such a server."""

    base_url: str
    log: Path

    @property
    def said(self) -> str:
        """Its log so far."""
        return self.log.read_text()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """One for each test: it takes a while to forget what it was cancelled in."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path / "log"
    command = [str(LLAMA / "bin" / "python"), "-m", "llama_cpp.server", "--port", str(port)]
    command += ["--model", str(LLAMA / "babble.gguf"), "--n_ctx", "512", "--n_threads", "1"]
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            url = f"http://127.0.0.1:{port}/v1"
            _until_it_answers(f"{url}/models", process, log)
            yield Server(url, log)
        finally:
            process.kill()


def _until_it_answers(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, TimeoutError):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the server ended with {process.poll()}:\n{log.read_text()}")
            time.sleep(0.1)


async def no_internet(url: str, *, max_bytes: int) -> bytes:
    """Nothing is fetched."""
    raise AssertionError(url, max_bytes)


@pytest.fixture
async def model(server: Server) -> AsyncIterator[ChatModel]:
    """What the settings choose: nothing is set but who answers chats, and where."""
    config = Config.load({}, _env_file=None, chat_model="openai", openai_base_url=server.base_url)
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


async def test_it_sees_that_nobody_listens_any_more(model: ChatModel, server: Server) -> None:
    """Closing the stream closes the connection, and the server says so itself."""
    answer = model.stream(QUESTION, max_tokens=400)
    await anext(answer)
    await answer.aclose()
    async with asyncio.timeout(60):
        while "Disconnected from client" not in server.said:
            await asyncio.sleep(0.05)


async def test_a_server_that_gives_up_without_a_word(model: ChatModel) -> None:
    """A conversation too long for it ends its stream before it began: that is no answer."""
    with pytest.raises(ProviderUnavailable):
        await anext(model.stream([ChatMessage("user", "a fox " * 2000)], max_tokens=5))


async def test_a_real_job(model: ChatModel, database: CleanDatabase) -> None:
    """From a row on a real Postgres to the server and back, charged."""
    async with Works.opened(database) as works:
        works.asks(chat=lambda: model, image=LocalImageModel)
        job = await works.create(ChatProbe.type)
        await works.runner.run(job, 1)
        row = await works.row(job)
        assert row["status"] == "completed", row
        assert row["output"]["text"]
        assert (await works.balance())[0] == BALANCE - PRICE
