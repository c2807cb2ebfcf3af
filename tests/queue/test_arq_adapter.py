"""A stock arq worker on our pool: woken, not polling, and without the holes of the naive form."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import arq.worker
import pytest
import pytest_asyncio
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from tests.queue.jobs import QUEUE, RunningWorker, dispatch_of, soon
from tests.redis_servers import Backend, eventually
from uvian_worker.local.embedded import EmbeddedRedis
from uvian_worker.queue.arq_adapter import picking, waiting
from uvian_worker.queue.arq_adapter import pool as arq_pool
from uvian_worker.queue.arq_adapter.pool import WakingArqRedis, deserialize, serialize
from uvian_worker.queue.dispatch import Dispatcher
from uvian_worker.queue.taker import Taker
from uvian_worker.redis.keys import Keys

KEYS = Keys("uvian")


class Bench:
    """Everything a worker process has, on one backend."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.client: Any = backend.client()
        self.dispatcher = Dispatcher(backend.client(), "uvian")
        self.taker = Taker(backend.client(), "uvian")
        self.ran: dict[str, float] = {}
        self.hold: asyncio.Event | None = None
        self._workers: list[RunningWorker] = []
        self._pools: list[WakingArqRedis] = []

    def worker(self, pool: WakingArqRedis | None = None, **options: Any) -> RunningWorker:
        """Start a worker whose function enters, runs and ends as the product's does."""
        pool = pool or self.backend.arq_client()
        self._pools.append(pool)
        worker = RunningWorker(pool, self._run, **options)
        self._workers.append(worker)
        return worker

    async def _run(self, job_id: str, run: int) -> None:
        if await self.taker.enter(job_id, run):
            self.ran[job_id] = time.time()
            self.taker.claim_answered(job_id, run)
            if self.hold is not None:
                await self.hold.wait()

    async def has_run(self, *job_ids: str) -> None:
        """Wait until these jobs were run."""
        await eventually(lambda: all(job_id in self.ran for job_id in job_ids))

    async def idle(self) -> None:
        """Wait until a worker waits for a wake-up."""
        await eventually(lambda: any(pool.reader.is_waiting for pool in self._pools))

    async def close(self) -> None:
        """End the workers."""
        if self.hold is not None:
            self.hold.set()
        for worker in self._workers:
            await worker.close()
        await self.taker.close()
        await self.dispatcher.close()


@pytest_asyncio.fixture
async def bench(backend: Backend) -> AsyncIterator[Bench]:
    """A bench on the backend."""
    bench = Bench(backend)
    yield bench
    await bench.close()


async def read(pool: WakingArqRedis, count: int = 100) -> list[bytes]:
    """arq's read of the queue, with arq's own arguments."""
    found: list[bytes] = await pool.zrangebyscore(
        QUEUE, min=float("-inf"), start=0, num=count, max=time.time() * 1000
    )
    return found


async def test_an_idle_worker_is_woken(bench: Bench) -> None:
    """A job that comes while arq waits is run at once, by stock arq, and leaves nothing behind."""
    bench.worker()
    await bench.idle()
    began = time.time()
    await bench.dispatcher.dispatch([dispatch_of("j1")])
    await bench.has_run("j1")
    assert bench.ran["j1"] - began < 0.4  # polling at 0.5 s would take 0.25 on average

    async def clean() -> bool:
        return not await bench.client.keys("uvian:arq:*")

    await eventually(clean)


async def test_a_running_job_keeps_nobody_from_waiting(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hole: arq keeps running ids in the queue, so every read finds some and nobody ever blocks."""
    bench.hold = asyncio.Event()
    worker = bench.worker()
    await bench.dispatcher.dispatch([dispatch_of("long")])
    await bench.has_run("long")
    await bench.idle()
    pool: Any = worker.worker.pool
    reads, real = 0, pool.reader.look

    async def counted(count: int) -> Any:
        nonlocal reads
        reads += 1
        return await real(count)

    monkeypatch.setattr(pool.reader, "look", counted)
    await asyncio.sleep(0.3)
    assert reads <= 2
    await bench.dispatcher.dispatch([dispatch_of("other")])
    await bench.has_run("other")


async def test_ids_that_nobody_can_start_are_not_read_in_a_spin(bench: Bench) -> None:
    """Hole: what a killed worker left locked in the queue would cost thousands of reads a second."""
    await bench.dispatcher.dispatch([dispatch_of("locked")])
    await bench.client.set("uvian:arq:in-progress:locked:1", "1", px=60_000)
    pool = bench.backend.arq_client()
    reads = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.5):
            while True:
                assert await read(pool) == [b"locked:1"]
                reads += 1
    assert reads < 25


async def test_ids_that_nobody_can_start_hide_no_others(bench: Bench) -> None:
    """arq is given few ids at once: those that a killed worker left at the head are looked past."""
    dead = [f"dead{number}" for number in range(50)]
    await bench.dispatcher.dispatch([dispatch_of(job_id) for job_id in dead])
    for job_id in dead:
        await bench.client.set(f"uvian:arq:in-progress:{job_id}:1", "1", px=60_000)
    jobs = [f"n{number}" for number in range(20)]
    await bench.dispatcher.dispatch([dispatch_of(job_id) for job_id in jobs])
    bench.worker()
    began = time.monotonic()
    await bench.has_run(*jobs)
    assert time.monotonic() - began < 2
    assert len(bench.ran) == 20


async def test_of_a_long_queue_arq_is_given_the_head(bench: Bench) -> None:
    """What it cannot pick at once the loops take meanwhile: a long list would be out of date."""
    jobs = [f"n{number:02}" for number in range(60)]
    for job_id in jobs:
        await bench.client.zadd(QUEUE, {f"{job_id}:1": 1})
    pool = bench.backend.arq_client()
    sizes = []
    for _ in range(4):  # nobody picks them
        found = await read(pool)
        assert found == [f"{job_id}:1".encode() for job_id in jobs[: len(found)]]
        sizes.append(len(found))
    await bench.client.zrem(QUEUE, *[f"{job_id}:1" for job_id in jobs[:10]])
    assert [*sizes, len(await read(pool)), len(await read(pool))] == [8, 8, 16, 32, 50, 8]


async def test_a_delayed_job_is_neither_early_nor_late(bench: Bench) -> None:
    """Hole: nobody pushes a token when its time comes, and Redis ends blocks 100 ms late."""
    bench.worker()
    await bench.idle()
    at = soon(0.4)
    await bench.dispatcher.dispatch([dispatch_of("later", run_at=at)])
    await bench.has_run("later")
    late = bench.ran["later"] - at.timestamp()
    assert -0.002 < late < 0.3


async def test_a_job_that_is_nearly_due_does_not_deafen(bench: Bench) -> None:
    """Hole: sleeping locally for the last moment would leave a wake-up unheard."""
    bench.worker()
    await bench.idle()
    at = soon(5)
    await bench.dispatcher.dispatch([dispatch_of("later", run_at=at)])
    await asyncio.sleep(0.05)
    began = time.time()
    await bench.dispatcher.dispatch([dispatch_of("now")])
    await bench.has_run("now")
    assert bench.ran["now"] - began < 0.4


async def test_one_token_wakes_as_many_as_there_is_work_for(bench: Bench) -> None:
    """Hole: two jobs, one token left: the second worker would sleep on."""
    pools = [bench.backend.arq_client() for _ in range(2)]
    for pool in pools:
        assert await read(pool) == []
    waiting = [asyncio.create_task(read(pool)) for pool in pools]
    await eventually(lambda: all(pool.reader.is_waiting for pool in pools))
    await bench.client.zadd(QUEUE, {"a:1": 1, "b:1": 2})
    await bench.client.lpush(KEYS.wake, "1")
    for found in await asyncio.gather(*waiting):
        assert found == [b"a:1", b"b:1"]


async def test_the_wake_list_stays_short(bench: Bench) -> None:
    """Hole: tokens nobody takes would pile up while all workers are busy."""
    pool = bench.backend.arq_client()
    await bench.client.zadd(QUEUE, {f"{n}:1": n for n in range(1, 10)})
    for _ in range(100):
        await pool.reader.pass_on()
    assert await bench.client.llen(KEYS.wake) == 64


async def test_a_draining_worker_gives_its_token_back(bench: Bench) -> None:
    """Hole: a read that blocks takes a job after SIGTERM."""
    pool = bench.backend.arq_client()
    assert await read(pool) == []
    waiting = asyncio.create_task(read(pool))
    await eventually(lambda: pool.reader.is_waiting)
    pool.reader.pause()
    await bench.dispatcher.dispatch([dispatch_of("j1")])
    assert await waiting == []
    assert await bench.client.llen(KEYS.wake) == 1
    assert await read(pool) == []
    pool.reader.resume()
    assert await read(pool) == [b"j1:1"]


async def test_a_token_that_comes_too_late_is_passed_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait continues while a delayed job is read; its token is for another worker."""
    monkeypatch.setattr(waiting, "_BLOCK", 30)
    pool = bench.backend.arq_client()
    await bench.dispatcher.dispatch([dispatch_of("later", run_at=soon(0.2))])
    await bench.client.delete(KEYS.wake)
    assert await read(pool) == []
    assert await read(pool) == [b"later:1"]
    assert pool.reader._token is not None
    assert not pool.reader._token.done()
    await bench.client.lpush(KEYS.wake, "1")
    await eventually(pool.reader._token.done)
    assert await bench.client.llen(KEYS.wake) == 1


async def test_a_lost_token_costs_less_than_a_second(bench: Bench) -> None:
    """Hole: a worker that blocks for ever misses a job whose token got lost."""
    bench.worker()
    await bench.idle()
    began = time.time()
    await bench.client.set("uvian:arq:job:j1:1", serialize({"t": None, "f": "run_job", "a": ["j1", 1],
        "k": {}, "et": round(began * 1000)}))  # fmt: skip
    await bench.client.zadd(QUEUE, {"j1:1": round(began * 1000)})
    await bench.has_run("j1")
    assert bench.ran["j1"] - began < 2


async def test_burst_ends_on_an_empty_queue(bench: Bench) -> None:
    """``arq --burst`` runs what there is and ends, without a block at the end."""
    await bench.dispatcher.dispatch([dispatch_of("a"), dispatch_of("b")])
    began = time.monotonic()
    worker = bench.worker(burst=True)
    async with asyncio.timeout(5):
        await worker.task
    assert bench.ran.keys() == {"a", "b"}
    assert time.monotonic() - began < 0.7


async def test_a_backlog_beyond_the_slots_is_worked_off(bench: Bench) -> None:
    """Two workers with few slots run each job once."""
    jobs = [f"n{number}" for number in range(60)]
    await bench.dispatcher.dispatch([dispatch_of(job_id) for job_id in jobs])
    bench.worker(max_jobs=5)
    bench.worker(max_jobs=5)
    await bench.has_run(*jobs)
    await eventually(lambda: sum(w.worker.jobs_complete for w in bench._workers) >= 60)
    assert sum(w.worker.jobs_failed for w in bench._workers) == 0


async def test_other_reads_are_redis_pys(bench: Bench) -> None:
    """Only arq's read of the queue waits."""
    pool = bench.backend.arq_client()
    await bench.client.zadd("other", {"x": 1})
    assert await pool.zrangebyscore("other", 0, 5) == [b"x"]
    assert await pool.zrangebyscore(QUEUE, 0, 5, withscores=True) == []


async def test_enqueuing_by_arq_itself_works(bench: Bench) -> None:
    """A team's own script may call ``enqueue_job``: JSON, our queue, found within a second."""
    pool = bench.backend.arq_client()
    bench.worker()
    await pool.enqueue_job("run_job", "j1", 1, _job_id="j1:1")
    await bench.has_run("j1")


def test_what_arq_makes_of_a_failure_can_be_serialised() -> None:
    """Hole: with plain orjson each job that arq gives up on logs two stack traces."""
    document = {"r": arq.worker.JobExecutionFailed("job expired"), "a": ("j1", 1)}
    assert deserialize(serialize(document))["a"] == ["j1", 1]


@pytest.mark.database
async def test_a_block_has_a_timeout_of_its_own(redis_url: str) -> None:
    """Hole: a block longer than the client's socket timeout is an error every time."""
    backend = Backend(redis_url)
    pool = backend.arq_client(socket_timeout=0.1)
    assert await read(pool) == []
    assert await read(pool) == []
    assert pool.reader._token is not None
    assert pool.reader._token.result() is False
    assert pool.reader._tokens.connection is not None
    await backend.close()


@pytest_asyncio.fixture
async def mortal(own_redis: EmbeddedRedis) -> AsyncIterator[Bench]:
    """A bench on a server that the test may kill."""
    backend = Backend(own_redis.url)
    bench = Bench(backend)
    yield bench
    own_redis.start()
    await bench.close()
    await backend.close()


@pytest.mark.database
async def test_a_restart_of_redis_does_not_end_the_worker(
    own_redis: EmbeddedRedis, mortal: Bench
) -> None:
    """Hole: one ConnectionError in arq's loop is exit code 1."""
    worker = mortal.worker()
    await mortal.dispatcher.dispatch([dispatch_of("before")])
    await mortal.has_run("before")
    await mortal.idle()
    await asyncio.to_thread(own_redis.kill)
    await asyncio.sleep(0.3)
    await asyncio.to_thread(own_redis.start)
    await mortal.dispatcher.dispatch([dispatch_of("after")])
    await mortal.has_run("after")
    assert not worker.task.done()


@pytest.mark.database
@pytest.mark.parametrize("command", ["WATCH", "EXISTS", "ZSCORE"])
async def test_a_connection_that_breaks_in_arqs_pick_does_not_end_the_worker(
    mortal: Bench, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hole: between WATCH and EXEC redis-py raises ``WatchError`` where arq does not expect it."""
    real = picking.PickingPipeline.parse_response
    broken = False

    async def breaks_once(self: Any, conn: Any, name: Any, **options: Any) -> Any:
        nonlocal broken
        if name == command and not broken:
            broken = True
            await conn.disconnect()
            raise ConnectionResetError
        return await real(self, conn, name, **options)

    monkeypatch.setattr(picking.PickingPipeline, "parse_response", breaks_once)
    worker = mortal.worker()
    await mortal.dispatcher.dispatch([dispatch_of("j1")])
    await mortal.has_run("j1")
    assert broken
    assert not worker.task.done()


@pytest.mark.parametrize("error", [ResponseError("NOPERM"), asyncio.CancelledError()])
async def test_a_pick_that_fails_half_way_leaves_no_answers_to_others(
    bench: Bench, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its three questions go out together: what was not read must not be the next one's answer."""
    pool = bench.backend.arq_client()
    await pool.zadd(QUEUE, {"j1:1": 7})
    real = picking.PickingPipeline.parse_response

    async def fails(self: Any, conn: Any, name: Any, **options: Any) -> Any:
        if name == "EXISTS":
            raise error
        return await real(self, conn, name, **options)

    with monkeypatch.context() as patch:
        patch.setattr(picking.PickingPipeline, "parse_response", fails)
        async with pool.pipeline() as pipe:
            with pytest.raises(type(error)):
                await pipe.watch("uvian:arq:in-progress:j1:1")
            assert not pipe.watching
    async with pool.pipeline() as pipe:
        await pipe.watch("uvian:arq:in-progress:j1:1")
        assert await pipe.exists("uvian:arq:in-progress:j1:1") == 0
        assert await pipe.zscore(QUEUE, "j1:1") == 7
    assert await pool.ping() is True


async def test_a_pipeline_that_is_cut_short_leaks_no_connection(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hole: cancelled while it unwatches, redis-py's pipeline keeps its connection for ever."""
    pool = bench.backend.arq_client()
    pipe: Any = pool.pipeline(transaction=True)
    await pipe.watch("key")

    async def cancelled(*_: object) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(pipe.connection, "send_command", cancelled)
    with pytest.raises(asyncio.CancelledError):
        await pipe.reset()
    assert pipe.connection is None
    assert not pool.connection_pool._in_use_connections


@pytest.mark.database
async def test_giving_up_ends_every_wait(own_redis: EmbeddedRedis) -> None:
    """A worker that ends while Redis is away does not wait for it."""
    backend = Backend(own_redis.url)
    pool = backend.arq_client()
    assert await pool.ping()
    own_redis.kill()
    waiting = asyncio.ensure_future(pool.ping())
    _, pending = await asyncio.wait([waiting], timeout=0.3)
    assert pending
    pool.give_up()
    with pytest.raises((OSError, Exception)):
        async with asyncio.timeout(3):
            await waiting
    await backend.close()


def test_making_a_pool_connects_to_nothing() -> None:
    """``WorkerSettings`` is a module's attribute: importing it must not need a Redis."""
    pool = arq_pool.arq_redis_from_url("redis://127.0.0.1:1/4", "team")
    assert pool.default_queue_name == "team:queue"
    assert isinstance(pool, Redis)
