"""The clock of Redis decides what is due, whatever the clock of a worker shows."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import arq.worker
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.queue.jobs import RunningWorker, dispatch_of, soon
from tests.redis_servers import Backend, eventually
from uvian_worker.queue.arq_adapter import picking
from uvian_worker.queue.dispatch import Dispatcher
from uvian_worker.redis import clock as store_clock
from uvian_worker.redis.clock import StoreClock


class SkewedTime:
    """The time module of a machine whose clock is wrong."""

    def __init__(self, skew: float) -> None:
        self.skew = skew

    monotonic = staticmethod(time.monotonic)

    def time(self) -> float:
        """What that machine believes."""
        return time.time() + self.skew


@pytest.mark.parametrize("skew", [-60.0, -5.0, 60.0])
async def test_a_worker_with_a_wrong_clock_is_neither_late_nor_early(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, skew: float
) -> None:
    """Behind it would wait its lag out for every job; ahead it would run delayed jobs early."""
    monkeypatch.setattr(store_clock, "time", SkewedTime(skew))
    monkeypatch.setattr(arq.worker, "timestamp_ms", lambda: int((time.time() + skew) * 1000))
    dispatcher, ran = Dispatcher(backend.client(), "uvian"), {}
    redis: Any = backend.client()

    async def run(job_id: str, _run: int) -> None:
        ran[job_id] = time.time()
        await redis.zrem("uvian:queue", f"{job_id}:1")

    pool = backend.arq_client()
    worker = RunningWorker(pool, run)
    await eventually(lambda: pool.reader.is_waiting)
    began = time.time()
    due = soon(0.8)
    await dispatcher.dispatch([dispatch_of("now"), dispatch_of("later", run_at=due)])
    await eventually(lambda: "now" in ran, within=5)
    assert ran["now"] - began < 0.5
    await eventually(lambda: "later" in ran, within=5)
    assert -0.02 < ran["later"] - due.timestamp() < 0.5
    await worker.close()
    await dispatcher.close()


async def test_the_clock_is_read_seldom_and_on_the_same_trip(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of ten reads of the queue one reads the time as well."""
    pool = backend.arq_client()
    asked = 0
    real = picking.PickingPipeline.time

    def counted(self: Any) -> Any:
        nonlocal asked
        asked += 1
        return real(self)

    monkeypatch.setattr(picking.PickingPipeline, "time", counted)
    for _ in range(10):
        await pool.reader.look(8)
    assert asked == 1


def test_an_answer_that_took_long_makes_nobody_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked before an outage of 40 s and answered after it: it counts from the answer on."""
    now = 1000.0
    clock = StoreClock()
    monkeypatch.setattr(
        store_clock, "time", type("T", (), {"monotonic": staticmethod(lambda: now)})
    )
    clock.learn((5_000, 0), sent_at=960.0)
    assert clock.now() == pytest.approx(5_000_000)
    assert not clock.holds  # and is asked again with the next look
    clock.learn((5_000, 0), sent_at=999.99)
    assert clock.now() == pytest.approx(5_000_010)
    assert clock.holds


@given(
    store=st.integers(10**9, 10**10),
    ours=st.floats(10**9, 10**10),
    score=st.floats(-120, 120),
)
def test_arq_sees_a_score_on_the_side_of_now_where_it_is(
    store: int, ours: float, score: float
) -> None:
    """What is due by Redis' clock is due by ours, and as long overdue; and the other way round."""
    with pytest.MonkeyPatch.context() as patch:
        fake = {"monotonic": staticmethod(lambda: 7.0), "time": staticmethod(lambda: ours)}
        patch.setattr(store_clock, "time", type("T", (), fake))
        clock = StoreClock()
        clock.learn((store, 0), sent_at=7.0)
        mapped = clock.as_ours(store * 1000 + score * 1000)
    assert mapped - ours * 1000 == pytest.approx(score * 1000, abs=1)
    assert mapped > 0


async def test_two_namespaces_with_equal_ids_do_not_meet(backend: Backend) -> None:
    """arq's own keys have the namespace: each of the two jobs is run, with what is its own."""
    ran: list[tuple[str, str]] = []
    workers, dispatchers = [], []
    for namespace in ("one", "two"):
        redis: Any = backend.client()
        queue = f"{namespace}:queue"

        async def run(
            job_id: str, _run: int, name: str = namespace, redis: Any = redis, queue: str = queue
        ) -> None:
            ran.append((name, job_id))
            await redis.zrem(queue, f"{job_id}:1")

        workers.append(RunningWorker(backend.arq_client(namespace), run, queue_name=queue))
        dispatchers.append(Dispatcher(backend.client(), namespace))
    for dispatcher in dispatchers:
        await dispatcher.dispatch([dispatch_of("same")])
    await eventually(lambda: len(ran) == 2)
    assert sorted(ran) == [("one", "same"), ("two", "same")]
    await asyncio.sleep(0.05)
    for worker in workers:
        await worker.close()
    strays = [key for key in await backend.client().keys("*") if key.startswith(b"arq:")]
    assert strays == []
    for dispatcher in dispatchers:
        await dispatcher.close()
