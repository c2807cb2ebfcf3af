"""Postgres, or its API, is away for a while with a job in the middle: what is lost, burned and charged.

The clock is the database's: an outage is what stands in the rows after it, as if nobody had swept or
renewed for so long.
"""

from __future__ import annotations

from decimal import Decimal

import pytest

from tests.lifecycle.world import World

pytestmark = pytest.mark.database

OUTAGES = ["6 s", "60 s", "20 min"]


async def away(world: World, seconds: str) -> None:
    """So much later everything is where it was, and nobody has swept or renewed."""
    await world.hand.execute(
        f"""
        update uvian.sweeps set last_at = last_at - interval '{seconds}',
                                hold_until = hold_until - interval '{seconds}';
        update uvian.job_leases set expires_at = expires_at - interval '{seconds}';
        update uvian.workers set last_seen = last_seen - interval '{seconds}';
        update uvian.job_state set redispatch_at = redispatch_at - interval '{seconds}';
        """
    )


@pytest.mark.parametrize("outage", OUTAGES)
async def test_who_ran_goes_on_and_is_charged_once(world: World, outage: str) -> None:
    """The sweep that comes first takes nothing away: the worker renews, and settles what it did."""
    await world.type(price=10)
    user = await world.user(100)
    job = await world.started(user)
    await world.sweep()
    await away(world, outage)
    assert (await world.sweep())["expired"] == 0
    await world.call("renew_leases", worker="w", jobs=[{"id": job["id"], "run": 1}])
    assert (await world.sweep())["expired"] == 0
    assert (await world.settle(job))["settled"]
    assert (await world.settle(job))["settled"]
    row = await world.row(job)
    assert (row["status"], row["run"], row["attempt"]) == ("completed", 1, 0)
    assert await world.account(user) == (Decimal(90), Decimal(0))
    assert [kind for kind, _ in await world.entries(job)].count("charge") == 1


@pytest.mark.parametrize("outage", OUTAGES)
async def test_what_waited_is_dispatched_and_nothing_is_burned(world: World, outage: str) -> None:
    """Queued before, due after: the same run, no attempt, the reservation as it was."""
    await world.type(price=10)
    user = await world.user(100)
    job = await world.create(user)
    await world.sweep()
    await away(world, outage)
    offered = (await world.sweep())["dispatch"]
    assert [(row["id"], row["run"]) for row in offered] == [(job["id"], 1)]
    row = await world.row(job)
    assert (row["status"], row["run"], row["attempt"]) == ("queued", 1, 0)
    assert await world.account(user) == (Decimal(90), Decimal(10))


@pytest.mark.parametrize("outage", ["60 s", "20 min"])
async def test_a_worker_that_died_in_the_outage_costs_a_lease_more(
    world: World, outage: str
) -> None:
    """Nobody knows who is dead before every lease had its length; then it is found, once."""
    user = await world.user()
    job, other = await world.started(user), await world.started(user)
    await world.sweep()
    await away(world, outage)
    assert (await world.sweep())["expired"] == 0
    await world.hand.execute("update uvian.sweeps set hold_until = clock_timestamp()")
    assert (await world.sweep())["expired"] == 2
    for each in (job, other):
        row = await world.row(each)
        assert (row["status"], row["run"], row["attempt"]) == ("queued", 2, 0)
