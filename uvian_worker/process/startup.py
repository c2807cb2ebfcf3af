"""Waiting for a database or an image store that is away when a process starts, as a running one does."""

from __future__ import annotations

__all__ = ["when_there"]

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from repositories.errors import RepositoryError, Transient
from uvian_common.backoff import pause_before

log = logging.getLogger("uvian.outage")

T = TypeVar("T")

_SAY_EVERY: Final = 60.0  #: seconds


async def when_there(
    ask: Callable[[], Awaitable[T]],
    meanwhile: str,
    *,
    passing: tuple[type[RepositoryError], ...] = (Transient,),
) -> T:
    """What ``ask`` answers, asked again while it fails with what passes.

    One warning says what is away and what happens ``meanwhile``, another each minute and whenever it
    is away in another way; a line says when it is back. Whatever else it raises is raised.
    """
    began, said, said_at, tries = time.monotonic(), "", 0.0, 0
    while True:
        try:
            answer = await ask()
        except passing as error:
            now = time.monotonic()
            if str(error) != said or now - said_at > _SAY_EVERY:
                log.warning("%s %s", _sentence(str(error)), meanwhile)
                said, said_at = str(error), now
        else:
            if said:
                log.info("It answers again, after %.0f s.", time.monotonic() - began)
            return answer
        await asyncio.sleep(pause_before(tries, first=0.25, longest=5.0))
        tries += 1


def _sentence(text: str) -> str:
    return f"{text.rstrip('. ')}."
