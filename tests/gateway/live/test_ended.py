"""A job that has ended, and whose events Redis has forgotten: every way of listening tells how, and ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.gateway.live.sockets import PATIENCE, connected
from tests.gateway.site import Caller, Site
from uvian_worker.client import Client
from uvian_worker.events.envelope import Envelope
from uvian_worker.events.job_view import WatchedJob
from uvian_worker.events.reader import Expired
from uvian_worker.process.stores import calls_over

pytestmark = pytest.mark.database


async def forgotten(site: Site, redis_url: str, caller: Caller, outcome: str) -> str:
    """A job of theirs that has ended so, and no event of it."""
    made = await site.made(caller)
    claim = await site.world.claim(made)
    if outcome == "cancelled":
        await site.world.cancel(made)
    ending: dict[str, Any] = {"output": {"answer": 42}}
    if outcome == "failed":
        ending = {"error": {"code": "provider_rejected", "message": "No."}}
    settled = await site.world.settle(claim, outcome, **ending)
    assert settled["settled"], settled
    redis = Redis.from_url(redis_url)
    names = [f"uvian:{kind}:job:{made['id']}" for kind in ("topic", "log", "state")]
    await redis.delete(*names)
    await redis.aclose()
    return str(made["id"])


@pytest.mark.parametrize("outcome", ["completed", "failed", "cancelled"])
async def test_its_ending_is_told_by_socket_stream_client_and_watch(
    site: Site, redis_url: str, outcome: str
) -> None:
    """From the row; a stream that waits for ever would be opened again and again."""
    caller = await site.user()
    job = await forgotten(site, redis_url, caller, outcome)

    async with connected(caller) as socket:
        answer = await socket.subscribe(f"job:{job}")
        assert (answer["mode"], answer["ended"]) == ("expired", True)
        assert [event["type"] for event in answer["events"]] == [f"job.{outcome}"]
        assert (await socket.hears("unsubscribed"))["reason"] == "ended"

    async with asyncio.timeout(PATIENCE):
        stream = (await caller.get(f"/v1/jobs/{job}/events")).raw.decode()
    assert [line for line in stream.splitlines() if line.startswith("event:")] == [
        "event: expired",
        f"event: job.{outcome}",
    ]

    call, redis = calls_over(site.world.service), Redis.from_url(redis_url)
    watched = WatchedJob(job)
    async with Client(call, redis) as client, asyncio.timeout(PATIENCE):
        heard = []
        async for event in client.follow(job):
            heard.append(event)
            watched.apply(event)
    await redis.aclose()
    assert [type(event) for event in heard] == [Expired, Envelope]
    assert watched.status == outcome
    assert watched.is_over
    if outcome == "completed":
        assert watched.output == {"answer": 42}
