"""The script of what goes wrong, as supabase-py and storage3 see it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import asyncpg
import httpx
import pytest
from postgrest import APIError
from storage3.exceptions import StorageApiError
from supabase import AsyncClient

from tests.supabase import faults
from tests.supabase.asking import answered, response
from tests.supabase.conftest import Connect
from tests.supabase.platform import Platform

pytestmark = [pytest.mark.database, pytest.mark.usefixtures("sandbox")]


def note(id_: int) -> dict[str, Any]:
    """A row of ``public.notes``."""
    return {"id": id_, "title": "a title"}


async def written(sandbox: asyncpg.Connection) -> list[int]:
    """The ids of the notes that are there."""
    return [row["id"] for row in await sandbox.fetch("select id from notes order by id")]


# ─── actions ─────────────────────────────────────────────────────────────────────────────────────


async def test_a_lost_reply_was_committed(
    platform: Platform, service: AsyncClient, sandbox: asyncpg.Connection
) -> None:
    """``Server disconnected`` after the commit: the normal case to survive."""
    platform.faults.add(faults.lose_reply, times=1)
    with pytest.raises(httpx.RemoteProtocolError, match="Server disconnected"):
        await service.table("notes").insert(note(1)).execute()
    assert await written(sandbox) == [1]


async def test_a_lost_request_was_not_executed(
    platform: Platform, service: AsyncClient, sandbox: asyncpg.Connection
) -> None:
    """The same error, and the client cannot tell the difference."""
    platform.faults.add(faults.lose_request, times=1)
    with pytest.raises(httpx.RemoteProtocolError, match="Server disconnected"):
        await service.table("notes").insert(note(1)).execute()
    assert await written(sandbox) == []


async def test_a_reset_is_a_read_error(
    platform: Platform, service: AsyncClient, sandbox: asyncpg.Connection
) -> None:
    """RST instead of FIN: httpx calls it by another name."""
    platform.faults.add(faults.reset, times=1)
    with pytest.raises(httpx.ReadError):
        await service.table("notes").insert(note(1)).execute()
    assert await written(sandbox) == []


async def test_half_a_body_was_committed(
    platform: Platform, service: AsyncClient, sandbox: asyncpg.Connection
) -> None:
    """The status arrives, the rest does not."""
    platform.faults.add(faults.truncate, times=1)
    with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message body"):
        await service.table("notes").insert(note(1)).execute()
    assert await written(sandbox) == [1]


async def test_a_delay_is_an_answer_that_comes_late(
    platform: Platform, service: AsyncClient
) -> None:
    """Executed after the pause."""
    platform.faults.add(faults.delay(0.3), times=1)
    began = time.monotonic()
    assert await answered(service.rpc("add", {"a": 1})) == 11
    assert time.monotonic() - began >= 0.3


async def test_hanging_ends_with_the_patience_of_the_client(
    platform: Platform, service: AsyncClient, sandbox: asyncpg.Connection
) -> None:
    """Nothing was executed; other requests are answered meanwhile."""
    platform.faults.add(faults.hang, method="POST", times=1)
    hanging = asyncio.create_task(service.table("notes").insert(note(1)).execute())
    async with asyncio.timeout(30):
        while not platform.faults.hits:
            await asyncio.sleep(0.01)
    assert await answered(service.table("notes").select("id")) == []
    hanging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hanging
    assert await written(sandbox) == []


async def test_a_platform_stops_though_somebody_hangs(
    platform: Platform, service: AsyncClient
) -> None:
    """Their connection is cut."""
    platform.faults.add(faults.hang)
    hanging = asyncio.create_task(answered(service.rpc("add", {"a": 1})))
    async with asyncio.timeout(30):
        while not platform.faults.hits:
            await asyncio.sleep(0.01)
    await asyncio.to_thread(platform.stop)
    with pytest.raises(httpx.RemoteProtocolError):
        await hanging


async def test_postgrest_down_behind_a_proxy_is_502_html(
    platform: Platform, service: AsyncClient
) -> None:
    """``APIError(code='502')``, and for storage3 an answer that it cannot parse; until it is up."""
    platform.faults.down()
    with pytest.raises(APIError) as caught:
        await service.rpc("add", {"a": 1}).execute()
    assert (caught.value.code, caught.value.message) == ("502", "Bad Gateway")
    assert "<html>" in str(caught.value.details)
    with pytest.raises(StorageApiError, match="Unable to parse") as unparsed:
        await service.storage.from_("uvian-images").download("a.png")
    assert unparsed.value.status == 502
    platform.faults.up("rest")
    assert await answered(service.rpc("add", {"a": 1})) == 11
    with pytest.raises(StorageApiError, match="Unable to parse"):
        await service.storage.from_("uvian-images").download("a.png")
    platform.faults.up()
    with pytest.raises(StorageApiError, match="Object not found"):
        await service.storage.from_("uvian-images").download("a.png")


async def test_postgrest_down_without_a_proxy_is_a_refused_connection(
    platform: Platform, service: AsyncClient
) -> None:
    """Until it is started again, at the same address."""
    await asyncio.to_thread(platform.stop)
    with pytest.raises(httpx.ConnectError):
        await service.rpc("add", {"a": 1}).execute()
    await asyncio.to_thread(platform.start)
    assert await answered(service.rpc("add", {"a": 1})) == 11


async def test_starting_and_stopping_twice_is_fine(platform: Platform, tmp_path: Path) -> None:
    """A port that is taken is an error that says so; others may try."""
    address = platform.url
    assert platform.start().url == address
    with pytest.raises(OSError, match="address already in use"):
        Platform("postgresql://nobody@/nothing", tmp_path, port=platform.port).start()
    platform.stop()
    platform.stop()


async def test_any_status_and_the_empty_400(platform: Platform, service: AsyncClient) -> None:
    """Whatever a proxy may say; and what a crash of Postgres looks like."""
    platform.faults.add(faults.empty_400, times=1)
    with pytest.raises(APIError) as caught:
        await service.rpc("add", {"a": 1}).execute()
    assert (caught.value.code, caught.value.message) == ("", "")
    platform.faults.add(faults.status(429, '{"message": "slow down"}'), times=1)
    answer = await response(platform, "GET", "/rest/v1/notes")
    assert (answer.status_code, answer.json()) == (429, {"message": "slow down"})


# ─── rules ───────────────────────────────────────────────────────────────────────────────────────


async def test_every_third_write_loses_its_reply(
    platform: Platform, service: AsyncClient, sandbox: asyncpg.Connection
) -> None:
    """Reads are not counted; each is where it is expected, every time."""
    rule = platform.faults.add(faults.lose_reply, writes=True, every=3)
    lost = []
    for number in range(1, 10):
        await answered(service.table("notes").select("id"))
        try:
            await service.table("notes").insert(note(number)).execute()
        except httpx.RemoteProtocolError:
            lost.append(number)
    assert lost == [3, 6, 9]
    assert await written(sandbox) == list(range(1, 10))
    assert (rule.seen, rule.hits, platform.faults.hits) == (9, 3, 3)


async def test_signing_is_no_write(platform: Platform, service: AsyncClient) -> None:
    """Though it is a POST."""
    rule = platform.faults.add(faults.lose_reply, writes=True)
    files = service.storage.from_("uvian-images")
    await files.create_signed_urls(["a.png"], 60)
    assert rule.seen == 0


async def test_conditions_are_joined(platform: Platform, service: AsyncClient) -> None:
    """Method, a part of the path, and whatever else one may think of."""
    by_path = platform.faults.add(faults.status(418), path="/rpc/add", times=1)
    by_when = platform.faults.add(faults.status(418), when=lambda _, path: path.endswith("/own"))
    deletes = platform.faults.add(faults.status(418), method="DELETE", path="/notes")
    assert await answered(service.rpc("setting", {"name": "role"})) == "service_role"
    for query in (
        service.rpc("add", {"a": 1}),
        service.table("own").select("id"),
        service.table("notes").delete().eq("id", 1),
    ):
        with pytest.raises(APIError):
            await query.execute()
    assert await answered(service.rpc("add", {"a": 1})) == 11
    assert await answered(service.table("notes").select("id")) == []
    assert [rule.hits for rule in (by_path, by_when, deletes)] == [1, 1, 1]
    platform.faults.clear()
    assert await answered(service.table("own").select("id")) == []


async def test_what_was_asked_is_kept_without_keys(
    platform: Platform, service: AsyncClient
) -> None:
    """Method, path, query, headers and when."""
    await answered(service.table("notes").select("id").eq("id", 7))
    (asked,) = platform.asked("/notes")
    assert (asked.method, asked.path) == ("GET", "/rest/v1/notes")
    assert asked.query == "select=id&id=eq.7"
    assert asked.headers["Accept-Profile"] == "public"
    assert abs(asked.at - time.time()) < 60
    secrets = (platform.secret_key, platform.service_key)
    assert not any(secret in str(platform.requests) for secret in secrets)


# ─── what supabase-py makes of it ────────────────────────────────────────────────────────────────


async def test_supabase_py_retries_reads_alone(
    platform: Platform, connect: Connect, sandbox: asyncpg.Connection
) -> None:
    """GET after a 503 or a lost connection, after a second; writes and rpc never."""
    client = connect(retry=True)
    platform.faults.add(faults.status(503, '{"message": "away"}'), method="GET", times=1)
    assert await answered(client.table("notes").select("id")) == []
    platform.faults.add(faults.lose_request, method="GET", times=1)
    assert await answered(client.table("notes").select("id")) == []
    assert len(platform.asked("/notes", "GET")) == 4
    platform.faults.add(faults.status(503, '{"message": "away"}'), method="POST", times=2)
    with pytest.raises(APIError):
        await client.rpc("add", {"a": 1}).execute()
    with pytest.raises(APIError):
        await client.table("notes").insert(note(1)).execute()
    assert len(platform.asked("/rpc/add")) == 1
    assert await written(sandbox) == []


# ─── from outside ────────────────────────────────────────────────────────────────────────────────


async def test_the_script_can_be_written_over_http(
    platform: Platform, service: AsyncClient
) -> None:
    """``/_faults``, for those who have only the address."""
    url = f"{platform.url}/_faults"
    async with httpx.AsyncClient() as http:
        wanted: dict[str, Any] = {"action": "status", "status": 418, "path": "/add", "every": 2}
        await http.post(url, json=wanted)
        assert await answered(service.rpc("add", {"a": 1})) == 11
        with pytest.raises(APIError):
            await service.rpc("add", {"a": 1}).execute()
        told = (await http.get(url)).json()
        assert told["hits"] == 1
        assert told["rules"] == [{"action": "answer", "path": "/add", "seen": 2, "hits": 1}]
        for action in ("lose_reply", "lose_request", "reset", "truncate", "hang", "empty_400"):
            assert (await http.post(url, json={"action": action})).status_code == 200
        assert (await http.post(url, json={"action": "delay", "seconds": 1})).status_code == 200
        unknown = await http.post(url, json={"action": "explode"})
        assert unknown.status_code == 400
        assert (await http.delete(url)).json()["rules"] == []
        await http.post(url, json={"down": True, "half": "rest"})
        with pytest.raises(APIError):
            await service.rpc("add", {"a": 1}).execute()
        await http.post(url, json={"down": False})
    assert await answered(service.rpc("add", {"a": 1})) == 11


@pytest.fixture
def by_hand() -> Iterator[dict[str, str]]:
    """``python -m tests.supabase`` and what it prints, until Ctrl-C."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.supabase"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    settings = {}
    for line in process.stdout:
        name, _, value = line.strip().partition("=")
        settings[name] = value
        if name == "SUPABASE_JWT_SECRET":
            break
    try:
        yield settings
    finally:
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(30) == 0
        process.stdout.close()
    socket_folder = Path(unquote(settings["UVIAN_DATABASE_URL"].partition("host=")[2]))
    assert not socket_folder.parent.parent.exists()


async def test_it_runs_by_hand(by_hand: dict[str, str]) -> None:
    """On a Postgres of its own, migrated, and it leaves nothing behind."""
    url, key = by_hand["UVIAN_SUPABASE_URL"], by_hand["UVIAN_SUPABASE_KEY"]
    headers = {"apikey": key, "Content-Profile": "uvian"}
    async with httpx.AsyncClient() as http:
        answer = await http.post(
            f"{url}/rest/v1/rpc/calculate_cost",
            headers=headers,
            json={"type": "generation", "input": {}},
        )
    assert (answer.status_code, answer.json()) == (200, 0)
