"""Requests that a vendor answers later: it gives a ticket now, and the answer when it is asked for.

The ticket is kept before the answer is awaited: a later run redeems it, and nothing is paid for
twice. It is kept until the answer is there or known to be of no use.

**Cancelling** calls the request off at the vendor, in whatever phase it is, in a task of its own:
it is on its way at once, outlives whoever is cancelled, and lasts a few seconds at most. Only what
a later run comes back for is left with the vendor.

**Going elsewhere** calls it off as well: where another vendor is asked next, the answer would be
paid for twice.
"""

from __future__ import annotations

from uvian_common.tasks import cancel_until_done

__all__ = [
    "Rhythm",
    "Spent",
    "Unknown",
    "call_off",
    "kept",
    "picture",
    "redeemed",
    "see_through",
    "spent",
    "submitted",
]

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from executors.errors import ExecutorError, ProviderUnavailable
from executors.providers.base import VendorRequest
from executors.providers.transport.results import Results, is_gone
from executors.providers.transport.vendor import Vendor

log = logging.getLogger("uvian.providers")

T = TypeVar("T")

_SUBMITTING: Final = (
    1.0  #: seconds in which a vendor may still say the ticket of what is not wanted
)
_CALLING_OFF: Final = 3.0  #: seconds for calling a request off

#: What is under way for those who were cancelled: the event loop alone would forget it.
_under_way: set[asyncio.Task[None]] = set()


class Unknown(Exception):
    """The vendor has no such request, or has it no more."""


class Spent(Exception):
    """The answer is there and of no use: asked for again it would be the same. See ``error``."""

    def __init__(self, error: ExecutorError) -> None:
        super().__init__(str(error))
        self.error = error


@contextmanager
def spent() -> Iterator[None]:
    """What goes wrong in this block lies in the answer, not in the way to it."""
    try:
        yield
    except ExecutorError as error:
        raise Spent(error) from error


async def picture(results: Results, text: str) -> bytes:
    """The picture behind a URL, or in the text itself as base64; a URL that leads nowhere is spent."""
    if not text.startswith(("http://", "https://")):
        with spent():
            return await results.decoded(text)
    try:
        return await results.fetched(text)
    except ProviderUnavailable as error:
        if is_gone(error):
            raise Spent(error) from error
        raise


class Rhythm:
    """Pauses between two looks at a request: short at first, longer the longer it takes."""

    def __init__(self, first: float, longest: float) -> None:
        self._first = self._next = first
        self._longest = longest

    async def pause(self) -> None:
        """Wait until it is worth looking again."""
        await asyncio.sleep(self._next * random.uniform(0.9, 1.1))  # noqa: S311 - jitter, not a secret
        self._next = min(self._next * 1.3, self._longest)

    def restart(self) -> None:
        """Something has happened: look again soon."""
        self._next = self._first


async def redeemed(
    vendor: Vendor,
    request: VendorRequest,
    *,
    submit: Callable[[], Coroutine[Any, Any, str]],
    answer: Callable[[str], Awaitable[T]],
    cancel: Callable[[str], Awaitable[object]],
) -> T:
    """The answer to the request that an earlier run has sent, else to a new one.

    ``answer`` raises :class:`Unknown` or :class:`Spent` where the ticket is of no use any more; after
    any other error that may pass, a later run redeems it.
    """
    if request.id is not None:
        try:
            return await _answer(request, request.id, answer, cancel)
        except Unknown as error:
            log.info("%s: request %s cannot be resumed: %s", vendor.name, request.id, error)
    ticket = await submitted(submit, cancel)
    await kept(request, ticket, cancel)
    try:
        return await _answer(request, ticket, answer, cancel)
    except Unknown as error:
        await request.keep("")
        vendor.fail("has dropped the request", error)


async def submitted(
    submit: Callable[[], Coroutine[Any, Any, str]], cancel: Callable[[str], Awaitable[object]]
) -> str:
    """The ticket of a new request. Who is cancelled before it is there leaves no request behind."""
    sending = asyncio.ensure_future(submit())
    try:
        return await asyncio.shield(sending)
    except asyncio.CancelledError:
        await see_through(_undo(sending, cancel))
        raise


async def kept(
    request: VendorRequest, ticket: str, cancel: Callable[[str], Awaitable[object]]
) -> None:
    """Keep the ticket, or have no request: what nobody can find again would be paid for in vain."""
    try:
        await request.keep(ticket)
    except BaseException:
        await call_off(ticket, cancel)
        raise


async def call_off(ticket: str, cancel: Callable[[str], Awaitable[object]]) -> None:
    """Tell the vendor that the answer is not wanted, if it can be told; raises nothing for it."""
    await see_through(_cancelled(ticket, cancel))


async def _answer(
    request: VendorRequest,
    ticket: str,
    answer: Callable[[str], Awaitable[T]],
    cancel: Callable[[str], Awaitable[object]],
) -> T:
    try:
        return await answer(ticket)
    except asyncio.CancelledError:
        if not request.comes_back():
            await call_off(ticket, cancel)
        raise
    except Spent as end:
        await request.keep("")
        raise end.error from end.error.__cause__
    except ExecutorError as error:
        if request.goes_elsewhere:
            # First called off, then forgotten: who dies in between finds it again, and sees its end.
            await call_off(ticket, cancel)
        if request.goes_elsewhere or not error.retryable:
            await request.keep("")
        raise


async def see_through(work: Coroutine[Any, Any, None]) -> None:
    """Run it to its end; being cancelled once more ends the waiting and not the work."""
    task = asyncio.create_task(work)
    _under_way.add(task)
    task.add_done_callback(_under_way.discard)
    await asyncio.wait([task])


async def _undo(sending: asyncio.Future[str], cancel: Callable[[str], Awaitable[object]]) -> None:
    await asyncio.wait([sending], timeout=_SUBMITTING)
    await cancel_until_done(sending)  # if it still runs: that closes its connection
    if not sending.cancelled() and sending.exception() is None:
        await _cancelled(sending.result(), cancel)


async def _cancelled(ticket: str, cancel: Callable[[str], Awaitable[object]]) -> None:
    try:
        async with asyncio.timeout(_CALLING_OFF):
            await cancel(ticket)
    except ProviderUnavailable as error:
        log.warning("request %s may go on: %s", ticket, error.__cause__ or error)
    except (ExecutorError, TimeoutError, RuntimeError) as error:
        # It has ended by itself, or the worker has closed its session.
        log.info(
            "request %s is not called off: %s", ticket, error.__cause__ or str(error) or "late"
        )
