"""What waits for a slow reader: little, in order, and never less than the truth."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.gateway.live.events import TOPIC, delta, event
from uvian_worker.gateway.live.outbox import Outbox, PublishedEvent


async def drained(outbox: Outbox) -> list[dict[str, Any]]:
    """All that waits."""
    return [orjson.loads(await outbox.take()) for _ in range(outbox.waiting)]


async def test_frames_come_in_the_order_they_were_queued() -> None:
    """Events and answers alike."""
    outbox = Outbox()
    outbox.put_frame({"op": "subscribed"})
    outbox.put_event(PublishedEvent(event(1)))
    outbox.put_frame({"op": "pong"})
    assert [frame["op"] for frame in await drained(outbox)] == ["subscribed", "event", "pong"]


async def test_who_takes_first_waits_for_what_comes() -> None:
    """Without polling."""
    outbox = Outbox()
    taking = asyncio.create_task(outbox.take())
    await asyncio.sleep(0)
    assert not taking.done()
    outbox.put_frame({"op": "pong"})
    assert orjson.loads(await taking) == {"op": "pong"}


async def test_deltas_of_a_message_grow_together() -> None:
    """Where the first began, as far as the last: the cursor is the last one's."""
    outbox = Outbox()
    for seq, (offset, text) in enumerate([(0, "Fü"), (3, "r "), (5, "🦊")], 1):
        assert outbox.put_event(PublishedEvent(delta(seq, offset, text)))
    (frame,) = await drained(outbox)
    assert frame["event"]["data"] == {"message_id": "m", "offset": 0, "text": "Für 🦊"}
    assert (frame["event"]["seq"], frame["event"]["id"]) == (3, "e-3-c3")


@pytest.mark.parametrize(
    "between",
    [
        event(2, "message.reset", message_id="m", final=False),
        event(2, "message.delta", message_id="other", offset=0, text="x"),
        event(2, "message.delta", run=2, message_id="m", offset=0, text="x"),
        event(2, "job.progress", fraction=0.5),
    ],
    ids=["reset", "another message", "another run", "progress"],
)
async def test_and_not_over_anything_that_came_in_between(between: Any) -> None:
    """The order of a topic is part of what it says."""
    outbox = Outbox()
    for envelope in (delta(1, 0, "a"), between, delta(3, 1, "b")):
        outbox.put_event(PublishedEvent(envelope))
    assert [frame["event"]["seq"] for frame in await drained(outbox)] == [1, 2, 3]


async def test_another_topics_events_do_not_keep_deltas_apart() -> None:
    """Each topic has an order of its own."""
    outbox = Outbox()
    outbox.put_event(PublishedEvent(delta(1, 0, "a")))
    outbox.put_event(PublishedEvent(event(7, topic="user:x")))
    outbox.put_event(PublishedEvent(delta(2, 1, "b")))
    texts = [frame["event"]["data"].get("text") for frame in await drained(outbox)]
    assert texts == ["ab", None]


async def test_a_delta_that_was_taken_grows_no_more() -> None:
    """It is on its way."""
    outbox = Outbox()
    outbox.put_event(PublishedEvent(delta(1, 0, "a")))
    assert orjson.loads(await outbox.take())["event"]["data"]["text"] == "a"
    outbox.put_event(PublishedEvent(delta(2, 1, "b")))
    assert (await drained(outbox))[0]["event"]["data"] == {
        "message_id": "m",
        "offset": 1,
        "text": "b",
    }


async def test_only_the_latest_progress_waits() -> None:
    """In its own place in the order, behind what it followed."""
    outbox = Outbox()
    outbox.put_event(PublishedEvent(event(1, "job.progress", fraction=0.1)))
    outbox.put_event(PublishedEvent(event(2, "stage.started", stage="s")))
    outbox.put_event(PublishedEvent(event(3, "job.progress", fraction=0.9)))
    assert [frame["event"]["seq"] for frame in await drained(outbox)] == [2, 3]


async def test_a_topic_that_fills_its_share_is_given_up_but_for_its_endings() -> None:
    """The other topics keep theirs, and the answers theirs."""
    outbox = Outbox(max_events=3)
    outbox.put_frame({"op": "pong"})
    outbox.put_event(PublishedEvent(event(1, topic="user:x")))
    assert outbox.put_event(PublishedEvent(event(1)))
    assert outbox.put_event(PublishedEvent(event(2, "job.completed", output={})))
    assert outbox.put_event(PublishedEvent(event(3, "job.requeued", run=2)))
    assert not outbox.put_event(PublishedEvent(event(4, run=2)))
    assert [e.type for e in outbox.give_up(TOPIC)] == ["job.completed"]
    assert outbox.give_up(TOPIC) == []
    frames = await drained(outbox)
    assert [frame.get("event", {}).get("topic", frame["op"]) for frame in frames] == [
        "pong",
        "user:x",
    ]


async def test_bytes_count_as_well_as_events() -> None:
    """One message that grows for ever is as much as many small ones."""
    outbox = Outbox(max_bytes=1000)
    fits = [outbox.put_event(PublishedEvent(delta(n, n * 100, "x" * 100))) for n in range(20)]
    assert fits[0]
    assert not fits[-1]
    outbox.give_up(TOPIC)
    assert outbox.put_event(PublishedEvent(delta(99, 0, "again")))


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("delta"), st.text(min_size=1, max_size=3)),
        st.tuples(st.sampled_from(["stage", "progress", "take", "other"]), st.just("")),
    ),
    max_size=60,
)


@given(EVENTS)
def test_whatever_comes_and_goes_the_text_is_whole(steps: list[tuple[str, str]]) -> None:
    """Pieces join where the last ended, seqs grow, and the count of what waits ends at nothing."""

    async def run() -> None:
        outbox = Outbox()
        seen: list[dict[str, Any]] = []
        text = ""
        for seq, (kind, piece) in enumerate(steps, 1):
            match kind:
                case "delta":
                    outbox.put_event(PublishedEvent(delta(seq, len(text.encode()), piece)))
                    text += piece
                case "take" if outbox.waiting:
                    seen.append(orjson.loads(await outbox.take()))
                case "progress":
                    outbox.put_event(PublishedEvent(event(seq, "job.progress", fraction=0.5)))
                case "other":
                    outbox.put_event(PublishedEvent(event(seq, topic="user:x")))
                case "stage":
                    outbox.put_event(PublishedEvent(event(seq)))
        seen += await drained(outbox)
        assembled = ""
        for frame in seen:
            data = frame["event"]["data"]
            if "text" in data:
                assert data["offset"] == len(assembled.encode())
                assembled += data["text"]
        assert assembled == text
        own = [frame["event"]["seq"] for frame in seen if frame["event"]["topic"] == TOPIC]
        assert own == sorted(set(own))
        assert outbox.waiting == 0
        assert not outbox._shares

    asyncio.run(run())
