"""Pieces of RunPod's streams in whatever order they come."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from executors.providers.runpod.outputs import Order, text_in


@given(st.permutations(range(8)), st.lists(st.integers(0, 7)), st.integers(1, 8))
def test_counted_pieces_in_whatever_order(
    order: list[int], again: list[int], together: int
) -> None:
    """In any order, some of them again, however many come together: the text is the text."""

    def piece(number: int) -> dict[str, Any]:
        usage = {"input": 1, "output": number + 1}
        return {"output": {"choices": [{"tokens": [f"{number} "]}], "usage": usage}}

    stream = [piece(number) for number in [*order, *again]]
    taking = Order()
    text = ""
    for begin in range(0, len(stream), together):
        text += "".join(map(text_in, taking.take(stream[begin : begin + together])))
    assert text == "0 1 2 3 4 5 6 7 "
    assert not taking.has_gap


@given(
    st.lists(st.lists(st.integers(0, 5), min_size=1, unique=True).flatmap(st.permutations)),
    st.integers(1, 3),
)
def test_numbered_pieces_with_gaps(looks: list[list[int]], step: int) -> None:
    """In any order within a look, whatever is repeated, and whichever numbers are left out."""
    taking = Order()
    text = ""
    for look, numbers in enumerate(looks):
        items = [
            {"output": {"text": f"{n} "}, "metrics": {"stream_index": n}}
            for n in [step * (6 * look + number) for number in [*numbers, *numbers]]
        ]
        text += "".join(map(text_in, taking.take(items)))
    assert not taking.is_broken
    told = [int(number) for number in text.split()]
    assert told == sorted(set(told))
    assert len(told) == sum(map(len, looks))


def test_a_worker_that_counts_each_piece_alone() -> None:
    """Counts that do not add up are no places: nothing is lost for them."""
    usage = {"input": 1, "output": 2}
    items = [{"output": {"choices": [{"tokens": [a, b]}], "usage": usage}} for a, b in ("ab", "cd")]
    taking = Order()
    text = "".join(text_in(output) for item in items for output in taking.take([item]))
    assert text == "abcd"
