"""The text that any client puts together is the text that is stored, byte for byte, whatever happens."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import fakeredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from executors.events import JobRef, JobStarted
from executors.running.terminal_events import terminal_events_of
from executors.stages.message_stream import MessageStream, Pace
from uvian_common import answers
from uvian_common.answers import answer_id, published_answer
from uvian_worker.events.assembler import AssembledMessage, MessageAssembler
from uvian_worker.events.envelope import Envelope
from uvian_worker.events.publisher import Publisher
from uvian_worker.events.reader import Expired, Reader, Resume, Snapshot

JOB = "11111111-1111-4111-8111-111111111111"
MESSAGE = answer_id(JOB)
CONVERSATION = "c"
TOPICS = (f"conversation:{CONVERSATION}", f"job:{JOB}")


@dataclass
class ClientAt:
    """A client of one topic: it reads now and then, drops out, and hears things twice."""

    topic: str
    assembler: MessageAssembler = field(default_factory=MessageAssembler)
    cursor: str | None = None
    last: Sequence[Envelope | Snapshot | Expired] = ()

    async def read(self, reader: Reader) -> None:
        answer = await reader.read(self.topic, self.cursor)
        self.cursor = answer.cursor
        self.last = answer.events if isinstance(answer, Resume) else (answer,)
        for event in self.last:
            self.assembler.apply(event)

    def hear_again(self) -> None:
        """The same delivery, once more."""
        for event in self.last:
            if isinstance(event, Envelope):
                self.assembler.apply(event)

    async def do(self, step: str, reader: Reader) -> None:
        """What a client does by itself."""
        match step:
            case "read":
                await self.read(reader)
            case "again":
                self.hear_again()
            case "reload":
                self.lose_everything()

    def lose_everything(self) -> None:
        """A browser that was reloaded."""
        self.assembler, self.cursor, self.last = MessageAssembler(), None, ()

    @property
    def message(self) -> AssembledMessage | None:
        """What it shows."""
        return self.assembler.messages.get(MESSAGE)


class World:
    """A job whose runs write its answer into a log, and clients of it."""

    def __init__(self) -> None:
        self.redis = fakeredis.FakeAsyncRedis(server=fakeredis.FakeServer())
        self.publisher = Publisher(self.redis, "uvian")
        self.reader = Reader(self.redis, "uvian")
        self.clients = [ClientAt(TOPICS[n % 2]) for n in range(4)]
        self.pace = Pace(tick=0)
        self.run = 0
        self.streams: list[MessageStream] = []
        self.next_run()

    def next_run(self) -> None:
        """The worker is gone, or thinks it is not: another run begins the answer anew."""
        self.run += 1
        ref = JobRef(JOB, "u", self.run, 0, CONVERSATION)
        self.publisher.emit(ref, JobStarted(job_type="chat", worker="w"))
        stream = MessageStream(lambda event: self.publisher.emit(ref, event), self.pace, MESSAGE)
        stream.begin(CONVERSATION, "q", again=self.run > 1)
        self.streams.append(stream)

    def write(self, piece: str) -> None:
        self.streams[-1].write(piece)

    def write_as_zombie(self, piece: str) -> None:
        """An earlier run that has not noticed writes on; what it is told does not matter here."""
        for stream in self.streams[:-1]:
            if not stream._over:
                stream.write(piece)

    async def answered(self) -> None:
        """Everything told so far is in the log, and the streams have heard of it."""
        await self.publisher.flush()
        await asyncio.sleep(0)

    async def quiet(self) -> None:
        """The model pauses; the streams have time to tell everything, again where it was lost."""
        for _ in range(4):
            await asyncio.sleep(0)
            await self.answered()

    async def settle(self, status: Any) -> str:
        """The run ends: what it stores, and what is told then."""
        stream = self.streams[-1]
        stream.close()
        text = stream.text
        stored = {
            "id": MESSAGE,
            "role": "assistant",
            "status": status,
            "length": len(text.encode()),
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
        }
        row = {
            "id": JOB,
            "status": status,
            "conversation_id": CONVERSATION,
            "message": published_answer(stored if text else None, text),
            "output": {},
            "result_id": None,
            "stages": [],
            "cost": "0",
        }
        ref = JobRef(JOB, "u", self.run, 0, CONVERSATION)
        for event in terminal_events_of(row):
            self.publisher.emit(ref, event)
        await self.answered()
        return text

    async def close(self) -> None:
        await self.publisher.close()
        await self.redis.aclose()


#: Characters of one to four bytes; halves of pairs and U+0000, which are not text.
characters = st.one_of(
    st.characters(),
    st.sampled_from("aß漢😀\0\ud83d\ude00"),
)
pieces = st.text(characters, max_size=8)
which = st.integers(0, 3)
steps = st.one_of(
    st.tuples(st.just("write"), pieces),
    st.tuples(st.just("write"), pieces),
    st.tuples(st.just("tick"), st.none()),
    st.tuples(st.just("answered"), st.none()),
    st.tuples(st.just("read"), which),
    st.tuples(st.just("read"), which),
    st.tuples(st.just("again"), which),
    st.tuples(st.just("reload"), which),
    st.tuples(st.just("next run"), st.none()),
    st.tuples(st.just("zombie"), pieces),
    st.tuples(st.just("flush"), st.none()),
    st.tuples(st.just("quiet"), st.characters(codec="utf-8", exclude_characters="\0")),
)


async def play(script: list[tuple[str, Any]], status: str, *, long: bool) -> None:
    """One life of an answer, and what its clients make of it."""
    world = World()
    try:
        for step, what in script:
            await perform(world, step, what)
        there = [client.message is not None for client in world.clients]
        text = await world.settle(status)
        # Of a long answer nobody tells the text again: what a flush has taken is in the row.
        may_miss = long and ("flush", None) in script
        for client, was_there in zip(world.clients, there, strict=True):
            await client.read(world.reader)
            check_end(client, text, status, was_there=was_there, may_miss=may_miss)
    finally:
        await world.close()


async def perform(world: World, step: str, what: Any) -> None:
    """One step of a script."""
    match step:
        case "write" | "zombie":
            world.write(what) if step == "write" else world.write_as_zombie(what)
        case "tick":
            await asyncio.sleep(0)
        case "answered":
            await world.answered()
        case "next run":
            world.next_run()
        case "flush":
            await world.redis.flushall()
        case "quiet":
            world.write(what)
            await world.quiet()
            await check_caught_up(world)
        case _:
            await world.clients[what].do(step, world.reader)
            check_prefix(world, world.clients[what])


async def check_caught_up(world: World) -> None:
    """Whatever was lost before: who reads now has all that was written."""
    for client in world.clients:
        await client.read(world.reader)
        assert client.message is not None
        assert client.message.state == "writing"
        assert client.message.text == world.streams[-1].text


def check_prefix(world: World, client: ClientAt) -> None:
    """While it is written a client shows the beginning of what one run has written, or nothing."""
    message = client.message
    if message is not None and message.state == "writing":
        texts = [stream.text for stream in world.streams]
        assert any(text.startswith(message.text) for text in texts), (message.text, texts)


def check_end(client: ClientAt, text: str, status: str, *, was_there: bool, may_miss: bool) -> None:
    """At the end it shows what is stored; or it knows that it must read the row."""
    message = client.message
    if message is None:
        # It came when all was over, and was told so.
        assert not was_there
        assert not isinstance(client.last[0] if client.last else None, Envelope)
        return
    if message.state == "unknown":
        heard_the_end = isinstance(client.last[0], Envelope)
        assert may_miss or not heard_the_end, "it heard the end, and missed the text"
        return
    assert message.text == text
    assert message.state == (status if text else "void")


@given(st.lists(steps, max_size=40), st.sampled_from(["completed", "cancelled"]), st.booleans())
def test_whatever_happens_every_client_has_the_stored_text(
    script: list[tuple[str, Any]], status: str, long: bool
) -> None:
    """Cut anywhere, split anywhere, killed and begun anew, flushed, reloaded, heard twice: the same
    bytes, or the knowledge that the row has them; never a text that is not the stored one."""
    with pytest.MonkeyPatch.context() as patch:
        # A long answer is not repeated when it is complete: its pieces must do.
        patch.setattr(answers, "LONGEST_PUBLISHED", -1 if long else answers.LONGEST_PUBLISHED)
        asyncio.run(play(script, status, long=long))
