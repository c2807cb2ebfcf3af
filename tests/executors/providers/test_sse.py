"""Server-sent events, however the bytes were cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executors.providers.transport.sse import EventStream, ServerEvent, TooLargeError

STREAM = (
    "\ufeff: a comment\r\n"
    "event: note\n"
    "data: one\n"
    "data:two\r"
    "data\n"
    "id: 7\n"
    "retry: 3\n"
    "\n"
    "\r\n"
    "data: 🦊 grüßt — 日本\r\r"
    ": keep-alive\n\n"
    "unknown: field\n"
    "data:  two spaces\n\n"
    "data: no blank line at the end\n"
).encode()
EVENTS = [
    ServerEvent("one\ntwo\n", "note"),
    ServerEvent("🦊 grüßt — 日本"),
    ServerEvent(" two spaces"),
    ServerEvent("no blank line at the end"),
]


def heard(pieces: list[bytes]) -> list[ServerEvent]:
    """All events of these pieces."""
    stream = EventStream()
    return [event for piece in pieces for event in stream.feed(piece)] + stream.end()


@given(st.lists(st.integers(0, len(STREAM)), max_size=len(STREAM)))
def test_the_cuts_do_not_matter(places: list[int]) -> None:
    """Every way to cut the same bytes gives the same events, within a character as well."""
    edges = [0, *sorted(places), len(STREAM)]
    assert heard([STREAM[a:b] for a, b in itertools.pairwise(edges)]) == EVENTS


def test_byte_by_byte() -> None:
    """The finest cut of all."""
    assert heard([STREAM[i : i + 1] for i in range(len(STREAM))]) == EVENTS


def test_an_event_is_passed_on_with_its_blank_line() -> None:
    """Nobody waits for bytes that need not come: the blank line is enough, in every style."""
    for end in (b"\n\n", b"\r\r", b"\r\n\r\n"):
        assert EventStream().feed(b"data: now" + end) == [ServerEvent("now")]


@pytest.mark.parametrize(
    "pieces",
    [
        [b"data: " + b"x" * 600, b"x" * 600],
        [b"data: " + b"x" * 600 + b"\n", b"data: " + b"x" * 600 + b"\n"],
        [b"data:\n" * 2000],
        [b"x" * 2000],
    ],
)
def test_lines_and_events_are_bounded(pieces: list[bytes]) -> None:
    """A server that never ends a line, or an event, fills no memory."""
    stream = EventStream(largest=1000)

    def feed() -> None:
        for piece in pieces:
            stream.feed(piece)

    with pytest.raises(TooLargeError):
        feed()
