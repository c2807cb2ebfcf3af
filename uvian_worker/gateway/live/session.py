"""One live socket: what its client requests, what it gets, and when it ends. Knows no transport.

client                                    server
{op: subscribe, topic, cursor?}           {op: subscribed, topic, mode, events, cursor, ended}
{op: unsubscribe, topic}                  {op: unsubscribed, topic, reason}
{op: auth, token}                         {op: authenticated, expires_at}
{op: ping}                                {op: pong}
                                          {op: event, event}
                                          {op: gap, topic, endings}      subscribe again from your cursor
                                          {op: expiring, expires_in}     send a new token
                                          {op: error, code, message, topic?}
"""

from __future__ import annotations

__all__ = ["Close", "Session"]

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from repositories.errors import RepositoryError
from uvian_worker.events.reader import Resume
from uvian_worker.gateway.http.auth import InvalidToken, KeysAway, TokenVerifier, User
from uvian_worker.gateway.http.problems import Problem, problem_of
from uvian_worker.gateway.http.rate_limits import Limits
from uvian_worker.gateway.live.feeds import Answer, Feeds
from uvian_worker.gateway.live.frames import document_of
from uvian_worker.gateway.live.membership import Membership
from uvian_worker.gateway.live.outbox import Outbox, PublishedEvent
from uvian_worker.gateway.live.topics import Topics, is_topic
from uvian_worker.redis.keys import canonical_topic

MAX_TOPICS: Final = 200
MAX_MISTAKES: Final = 20  #: frames that make no sense, until the socket is closed
WARN_BEFORE: Final = 60.0  #: seconds before a token expires
CHECK_EVERY: Final = 60.0  #: seconds between looks whether the user may still subscribe
PAGE: Final = 500  #: events in one frame
MAX_UNANSWERED: Final = 2  #: topics that are being read for one socket
_DEAF_SECONDS: Final = (
    30.0  #: that the outbox may stay too full to read topics, until the socket is closed
)
_ANSWER_SECONDS: Final = 5.0  #: that a subscription waits for its turn to be read


class Close(IntEnum):
    """Why a socket is closed; the codes are the application's own (RFC 6455, 7.4.2)."""

    GOING_AWAY = 1001  #: the gateway ends: connect again
    UNAUTHORIZED = 4401  #: the token has expired, or was never one
    LIFETIME = 4408  #: nothing is wrong: connect again
    MISTAKES = 4400  #: the client does not speak this protocol
    SLOW = 4413  #: nothing could be sent for too long, or too much waits for it
    FLOOD = 4429  #: the client says more than anybody could mean


class _Frame(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


_Topic = Annotated[str, Field(max_length=100), AfterValidator(canonical_topic)]


class _Subscribe(_Frame):
    op: Literal["subscribe"]
    topic: _Topic
    cursor: Annotated[str, Field(max_length=100)] | None = None


class _Unsubscribe(_Frame):
    op: Literal["unsubscribe"]
    topic: _Topic


class _Auth(_Frame):
    op: Literal["auth"]
    token: Annotated[str, Field(max_length=10_000)]


class _Ping(_Frame):
    op: Literal["ping"]


_FRAMES: TypeAdapter[_Subscribe | _Unsubscribe | _Auth | _Ping] = TypeAdapter(
    Annotated[_Subscribe | _Unsubscribe | _Auth | _Ping, Field(discriminator="op")]
)


@dataclass(frozen=True, slots=True)
class Rules:
    """What sessions share."""

    feeds: Feeds
    topics: Topics
    membership: Membership
    verifier: TokenVerifier
    limits: Limits
    clock: Callable[[], float] = time.time


class _Subscription:
    """One topic of this socket."""

    def __init__(self, topic: str, session: Session) -> None:
        self.topic = topic
        self._session = session
        self.leaves: list[Callable[[], None]] = []
        self.release: Callable[[], None] | None = None  #: once it was answered, or is left

    def answered(self, answer: Answer) -> None:
        """See ``feeds.Listener``."""
        self._done()
        # What waits of the topic is part of the answer.
        self._session.outbox.answer(self.topic, _answer_frames(answer))

    def troubled(self) -> None:
        """See ``feeds.Listener``."""
        self._session.troubled(self.topic)

    def received(self, published: PublishedEvent) -> None:
        """See ``feeds.Listener``."""
        if not self._session.outbox.put_event(published):
            terminal_events = self._session.outbox.give_up(self.topic)
            self._session.drop(self.topic)
            self._session.outbox.put_frame(
                {
                    "op": "gap",
                    "topic": self.topic,
                    "endings": [document_of(e) for e in terminal_events],
                }
            )

    def ended(self) -> None:
        """See ``feeds.Listener``."""
        self._session.drop(self.topic)
        self._session.outbox.put_frame(
            {"op": "unsubscribed", "topic": self.topic, "reason": "ended"}
        )

    def gone(self) -> None:
        """See ``membership.Membership``: what waits was published to members."""
        if self.leaves:
            self._session.drop(self.topic)
            self._session.outbox.give_up(self.topic)
            self._session.outbox.put_frame(
                {"op": "unsubscribed", "topic": self.topic, "reason": "not_found"}
            )

    def leave(self) -> None:
        """Unsubscribe; twice is fine."""
        self._done()
        leaves, self.leaves = self.leaves, []
        for leave in leaves:
            leave()

    def _done(self) -> None:
        release, self.release = self.release, None
        if release is not None:
            release()


class Session:
    """The state of one socket. ``receive`` takes what the client says; ``outbox`` has the answers."""

    def __init__(self, user: User, rules: Rules) -> None:
        self.user = user
        self.outbox = Outbox()
        self._rules = rules
        self._subscriptions: dict[str, _Subscription] = {}
        self._mistakes = 0
        self._deaf = False
        self._reads = asyncio.Semaphore(MAX_UNANSWERED)
        self._renewed = asyncio.Event()

    async def receive(self, raw: str | bytes) -> Close | None:
        """Carry out one frame; answers why to close the socket, if so.

        Waits while much waits to be sent already: a client that does not read is not read, and is
        closed if it reads nothing for half a minute.
        """
        if not await self._can_answer():
            return Close.SLOW
        try:
            frame = _FRAMES.validate_json(raw)
        except (ValidationError, ValueError, RecursionError):
            return self._mistake("bad_frame", "This is no frame of the live protocol.")
        match frame:
            case _Subscribe(topic=topic, cursor=cursor):
                return await self._subscribe(topic, cursor)
            case _Unsubscribe(topic=topic):
                self.drop(topic)
                self.outbox.give_up(topic)
                self._unsubscribed(topic, "requested")
            case _Auth(token=token):
                return await self._authenticate(token)
            case _Ping():
                self.outbox.put_frame({"op": "pong"})
        return None

    async def _can_answer(self) -> bool:
        """Whether there is room for an answer, or there soon is."""
        if self._deaf:
            return False
        try:
            async with asyncio.timeout(_DEAF_SECONDS):
                await self.outbox.room()
        except TimeoutError:
            self._deaf = True
        return not self._deaf

    async def until_over(self, lifetime: float) -> Close:
        """Wait for the end of the token or of ``lifetime``, checking again what the user may subscribe to."""
        clock = self._rules.clock
        ends = clock() + lifetime
        warned: User | None = None  #: of the end of this token
        while True:
            self._renewed.clear()
            now = clock()
            if now >= self.user.expires_at:
                return Close.UNAUTHORIZED
            if now >= ends:
                return Close.LIFETIME
            left = self.user.expires_at - now
            if left <= WARN_BEFORE and warned is not self.user:
                warned = self.user
                self.outbox.put_frame({"op": "expiring", "expires_in": round(left, 1)})
            self._rules.membership.look_at(*self._subscriptions)
            soonest = min(
                ends - now, CHECK_EVERY, left if warned is self.user else left - WARN_BEFORE
            )
            await self._wait(max(soonest, 0.05))

    def close(self) -> None:
        """Listen to nothing any more; closing twice is fine."""
        for topic in list(self._subscriptions):
            self.drop(topic)

    def troubled(self, topic: str) -> None:
        """Say that a topic cannot be read at the moment; another answer follows by itself."""
        self._error("unavailable", "The topic cannot be read; it is tried again.", topic)

    def drop(self, topic: str) -> None:
        """Unsubscribe from a topic."""
        subscription = self._subscriptions.pop(topic, None)
        if subscription is not None:
            subscription.leave()

    async def _subscribe(self, topic: str, cursor: str | None) -> Close | None:
        if not is_topic(topic):
            return self._mistake(
                "bad_topic", "A topic is job:<id>, user:<id> or conversation:<id>."
            )
        if topic not in self._subscriptions and len(self._subscriptions) >= MAX_TOPICS:
            self._error("too_many_topics", f"At most {MAX_TOPICS} topics on a socket.", topic)
            return None
        changes = self._rules.membership.changes
        if not await self._may_subscribe(topic):
            return None
        self.drop(topic)
        self.outbox.give_up(topic)
        if not await self._may_read():
            self._error("unavailable", "Too many topics are being read; try again.", topic)
            return None
        subscription = self._subscriptions[topic] = _Subscription(topic, self)
        subscription.release = self._reads.release
        subscription.leaves.append(self._rules.feeds.listen(topic, cursor, subscription))
        if topic.startswith("conversation:"):
            subscription.leaves.append(
                self._rules.membership.watch(topic, self.user.id, subscription.gone, since=changes)
            )
        return None

    async def _may_subscribe(self, topic: str) -> bool:
        """Whether this user may, and not too often; says why not."""
        try:
            await self._rules.limits.spend("subscribe", self.user.id)
            allowed = await self._rules.topics.may_subscribe(self.user.id, topic)
        except Problem as problem:
            self._error(problem.code, problem.detail, topic)
            return False
        except RepositoryError:
            self._error("unavailable", "Try again in a moment.", topic)
            return False
        if not allowed:
            self._error("not_found", "There is no such topic.", topic)
        return allowed

    async def _may_read(self) -> bool:
        """Whether another answer may be on its way to this socket; each of them may be large."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                await self._reads.acquire()
        except TimeoutError:
            return False
        return True

    async def _authenticate(self, token: str) -> Close | None:
        try:
            user = await self._rules.verifier.verify(token)
        except (InvalidToken, KeysAway) as error:
            problem = problem_of(error)
            self._error(problem.code, problem.detail)
            return None
        if user.id != self.user.id:
            return Close.UNAUTHORIZED
        self.user = user
        self._renewed.set()
        self.outbox.put_frame({"op": "authenticated", "expires_at": user.expires_at})
        return None

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._renewed.wait()
        except TimeoutError:
            pass

    def _unsubscribed(self, topic: str, reason: str) -> None:
        self.outbox.put_frame({"op": "unsubscribed", "topic": topic, "reason": reason})

    def _error(self, code: str, message: str, topic: str | None = None) -> None:
        about = {"topic": topic} if topic is not None else {}
        self.outbox.put_frame({"op": "error", "code": code, "message": message, **about})

    def _mistake(self, code: str, message: str) -> Close | None:
        self._error(code, message)
        self._mistakes += 1
        return Close.MISTAKES if self._mistakes >= MAX_MISTAKES else None


def _answer_frames(answer: Answer) -> list[dict[str, Any]]:
    """``subscribed``, and as many ``events`` as it takes: no frame is endless."""
    mode = type(answer).__name__.lower()
    envelopes = answer.events if isinstance(answer, Resume) else answer.state
    documents = [document_of(envelope) for envelope in envelopes]
    first = {
        "op": "subscribed",
        "topic": answer.topic,
        "mode": mode,
        "cursor": answer.cursor,
        "ended": answer.ended,
        "events": documents[:PAGE],
        "more": len(documents) > PAGE,
    }
    rest = [
        {
            "op": "events",
            "topic": answer.topic,
            "events": documents[at : at + PAGE],
            "more": at + PAGE < len(documents),
        }
        for at in range(PAGE, len(documents), PAGE)
    ]
    return [first, *rest]
