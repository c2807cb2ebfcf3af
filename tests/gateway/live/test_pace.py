"""How fast a client may speak, how many sockets there may be, and what waits for one."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.gateway.live.events import event
from uvian_worker.gateway.http.auth import User
from uvian_worker.gateway.http.problems import Problem
from uvian_worker.gateway.live import outbox as outboxes
from uvian_worker.gateway.live import session as sessions
from uvian_worker.gateway.live.outbox import Outbox, PublishedEvent
from uvian_worker.gateway.live.pace import Pace
from uvian_worker.gateway.live.session import Close, Rules, Session
from uvian_worker.gateway.live.slots import Slots


async def test_a_burst_passes_and_then_frames_come_at_their_pace() -> None:
    """A client that comes back asks for all of its topics; then it is quiet."""
    pace = Pace(per_second=200, burst=100)
    began = time.monotonic()
    for _ in range(100):
        assert await pace.turn()
    assert time.monotonic() - began < 0.2
    for _ in range(40):
        assert await pace.turn()
    assert time.monotonic() - began > 0.15


async def test_who_does_not_stop_is_cut_off_and_who_pauses_is_not() -> None:
    """Patience is for a time, and a pause wins it back."""
    pace = Pace(per_second=200, burst=10, patience=0.2)
    began = time.monotonic()
    while await pace.turn():
        assert time.monotonic() - began < 5
    assert time.monotonic() - began >= 0.2
    await asyncio.sleep(0.1)
    assert await pace.turn()


def test_slots_are_counted_per_user_and_per_address_and_given_back() -> None:
    """Also when what took one failed; an address that nobody knows is not counted."""
    slots = Slots(per_user=2, per_address=3)
    with slots.taken("a", "1"), slots.taken("a", "1"):
        with pytest.raises(Problem, match="of one user") as full, slots.taken("a", "2"):
            pass
        assert (full.value.kind.status, full.value.code) == (429, "too_many_sockets")
        with slots.taken("b", "1"), pytest.raises(Problem, match="address"):
            slots.taken("c", "1").__enter__()
        with slots.taken("c", None), slots.taken("d", None):
            pass
    with pytest.raises(ValueError, match="x"), slots.taken("a", "1"):
        raise ValueError("x")
    assert not slots._taken  # nothing is left behind


async def test_who_reads_nothing_is_not_answered_for_ever() -> None:
    """However small the answers: beyond some bytes the next question waits until they are taken."""
    nothing = Rules(None, None, None, None, None)  # type: ignore[arg-type] # a ping asks none
    session = Session(User("u", 1e12), nothing)

    async def flood() -> None:
        while True:
            await session.receive(b'{"op":"ping"}')

    flooding = asyncio.create_task(flood())
    await asyncio.wait([flooding], timeout=0.5)
    assert not flooding.done()
    assert session.outbox.size < 300_000
    assert session.outbox.waiting < 3_000
    before = session.outbox.waiting
    for _ in range(before // 2):
        await session.outbox.take()
    await asyncio.sleep(0.05)
    assert session.outbox.size < 300_000  # it was filled again, to where it was
    flooding.cancel()


async def test_who_never_hears_is_told_good_bye(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for all: no frame of it is waited with any more."""
    monkeypatch.setattr(sessions, "_DEAF_SECONDS", 0.1)
    nothing = Rules(None, None, None, None, None)  # type: ignore[arg-type] # a ping asks none
    session = Session(User("u", 1e12), nothing)
    answers = [await session.receive(b'{"op":"ping"}') for _ in range(5_000)]
    assert answers[0] is None
    assert answers[-1] is Close.SLOW
    assert session.outbox.size < 300_000


async def test_the_answers_to_one_topic_replace_each_other() -> None:
    """Who subscribes again and again has one answer waiting, not all of them."""
    outbox = Outbox()
    for n in range(1_000):
        outbox.answer("job:x", [{"op": "subscribed", "n": n, "text": "x" * 10_000}])
    assert outbox.waiting == 1
    assert outbox.size < 11_000
    assert len(outbox._queue) < 200
    assert b'"n":999' in await outbox.take()
    assert outbox.size == 0


async def test_progress_that_nobody_reads_leaves_no_trace() -> None:
    """Neither its bytes nor its place in the queue."""
    outbox = Outbox()
    for n in range(5_000):
        outbox.put_event(
            PublishedEvent(event(n + 1, "job.progress", fraction=n / 5_000, message="x" * 100))
        )
    assert outbox.waiting == 1
    assert len(outbox._queue) < 200


async def test_all_topics_together_have_an_end() -> None:
    """Each within its own share: then topics are given up, and what still grows is the socket's end."""
    outbox, taken = Outbox(), 0
    for n in range(200):
        document = PublishedEvent(event(n + 1, topic=f"job:{n}", label="x" * 50_000))
        if outbox.put_event(document):
            taken += 1
        else:
            outbox.give_up(f"job:{n}")
    assert 10 < taken < 60
    assert outbox.size <= outboxes.MOST_BYTES
    assert not outbox.overflowed.is_set()
    for n in range(200):
        outbox.answer(f"job:{n}", [{"op": "subscribed", "text": "x" * 50_000}])
    assert outbox.overflowed.is_set()
