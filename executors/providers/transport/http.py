"""HTTP to a vendor: one session, its timeouts and limits, and the vendor's errors as ours.

A :class:`VendorClient` sends a :class:`Call` and returns a :class:`Reply`, or raises one of
``executors.errors``.

**What is retried here.** Connections that fail, answers that break off before their head, 408, 409, 425,
429 and 5xx. They are retried at most ``RetryBudget.retries`` times within ``RetryBudget.seconds``, because
the job holds a slot of the worker meanwhile. For longer waits ``RateLimited`` or ``ProviderUnavailable``
is raised, and the job waits in the queue. A call that was slow is not retried: it may have been paid
for. Nothing is retried after the head of a reply.

**Cancelling** closes the connection at once, without reading what is left.
"""

from __future__ import annotations

__all__ = [
    "LARGEST_ERROR",
    "Call",
    "Reply",
    "RetryBudget",
    "Timeouts",
    "VendorClient",
    "open_session",
    "parsed",
]

import asyncio
import contextlib
import io
import json
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import aiohttp
import orjson
from yarl import URL

from executors.errors import ProviderUnavailable, RateLimited
from executors.providers.transport.connections import AbortableConnector, abort_on_error
from executors.providers.transport.dns import OwnThreads
from executors.providers.transport.limits import CallLimits, Gate, Resting
from executors.providers.transport.retry_after import wait_of
from executors.providers.transport.vendor import Vendor, VendorFault
from uvian_common.backoff import pause_before

log = logging.getLogger("uvian.providers")

#: Largest JSON answer, and largest error, in bytes; pictures come with a limit of their own.
LARGEST_ANSWER = 4 * 1024 * 1024
LARGEST_ERROR = 64 * 1024

#: Seconds before the first retry; twice as long before each further one.
_FIRST_PAUSE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long a vendor may take, in seconds."""

    connect: float = 10.0  #: until there is a connection, lookup and TLS included
    first_byte: float = 120.0  #: until the answer begins; of a stream, until its first byte
    idle: float = 60.0  #: between two chunks of an answer
    total: float = 600.0  #: until its last byte


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryBudget:
    """How often a call is retried here, and for how long after its first failure."""

    retries: int = 2
    seconds: float = 10.0

    def pause(self, fault: VendorFault, tries: int) -> float | None:
        """Seconds before the next try; None when the last one was the last."""
        if not fault.again or tries > self.retries:
            return None
        requested = fault.refusal.wait if fault.refusal is not None else None
        pause = pause_before(tries - 1, first=_FIRST_PAUSE, longest=self.seconds)
        return max(pause, (requested or 0.0) * random.uniform(1.0, 1.1))  # noqa: S311 - jitter, not a secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request to a vendor."""

    url: str  #: a path below the vendor's base URL, or a whole URL of the same server
    method: str = "POST"
    body: Any = None  #: sent as JSON
    form: Callable[[], aiohttp.FormData | bytes] | None = None  #: made anew for every try
    headers: Mapping[str, str] = field(default_factory=dict)
    bucket: str = ""  #: what shares a rate limit with it, as a model


@asynccontextmanager
async def open_session(user_agent: str = "uvian-worker") -> AsyncIterator[aiohttp.ClientSession]:
    """The session of the process: connections are shared, cookies are ignored."""
    lookups = OwnThreads()
    session = aiohttp.ClientSession(
        connector=AbortableConnector(limit=0, resolver=lookups),  # the gates count
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        # Compression helps neither streams, which it holds back, nor pictures.
        headers={"User-Agent": user_agent, "Accept-Encoding": "identity"},
    )
    try:
        async with session:
            yield session
    finally:
        await lookups.close()


class VendorClient:
    """The client of one vendor. All callers share one, and so its limits."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        vendor: Vendor,
        *,
        timeouts: Timeouts | None = None,
        limits: CallLimits | None = None,
        retry_budget: RetryBudget | None = None,
    ) -> None:
        self.vendor = vendor
        self.timeouts = timeouts or Timeouts()
        self._session = session
        self._gate = Gate(limits or CallLimits())
        self._retry_budget = retry_budget or RetryBudget()

    def with_limits(
        self, limits: CallLimits, *, retry_budget: RetryBudget | None = None
    ) -> VendorClient:
        """Another client of the same vendor, for calls that are counted apart, with limits of their own."""
        return VendorClient(
            self._session,
            self.vendor,
            timeouts=self.timeouts,
            limits=limits,
            retry_budget=retry_budget or self._retry_budget,
        )

    @asynccontextmanager
    async def open(self, call: Call) -> AsyncIterator[Reply]:
        """A reply whose head says 2xx, to be read while the block lasts."""
        async with AsyncExitStack() as held:
            yield await self._with_retries(call, held)

    async def request(self, call: Call, *, largest: int = LARGEST_ANSWER) -> Any:
        """The whole answer as a JSON document."""
        async with self.open(call) as reply:
            content = await reply.read(largest)
        try:
            return parsed(content)
        except ValueError:
            self.vendor.malformed("it is no JSON", content)

    async def fetch(self, url: str, *, largest: int) -> bytes:
        """What is behind a URL."""
        async with self.open(Call(method="GET", url=url)) as reply:
            return await reply.read(largest)

    async def _with_retries(self, call: Call, held: AsyncExitStack) -> Reply:
        """The reply, after retries within the budget; ``held`` closes it."""
        tries, until = 0, 0.0
        while True:
            left = until - time.monotonic() if tries else self._retry_budget.seconds
            try:
                return await held.enter_async_context(self._once(call, left))
            except (ProviderUnavailable, RateLimited) as error:
                fault = error.__cause__
                tries += 1
                # From the first failure on: waiting for a slot is no failure of the vendor.
                until = until or time.monotonic() + self._retry_budget.seconds
                pause = (
                    self._retry_budget.pause(fault, tries)
                    if isinstance(fault, VendorFault)
                    else None
                )
                if pause is None or time.monotonic() + pause > until:
                    raise
                log.info("%s; retried in %.1f s", fault, pause)
            await asyncio.sleep(pause)

    @asynccontextmanager
    async def _once(self, call: Call, max_wait: float) -> AsyncIterator[Reply]:
        try:
            async with self._gate.slot(call.bucket, max_wait=max_wait), self._sent(call) as reply:
                yield reply
        except Resting as resting:
            sentence = f"{self.vendor.label} is busy: its rate limit is reached."
            raise RateLimited(resting.left, sentence) from resting

    @asynccontextmanager
    async def _sent(self, call: Call) -> AsyncIterator[Reply]:
        began = time.monotonic()
        reply = Reply(await self._head(call), self.vendor, self.timeouts, began)
        try:
            if not 200 <= reply.status < 300:
                await self._refuse(call, reply)
            yield reply
        finally:
            reply.close()

    async def _head(self, call: Call) -> aiohttp.ClientResponse:
        timeouts, vendor = self.timeouts, self.vendor
        keys = {name: value.get_secret_value() for name, value in vendor.auth.items()}
        try:
            async with asyncio.timeout(timeouts.first_byte):
                with abort_on_error():
                    return await self._session.request(
                        call.method,
                        self._url(call.url),
                        data=_body(call),
                        headers={**call.headers, **_kind(call), **keys},
                        allow_redirects=False,  # our key goes to no other server
                        timeout=aiohttp.ClientTimeout(total=None, connect=timeouts.connect),
                    )
        except aiohttp.ServerTimeoutError as error:
            vendor.fail("cannot be reached", error)
        except TimeoutError as error:
            vendor.fail(f"did not answer within {timeouts.first_byte:g} s", error)
        except aiohttp.ClientConnectorError as error:
            vendor.fail("cannot be reached", error, again=True)
        except (aiohttp.ClientError, OSError) as error:
            vendor.fail("broke off the connection", error, again=True)

    def _url(self, url: str) -> URL:
        """The whole URL; raises where it would carry our key to somebody else."""
        base = self.vendor.base_url
        if base and url.startswith("/"):
            return URL(base + url)
        try:
            target = URL(url)
            ours = not base or target.origin() == URL(base).origin()
        except ValueError:
            self.vendor.malformed(f"it points to {url[:100]!r}")
        if not ours:
            self.vendor.malformed(f"it points to another server, {target.host}")
        return target

    async def _refuse(self, call: Call, reply: Reply) -> NoReturn:
        try:
            content = await reply.read(LARGEST_ERROR)
        except ProviderUnavailable:
            content = b""  # the status says enough
        try:
            document = parsed(content)
        except ValueError:
            document = content.decode("utf-8", "replace")
        said = self.vendor.amend(self.vendor.read(reply.status, document), reply.headers)
        refusal = replace(said, wait=wait_of(reply.status, reply.headers))
        try:
            self.vendor.refuse(refusal)
        except RateLimited:
            if refusal.wait:
                self._gate.rest(call.bucket, refusal.wait)
            raise


class Reply:
    """An answer whose head is here and whose body is on its way."""

    def __init__(
        self, response: aiohttp.ClientResponse, vendor: Vendor, timeouts: Timeouts, began: float
    ) -> None:
        self._response = response
        self.vendor = vendor
        self._timeouts = timeouts
        self._began = began
        self._wait: float | None = None

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self._response.status

    @property
    def headers(self) -> Mapping[str, str]:
        """The HTTP headers."""
        return self._response.headers

    @property
    def content_type(self) -> str:
        """Without its parameters; empty where the vendor gives none."""
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    async def chunk(self, *, within: float | None = None) -> bytes:
        """The next chunk of the body as it comes in, empty at its end; in ``within`` seconds, if given."""
        if self._wait is None:  # the first one
            first, idle = self._timeouts.first_byte, self._timeouts.idle
            self._wait = max(self._began + first - time.monotonic(), min(first, idle))
        chunk = await self._next(self._wait if within is None else within)
        self._wait = self._timeouts.idle
        return chunk

    async def read(self, largest: int) -> bytes:
        """The whole body; one that is larger is refused while it is read."""
        parts: list[bytes] = []
        size = 0
        while chunk := await self.chunk():
            size += len(chunk)
            if size > largest:
                self.vendor.fail("gave a larger answer than is allowed", f"{largest} bytes")
            parts.append(chunk)
        return b"".join(parts)

    async def settle(self) -> None:
        """Read what little follows the end, so that the connection can serve again; not for long."""
        with contextlib.suppress(TimeoutError, aiohttp.ClientError, OSError):
            async with asyncio.timeout(0.05):
                while await self._response.content.readany():
                    pass

    def close(self) -> None:
        """Give the connection back if the body is read, else close it, now."""
        connection = self._response.connection
        if connection is not None and connection.transport is not None:
            connection.transport.abort()
        self._response.close()

    async def _next(self, wait: float) -> bytes:
        left = self._began + self._timeouts.total - time.monotonic()
        try:
            async with asyncio.timeout(min(wait, left)):
                return await self._response.content.readany()
        except TimeoutError as error:
            late = (
                f"took longer than {self._timeouts.total:g} s"
                if left <= wait
                else f"said nothing for {wait:.3g} s in the middle of its answer"
            )
            self.vendor.fail(late, error)
        except (aiohttp.ClientError, OSError) as error:
            self.vendor.fail("broke off in the middle of its answer", error)


def _body(call: Call) -> aiohttp.FormData | io.BytesIO | None:
    """What is sent, to be read chunk by chunk: whole bytes would block the event loop."""
    if call.body is not None:
        return io.BytesIO(json.dumps(call.body).encode())
    sent = call.form() if call.form is not None else None
    return io.BytesIO(sent) if isinstance(sent, bytes) else sent


def _kind(call: Call) -> Mapping[str, str]:
    return {} if call.body is None else {"Content-Type": "application/json"}


def parsed(content: bytes | str) -> Any:
    """JSON as vendors write it, with halves of surrogates and NaN; raises ``ValueError``."""
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
