"""How long to wait before something is tried again, and the loop that tries again.

The browser's and Node's ``pause_before`` are generated from this one (``scripts/generate_typescript.py``).
"""

from __future__ import annotations

__all__ = ["DOUBLINGS", "pause_before", "retry"]

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

DOUBLINGS = 64  #: no cap is further away; past 1,023 of them a float overflows


def pause_before(
    tries: int, *, first: float = 0.05, longest: float = 1.0, factor: float = 2.0
) -> float:
    """Seconds to wait after ``tries`` earlier pauses: ``first``, doubled each time up to ``longest``.

    Another ``factor`` makes the pauses grow more slowly.

    The upper half is random, so that those who failed together do not come back together. Source:
    "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015), equal jitter.
    """
    ceiling = min(longest, first * factor ** min(max(tries, 0), DOUBLINGS))
    return ceiling * random.uniform(0.5, 1)  # noqa: S311 - jitter, not a secret


async def retry(
    call: Callable[[], Awaitable[T]],
    on: type[Exception] | tuple[type[Exception], ...],
    *,
    tries: int | None = None,
    first: float = 0.05,
    longest: float = 1.0,
    on_failure: Callable[[Exception], None] = lambda _: None,
) -> T:
    """What ``call`` returns, repeated while it raises ``on``: at most ``tries`` times, or without a limit.

    ``on_failure`` is called with each error that is followed by a pause. The last error is raised.
    """
    for failed in itertools.count():
        try:
            return await call()
        except on as error:
            if tries is not None and failed + 1 >= tries:
                raise
            on_failure(error)
            await asyncio.sleep(pause_before(failed, first=first, longest=longest))
    raise AssertionError  # it counts without an end
