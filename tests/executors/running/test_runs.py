"""Two runs of one job in one process: what is said to one of them is not heard by the other."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import pytest

from executors.running.active_runs import ActiveRun, StopReason
from executors.running.leases import LeaseKeeper
from tests.executors.running.conftest import Bench


class Leases:
    """A database that answers renewals by the job, as ``renew_leases`` does."""

    def __init__(self, held: dict[str, int], cancelled: AbstractSet[str] = frozenset()) -> None:
        self.held = held  #: the run of each job that has the lease
        self.cancelled = cancelled
        self.asked: list[tuple[str, int]] = []

    async def renew(self, items: Sequence[Mapping[str, Any]]) -> tuple[set[str], set[str]]:
        asked = [(item["id"], item["run"]) for item in items]
        self.asked += asked
        lost = {id_ for id_, run in asked if self.held.get(id_) != run}
        held = {id_ for id_, run in asked if self.held.get(id_) == run}
        return lost, held & self.cancelled


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
async def test_a_run_that_lost_its_lease_stops_no_other_run_of_its_job(
    order: tuple[int, ...],
) -> None:
    """Run 2 goes on in the process where run 1 hangs; other jobs, cancelled or lost, are themselves."""
    old, new = ActiveRun("j", 1, 5.0), ActiveRun("j", 2, 5.0)
    gone, unwanted = ActiveRun("gone", 3, 5.0), ActiveRun("unwanted", 1, 5.0)
    all_ = [old, new, gone, unwanted]
    for running in all_:
        running.claimed = True
    leases = Leases({"j": 2, "gone": 4, "unwanted": 1}, cancelled={"unwanted"})
    keeper = LeaseKeeper(leases, [all_[n] for n in order], interval=5)  # type: ignore[arg-type]
    await keeper.renew()
    await keeper.renew()
    lost, cancel = StopReason.LOST, StopReason.CANCEL
    assert [running.reason for running in all_] == [lost, None, lost, cancel]
    assert ("j", 1) not in leases.asked


@pytest.mark.database
async def test_a_cancel_that_came_late_stops_no_later_run(bench: Bench) -> None:
    """Asked for while run 1 ran, heard when the job was retried: run 2 goes on until it is asked itself."""
    job_id = await bench.create(do="wait")
    first = asyncio.create_task(bench.runner.run(job_id, 1))
    await bench.scripted.entered.wait()
    assert bench.runner.cancel(job_id, 1)
    await first
    await bench.database.call("retry_job", job_id=job_id, expected_run=1)
    bench.scripted.entered.clear()
    second = asyncio.create_task(bench.runner.run(job_id, 2))
    await bench.scripted.entered.wait()
    assert not bench.runner.cancel(job_id, 1)
    assert bench.runner.cancel(job_id, 2)
    await second
    assert (await bench.row(job_id))["status"] == "cancelled"
