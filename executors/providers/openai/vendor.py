"""How OpenAI, and those who speak like it, are reached, and what their errors mean."""

from __future__ import annotations

__all__ = ["OPENAI_URL", "is_openai", "openai_vendor", "read_error", "read_event_error"]

import re
from collections.abc import Mapping
from typing import Any, Final

from pydantic import SecretStr
from yarl import URL

from executors.errors import AccountRefused, ExecutorError, ProviderRejected
from executors.providers.vendor import Refusal, Vendor

OPENAI_URL: Final = "https://api.openai.com/v1"

_CONTENT: Final = {
    "content_filter",
    "content_policy_violation",
    "moderation_blocked",
    "image_generation_user_error",
    "ResponsibleAIPolicyViolation",
}
_ACCOUNT: Final = {
    "insufficient_quota",
    "billing_hard_limit_reached",
    "billing_not_active",
    "account_deactivated",
    "access_terminated",
}
_TOO_LONG: Final = {
    "context_length_exceeded",
    "exceed_context_size_error",
    "string_above_max_length",
}
_TOO_LONG_IN_WORDS: Final = re.compile(
    r"maximum context|context (?:length|size|window)|prompt is too long|request too large",
    re.IGNORECASE,
)
#: What these say when the status line said 200 already.
_STATUS_OF: Final[Mapping[str, int]] = {
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "authentication_error": 401,
    "invalid_api_key": 401,
    **dict.fromkeys(("invalid_request_error", "model_not_found", *_CONTENT, *_TOO_LONG), 400),
}


def openai_vendor(
    base_url: str = OPENAI_URL,
    api_key: SecretStr | None = None,
    *,
    name: str = "openai",
    label: str | None = None,
) -> Vendor:
    """OpenAI, or whoever answers at ``base_url``; a server of one's own may want no key."""
    bearer = SecretStr(f"Bearer {api_key.get_secret_value()}") if api_key else None
    return Vendor(
        name=name,
        label=label or ("OpenAI" if is_openai(base_url) else "The model server"),
        base_url=base_url.rstrip("/"),
        auth={"Authorization": bearer} if bearer else {},
        read=read_error,
        judge=_judged,
    )


def is_openai(base_url: str) -> bool:
    """Whether it is OpenAI itself."""
    return URL(base_url).host == URL(OPENAI_URL).host


def read_error(status: int, document: Any) -> Refusal:
    """The error of an answer. Servers agree on little more than the word "error"."""
    error = document.get("error", document) if isinstance(document, dict) else document
    if not isinstance(error, dict):
        return Refusal(status=status, message=str(error)[:1000])
    words = [error.get("code"), error.get("type")]
    code = next((word for word in words if isinstance(word, str) and not word.isdigit()), "")
    message = str(error.get("message") or error.get("detail") or "")[:1000]
    if status == 500 and "validation error" in message:
        status = 422  # llama-cpp-python: what it does not understand is called an internal fault
    return Refusal(
        status=status,
        code=code,
        message=message,
        param=str(error.get("param") or ""),
    )


def read_event_error(document: Any) -> Refusal:
    """The error in the middle of a stream, whose status line said 200."""
    refusal = read_error(500, document)
    error = document.get("error", document) if isinstance(document, dict) else None
    number = error.get("code") if isinstance(error, dict) else None
    known = int(number) if isinstance(number, int | str) and str(number).isdigit() else 0
    status = known if 400 <= known < 600 else _STATUS_OF.get(refusal.code, 500)
    return Refusal(status=status, code=refusal.code, message=refusal.message, param=refusal.param)


def _judged(label: str, refusal: Refusal) -> ExecutorError | None:
    code = refusal.code
    if code in _ACCOUNT:
        return AccountRefused(f"{label} wants the account of this worker to be paid for.")
    if refusal.status >= 500:
        return None
    if code in _CONTENT or "safety system" in refusal.message:
        return ProviderRejected(f"{label} refuses this content: it is against its rules.")
    # A request larger than a whole minute's allowance is a 429 that no waiting helps.
    if code in _TOO_LONG or _TOO_LONG_IN_WORDS.search(refusal.message):
        return ProviderRejected(f"{label} refuses the request: it is too long for this model.")
    if code == "model_not_found":
        return ProviderRejected(f"{label} does not know the model that was asked for.")
    return None
