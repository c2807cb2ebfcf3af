"""From the error that escaped an executor to the outcome of its run: retry it, when, or fail it."""

from __future__ import annotations

__all__ = ["cause_of", "outcome_of"]

import random

from executors.errors import (
    Cancelled,
    ExecutorError,
    LeaseLost,
    ProviderUnavailable,
    RateLimited,
    StageError,
    StorageUnavailable,
    as_executor_error,
)
from executors.running.outcomes import Failed, Outcome, Retry
from uvian_common.backoff import pause_before

#: Seconds before a job runs again that waited for our own storage. It burns no attempt.
STORAGE_DELAY = 2.0
FIRST_DELAY = 1.0
LONGEST_DELAY = 60.0
LONGEST_RATE_LIMIT = 3600.0


def outcome_of(error: BaseException, attempt: int) -> Outcome:
    """The outcome of a run that raised ``error``; ``attempt`` is how many have burned before this one."""
    stage, label, cause = _unwrapped(error)
    known = as_executor_error(cause)
    sentence = known.message if known else "an internal error"
    message = f"{label} failed: {sentence}" if label else _capitalised(sentence)
    retryable = known.retryable if known else True
    details = {
        "code": known.code if known else ExecutorError.code,
        "stage": stage,
        "message": message,
        "retryable": retryable,
        "attempt": attempt + 1,
    }
    if isinstance(known, RateLimited):
        delay = min(max(known.retry_after, 0.0), LONGEST_RATE_LIMIT)
        return Retry(details, message, delay=delay + random.uniform(0, 1), burn=False)  # noqa: S311
    if isinstance(known, StorageUnavailable):
        delay = max(known.retry_after, STORAGE_DELAY) * random.uniform(0.5, 1)  # noqa: S311
        return Retry(details, message, delay=delay, burn=False)
    if retryable:
        requested = known.retry_after if isinstance(known, ProviderUnavailable) else 0.0
        pause = pause_before(attempt, first=FIRST_DELAY, longest=LONGEST_DELAY)
        return Retry(details, message, delay=max(pause, min(requested, LONGEST_RATE_LIMIT)))
    return Failed(details, message)


def cause_of(error: BaseException) -> BaseException:
    """The error itself, without the stages and task groups that it came through."""
    return _unwrapped(error)[2]


def _unwrapped(error: BaseException) -> tuple[str | None, str | None, BaseException]:
    """The innermost stage's cause, with the name and label of the outermost stage."""
    stage = label = None
    while True:
        if isinstance(error, BaseExceptionGroup):
            # A lost lease or a cancellation decides the outcome, whatever else went wrong.
            error = next(
                (e for e in error.exceptions if isinstance(cause_of(e), LeaseLost | Cancelled)),
                error.exceptions[0],
            )
        elif isinstance(error, StageError):
            stage, label = stage or error.stage, label or error.label
            error = error.cause
        else:
            return stage, label, error


def _capitalised(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
