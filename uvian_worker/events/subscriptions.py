"""One pub/sub connection for any number of listeners.

Pub/sub loses what is published while a connection is down, and redis-py reconnects without a word;
what it cannot hide is that the server confirms each subscription again. Every confirmation, every
overflow and every long silence therefore reaches the listener as ``STALE``: read what you missed.
"""

from __future__ import annotations

__all__ = ["STALE", "Inbox", "Stale", "Subscriptions"]

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator
from enum import Enum
from typing import Any, Final, Literal

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError as RedisConnectionError

from uvian_common.backoff import pause_before
from uvian_common.tasks import cancel_until_done
from uvian_worker.redis.clients import address_of, state_of
from uvian_worker.redis.connection import sibling
from uvian_worker.redis.errors import FAULTS, RedisDenied

log = logging.getLogger(__name__)


class Stale(Enum):
    """The type of ``STALE``."""

    STALE = "stale"


#: Messages may have been missed.
STALE: Final = Stale.STALE


class Inbox:
    """The messages of one channel for one listener: bounded, and it says when some may be missing."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._messages: deque[bytes] = deque()
        self._stale = False
        self._waiter: asyncio.Future[bool] | None = None
        self._deadline = 0.0  #: of the wait, on the loop's clock
        self._timer: asyncio.TimerHandle | None = None

    def put(self, message: bytes) -> None:
        """Add a message; more than fit make the inbox stale."""
        if len(self._messages) >= self._limit:
            self.spoil()
        elif not self._stale:
            self._messages.append(message)
            self._wake()

    def spoil(self) -> None:
        """Say that messages may be missing; what waits is covered by reading again."""
        self._messages.clear()
        self._stale = True
        self._wake()

    async def get(self, silence: float) -> bytes | Literal[Stale.STALE]:
        """The next message; ``STALE`` if some may be missing, or none came for ``silence`` s."""
        if not self._stale and not self._messages and not await self._arrives(silence):
            return STALE
        if self._stale:
            self._stale = False
            return STALE
        return self._messages.popleft()

    def close(self) -> None:
        """Nobody listens any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _arrives(self, silence: float) -> bool:
        """Wait for a message; one timer serves many waits, since most end long before it is due."""
        loop = asyncio.get_running_loop()
        self._deadline = loop.time() + silence
        if self._timer is None:
            self._timer = loop.call_at(self._deadline, self._is_due)
        self._waiter = loop.create_future()
        try:
            return await self._waiter
        finally:
            self._waiter = None

    def _is_due(self) -> None:
        self._timer = None
        if self._waiter is None or self._waiter.done():
            return  # the next wait sets the timer
        loop = asyncio.get_running_loop()
        if loop.time() < self._deadline:
            self._timer = loop.call_at(self._deadline, self._is_due)
        else:
            self._waiter.set_result(False)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(True)


class Subscriptions:
    """Listens on channels over one connection that it restores by itself.

    ``ping`` seconds of silence are answered by a PING; after three without any sign of life the
    connection is made anew, for a connection cut without a word looks like a quiet one.
    """

    def __init__(self, redis: Redis, *, ping: float = 5.0, inbox: int = 1_000) -> None:
        self._redis = redis
        self._ping = ping
        self._limit = inbox
        self._inboxes: dict[bytes, set[Inbox]] = {}
        self._confirmed: set[bytes] = set()
        self._pubsub: PubSub | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    async def close(self) -> None:
        """End the connection; listeners receive nothing more. Closing twice is fine."""
        self._closed = True
        if self._task is not None:
            await cancel_until_done(self._task)

    @contextlib.asynccontextmanager
    async def listen(self, channel: str) -> AsyncIterator[Inbox]:
        """An inbox for the channel; its first message is ``STALE``, once it is subscribed."""
        if self._closed:
            raise RuntimeError("Subscriptions are closed: make new ones.")
        self._start()
        name = channel.encode()
        inbox = Inbox(self._limit)
        listeners = self._inboxes.setdefault(name, set())
        listeners.add(inbox)
        try:
            if name in self._confirmed:
                inbox.spoil()
            elif len(listeners) == 1:
                await self._send("subscribe", channel)
            yield inbox
        finally:
            listeners.discard(inbox)
            inbox.close()
            if not listeners and self._inboxes.get(name) is listeners:
                del self._inboxes[name]
                self._confirmed.discard(name)
                await self._send("unsubscribe", channel)

    def _start(self) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="subscriptions")

    async def _send(self, verb: Literal["subscribe", "unsubscribe"], channel: str) -> None:
        # Without a connection, or if this fails, the next one begins with what is wanted then.
        if self._pubsub is not None:
            with contextlib.suppress(*FAULTS):
                await getattr(self._pubsub, verb)(channel)

    async def _run(self) -> None:
        tries = 0
        while True:
            try:
                async with self._connection() as pubsub:
                    tries = 0
                    await self._receive(pubsub)
            except RedisDenied as error:
                state_of(self._redis).note(error, address_of(self._redis))
            except FAULTS as error:
                log.debug("The subscription connection broke (%s); connecting again", error)
            except Exception:
                log.exception("The subscription connection failed; connecting again")
            await asyncio.sleep(pause_before(tries, first=0.02))
            tries += 1

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[PubSub]:
        client: Any = sibling(self._redis)
        pubsub = client.pubsub()
        try:
            await pubsub.connect()
            self._pubsub = pubsub
            if self._inboxes:
                await pubsub.subscribe(*self._inboxes)
            yield pubsub
        finally:
            self._pubsub = None
            self._confirmed.clear()
            with contextlib.suppress(*FAULTS):
                await pubsub.aclose()
            with contextlib.suppress(*FAULTS):
                await client.aclose(close_connection_pool=True)

    async def _receive(self, pubsub: PubSub) -> None:
        silent = 0
        while True:
            message = await pubsub.get_message(timeout=self._ping)
            if message is not None:
                silent = 0
                self._deliver(message)
                continue
            silent += 1
            if silent > 3:
                raise RedisConnectionError("no sign of life")
            await pubsub.ping()

    def _deliver(self, message: dict[str, Any]) -> None:
        channel = message["channel"]
        inboxes = self._inboxes.get(channel, ()) if channel is not None else ()
        match message["type"]:
            case "message":
                for inbox in inboxes:
                    inbox.put(message["data"])
            case "subscribe" if inboxes:
                self._confirmed.add(channel)
                for inbox in inboxes:
                    inbox.spoil()
            case _:
                pass
