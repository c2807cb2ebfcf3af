"""Micro-batching: many items in one call, and the guilty one alone with its error."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from repositories import errors
from repositories.lanes import Lane


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries follow each other at once; one turn of the loop is still given."""
    real = asyncio.sleep

    async def sleep(_seconds: float) -> None:
        await real(0)

    monkeypatch.setattr("repositories.lanes.asyncio.sleep", sleep)


class Recorder:
    """A call that answers each item with itself, unless told otherwise; it keeps the batches."""

    def __init__(self) -> None:
        self.batches: list[list[dict[str, Any]]] = []
        self.behaviour: Callable[[list[dict[str, Any]]], Awaitable[None]] | None = None

    async def __call__(self, items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        self.batches.append(list(items))
        if self.behaviour is not None:
            await self.behaviour(list(items))
        return [{"answer": item["n"]} for item in items]

    @property
    def sizes(self) -> list[int]:
        return [len(batch) for batch in self.batches]


@pytest.fixture
def recorder() -> Recorder:
    """What the lane calls."""
    return Recorder()


@pytest.fixture
def lane(recorder: Recorder) -> Lane:
    """A lane."""
    return Lane("test", recorder)


async def all_of(lane: Lane, numbers: Sequence[int]) -> list[Any]:
    """What submitting these at the same moment comes to, errors included."""
    return await asyncio.gather(*(lane.submit({"n": n}) for n in numbers), return_exceptions=True)


async def test_what_is_ready_at_the_same_moment_shares_a_call(
    lane: Lane, recorder: Recorder
) -> None:
    """Each item is answered with its own, in whatever batch it was."""
    assert await all_of(lane, range(10)) == [{"answer": n} for n in range(10)]
    assert recorder.sizes == [10]


async def test_while_a_call_is_in_flight_the_next_collects(lane: Lane, recorder: Recorder) -> None:
    """One call at a time: under load batches grow, without load nobody waits."""
    flying, land = asyncio.Event(), asyncio.Event()

    async def slow(_items: list[dict[str, Any]]) -> None:
        flying.set()
        await land.wait()

    recorder.behaviour = slow
    first = asyncio.create_task(lane.submit({"n": 0}))
    await flying.wait()
    rest = asyncio.create_task(all_of(lane, range(1, 6)))
    await asyncio.sleep(0)
    land.set()
    await asyncio.gather(first, rest)
    assert recorder.sizes == [1, 5]


async def test_a_batch_has_a_limit_of_items(recorder: Recorder) -> None:
    """Beyond it the next call follows, in the order of submission."""
    lane = Lane("test", recorder, max_items=4)
    await all_of(lane, range(10))
    assert recorder.sizes == [4, 4, 2]
    assert [item["n"] for batch in recorder.batches for item in batch] == list(range(10))


async def test_a_batch_has_a_limit_of_bytes(lane: Lane, recorder: Recorder) -> None:
    """Large outputs travel in several calls; one that is larger than the limit travels alone."""
    big, huge = "x" * 400_000, "x" * 1_500_000
    texts = [big, big, big, huge, "x"]
    await asyncio.gather(*(lane.submit({"n": n, "text": text}) for n, text in enumerate(texts)))
    assert recorder.sizes == [2, 1, 1, 1]


@pytest.mark.parametrize(
    "error",
    [
        errors.DataError("x"),
        errors.StatementTooSlow("x"),
        errors.Refused("no"),
        errors.Conflict("x"),
        errors.Permanent("XX000: invalid memory alloc request size"),
        errors.NotFound("x"),
    ],
)
async def test_the_guilty_item_stands_alone(
    lane: Lane, recorder: Recorder, error: Exception
) -> None:
    """A value that Postgres refuses fails its own job, not the 199 beside it."""

    async def refuse_5(items: list[dict[str, Any]]) -> None:
        if any(item["n"] == 5 for item in items):
            raise error

    recorder.behaviour = refuse_5
    answers = await all_of(lane, range(8))
    assert answers[5] is error
    assert [a for n, a in enumerate(answers) if n != 5] == [
        {"answer": n} for n in range(8) if n != 5
    ]
    assert recorder.sizes == [8, 4, 4, 2, 1, 1, 2]


async def test_what_is_no_items_fault_is_not_asked_again_for_each(
    lane: Lane, recorder: Recorder
) -> None:
    """A password that was changed: 200 items are not 399 calls, and what is done waits for the new one."""
    refusals = iter(range(12))

    async def refuse(_items: list[dict[str, Any]]) -> None:
        if next(refusals, None) is not None:
            raise errors.NotGranted("password authentication failed")

    recorder.behaviour = refuse
    assert await all_of(lane, range(8)) == [{"answer": n} for n in range(8)]
    assert recorder.sizes == [8] * 13


async def test_a_batch_that_takes_too_long_is_halved(lane: Lane, recorder: Recorder) -> None:
    """One locked row must not hold up its batch; alone, it is tried until it comes through."""
    refusals = iter(range(6))

    async def slow_5(items: list[dict[str, Any]]) -> None:
        if any(item["n"] == 5 for item in items) and next(refusals, None) is not None:
            raise errors.TimedOut("locked")

    recorder.behaviour = slow_5
    assert await all_of(lane, range(8)) == [{"answer": n} for n in range(8)]
    assert recorder.sizes == [8, 4, 4, 2, 1, 1, 1, 1, 1, 2]


async def test_a_transient_fault_is_tried_again_until_it_passes(
    lane: Lane, recorder: Recorder
) -> None:
    """Postgres restarts; a job that is done must not be lost for it. The same items go again."""
    faults = iter(range(20))

    async def away(_items: list[dict[str, Any]]) -> None:
        if next(faults, None) is not None:
            raise errors.Unavailable("starting up")

    recorder.behaviour = away
    assert await all_of(lane, range(3)) == [{"answer": n} for n in range(3)]
    assert recorder.sizes == [3] * 21


async def test_a_reply_that_was_lost_is_asked_for_again(lane: Lane, recorder: Recorder) -> None:
    """The call happened, its answer did not arrive: the functions are idempotent, so it is repeated."""
    done: list[int] = []

    async def lose_the_first(items: list[dict[str, Any]]) -> None:
        done.extend(item["n"] for item in items)
        if len(done) == 1:
            raise errors.TimedOut("no answer")

    recorder.behaviour = lose_the_first
    assert await all_of(lane, [7]) == [{"answer": 7}]
    assert done == [7, 7]


async def test_what_nobody_has_set_right_reaches_everybody_at_the_end(
    lane: Lane, recorder: Recorder
) -> None:
    """A missing grant concerns the whole batch: nothing is halved, and a process that ends does not wait."""

    async def missing(_items: list[dict[str, Any]]) -> None:
        raise errors.NotGranted("no")

    recorder.behaviour = missing
    asked = asyncio.ensure_future(all_of(lane, range(4)))
    while not recorder.sizes:
        await asyncio.sleep(0)
    await lane.close()
    assert all(isinstance(answer, errors.NotGranted) for answer in await asked)
    assert set(recorder.sizes) == {4}


async def test_a_bug_in_the_call_reaches_everybody_and_the_lane_lives(
    lane: Lane, recorder: Recorder
) -> None:
    """An answer too few is nobody's answer; the next items are served."""

    async def short(items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        return [dict(item) for item in items][1:]

    broken = Lane("test", short)
    assert all(isinstance(answer, ValueError) for answer in await all_of(broken, range(2)))
    assert all(isinstance(answer, ValueError) for answer in await all_of(broken, range(2)))


@pytest.mark.parametrize("value", [{1, 2}, "\ud800", object()])
async def test_what_is_not_json_fails_its_caller_alone(
    lane: Lane, recorder: Recorder, value: Any
) -> None:
    """An output that cannot be written must not stop the lane for all jobs after it."""
    with pytest.raises(errors.DataError):
        await lane.submit({"n": 0, "output": value})
    assert await all_of(lane, [1]) == [{"answer": 1}]


async def test_who_was_cancelled_is_left_out(lane: Lane, recorder: Recorder) -> None:
    """And takes nobody with him."""
    tasks = [asyncio.create_task(lane.submit({"n": n})) for n in range(3)]
    tasks[1].cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(answers[1], asyncio.CancelledError)
    assert recorder.batches == [[{"n": 0}, {"n": 2}]]


async def test_who_is_cancelled_in_flight_does_not_break_the_rest(
    lane: Lane, recorder: Recorder
) -> None:
    """The call goes on for the others."""
    flying, land = asyncio.Event(), asyncio.Event()

    async def slow(_items: list[dict[str, Any]]) -> None:
        flying.set()
        await land.wait()

    recorder.behaviour = slow
    tasks = [asyncio.create_task(lane.submit({"n": n})) for n in range(3)]
    await flying.wait()
    tasks[0].cancel()
    land.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert answers[1:] == [{"answer": 1}, {"answer": 2}]


async def test_closing_sends_what_waits(lane: Lane, recorder: Recorder) -> None:
    """Nobody's settlement is dropped; afterwards nothing is taken in. Closing twice is fine."""
    waiting = [asyncio.create_task(lane.submit({"n": n})) for n in range(3)]
    await asyncio.sleep(0)
    await lane.close()
    assert await asyncio.gather(*waiting) == [{"answer": n} for n in range(3)]
    await lane.close()
    with pytest.raises(errors.Unavailable):
        await lane.submit({"n": 1})


async def test_closing_does_not_wait_for_ever(lane: Lane, recorder: Recorder) -> None:
    """With Postgres away the process ends all the same; the sweep has the rest."""

    async def away(_items: list[dict[str, Any]]) -> None:
        raise errors.Unavailable("away")

    recorder.behaviour = away
    waiting = [asyncio.create_task(lane.submit({"n": n})) for n in range(2)]
    await asyncio.sleep(0)
    await lane.close()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(answer, errors.Unavailable) for answer in answers)
    assert recorder.sizes == [2] * 4


async def test_an_unused_lane_closes(lane: Lane) -> None:
    """Also one that never sent anything."""
    await lane.close()
