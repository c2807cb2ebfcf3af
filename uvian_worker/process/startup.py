"""A process that starts waits for a database or an image store that is away, as a running one does."""

from __future__ import annotations

__all__ = ["when_available"]

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from repositories.errors import RepositoryError, Transient
from uvian_common.backoff import pause_before

log = logging.getLogger("uvian.outage")

T = TypeVar("T")

_LOG_EVERY: Final = 60.0  #: seconds


async def when_available(
    call: Callable[[], Awaitable[T]],
    meanwhile: str,
    *,
    passing: tuple[type[RepositoryError], ...] = (Transient,),
) -> T:
    """The answer of ``call``, which is repeated while it raises one of the errors in ``passing``.

    A warning says what is away and what happens ``meanwhile``. It is repeated each minute, and when the
    error changes. A line says when the call works again. Other errors are raised.
    """
    began, logged, logged_at, tries = time.monotonic(), "", 0.0, 0
    while True:
        try:
            answer = await call()
        except passing as error:
            now = time.monotonic()
            if str(error) != logged or now - logged_at > _LOG_EVERY:
                log.warning("%s %s", _sentence(str(error)), meanwhile)
                logged, logged_at = str(error), now
        else:
            if logged:
                log.info("It answers again, after %.0f s.", time.monotonic() - began)
            return answer
        await asyncio.sleep(pause_before(tries, first=0.25, longest=5.0))
        tries += 1


def _sentence(text: str) -> str:
    return f"{text.rstrip('. ')}."
