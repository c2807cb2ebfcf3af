"""Looking again at who takes part: once per conversation, for those who listen, until it is known."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from repositories.database import Database, Filter, Row
from repositories.errors import Unavailable
from tests.gateway.site import someone
from uvian_worker.events.subscriptions import Inbox, Subscriptions
from uvian_worker.gateway.live import membership as module
from uvian_worker.gateway.live.membership import Membership


class Rows:
    """A database that knows members, and counts what it is asked."""

    def __init__(self) -> None:
        self.members: set[tuple[str, str]] = set()
        self.asked: list[list[str]] = []
        self.away = 0  #: questions that it will not answer
        self.held = asyncio.Event()
        self.held.set()
        self.tell: Any = None

    async def listen(self, channel: str, callback: Any) -> bool:
        assert channel == "uvian_members"
        self.tell = callback
        return True

    async def select(self, _: str, *, where: list[Filter], **__: Any) -> list[Row]:
        self.asked.append(where[0].value)
        answer = [
            {"conversation_id": c, "user_id": u} for c, u in self.members if c in where[0].value
        ]
        await self.held.wait()
        if self.away:
            self.away -= 1
            raise Unavailable("away")
        return answer


class Channel:
    """A channel in Redis."""

    def __init__(self) -> None:
        self.inbox = Inbox(10)

    @contextlib.asynccontextmanager
    async def listen(self, channel: str) -> AsyncIterator[Inbox]:
        assert channel == "uvian:members"
        yield self.inbox


@pytest.fixture
def rows() -> Rows:
    """Nobody takes part in anything."""
    return Rows()


@pytest.fixture
def channel() -> Channel:
    """Nothing is said."""
    return Channel()


@pytest.fixture
async def membership(rows: Rows, channel: Channel) -> AsyncIterator[Membership]:
    """One that has begun."""
    membership = Membership(cast("Database", rows), cast("Subscriptions", channel), "uvian")
    membership.start()
    await _settled()
    yield membership
    await membership.close()
    await membership.close()


class Ear:
    """One who listens to a conversation as a member, until told otherwise."""

    def __init__(self, membership: Membership, rows: Rows, conversation: str) -> None:
        self.place = (conversation, someone())
        self.gone = 0
        rows.members.add(self.place)
        self.leave = membership.watch(
            f"conversation:{conversation}", self.place[1], self._gone, since=membership.changes
        )

    def _gone(self) -> None:
        self.gone += 1
        self.leave()


async def _settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.parametrize("source", ["postgres", "redis"])
async def test_only_who_is_gone_is_told_and_only_that_conversation_is_asked_about(
    membership: Membership, rows: Rows, channel: Channel, source: str
) -> None:
    """One question, however many listen."""
    one, other = someone(), someone()
    ears = [Ear(membership, rows, one) for _ in range(30)]
    stranger = Ear(membership, rows, other)
    rows.members.remove(ears[0].place)
    rows.members.remove(stranger.place)
    if source == "postgres":
        rows.tell(one)
    else:
        channel.inbox.put(one.encode())
    await _settled()
    assert rows.asked == [[one]]
    assert [ear.gone for ear in ears] == [1] + [0] * 29
    assert not stranger.gone


@pytest.mark.parametrize("source", ["postgres", "redis"])
async def test_where_some_may_have_been_missed_all_are_asked_about_page_by_page(
    membership: Membership,
    rows: Rows,
    channel: Channel,
    source: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A connection that was restored says so."""
    monkeypatch.setattr(module, "_PAGE", 4)
    ears = [Ear(membership, rows, someone()) for _ in range(10)]
    for ear in ears[::3]:
        rows.members.remove(ear.place)
    if source == "postgres":
        rows.tell("")
    else:
        channel.inbox.spoil()
    await _settled()
    assert [len(page) for page in rows.asked] == [4, 4, 2]
    assert [bool(ear.gone) for ear in ears] == [n % 3 == 0 for n in range(10)]


async def test_what_nobody_listens_to_is_not_asked_about(
    membership: Membership, rows: Rows, channel: Channel
) -> None:
    """Nor what is no id, nor what everybody has left."""
    ear = Ear(membership, rows, someone())
    ear.leave()
    ear.leave()
    for payload in (someone(), ear.place[0], "rubbish", ""):
        rows.tell(payload)
    channel.inbox.put(b"\xff")
    membership.look_at("user:x", f"conversation:{ear.place[0]}")
    await _settled()
    assert rows.asked == []


async def test_while_the_database_is_away_it_is_asked_again(
    membership: Membership, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is told what nobody knows."""
    monkeypatch.setattr(module, "_AGAIN_AFTER", 0.0)
    ear = Ear(membership, rows, someone())
    rows.members.clear()
    rows.away = 3
    rows.tell(ear.place[0])
    await _settled()
    assert (len(rows.asked), ear.gone) == (4, 1)


async def test_who_is_removed_while_being_let_in_does_not_slip_through(
    membership: Membership, rows: Rows
) -> None:
    """The change was heard before anybody listened: it is looked at as soon as somebody does."""
    conversation, user, gone = someone(), someone(), asyncio.Event()
    before = membership.changes
    rows.tell(conversation)
    membership.watch(f"conversation:{conversation}", user, gone.set, since=before)
    async with asyncio.timeout(5):
        await gone.wait()


async def test_who_is_let_in_during_a_question_is_not_judged_by_its_answer(
    membership: Membership, rows: Rows
) -> None:
    """They were let in by a younger one."""
    ear = Ear(membership, rows, someone())
    rows.held.clear()
    rows.tell(ear.place[0])
    await _settled()
    late = Ear(membership, rows, ear.place[0])
    rows.held.set()
    await _settled()
    assert (ear.gone, late.gone) == (0, 0)
