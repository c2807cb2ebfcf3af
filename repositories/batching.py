"""The batchers of the lifecycle's functions: those are set-based, so many jobs cost one round trip."""

from __future__ import annotations

__all__ = ["batcher"]

import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import orjson

from repositories import errors
from repositories.database import Row
from uvian_common.batching import Batcher, Failure, Fifo, Verdict

log = logging.getLogger("uvian.batching")

MAX_ITEMS = 200
MAX_BYTES = 1_000_000

#: Calls with the same batch: one that failed so often is logged, and given up when the process ends.
_TRIES = 3


def batcher(
    function: str,
    call: Callable[[list[Row]], Awaitable[Sequence[Row]]],
    *,
    max_items: int = MAX_ITEMS,
) -> Batcher[Row, Row]:
    """A batcher for calls of one function of the schema; ``call`` returns one answer per item, in order.

    Transient faults, and what the operator must set right, are retried until ``close``: the functions
    are idempotent, and a job that is done must not be lost because Postgres restarts or a password was
    changed. On a timeout, and on an error that one item may have caused, the batch is halved until that
    item stands alone: it gets its error, or it waits.

    ``submit`` raises ``DataError`` at once for what is not JSON. After ``close`` items get ``Unavailable``.
    """
    queue: Fifo[Row, Row] = Fifo(
        max_items, max_bytes=MAX_BYTES, size=_size, skip_cancelled=True, gather=True
    )
    policy = partial(_policy, function)
    return Batcher(call, queue, name=function, policy=policy, closed=errors.Unavailable)


def _policy(function: str, failure: Failure[Row]) -> Verdict:
    error = failure.error
    if isinstance(error, errors.TimedOut) and not failure.is_single:
        return Verdict.HALVE
    if isinstance(error, errors.WAITED_FOR):
        if failure.closing and failure.tries >= _TRIES:
            return Verdict.GIVE_UP  # the sweep finds it
        level = logging.WARNING if failure.tries == _TRIES else logging.DEBUG
        log.log(level, "%s: %s; trying again", function, error)
        return Verdict.RETRY
    return Verdict.HALVE if isinstance(error, errors.Permanent) else Verdict.GIVE_UP


def _size(item: Row) -> int:
    """Bytes of JSON."""
    try:
        return len(orjson.dumps(item))
    except TypeError as error:  # orjson's own error derives from it
        raise errors.DataError(f"not JSON: {error}") from error
