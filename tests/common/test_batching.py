"""Micro-batching: many items in one call, in order; the item at fault alone gets its error.

The policy of most tests is that of the database's functions. The event log's is tried in
``tests/events``, with Redis.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from repositories import errors
from repositories.batching import batcher
from repositories.database import Row
from uvian_common.batching import Batcher, BatcherClosed, Fifo, Verdict


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries follow each other at once; one turn of the loop is still given."""
    real = asyncio.sleep

    async def sleep(_seconds: float) -> None:
        await real(0)

    monkeypatch.setattr("uvian_common.batching.asyncio.sleep", sleep)


class Recorder:
    """A call that answers each item with itself, unless a test says otherwise; it records the batches."""

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
    """What the batcher calls."""
    return Recorder()


@pytest.fixture
def rows(recorder: Recorder) -> Batcher[Row, Row]:
    """A batcher for a function of the schema."""
    return batcher("test", recorder)


async def all_of(rows: Batcher[Row, Row], numbers: Sequence[int]) -> list[Any]:
    """What submitting these at the same moment comes to, errors included."""
    return await asyncio.gather(*(rows.submit({"n": n}) for n in numbers), return_exceptions=True)


async def test_what_is_ready_at_the_same_moment_shares_a_call(
    rows: Batcher[Row, Row], recorder: Recorder
) -> None:
    """Each item is answered with its own, in whatever batch it was."""
    assert await all_of(rows, range(10)) == [{"answer": n} for n in range(10)]
    assert recorder.sizes == [10]


async def test_while_a_call_is_in_flight_the_next_collects(
    rows: Batcher[Row, Row], recorder: Recorder
) -> None:
    """One call at a time: under load batches grow, without load nobody waits."""
    flying, land = asyncio.Event(), asyncio.Event()

    async def slow(_items: list[dict[str, Any]]) -> None:
        flying.set()
        await land.wait()

    recorder.behaviour = slow
    first = asyncio.ensure_future(rows.submit({"n": 0}))
    await flying.wait()
    rest = asyncio.create_task(all_of(rows, range(1, 6)))
    await asyncio.sleep(0)
    land.set()
    await asyncio.gather(first, rest)
    assert recorder.sizes == [1, 5]


async def test_a_batch_has_a_limit_of_items(recorder: Recorder) -> None:
    """Beyond it the next call follows, in the order of submission."""
    rows = batcher("test", recorder, max_items=4)
    await all_of(rows, range(10))
    assert recorder.sizes == [4, 4, 2]
    assert [item["n"] for batch in recorder.batches for item in batch] == list(range(10))


async def test_a_batch_has_a_limit_of_bytes(rows: Batcher[Row, Row], recorder: Recorder) -> None:
    """Large outputs travel in several calls; one that is larger than the limit travels alone."""
    big, huge = "x" * 400_000, "x" * 1_500_000
    texts = [big, big, big, huge, "x"]
    await asyncio.gather(*(rows.submit({"n": n, "text": text}) for n, text in enumerate(texts)))
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
async def test_the_item_at_fault_stands_alone(
    rows: Batcher[Row, Row], recorder: Recorder, error: Exception
) -> None:
    """A value that Postgres refuses fails its own job, not the 199 beside it."""

    async def refuse_5(items: list[dict[str, Any]]) -> None:
        if any(item["n"] == 5 for item in items):
            raise error

    recorder.behaviour = refuse_5
    answers = await all_of(rows, range(8))
    assert answers[5] is error
    assert [a for n, a in enumerate(answers) if n != 5] == [
        {"answer": n} for n in range(8) if n != 5
    ]
    assert recorder.sizes == [8, 4, 4, 2, 1, 1, 2]


async def test_what_is_no_items_fault_is_not_called_again_for_each(
    rows: Batcher[Row, Row], recorder: Recorder
) -> None:
    """A password that was changed: 200 items are not 399 calls, and what is done waits for the new one."""
    refusals = iter(range(12))

    async def refuse(_items: list[dict[str, Any]]) -> None:
        if next(refusals, None) is not None:
            raise errors.NotGranted("password authentication failed")

    recorder.behaviour = refuse
    assert await all_of(rows, range(8)) == [{"answer": n} for n in range(8)]
    assert recorder.sizes == [8] * 13


async def test_a_batch_that_takes_too_long_is_halved(
    rows: Batcher[Row, Row], recorder: Recorder
) -> None:
    """One locked row must not hold up its batch; alone, it is tried until it comes through."""
    refusals = iter(range(6))

    async def slow_5(items: list[dict[str, Any]]) -> None:
        if any(item["n"] == 5 for item in items) and next(refusals, None) is not None:
            raise errors.TimedOut("locked")

    recorder.behaviour = slow_5
    assert await all_of(rows, range(8)) == [{"answer": n} for n in range(8)]
    assert recorder.sizes == [8, 4, 4, 2, 1, 1, 1, 1, 1, 2]


async def test_a_transient_fault_is_tried_again_until_it_passes(
    rows: Batcher[Row, Row], recorder: Recorder
) -> None:
    """Postgres restarts; a job that is done must not be lost for it. The same items go again."""
    faults = iter(range(20))

    async def away(_items: list[dict[str, Any]]) -> None:
        if next(faults, None) is not None:
            raise errors.Unavailable("starting up")

    recorder.behaviour = away
    assert await all_of(rows, range(3)) == [{"answer": n} for n in range(3)]
    assert recorder.sizes == [3] * 21


async def test_a_reply_that_was_lost_is_requested_again(
    rows: Batcher[Row, Row], recorder: Recorder
) -> None:
    """The call happened, its answer did not arrive: the functions are idempotent, so it is repeated."""
    done: list[int] = []

    async def lose_the_first(items: list[dict[str, Any]]) -> None:
        done.extend(item["n"] for item in items)
        if len(done) == 1:
            raise errors.TimedOut("no answer")

    recorder.behaviour = lose_the_first
    assert await all_of(rows, [7]) == [{"answer": 7}]
    assert done == [7, 7]


async def test_what_nobody_has_set_right_reaches_everybody_at_the_end(
    rows: Batcher[Row, Row], recorder: Recorder
) -> None:
    """A missing grant concerns the whole batch: nothing is halved, and a process that ends does not wait."""

    async def missing(_items: list[dict[str, Any]]) -> None:
        raise errors.NotGranted("no")

    recorder.behaviour = missing
    requested = asyncio.ensure_future(all_of(rows, range(4)))
    while not recorder.sizes:
        await asyncio.sleep(0)
    await rows.close()
    assert all(isinstance(answer, errors.NotGranted) for answer in await requested)
    assert set(recorder.sizes) == {4}


async def test_a_bug_in_the_call_reaches_everybody_and_the_batcher_lives(
    rows: Batcher[Row, Row], recorder: Recorder
) -> None:
    """An answer too few is nobody's answer; the next items are served."""

    async def short(items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        return [dict(item) for item in items][1:]

    broken = batcher("test", short)
    assert all(isinstance(answer, ValueError) for answer in await all_of(broken, range(2)))
    assert all(isinstance(answer, ValueError) for answer in await all_of(broken, range(2)))


@pytest.mark.parametrize("value", [{1, 2}, "\ud800", object()])
async def test_what_is_not_json_fails_its_caller_alone(
    rows: Batcher[Row, Row], recorder: Recorder, value: Any
) -> None:
    """An output that cannot be written must not stop the batcher for all jobs after it."""
    with pytest.raises(errors.DataError):
        await rows.submit({"n": 0, "output": value})
    assert await all_of(rows, [1]) == [{"answer": 1}]


async def test_who_was_cancelled_is_left_out(rows: Batcher[Row, Row], recorder: Recorder) -> None:
    """And takes nobody with him."""
    tasks = [asyncio.ensure_future(rows.submit({"n": n})) for n in range(3)]
    tasks[1].cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(answers[1], asyncio.CancelledError)
    assert recorder.batches == [[{"n": 0}, {"n": 2}]]


async def test_who_is_cancelled_in_flight_does_not_break_the_rest(
    rows: Batcher[Row, Row], recorder: Recorder
) -> None:
    """The call goes on for the others."""
    flying, land = asyncio.Event(), asyncio.Event()

    async def slow(_items: list[dict[str, Any]]) -> None:
        flying.set()
        await land.wait()

    recorder.behaviour = slow
    tasks = [asyncio.ensure_future(rows.submit({"n": n})) for n in range(3)]
    await flying.wait()
    tasks[0].cancel()
    land.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert answers[1:] == [{"answer": 1}, {"answer": 2}]


async def test_closing_sends_what_waits(rows: Batcher[Row, Row], recorder: Recorder) -> None:
    """Nobody's settlement is dropped; afterwards nothing is taken in. Closing twice is fine."""
    waiting = [asyncio.ensure_future(rows.submit({"n": n})) for n in range(3)]
    await asyncio.sleep(0)
    await rows.close()
    assert await asyncio.gather(*waiting) == [{"answer": n} for n in range(3)]
    await rows.close()
    with pytest.raises(errors.Unavailable):
        await rows.submit({"n": 1})


async def test_closing_does_not_wait_for_ever(rows: Batcher[Row, Row], recorder: Recorder) -> None:
    """With Postgres away the process ends all the same; the sweep has the rest."""

    async def away(_items: list[dict[str, Any]]) -> None:
        raise errors.Unavailable("away")

    recorder.behaviour = away
    waiting = [asyncio.ensure_future(rows.submit({"n": n})) for n in range(2)]
    await asyncio.sleep(0)
    await rows.close()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(answer, errors.Unavailable) for answer in answers)
    assert recorder.sizes == [2] * 4


async def test_an_unused_batcher_closes(rows: Batcher[Row, Row]) -> None:
    """Also one that never sent anything."""
    await rows.close()


class Sender:
    """A call that waits until it is let through; it fails for the number 13."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.open = asyncio.Event()

    async def __call__(self, items: list[int]) -> list[str]:
        self.batches.append(items)
        await self.open.wait()
        if 13 in items:
            raise ValueError("13")
        return [str(item) for item in items]


def batcher_of(sender: Sender, limit: int = 100) -> Batcher[int, str]:
    """A batcher whose futures never carry an exception."""
    return Batcher(sender, Fifo(limit), name="test", fallback=lambda: "lost")


async def until_sent(sender: Sender) -> None:
    """Wait until the first call is in flight."""
    while not sender.batches:
        await asyncio.sleep(0)


async def test_with_a_fallback_an_error_loses_its_batch_and_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Such futures never carry exceptions; the log does."""
    sender = Sender()
    sender.open.set()
    with caplog.at_level(logging.ERROR):
        strings = batcher_of(sender, limit=2)
        answers = await asyncio.gather(*[strings.submit(number) for number in (1, 13, 2, 3)])
    assert answers == ["lost", "lost", "2", "3"]
    assert "ValueError: 13" in caplog.text


async def test_the_next_batch_is_sent_before_the_answers_of_the_last_are_seen() -> None:
    """Redis works while the callers take their answers: under load a turn of the loop is long."""
    order: list[str] = []

    async def send(items: list[int]) -> list[str]:
        order.append(f"send {items}")
        return [str(item) for item in items]

    strings: Batcher[int, str] = Batcher(send, Fifo(1), name="test")
    futures = [strings.submit(1), strings.submit(2)]
    futures[0].add_done_callback(lambda _: order.append("seen 1"))
    await asyncio.wait(futures)
    assert order == ["send [1]", "send [2]", "seen 1"]


async def test_flush_waits_for_what_was_submitted_before_it() -> None:
    """… and not for what comes later, or it would never end under load."""
    sender = Sender()
    strings = batcher_of(sender)
    first = strings.submit(1)
    flushing = asyncio.create_task(strings.flush())
    await until_sent(sender)
    assert strings.waiting == 1
    sender.open.set()
    await flushing
    assert first.done()
    await strings.flush()


async def test_closing_without_patience_loses_what_is_not_answered() -> None:
    """In flight, waiting and late: every future has an answer. Closing twice is fine."""
    sender = Sender()
    strings = batcher_of(sender, limit=1)
    futures = [strings.submit(1), strings.submit(2)]
    await until_sent(sender)
    await strings.close(0)
    assert await asyncio.gather(*futures, strings.submit(3)) == ["lost"] * 3
    await strings.close(0)


async def test_without_a_fallback_what_was_not_answered_gets_an_error() -> None:
    """Nobody waits for ever for a batcher that is closed."""
    sender = Sender()
    strings: Batcher[int, str] = Batcher(sender, Fifo(1), name="test")
    futures = [strings.submit(1), strings.submit(2)]
    await until_sent(sender)
    await strings.close(0)
    answers = await asyncio.gather(*futures, strings.submit(3), return_exceptions=True)
    assert [type(answer) for answer in answers] == [BatcherClosed] * 3


async def test_an_item_whose_caller_is_gone_is_sent_all_the_same() -> None:
    """An event is appended whoever waits for its answer; its neighbours get theirs."""
    sender = Sender()
    strings = batcher_of(sender)
    gone, there = strings.submit(1), strings.submit(2)
    gone.cancel()
    sender.open.set()
    assert await there == "2"
    assert sender.batches == [[1, 2]]
    await strings.close(1)


async def test_a_repeated_answer_passes_through_repeated() -> None:
    """After a lost reply "it is there already" means that we have done it ourselves."""
    seen: list[int] = []

    async def once(items: list[int]) -> list[str]:
        answers = ["there" if item in seen else "new" for item in items]
        seen.extend(items)
        if len(seen) == len(items):
            raise errors.Unavailable("the reply is lost")
        return answers

    strings: Batcher[int, str] = Batcher(
        once,
        Fifo(9),
        name="test",
        policy=lambda _: Verdict.RETRY,
        repeated=lambda answer: {"there": "new"}.get(answer, answer),
    )
    assert [*await asyncio.gather(strings.submit(1), strings.submit(2))] == ["new", "new"]
    assert await strings.submit(1) == "there"
