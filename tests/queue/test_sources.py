"""Where the runs of a worker come from: what every ``WorkSource`` promises, on each of them."""

from __future__ import annotations

import pytest

from tests.queue.jobs import RunningWorker, dispatch_of, soon
from tests.redis_servers import Backend, eventually
from uvian_worker.queue.arq_adapter.source import ArqWorkSource
from uvian_worker.queue.dispatch import CLAIM_SECONDS, Dispatcher
from uvian_worker.queue.taker import Taker
from uvian_worker.queue.work_source import WorkSource
from uvian_worker.redis.keys import Keys

KEYS = Keys("uvian")


@pytest.fixture(params=["taker", "arq"])
def source(request: pytest.FixtureRequest, backend: Backend) -> WorkSource:
    """A source of work on the queue of the backend."""
    if request.param == "arq":
        return ArqWorkSource(backend.arq_client(), backend.client(), "uvian")
    return Taker(backend.client(), "uvian")


@pytest.fixture
def dispatcher(backend: Backend) -> Dispatcher:
    """Fills the queue."""
    dispatcher = Dispatcher(backend.client(), "uvian")
    backend.defer(dispatcher.close)
    return dispatcher


async def test_it_hands_out_what_is_due_once(source: WorkSource, dispatcher: Dispatcher) -> None:
    """Each due run goes to one loop; a run that is not due waits."""
    await dispatcher.dispatch([dispatch_of("a"), dispatch_of("b", run_at=soon(60))])
    assert await source.next() == ("a", 1)
    assert await source.next() is None
    await source.close()


async def test_paused_it_hands_out_nothing(source: WorkSource, dispatcher: Dispatcher) -> None:
    """After ``pause`` the queue stays as it is; ``resume`` takes the pause back."""
    await dispatcher.dispatch([dispatch_of("a")])
    source.pause()
    assert await source.next() is None
    source.resume()
    assert await source.next() == ("a", 1)
    await source.close()


async def test_an_answered_claim_needs_no_watching(
    source: WorkSource, dispatcher: Dispatcher, backend: Backend
) -> None:
    """The run stands in the claiming set until then, at the latest until the source is closed."""
    await dispatcher.dispatch([dispatch_of("a")])
    assert await source.next() == ("a", 1)
    client = backend.client()
    assert await client.zcard(KEYS.claiming) == 1
    assert CLAIM_SECONDS > 0
    source.claim_answered("a", 1)
    await source.close()
    await source.close()
    assert await client.zcard(KEYS.claiming) == 0


async def test_with_nothing_running_it_has_finished(source: WorkSource) -> None:
    """A worker that is idle is not held up by its source."""
    assert await source.finished()
    await source.close()


async def test_what_arq_has_picked_is_handed_out_before_the_drain_goes_on(
    backend: Backend, dispatcher: Dispatcher
) -> None:
    """After ``handed_out`` every run that arq had picked has reached a loop."""
    pool = backend.arq_client()
    source = ArqWorkSource(pool, backend.client(), "uvian")
    started: list[tuple[str, int]] = []

    async def run(job_id: str, number: int) -> None:
        if (following := await source.picked(job_id, number)) is not None:
            started.append(following)

    worker = RunningWorker(pool, run)
    await eventually(lambda: pool.reader.is_waiting)
    await dispatcher.dispatch([dispatch_of(f"p{number}") for number in range(5)])
    await eventually(lambda: started)
    source.pause()
    await source.handed_out()
    assert await source.finished()
    before = len(started)
    await dispatcher.dispatch([dispatch_of("later")])
    assert await source.next() is None
    assert len(started) == before
    await source.close()
    await worker.close()
