"""The FastAPI example, served by uvicorn on a real Postgres and a real Redis, and asked over HTTP."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.processes.site import PATIENCE, Site

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "fastapi"
ASKED = {"logo_description": "A fox", "theme_description": "autumn woods", "size": 256}


@dataclass(frozen=True, slots=True)
class Api:
    """The example where it listens, and what is behind it."""

    url: str
    site: Site
    session: aiohttp.ClientSession

    async def post(self, path: str, user: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Status and document."""
        headers = {"X-User-Id": user, **headers}
        async with self.session.post(self.url + path, json=body, headers=headers) as reply:
            return reply.status, await reply.json()

    async def make(self) -> str:
        """A job's id."""
        status, made = await self.post("/concepts", self.site.user_id, ASKED)
        assert status == 202
        return str(made["job_id"])

    def live(self, job_id: str, user: str, **query: str) -> Any:
        """A WebSocket of this job."""
        url = f"{self.url}/concepts/{job_id}/live"
        return self.session.ws_connect(url, params=query, headers={"X-User-Id": user})


@pytest.fixture
async def api(site: Site, tmp_path: Path) -> AsyncIterator[Api]:
    """The example as its README starts it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path / "api.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "app:app", "--port", str(port)],
            cwd=EXAMPLE,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "DATABASE_URL": site.adapter.clean.dsn,
                "REDIS_URL": site.redis.url,
            },
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        async with asyncio.timeout(PATIENCE):
            while "running on" not in log.read_text():
                assert process.poll() is None, log.read_text()
                await asyncio.sleep(0.05)
        async with aiohttp.ClientSession() as session:
            yield Api(f"http://127.0.0.1:{port}", site, session)
    finally:
        process.terminate()
        process.wait(PATIENCE)


@pytest.mark.processes
async def test_a_concept_is_followed_to_its_end_and_from_a_cursor(api: Api) -> None:
    """All of it, then what comes after an event of it: the same, without a gap."""
    await api.site.worker()
    job_id = await api.make()
    async with api.live(job_id, api.site.user_id) as first:
        told = [message.json() async for message in first]
    assert [event["seq"] for event in told] == list(range(1, len(told) + 1))
    assert (told[0]["type"], told[-1]["type"]) == ("job.queued", "job.completed")
    async with api.live(job_id, api.site.user_id, cursor=told[2]["id"]) as second:
        assert [message.json() async for message in second] == told[3:]


@pytest.mark.processes
async def test_a_key_makes_one_job(api: Api) -> None:
    """A request that a browser repeats."""
    first = await api.post("/concepts", api.site.user_id, ASKED, **{"Idempotency-Key": "k"})
    assert await api.post("/concepts", api.site.user_id, ASKED, **{"Idempotency-Key": "k"}) == first


@pytest.mark.processes
async def test_a_job_is_cancelled_by_its_user_alone(api: Api) -> None:
    """Others neither cancel nor hear it."""
    job_id = await api.make()
    stranger = "00000000-0000-4000-8000-000000000000"
    assert (await api.post(f"/concepts/{job_id}/cancel", stranger))[0] == 404
    with pytest.raises(aiohttp.WSServerHandshakeError):
        await api.live(job_id, stranger)
    async with api.live(job_id, api.site.user_id) as listening:
        assert (await listening.receive_json())["type"] == "job.queued"
        status, answer = await api.post(f"/concepts/{job_id}/cancel", api.site.user_id)
        assert (status, answer["status"]) == (200, "cancelled")
        assert (await listening.receive_json())["type"] == "job.cancelled"


@pytest.mark.processes
async def test_what_is_refused_has_its_code(api: Api) -> None:
    """The database says why."""
    await api.site.price("generation", "5", balance="1")
    refused = await api.post("/concepts", api.site.user_id, ASKED)
    assert refused == (422, {"detail": "insufficient_credits"})
