"""An answer while it is written: when it is told, and what happens when nobody listens."""

from __future__ import annotations

import asyncio
import gc
import itertools
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executors.errors import LeaseLost
from executors.events import (
    Appended,
    Event,
    MessageDelta,
    MessageReset,
    MessageSnapshot,
    MessageStarted,
)
from executors.stages.message_stream import MessageStream, Pace
from tests.redis_servers import eventually


class Log:
    """Hears events and answers when, and what, the test says."""

    def __init__(self) -> None:
        self.told: list[Event] = []
        self.open: list[asyncio.Future[Appended]] = []

    def emit(self, event: Event) -> asyncio.Future[Appended]:
        self.told.append(event)
        self.open.append(asyncio.get_running_loop().create_future())
        return self.open[-1]

    async def answer(self, answer: Appended = Appended.APPENDED) -> None:
        """Everything that waits for an answer gets this one."""
        answered, self.open = self.open, []
        for future in answered:
            future.set_result(answer)
        await asyncio.sleep(0)

    @property
    def texts(self) -> list[str]:
        """What was told, in order."""
        return [e.text for e in self.told if isinstance(e, MessageDelta | MessageSnapshot)]


def tick(pace: Pace) -> None:
    """20 ms have passed."""
    if pace._timer is not None:
        pace._timer.cancel()
        pace._beat()


class Written:
    """A stream with a clock that the test turns."""

    def __init__(self, *, limit: int = 1_000_000) -> None:
        self.log = Log()
        self.pace = Pace(tick=3600)
        self.stream = MessageStream(self.log.emit, self.pace, "m", limit=limit)

    def tick(self) -> None:
        tick(self.pace)

    @property
    def armed(self) -> bool:
        """Whether the clock runs."""
        return self.pace._timer is not None


async def test_the_first_piece_is_told_at_once_and_the_next_with_the_tick() -> None:
    """Nobody waits for the first word; what comes within 20 ms of it comes in one piece."""
    written = Written()
    written.stream.write("Hello")
    assert written.log.texts == ["Hello"]
    await written.log.answer()
    for piece in (", ", "wor", "ld"):
        written.stream.write(piece)
    assert written.log.texts == ["Hello"]
    written.tick()
    assert written.log.texts == ["Hello", ", world"]
    assert [e.offset for e in written.log.told if isinstance(e, MessageDelta)] == [0, 5]


async def test_after_a_pause_a_piece_is_told_at_once_again() -> None:
    """A stream that was quiet for a tick costs no clock, and does not wait for one."""
    written = Written()
    written.stream.write("a")
    await written.log.answer()
    written.tick()
    assert not written.armed
    written.stream.write("b")
    assert written.log.texts == ["a", "b"]


async def test_offsets_are_bytes() -> None:
    """Characters of two, three and four bytes count as the log counts them."""
    written = Written()
    for piece in ("ß", "漢", "😀", "!"):
        written.stream.write(piece)
        await written.log.answer()
        written.tick()
        written.tick()
    assert [e.offset for e in written.log.told if isinstance(e, MessageDelta)] == [0, 2, 5, 9]


async def test_one_piece_is_on_its_way_at_a_time() -> None:
    """While the log does not answer, text gathers, and follows in one piece."""
    written = Written()
    written.stream.write("a")
    for number in range(1000):
        written.stream.write(f" {number}")
        written.tick()
    assert len(written.log.told) == 1
    await written.log.answer()
    written.tick()
    assert "".join(written.log.texts) == written.stream.text
    assert len(written.log.told) == 2


class Crowd:
    """Streams that share one pace with little room, and one log."""

    def __init__(self, count: int, *, window: int) -> None:
        self.log, self.pace = Log(), Pace(tick=3600, window=window)
        self.streams = [MessageStream(self.log.emit, self.pace, str(n)) for n in range(count)]

    def write(self, text: str) -> None:
        for stream in self.streams:
            stream.write(text)

    def tick(self) -> None:
        tick(self.pace)

    def told(self) -> list[tuple[str, str]]:
        """Whose pieces were told since the last look, and what they say."""
        told = [(e.message_id, e.text) for e in self.log.told if isinstance(e, MessageDelta)]
        self.log.told.clear()
        return told


async def test_who_waits_for_room_says_all_that_came_until_its_turn() -> None:
    """A piece does not age in a queue: it is made when it can leave, and with what came meanwhile."""
    crowd = Crowd(5, window=2)
    crowd.write("a")
    await crowd.log.answer()
    crowd.told()
    crowd.write("b")
    crowd.tick()
    assert crowd.told() == [("0", "b"), ("1", "b")]
    crowd.write("c")
    await crowd.log.answer()
    assert crowd.told() == [("2", "bc"), ("3", "bc")]
    await crowd.log.answer()
    assert crowd.told() == [("4", "bc")]


async def test_streams_take_turns() -> None:
    """Those that were served stand behind those that were not, however often the clock ticks."""
    crowd = Crowd(5, window=1)
    crowd.write("a")
    await crowd.log.answer()
    crowd.told()
    turns = []
    for _ in range(15):
        crowd.write("b")
        crowd.tick()
        await crowd.log.answer()
        turns += [name for name, _ in crowd.told()]
    assert turns[:5] == ["0", "1", "2", "3", "4"]
    assert {name: turns[:15].count(name) for name in turns} == dict.fromkeys("01234", 3)


async def test_a_stream_that_ends_needs_no_room() -> None:
    """Its rest goes before the ending that follows it."""
    crowd = Crowd(3, window=1)
    crowd.write("a")
    crowd.told()
    crowd.write("b")
    crowd.streams[2].close()
    assert crowd.told() == [("2", "b")]
    for _ in range(5):
        crowd.tick()
        await crowd.log.answer()
    assert sorted(crowd.told()) == [("0", "b"), ("1", "b")]
    assert crowd.pace._in_flight == 0
    assert crowd.pace._timer is None


async def test_a_stream_that_ended_is_forgotten_though_it_stood_in_line() -> None:
    """While the log is away answers come and go: none of those that ended stays in memory."""
    crowd = Crowd(5, window=2)
    crowd.write("a")
    await crowd.log.answer()
    crowd.write("b")
    crowd.tick()
    on_their_way, crowd.log.open = crowd.log.open, []
    assert len(on_their_way) == 2
    ended = [weakref.ref(stream) for stream in crowd.streams[2:]]
    while len(crowd.streams) > 2:
        crowd.streams.pop().close()
    await crowd.log.answer(Appended.LOST)  # there were too many
    gc.collect()
    assert [stream() for stream in ended] == [None, None, None]


@pytest.mark.parametrize("answer", [Appended.MISMATCH, Appended.LOST])
async def test_what_the_log_has_lost_is_told_whole(answer: Appended) -> None:
    """After a flush the next thing told is a snapshot, though nothing more is written; then deltas."""
    written = Written()
    written.stream.write("Grüße")
    await written.log.answer(answer)
    written.tick()
    assert isinstance(written.log.told[-1], MessageSnapshot)
    assert written.log.texts[-1] == "Grüße"
    await written.log.answer()
    written.stream.write("!")
    written.tick()
    assert written.log.told[2:] == [MessageDelta(message_id="m", offset=7, text="!")]


async def test_a_snapshot_that_is_lost_is_told_again() -> None:
    """Until the log has the text nothing else is told."""
    written = Written()
    written.stream.write("a")
    for _ in range(3):
        await written.log.answer(Appended.LOST)
        written.stream.write("b")
        written.tick()
        assert isinstance(written.log.told[-1], MessageSnapshot)
    assert written.log.texts[-1] == "abbb"


@pytest.mark.parametrize("answer", [Appended.FENCED, Appended.SEALED])
async def test_a_zombie_stops_writing(answer: Appended) -> None:
    """When the log has heard of a later run, not one more token is paid for."""
    written = Written()
    written.stream.write("a")
    await written.log.answer(answer)
    with pytest.raises(LeaseLost):
        written.stream.write("b")
    written.stream.close()
    assert len(written.log.told) == 1


async def test_closing_tells_the_rest_once() -> None:
    """The last piece waits neither for a tick nor for an answer."""
    written = Written()
    written.stream.write("a")
    written.stream.write("b")
    written.stream.close()
    written.stream.close()
    assert written.log.texts == ["a", "b"]
    assert not written.stream.write("c")
    await written.log.answer()
    written.tick()
    written.tick()
    assert written.stream.text == "ab"
    assert not written.armed


async def test_closing_after_a_loss_tells_all_of_it() -> None:
    """If it is known that the log lost the text, the last thing told is the whole of it."""
    written = Written()
    written.stream.write("a")
    await written.log.answer(Appended.MISMATCH)
    written.stream.write("b")
    written.stream.close()
    assert written.log.told[-1] == MessageSnapshot(message_id="m", text="ab")


async def test_another_run_voids_what_was_told_first() -> None:
    """``message.reset`` comes before ``message.started``, and only where something may be void."""
    started = MessageStarted(message_id="m", conversation_id="c", reply_to="q")
    first, second = Written(), Written()
    first.stream.begin("c", "q", again=False)
    second.stream.begin("c", "q", again=True)
    assert first.log.told == [started]
    assert second.log.told == [MessageReset(message_id="m"), started]


async def test_a_million_bytes_are_enough() -> None:
    """An answer that does not end is cut at a whole character, told and counted so."""
    written = Written(limit=10)
    assert written.stream.write("12345678")
    assert not written.stream.write("😀")
    assert not written.stream.write("漢字")
    written.stream.close()
    assert written.stream.text == "12345678"
    exact = Written(limit=10)
    assert exact.stream.write("123456😀")
    assert not exact.stream.write("!")
    assert exact.stream.text == "123456😀"


@given(st.text(st.characters(), max_size=20), st.data())
def test_characters_may_be_split_anywhere(text: str, data: st.DataObject) -> None:
    """Pieces cut within surrogate pairs, as JSON escapes allow: the characters are whole again."""
    clean = (
        text.replace("\0", "").encode("utf-16-le", "surrogatepass").decode("utf-16-le", "ignore")
    )
    halves = clean.encode("utf-16-le")
    units = [
        halves[n : n + 2].decode("utf-16-le", "surrogatepass") for n in range(0, len(halves), 2)
    ]
    cuts = data.draw(st.lists(st.integers(0, len(units)), max_size=5).map(sorted))
    pieces = ["".join(units[a:b]) for a, b in itertools.pairwise([0, *cuts, len(units)])]

    async def write() -> tuple[str, str]:
        written = Written()
        for piece in pieces:
            written.stream.write(piece)
        written.stream.close()
        return written.stream.text, "".join(written.log.texts)

    assert asyncio.run(write()) == (clean, clean)


async def test_what_postgres_refuses_is_removed_before_it_is_told() -> None:
    """U+0000 and lone halves never reach a client, so that what is stored is what was seen."""
    written = Written()
    for piece in ("a\0b", "\ud83d", "c", "\udc00d", "\ud83d"):
        written.stream.write(piece)
    written.stream.close()
    assert written.stream.text == "".join(written.log.texts) == "abcd"


async def test_one_timer_serves_all_streams_and_rests_with_them() -> None:
    """Five hundred streams: each tells its pieces; when all are quiet no timer is left."""
    pace = Pace(tick=0.001, window=500)
    logs = [Log() for _ in range(500)]
    streams = [MessageStream(log.emit, pace, "m") for log in logs]
    for stream in streams:
        stream.write("a")
    timer = pace._timer
    for stream in streams:
        stream.write("b")
    assert pace._timer is timer
    for log in logs:
        await log.answer()
    await eventually(lambda: all(log.texts == ["a", "b"] for log in logs))
    for log in logs:
        await log.answer()
    await eventually(lambda: pace._timer is None)
