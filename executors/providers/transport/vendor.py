"""A vendor as its client sees it, and what its errors mean for a job.

What a vendor wrote is for the log, shortened and without keys: it becomes a :class:`VendorFault`, the
cause of the error that is raised. What the user reads is one of our sentences.
"""

from __future__ import annotations

__all__ = ["Refusal", "Vendor", "VendorFault", "refusal_of"]

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from pydantic import SecretStr

from executors.errors import (
    AccountRefused,
    ExecutorError,
    ProviderRejected,
    ProviderUnavailable,
    RateLimited,
)
from uvian_common.text import storable

#: Seconds after which to come back to a rate limit that names no time.
UNNAMED_WAIT = 15.0

#: What looks like a key, whole or half masked, wherever it came from.
_KEYS = re.compile(
    r"\b(?:sk|gsk|pk|rpa|fal|hf|xai|key|Bearer|Key)[-_ ][\w*.:-]{8,}|\bAIza[\w-]{20,}|\beyJ[\w-]{8,}[\w.-]*"
)


class VendorFault(Exception):
    """What went wrong at the vendor, for the log: never for a user. Its text has no keys."""

    def __init__(self, text: str, *, refusal: Refusal | None = None, again: bool = False) -> None:
        super().__init__(text)
        self.refusal = refusal
        self.again = again  #: nothing was done, so the call may be repeated at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A vendor's error, out of its own form."""

    status: int
    code: str = ""  #: the vendor's word for it
    message: str = ""  #: the vendor's sentence: for the log
    param: str = ""  #: which parameter it is about
    wait: float | None = None  #: seconds until it takes requests again, where it says so
    passes: bool | None = None  #: whether the same may work later, where it says so


def refusal_of(error: ExecutorError) -> Refusal | None:
    """The refusal that an error was raised for, if it was one."""
    fault = error.__cause__
    return fault.refusal if isinstance(fault, VendorFault) else None


def _unread(status: int, document: Any) -> Refusal:
    return Refusal(status=status, message=str(document)[:1000])


def _unamended(refusal: Refusal, _headers: Mapping[str, str]) -> Refusal:
    return refusal


def _unjudged(_label: str, _refusal: Refusal) -> ExecutorError | None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendor:
    """Who answers: how it is reached, how its errors are read, and what they mean."""

    name: str  #: in configuration and log
    label: str  #: in sentences, at their beginning
    base_url: str = ""  #: no slash at its end; without one any URL may be called, and needs no key
    auth: Mapping[str, SecretStr] = field(default_factory=dict)  #: headers that say who we are
    read: Callable[[int, Any], Refusal] = _unread  #: status and document (JSON, else text)
    #: What the headers of an error add to it.
    amend: Callable[[Refusal, Mapping[str, str]], Refusal] = _unamended
    #: Label and refusal as an error; None leaves it to the status.
    judge: Callable[[str, Refusal], ExecutorError | None] = _unjudged

    def refuse(self, refusal: Refusal) -> NoReturn:
        """Raise what a refusal means for the job."""
        error = self.judge(self.label, refusal) or by_status(self.label, refusal)
        said = f"{refusal.status} {refusal.code} {refusal.param} {refusal.message}"
        again = error.retryable and refusal.status >= 400  # a redirect stays one
        raise error from VendorFault(self._safe(said), refusal=refusal, again=again)

    def malformed(self, what: str, content: bytes = b"") -> NoReturn:
        """Raise that an answer is not of the form that was agreed: a proxy's page, a broken server."""
        said = f"{what}: {content[:200].decode('utf-8', 'replace')}"
        error = ProviderUnavailable(f"{self.label} gave an answer that cannot be read.")
        raise error from VendorFault(self._safe(said))

    def fail(self, sentence: str, cause: object = "", *, again: bool = False) -> NoReturn:
        """Raise that the connection failed; ``sentence`` goes on after the vendor's label.

        Only the text of ``cause`` is logged: an error of the HTTP library has the headers of the request.
        """
        kind = f" {type(cause).__name__}" if isinstance(cause, BaseException) else ""
        said = f"{sentence}:{kind} {cause}"
        error = ProviderUnavailable(f"{self.label} {sentence}.")
        raise error from VendorFault(self._safe(said), again=again)

    def _safe(self, text: str) -> str:
        text = f"{self.name}: {text}"
        for header in self.auth.values():
            secret = header.get_secret_value()
            for part in (secret, secret.rpartition(" ")[2]):
                text = text.replace(part, "[key]") if len(part) > 3 else text  # servers take any
        return _KEYS.sub("[key]", " ".join(storable(text).split()))[:500]


def by_status(label: str, refusal: Refusal) -> ExecutorError:
    """What an HTTP status means for a job, of any vendor."""
    status, wait = refusal.status, refusal.wait
    if status == 429:
        after = UNNAMED_WAIT if wait is None else wait
        return RateLimited(after, f"{label} is busy: its rate limit is reached.")
    if status in {408, 409, 425}:
        return ProviderUnavailable(f"{label} is busy.", retry_after=wait or 0.0)
    if status >= 500:
        return ProviderUnavailable(f"{label} has an internal fault.", retry_after=wait or 0.0)
    if status < 400:  # a redirect, which is not followed: the base URL is not quite right
        return ProviderUnavailable(f"{label} is not where it should be.")
    if status in _REFUSALS:
        cls, words = _REFUSALS[status]
        return cls(f"{label} {words}.")
    return ProviderRejected(f"{label} refuses the request.")


_REFUSALS: Mapping[int, tuple[type[ProviderRejected], str]] = {
    401: (AccountRefused, "refuses the key of this worker"),
    402: (AccountRefused, "wants the account of this worker to be paid for"),
    403: (AccountRefused, "refuses the key of this worker"),
    404: (ProviderRejected, "does not know what it was asked for"),
    413: (ProviderRejected, "refuses the request: it is too large"),
}
