"""Credits, types, costs and the wake-up over HTTP."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path

import pytest

from tests.adapters import over_postgres_only
from tests.gateway.site import Site, config_of, eventually, opened
from tests.lifecycle.world import World

pytestmark = pytest.mark.database


async def test_the_account_and_its_books(site: Site) -> None:
    """Granted, reserved, charged, released: line by line, the newest first, page by page."""
    await site.open("paid", price=4)
    user = await site.user(10)
    job = await site.made(user, "paid")
    account = (await user.get("/v1/credits")).body
    assert [Decimal(account[name]) for name in ("balance", "reserved")] == [6, 4]
    claim = await site.world.claim(job)
    await site.world.settle(claim, "completed", output={}, cost="3")
    lines = []
    cursor: str | None = ""
    while cursor is not None:
        page = (await user.get(f"/v1/credits/entries?limit=1{cursor}")).body
        lines += [(line["kind"], float(line["amount"]), line["job_id"]) for line in page["items"]]
        cursor = page["next_cursor"] and f"&cursor={page['next_cursor']}"
    assert lines[-2:] == [("reserve", 4, job["id"]), ("grant", 10, None)]
    assert {kind for kind, *_ in lines[:-2]} <= {"charge", "release"}
    assert len(lines) in (3, 4)


async def test_who_has_no_account_has_nothing(site: Site) -> None:
    """A balance of 0, no line, and no cursor of somebody's making."""
    user = await site.user()
    account = (await user.get("/v1/credits")).body
    assert (Decimal(account["balance"]), account["version"]) == (Decimal(0), 0)
    assert (await user.get("/v1/credits/entries")).body["items"] == []
    for cursor in ("-1", "x", "9" * 19, "1.5"):
        assert (await user.get(f"/v1/credits/entries?cursor={cursor}")).code == "invalid_input"


async def test_the_types_that_are_open_to_somebody(site: Site) -> None:
    """With schema and price; what is closed to a user is not shown to them."""
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    await site.open("paid", price="2.5", input_schema=schema, anonymous=True)
    await site.world.type("internal")
    await site.open("off", enabled=False)
    items = (await (await site.user()).get("/v1/executors")).body["items"]
    by_type = {item["type"]: item for item in items}
    assert set(by_type) == {"paid", "noop", "generation", "refinement", "chat"}
    assert by_type["paid"]["input_schema"] == schema
    assert Decimal(by_type["paid"]["price"]) == Decimal("2.5")
    assert Decimal(by_type["noop"]["price"]) == 0
    anonymous = await site.user(is_anonymous=True)
    assert [i["type"] for i in (await anonymous.get("/v1/executors")).body["items"]] == ["paid"]


async def test_a_cost_is_answered_and_nothing_made(site: Site) -> None:
    """By the function that the reservation uses, for what could be submitted."""
    await site.open("paid", price="2.5", input_schema={"required": ["n"]})
    user = await site.user(10)
    asked = {"type": "paid", "input": {"n": 1}}
    assert Decimal((await user.post("/v1/cost", asked)).body["cost"]) == Decimal("2.5")
    assert Decimal((await user.post("/v1/cost", {"type": "noop"})).body["cost"]) == 0
    assert (await user.post("/v1/cost", {"type": "paid"})).code == "invalid_input"
    assert (await user.post("/v1/cost", {"type": "none"})).code == "unknown_type"
    assert await site.account(user) == (10, 0)
    assert (await user.get("/v1/jobs")).body["items"] == []


async def test_what_the_operator_changes_is_seen_soon(site: Site) -> None:
    """Without a restart of the gateway."""
    user = await site.user()
    assert (await user.post("/v1/jobs", {"type": "late"})).code == "unknown_type"
    await site.open("late")

    async def made() -> bool:
        return (await user.post("/v1/jobs", {"type": "late"})).status == 201

    await eventually(made)


# ─── the wake-up ─────────────────────────────────────────────────────────────────────────────────

_SECRET = "a secret of the webhook"


@over_postgres_only
async def test_a_webhook_has_a_new_row_dispatched_at_once(
    world: World, redis_url: str, tmp_path: Path
) -> None:
    """A row that an API only inserted, long before the next sweep would come."""
    config = config_of(world.adapter, redis_url, tmp_path, wake_secret=_SECRET, sweep_every=5)
    async with opened(world, config) as site:
        user = await world.user()
        gateway = site.nobody
        secret = {"X-Uvian-Wake": _SECRET}

        async def swept() -> float:
            return float(
                await world.hand.fetchval("select extract(epoch from last_at) from uvian.sweeps")
            )

        before = await swept()

        async def first_sweep_is_over() -> bool:
            return await swept() > before

        await eventually(first_sweep_is_over)
        row = {"id": user, "status": "queued", "user_id": user}
        told = {"type": "INSERT", "table": "jobs", "schema": "uvian", "record": row}
        before = await swept()
        reply = await gateway.post("/v1/wake", told, headers=secret)
        assert (reply.status, reply.body) == (202, {"woken": True})
        async with asyncio.timeout(3):
            while await swept() == before:
                await asyncio.sleep(0.02)
        done = {**told, "record": {**row, "status": "completed"}}
        assert (await gateway.post("/v1/wake", done, headers=secret)).body == {"woken": False}
        assert (await gateway.post("/v1/wake", headers=secret)).body == {"woken": True}
        for wrong in ({}, {"X-Uvian-Wake": ""}, {"X-Uvian-Wake": _SECRET + "x"}):
            reply = await gateway.post("/v1/wake", told, headers=wrong)
            assert (reply.status, reply.code) == (401, "unauthorized")


async def test_without_a_secret_nobody_wakes(site: Site) -> None:
    """The address does not exist then, with an empty secret neither."""
    for headers in ({}, {"X-Uvian-Wake": ""}):
        assert (await site.nobody.post("/v1/wake", {}, headers=headers)).code == "not_found"
