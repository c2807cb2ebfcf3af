"""Requests that a vendor answers later: it gives a request id now, and the answer when it is polled.

The id is saved before the answer is awaited. So a later run resumes the request, and nothing is paid
for twice. The id is forgotten when the answer is there, or is known to be of no use.

**Cancelling** cancels the request at the vendor too, in a task of its own: the message leaves at once,
the task goes on when its caller is cancelled, and it lasts a few seconds at most. A request that a later
run resumes is left alone.

**Falling back** cancels the request as well: another vendor is called next, and both would be paid.
"""

from __future__ import annotations

__all__ = [
    "FinalFailure",
    "Polling",
    "UnknownRequest",
    "cancel_request",
    "final_failures",
    "picture",
    "resume_or_submit",
    "run_to_end",
    "save_id",
    "submit_request",
]

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from executors.errors import ExecutorError, ProviderUnavailable
from executors.providers.base import VendorRequest
from executors.providers.transport.results import Results, is_gone
from executors.providers.transport.vendor import Vendor
from uvian_common.backoff import pause_before
from uvian_common.tasks import cancel_until_done

log = logging.getLogger("uvian.providers")

T = TypeVar("T")

#: How long the id of a request is awaited that is cancelled while it is submitted.
_SUBMIT_SECONDS: Final = 1.0
_CANCEL_SECONDS: Final = 3.0  #: for cancelling a request at the vendor

#: How much longer each pause between two polls is.
_GROWTH: Final = 1.3

#: Tasks that outlive their callers: the event loop alone would forget them.
_running: set[asyncio.Task[None]] = set()


class UnknownRequest(Exception):
    """The vendor does not know the request, or no longer."""


class FinalFailure(Exception):
    """The answer is there and of no use, and would be the same the next time. See ``error``."""

    def __init__(self, error: ExecutorError) -> None:
        super().__init__(str(error))
        self.error = error


@contextmanager
def final_failures() -> Iterator[None]:
    """Errors of this block come from the answer, not from the connection: they are final."""
    try:
        yield
    except ExecutorError as error:
        raise FinalFailure(error) from error


async def picture(results: Results, text: str) -> bytes:
    """The picture behind a URL, or in the text itself as base64; a URL that leads nowhere is final."""
    if not text.startswith(("http://", "https://")):
        with final_failures():
            return await results.decoded(text)
    try:
        return await results.fetched(text)
    except ProviderUnavailable as error:
        if is_gone(error):
            raise FinalFailure(error) from error
        raise


class Polling:
    """Pauses between two polls of a request: short at first, longer the longer it takes."""

    def __init__(self, first: float, longest: float) -> None:
        self._first = first
        self._longest = longest
        self._polls = 0

    async def pause(self) -> None:
        """Wait for the next poll."""
        pause = pause_before(self._polls, first=self._first, longest=self._longest, factor=_GROWTH)
        self._polls += 1
        await asyncio.sleep(pause)

    def restart(self) -> None:
        """Something has happened: the next pause is short again."""
        self._polls = 0


async def resume_or_submit(
    vendor: Vendor,
    request: VendorRequest,
    *,
    submit: Callable[[], Coroutine[Any, Any, str]],
    answer: Callable[[str], Awaitable[T]],
    cancel: Callable[[str], Awaitable[object]],
) -> T:
    """The answer to the request that an earlier run has submitted, else to a new one.

    ``answer`` raises :class:`UnknownRequest` or :class:`FinalFailure` when the id is of no use any
    more. After any other retryable error a later run resumes the request.
    """
    if request.id is not None:
        try:
            return await _answer(request, request.id, answer, cancel)
        except UnknownRequest as error:
            log.info("%s: request %s cannot be resumed: %s", vendor.name, request.id, error)
    request_id = await submit_request(submit, cancel)
    await save_id(request, request_id, cancel)
    try:
        return await _answer(request, request_id, answer, cancel)
    except UnknownRequest as error:
        await request.save("")
        vendor.fail("has dropped the request", error)


async def submit_request(
    submit: Callable[[], Coroutine[Any, Any, str]], cancel: Callable[[str], Awaitable[object]]
) -> str:
    """The id of a new request. A caller that is cancelled before it is there leaves no request behind."""
    sending = asyncio.ensure_future(submit())
    try:
        return await asyncio.shield(sending)
    except asyncio.CancelledError:
        await run_to_end(_undo(sending, cancel))
        raise


async def save_id(
    request: VendorRequest, request_id: str, cancel: Callable[[str], Awaitable[object]]
) -> None:
    """Save the id, or cancel the request: nobody could find it again, and it would be paid for."""
    try:
        await request.save(request_id)
    except BaseException:
        await cancel_request(request_id, cancel)
        raise


async def cancel_request(request_id: str, cancel: Callable[[str], Awaitable[object]]) -> None:
    """Cancel a request at the vendor, if the vendor can be reached; raises nothing."""
    await run_to_end(_cancelled(request_id, cancel))


async def _answer(
    request: VendorRequest,
    request_id: str,
    answer: Callable[[str], Awaitable[T]],
    cancel: Callable[[str], Awaitable[object]],
) -> T:
    try:
        return await answer(request_id)
    except asyncio.CancelledError:
        if not request.comes_back():
            await cancel_request(request_id, cancel)
        raise
    except FinalFailure as end:
        await request.save("")
        raise end.error from end.error.__cause__
    except ExecutorError as error:
        if request.goes_elsewhere:
            # Cancelled first, then forgotten: after a crash in between, the next run finds it again.
            await cancel_request(request_id, cancel)
        if request.goes_elsewhere or not error.retryable:
            await request.save("")
        raise


async def run_to_end(work: Coroutine[Any, Any, None]) -> None:
    """Run it to its end; a cancellation ends the waiting and not the work."""
    task = asyncio.create_task(work)
    _running.add(task)
    task.add_done_callback(_running.discard)
    await asyncio.wait([task])


async def _undo(sending: asyncio.Future[str], cancel: Callable[[str], Awaitable[object]]) -> None:
    await asyncio.wait([sending], timeout=_SUBMIT_SECONDS)
    await cancel_until_done(sending)  # if it still runs: that closes its connection
    if not sending.cancelled() and sending.exception() is None:
        await _cancelled(sending.result(), cancel)


async def _cancelled(request_id: str, cancel: Callable[[str], Awaitable[object]]) -> None:
    try:
        async with asyncio.timeout(_CANCEL_SECONDS):
            await cancel(request_id)
    except ProviderUnavailable as error:
        log.warning("request %s may still run: %s", request_id, error.__cause__ or error)
    except (ExecutorError, TimeoutError, RuntimeError) as error:
        # It has ended by itself, or the worker has closed its session.
        log.info(
            "request %s is not cancelled: %s", request_id, error.__cause__ or str(error) or "late"
        )
