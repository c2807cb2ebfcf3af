"""``GET /v1/jobs/{id}/events``: one job's events as Server-Sent Events, on from ``Last-Event-ID``."""

from __future__ import annotations

__all__ = ["JobStreams"]

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from uvian_worker.events.envelope import Envelope
from uvian_worker.events.reader import Resume
from uvian_worker.gateway.http.auth import User
from uvian_worker.gateway.http.client_address import Addresses
from uvian_worker.gateway.http.problems import Problem
from uvian_worker.gateway.live.feeds import Answer, Feeds
from uvian_worker.gateway.live.frames import data_of
from uvian_worker.gateway.live.outbox import PublishedEvent
from uvian_worker.gateway.live.slots import Slots
from uvian_worker.gateway.live.topics import Topics
from uvian_worker.gateway.live.websocket import cut_later, keep_little, token_of
from uvian_worker.redis.keys import job_topic

_SILENCE: Final = 15.0  #: seconds, after which a comment says that we are still there
_SEND_SECONDS: Final = 30.0
_WAITING: Final = 500  #: events; a client that reads no faster comes again with its last id,
_WAITING_BYTES: Final = 2 * 1024 * 1024  #: or, of all that waits for it
_CURSOR: Final = re.compile(r"[\w-]{1,100}", re.ASCII)


class _Stream:
    """What one client has yet to read."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._size = 0
        self._full = False

    def answered(self, answer: Answer) -> None:
        """See ``feeds.Listener``."""
        if not isinstance(answer, Resume):
            mode = type(answer).__name__.lower()  # what follows is the state, not what happened
            self._put(f"event: {mode}\nid: {answer.cursor}\ndata: {{}}\n\n".encode())
        for envelope in answer.events if isinstance(answer, Resume) else answer.state:
            self._put(_encoded(envelope))

    def received(self, published: PublishedEvent) -> None:
        """See ``feeds.Listener``."""
        if self._queue.qsize() >= _WAITING:
            self._give_up()
        else:
            self._put(_encoded(published.envelope))

    def ended(self) -> None:
        """See ``feeds.Listener``."""
        self._queue.put_nowait(None)

    def troubled(self) -> None:
        """See ``feeds.Listener``."""
        self._put(b"event: unavailable\ndata: {}\n\n")

    async def next(self) -> bytes | None:
        """What is to be sent next, once there is something; None at the end."""
        chunk = await self._queue.get()
        self._size -= len(chunk or b"")
        return chunk

    def _put(self, chunk: bytes) -> None:
        if self._full:
            return
        if self._size > _WAITING_BYTES:
            self._give_up()
            return
        self._size += len(chunk)
        self._queue.put_nowait(chunk)

    def _give_up(self) -> None:
        """It comes again, with the last id that it has read."""
        if not self._full:
            self._full = True
            self._queue.put_nowait(None)


class JobStreams:
    """Streams of single jobs, over the same feeds as the sockets."""

    def __init__(
        self,
        feeds: Feeds,
        topics: Topics,
        admit: Callable[[web.Request, str], Awaitable[User]],
        slots: Slots,
        addresses: Addresses,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._feeds = feeds
        self._topics = topics
        self._admit = admit
        self._slots = slots
        self._addresses = addresses
        self._clock = clock
        self._open: set[_Stream] = set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One stream, until the job ends, the token expires, or somebody leaves."""
        user = await self._admit(request, token_of(request))
        topic = job_topic(request.match_info["job_id"])
        if not await self._topics.may_subscribe(user.id, topic):
            raise Problem("not_found", "There is no such job.")
        with self._slots.taken(user.id, self._addresses.of(request)):
            return await self._serve(request, user, topic)

    async def _serve(self, request: web.Request, user: User, topic: str) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream",
                "Cache-Control": "no-store",
                "X-Accel-Buffering": "no",  # nginx would wait for more
            }
        )
        stream = _Stream()
        self._open.add(stream)
        leave = self._feeds.listen(topic, _cursor_of(request), stream)
        try:
            await response.prepare(request)
            keep_little(request)
            async with asyncio.timeout(max(user.expires_at - self._clock(), 0)):
                await self._send(response, stream)
        except (TimeoutError, ConnectionError):
            # The client comes again, with its last id and a token that holds.
            response.force_close()
            cut_later(request)
        finally:
            leave()
            self._open.discard(stream)
        return response

    def close(self) -> None:
        """End every stream: its client comes again, elsewhere, with its last id."""
        for stream in self._open:
            stream.ended()

    async def _send(self, response: web.StreamResponse, stream: _Stream) -> None:
        await response.write(b"retry: 1000\n\n")
        while True:
            try:
                async with asyncio.timeout(_SILENCE):
                    chunk = await stream.next()
            except TimeoutError:
                chunk = b": still here\n\n"
            if chunk is None:
                return
            async with asyncio.timeout(_SEND_SECONDS):
                await response.write(chunk)


def _cursor_of(request: web.Request) -> str | None:
    """What was read last; anything that is no cursor stands for one that nobody issued."""
    cursor = request.headers.get("Last-Event-ID")
    return cursor if not cursor or _CURSOR.fullmatch(cursor) else "-"


def _encoded(envelope: Envelope) -> bytes:
    head = f"id: {envelope.id}\nevent: {envelope.type}\ndata: "
    return head.encode() + data_of(envelope) + b"\n\n"
