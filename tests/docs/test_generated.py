"""The generated pages are those of the code."""

from __future__ import annotations

import hashlib
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis
from redis.asyncio import Redis

from executors import events
from tests.queue.jobs import dispatch_of
from tests.redis_servers import Backend, own_redis
from uvian_worker.events.control import CONTROL_TYPES, CancelJob, Control
from uvian_worker.events.publisher import Publisher
from uvian_worker.events.reader import Reader, Resume
from uvian_worker.local.embedded import EmbeddedRedis
from uvian_worker.queue.dispatch import DISPATCH_SCRIPT, Dispatched, Dispatcher
from uvian_worker.queue.taker import Taker

__all__ = ["own_redis"]

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "generate_docs.py"
CONTRACTS = ROOT / "docs" / "contracts"


@pytest.fixture(scope="module")
def generator() -> dict[str, Any]:
    """The names of the script that generates the pages."""
    return runpy.run_path(str(SCRIPT))


def test_the_committed_pages_are_the_generated_ones() -> None:
    """Who changes an event or a script also runs ``make docs``."""
    done = subprocess.run(
        [sys.executable, SCRIPT, "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_is_left_out() -> None:
    """Every event type, control message and answer is on its page."""
    told = (CONTRACTS / "events.md").read_text()
    for name in (*events.EVENT_TYPES, *CONTROL_TYPES):
        assert f"### `{name}`" in told
    told = (CONTRACTS / "enqueue.md").read_text()
    for answer in set(Dispatched) - {Dispatched.LOST}:
        assert f"| `{answer}` |" in told


def test_the_script_for_other_languages_is_ours() -> None:
    """The bytes in the folder have the hash on the page, which is the one the product calls."""
    sha = hashlib.sha1((CONTRACTS / "dispatch.lua").read_bytes()).hexdigest()
    assert sha == DISPATCH_SCRIPT.sha
    assert sha in (CONTRACTS / "enqueue.md").read_text()


@pytest.mark.database
def test_a_stranger_dispatches_with_what_the_page_says(
    redis_url: str, generator: dict[str, Any]
) -> None:
    """Text, arguments and payload as documented, from a client that knows nothing of ours."""
    with redis.Redis.from_url(redis_url) as stranger:
        text = (CONTRACTS / "dispatch.lua").read_text()
        arguments = ["uvian", "", "00ff" * 4, "j1", 1, "u1", "image", 0, "", 0]
        assert stranger.eval(text, 0, *arguments) == [b"queued"]
        payload = orjson.loads(stranger.get("uvian:arq:job:j1:1"))
    schema = generator["PAYLOAD_SCHEMA"]
    assert set(payload) == set(schema["required"]) == set(schema["properties"])
    assert payload["f"] == schema["properties"]["f"]["const"]
    assert payload["a"] == ["j1", 1]
    assert (payload["t"], payload["k"]) == (None, {})


@pytest.mark.database
async def test_the_documented_permissions_suffice(
    own_redis: EmbeddedRedis, generator: dict[str, Any]
) -> None:
    """An ACL user made by the line on the page dispatches, takes, appends, reads and follows."""
    command = generator["ACL_USER"].replace("<password>", "secret").split()
    root: Any = Redis.from_url(own_redis.url)
    await root.execute_command(*command)
    await root.aclose()
    backend = Backend(f"redis://uvian:secret@127.0.0.1:{own_redis.port}/0")
    client: Any = backend.client()
    with pytest.raises(redis.exceptions.NoPermissionError):
        await client.get("somebody else's")
    dispatcher, taker = Dispatcher(client, "uvian"), Taker(client, "uvian")
    publisher, reader = Publisher(client, "uvian"), Reader(client, "uvian")
    control = Control(client, "uvian")
    assert await dispatcher.redis_lost()
    await dispatcher.mark_redis()
    assert not await dispatcher.redis_lost()
    assert await dispatcher.dispatch([dispatch_of("j1")]) == [Dispatched.QUEUED]
    assert await taker.next() == ("j1", 1)
    assert await dispatcher.overdue() == []
    ref = events.JobRef("j1", "u-j1", 1, 0)
    assert await publisher.emit(ref, events.JobCompleted(output={})) is events.Appended.APPENDED
    assert isinstance(await reader.read("job:j1"), Resume)
    assert [event async for event in reader.follow("job:j1")]
    assert await control.send(CancelJob("j1")) == 0
    pool = backend.arq_client()
    assert await pool.reader.look(10) == ([], None)
    assert await pool.reader._next_token() is True
    for part in (dispatcher, taker, publisher, reader, control):
        await part.close()
    await backend.close()
