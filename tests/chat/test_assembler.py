"""Each rule by which a client puts messages together; ``test_assembly`` tries them all at once."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

import pytest

from uvian_worker.events.assembler import MessageAssembler
from uvian_worker.events.envelope import Envelope
from uvian_worker.events.reader import Expired, Snapshot


class Topic:
    """A conversation whose events a test makes up."""

    def __init__(self) -> None:
        self.assembler = MessageAssembler()
        self._seq = itertools.count(1)

    def event(self, type_: str, *, run: int = 1, **data: Any) -> Envelope:
        """The next event of the topic."""
        seq = next(self._seq)
        data = {"message_id": "m", **data}
        return Envelope(f"e-{seq}-x", seq, "conversation:c", "k", type_, "", "j", run, 0, data)

    def hear(self, type_: str, *, run: int = 1, **data: Any) -> Envelope:
        """The next event, heard."""
        event = self.event(type_, run=run, **data)
        self.assembler.apply(event)
        return event

    def started(self, run: int = 1) -> Envelope:
        return self.hear("message.started", run=run, reply_to="q")

    def delta(self, offset: int, text: str, run: int = 1) -> Envelope:
        return self.hear("message.delta", run=run, offset=offset, text=text)

    def completed(self, text: str, *, told: bool = True, status: str = "completed") -> Envelope:
        raw = text.encode()
        digest = hashlib.sha256(raw).hexdigest()
        return self.hear(
            "message.completed",
            status=status,
            length=len(raw),
            sha256=digest,
            text=text if told else None,
        )

    @property
    def shows(self) -> tuple[str, str]:
        """State and text."""
        message = self.assembler.messages["m"]
        return message.state, message.text


@pytest.fixture
def topic() -> Topic:
    """A conversation in which an answer has begun."""
    topic = Topic()
    topic.started()
    return topic


def test_pieces_are_joined_by_bytes(topic: Topic) -> None:
    """Offsets count bytes, whatever the characters."""
    topic.delta(0, "Grüße ")
    topic.delta(8, "🎨")
    topic.delta(12, "!")
    assert topic.shows == ("writing", "Grüße 🎨!")
    assert topic.assembler.messages["m"].reply_to == "q"


def test_an_event_heard_twice_counts_once(topic: Topic) -> None:
    """Also a beginning, which would empty the text, and an older one that comes late."""
    first = topic.delta(0, "a")
    second = topic.delta(1, "b")
    for again in (second, first):
        topic.assembler.apply(again)
    assert topic.shows == ("writing", "ab")


def test_a_hole_is_noticed_and_healed_by_a_snapshot(topic: Topic) -> None:
    """A piece that does not fit makes the text unknown, until somebody tells all of it."""
    topic.delta(0, "a")
    topic.delta(5, "f")
    assert topic.shows[0] == "unknown"
    topic.delta(6, "g")
    assert topic.shows[0] == "unknown"
    topic.hear("message.snapshot", text="abcdefgh")
    topic.delta(8, "i")
    assert topic.shows == ("writing", "abcdefghi")


def test_another_run_begins_anew_and_an_old_one_is_not_heard(topic: Topic) -> None:
    """What an overtaken run still says is left out, also where no fence has kept it."""
    topic.delta(0, "old")
    topic.hear("message.reset", run=2, final=False)
    assert topic.shows == ("writing", "")
    topic.started(run=2)
    topic.delta(0, "new", run=2)
    topic.delta(3, "old", run=1)
    topic.hear("message.snapshot", run=1, text="old")
    assert topic.shows == ("writing", "new")


def test_a_run_that_was_not_heard_of_is_no_continuation(topic: Topic) -> None:
    """Its beginning was missed, though its piece would fit behind the old text by chance."""
    topic.delta(0, "old")
    topic.delta(3, "new", run=2)
    assert topic.shows[0] == "unknown"


def test_there_will_be_none(topic: Topic) -> None:
    """A final reset voids the message."""
    topic.delta(0, "half")
    topic.hear("message.reset", final=True)
    assert topic.shows == ("void", "")


@pytest.mark.parametrize("status", ["completed", "cancelled"])
def test_the_end_has_the_last_word(topic: Topic, status: str) -> None:
    """Its text is the stored one, whatever was heard before."""
    topic.delta(0, "something els")
    topic.completed("something", status=status)
    assert topic.shows == (status, "something")


def test_of_a_long_message_the_hash_decides(topic: Topic) -> None:
    """Without its text the end says whether what was heard is what is stored."""
    topic.delta(0, "whole")
    topic.completed("whole", told=False)
    assert topic.shows == ("completed", "whole")
    topic.started()
    topic.delta(0, "whale")
    topic.completed("whole", told=False)
    assert topic.shows[0] == "unknown"


def test_a_snapshot_forgets_what_is_not_in_it(topic: Topic) -> None:
    """The message may have ended meanwhile: its row knows. What has ended before stays."""
    topic.delta(0, "a")
    topic.hear("message.started", message_id="done", reply_to=None)
    topic.hear("message.reset", message_id="done", final=True)
    started = topic.event("message.started", message_id="n", reply_to=None)
    text = topic.event("message.snapshot", message_id="n", text="new")
    topic.assembler.apply(Snapshot("conversation:c", (started, text), "f-7-y", ended=False))
    states = {name: message.state for name, message in topic.assembler.messages.items()}
    assert states == {"m": "unknown", "done": "void", "n": "writing"}


def test_a_text_whose_start_was_lost_goes_on(topic: Topic) -> None:
    """After a flush nobody knows which run it is: the one that goes on writing."""
    text = topic.event("message.snapshot", run=0, text="so far")
    topic.assembler.apply(Expired("conversation:c", "f-7-y", ended=False, state=(text,)))
    topic.delta(6, "!", run=3)
    assert topic.shows == ("writing", "so far!")
    assert topic.assembler.messages["m"].run == 3


def test_other_events_are_none_of_its_business(topic: Topic) -> None:
    """A job's topic has more than messages."""
    event = topic.event("job.progress", fraction=0.5)
    del event.data["message_id"]
    topic.assembler.apply(event)
    assert topic.shows == ("writing", "")
