"""What can go wrong while a job runs, in words its user may read.

    ExecutorError
    ├── InvalidInput            the request can never work: not retried
    │   └── NotFound            … because what it names is not there, or not this user's
    ├── ProviderRejected        the provider refuses this content or request: not retried
    │   ├── AccountRefused      … because of our account there: another provider may do it
    │   └── ProviderFailed      … because it fails at it, each time: another provider may do it
    ├── ProviderUnavailable     the provider is away or broken: retried with backoff
    ├── RateLimited             come back later: retried at the reset time, burns no attempt
    ├── StorageUnavailable      our image store or database is away: waited for, burns no attempt
    ├── StorageMisconfigured    our image store waits for the operator: waited for, retried
    ├── StorageRefused          our image store does not take this picture: not retried
    ├── Timeout                 the job took longer than its type allows: retried
    ├── StageError              one of the above, or a bug, with the stage it happened in
    ├── Cancelled               the user asked the job to stop
    └── LeaseLost               another worker owns the job now: nothing of this run may be written

Messages carry no secret, no path of the machine and no vendor's raw answer: the cause is for
the log, with its stack trace where the error was not expected.
"""

from __future__ import annotations

__all__ = [
    "AccountRefused",
    "Cancelled",
    "ExecutorError",
    "InvalidInput",
    "LeaseLost",
    "NotFound",
    "ProviderFailed",
    "ProviderRejected",
    "ProviderUnavailable",
    "RateLimited",
    "StageError",
    "StorageMisconfigured",
    "StorageRefused",
    "StorageUnavailable",
    "Timeout",
    "as_executor_error",
]

from typing import ClassVar

from repositories import errors as repository_errors
from uvian_common.text import storable


class ExecutorError(Exception):
    """The job cannot go on. ``code`` is stable and documented; ``message`` is a sentence for the user."""

    code: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str = "") -> None:
        self.message = storable(message) or (type(self).__doc__ or "").split("\n", maxsplit=1)[0]
        super().__init__(self.message)


class InvalidInput(ExecutorError):
    """The input is not valid for this type of job."""

    code = "invalid_input"


class NotFound(InvalidInput):
    """What the input refers to does not exist."""

    code = "not_found"


class ProviderRejected(ExecutorError):
    """The provider refused the request."""

    code = "provider_rejected"


class AccountRefused(ProviderRejected):
    """The provider does not serve this worker's account."""


class ProviderFailed(ProviderRejected):
    """The provider fails at this request, and would each time."""


class ProviderUnavailable(ExecutorError):
    """The provider is not available at the moment."""

    code = "provider_unavailable"
    retryable = True

    def __init__(self, message: str = "", *, retry_after: float = 0.0) -> None:
        """``retry_after`` is in seconds from now, where the provider said so."""
        super().__init__(message)
        self.retry_after = retry_after


class RateLimited(ExecutorError):
    """The provider's rate limit is reached."""

    code = "rate_limited"
    retryable = True

    def __init__(self, retry_after: float, message: str = "") -> None:
        """``retry_after`` is in seconds from now, as the provider gave it."""
        super().__init__(message)
        self.retry_after = retry_after


class StorageUnavailable(ExecutorError):
    """the storage is not available at the moment."""

    code = "storage_unavailable"
    retryable = True

    def __init__(self, message: str = "", *, retry_after: float = 0.0) -> None:
        """``retry_after`` is in seconds from now."""
        super().__init__(message)
        self.retry_after = retry_after


class StorageMisconfigured(ExecutorError):
    """the storage for pictures is not set up right; its operator has been told."""

    code = "storage_misconfigured"
    retryable = True


class StorageRefused(ExecutorError):
    """the storage does not take a picture that is so large, or of this kind."""

    code = "storage_refused"


class Timeout(ExecutorError):
    """The job took longer than its type allows."""

    code = "timeout"
    retryable = True


class Cancelled(ExecutorError):
    """The job was cancelled."""

    code = "cancelled"


class LeaseLost(ExecutorError):
    """Another worker owns this job now."""

    code = "lease_lost"


class StageError(ExecutorError):
    """A stage of the job failed: wraps what escaped from it, and keeps its code.

    ``label`` is the human name of the stage ("Palette generation"); the message reads
    "<label> failed: <sentence>".
    """

    def __init__(self, stage: str, cause: Exception, *, label: str | None = None) -> None:
        self.stage = stage
        self.cause = cause
        self.label = label or stage.replace("_", " ").capitalize()
        reason = cause.message if isinstance(cause, ExecutorError) else "an internal error"
        super().__init__(f"{self.label} failed: {reason}")


def as_executor_error(cause: BaseException) -> ExecutorError | None:
    """The error as its user may read it; None for one that only the log may have."""
    match cause:
        case ExecutorError():
            return cause
        case repository_errors.NotFound():
            return NotFound()
        case repository_errors.Transient() | repository_errors.Misconfigured():
            return StorageUnavailable(retry_after=getattr(cause, "retry_after", 0.0))
        case repository_errors.PictureRefused():
            return StorageRefused()
        case _:
            return None
