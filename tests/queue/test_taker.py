"""Who takes jobs out of the queue: each id once, many in one call."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.queue.jobs import QUEUE, dispatch_of
from tests.redis_servers import Backend, eventually
from uvian_worker.queue.dispatch import Dispatcher
from uvian_worker.queue.taker import Taker
from uvian_worker.redis.keys import Keys

KEYS = Keys("uvian")


@pytest.fixture
def dispatcher(backend: Backend) -> Dispatcher:
    """A dispatcher of the backend."""
    dispatcher = Dispatcher(backend.client(), "uvian")
    backend.defer(dispatcher.close)
    return dispatcher


@pytest.fixture
def taker(backend: Backend) -> Taker:
    """A taker of the backend."""
    taker = Taker(backend.client(), "uvian")
    backend.defer(taker.close)
    return taker


def count_calls(taker: Taker, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many ids each call wanted, as they are made."""
    real, calls = taker._call, []

    async def counted(entering: list[str], wanted: int = 0) -> Any:
        calls.append(wanted)
        return await real(entering, wanted)

    monkeypatch.setattr(taker, "_call", counted)
    return calls


async def test_a_picked_id_leaves_the_queue(
    dispatcher: Dispatcher, taker: Taker, client: Redis
) -> None:
    """The queue holds only what waits; what is being claimed stands beside it."""
    await dispatcher.dispatch([dispatch_of("j1")])
    assert await taker.enter("j1", 1)
    assert await dispatcher.depth() == (0, 1)
    assert await taker.enter("j1", 1)
    taker.claim_answered("j1", 1)

    async def forgotten() -> bool:
        return await dispatcher.depth() == (0, 0)

    await eventually(forgotten)
    assert not await taker.enter("j1", 1)


async def test_jobs_are_taken_in_order_and_once(backend: Backend, dispatcher: Dispatcher) -> None:
    """Two workers share a backlog: nothing twice, nothing left, oldest first."""
    ids = [f"t{number:03}" for number in range(120)]
    for job_id in ids:
        await dispatcher.dispatch([dispatch_of(job_id)])
    takers = [Taker(backend.client(), "uvian") for _ in range(2)]

    async def take_all(taker: Taker) -> list[str]:
        taken = []
        while (found := await taker.next()) is not None:
            taken.append(found[0])
        return taken

    shares = await asyncio.gather(*[take_all(taker) for taker in takers])
    assert sorted(shares[0] + shares[1]) == ids
    assert all(share == sorted(share) for share in shares)
    for taker in takers:
        await taker.close()


async def test_loops_that_finish_together_share_a_call(
    dispatcher: Dispatcher, taker: Taker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fifty loops that finish at once cost two round trips, and the claimed ids ride along."""
    await dispatcher.dispatch(dispatch_of() for _ in range(30))
    calls = count_calls(taker, monkeypatch)
    for number in range(5):
        taker.claim_answered(f"earlier{number}", 1)
    found = await asyncio.gather(*[taker.next() for _ in range(50)])
    assert sum(job is not None for job in found) == 30
    assert calls == [50]
    assert (await dispatcher.depth()).claiming == 30


async def test_claimed_ids_leave_together(
    taker: Taker, monkeypatch: pytest.MonkeyPatch, client: Redis
) -> None:
    """Without another request, one call a little later removes them all."""
    writer: Any = client
    await writer.zadd(KEYS.claiming, {f"c{number}:1": 1 for number in range(9)})
    calls = count_calls(taker, monkeypatch)
    for number in range(9):
        taker.claim_answered(f"c{number}", 1)

    async def gone() -> bool:
        return not await client.exists(KEYS.claiming)

    await eventually(gone)
    assert calls == [0]


async def test_closing_sends_what_is_left(backend: Backend, client: Redis) -> None:
    """A worker that ends leaves nothing behind that somebody must look into."""
    writer: Any = client
    await writer.zadd(KEYS.claiming, {"c:1": 1})
    taker = Taker(backend.client(), "uvian")
    taker.claim_answered("c", 1)
    await taker.close()
    await taker.close()
    assert not await client.exists(KEYS.claiming)
    assert await taker.next() is None


async def test_what_arq_is_picking_is_not_taken(
    dispatcher: Dispatcher, taker: Taker, client: Redis
) -> None:
    """Hole: arq would find its payload gone and report the job as expired."""
    await dispatcher.dispatch([dispatch_of("picked"), dispatch_of("free")])
    await client.set("uvian:arq:in-progress:picked:1", "1", px=60_000)
    assert await taker.next() == ("free", 1)
    assert await taker.next() is None
    assert await client.exists("uvian:arq:job:picked:1")


async def test_what_was_taken_breaks_a_pick_that_is_half_done(
    dispatcher: Dispatcher, taker: Taker, backend: Backend
) -> None:
    """Hole: between arq's look at the queue and its lock the id may go; arq watches that lock."""
    await dispatcher.dispatch([dispatch_of("j1")])
    pool = backend.arq_client()
    pipe: Any
    async with pool.pipeline(transaction=True) as pipe:
        await pipe.watch("uvian:arq:in-progress:j1:1")
        assert not await pipe.exists("uvian:arq:in-progress:j1:1")
        assert await pipe.zscore(QUEUE, "j1:1")
        assert await taker.next() == ("j1", 1)
        pipe.multi()
        pipe.psetex("uvian:arq:in-progress:j1:1", 60_000, b"1")
        with pytest.raises(Exception, match="Watched variable changed"):
            await pipe.execute()


async def test_draining_takes_nothing(dispatcher: Dispatcher, taker: Taker) -> None:
    """After ``drain`` the queue is left to others; ``resume`` takes it back."""
    await dispatcher.dispatch([dispatch_of("j1")])
    taker.pause()
    assert await taker.next() is None
    assert (await dispatcher.depth()).queued == 1
    taker.resume()
    assert await taker.next() == ("j1", 1)


async def test_without_redis_jobs_in_hand_go_on(
    taker: Taker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What arq has picked is run, Postgres being the fence; more is not to be had."""

    async def away(*_: object) -> None:
        raise ConnectionError("away")

    monkeypatch.setattr("uvian_worker.queue.taker.run_script", away)
    assert await taker.enter("j1", 1)
    assert await taker.next() is None
