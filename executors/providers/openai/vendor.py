"""How OpenAI, and those who speak like it, are reached, and what their errors mean."""

from __future__ import annotations

__all__ = ["OPENAI_URL", "is_openai", "openai_vendor", "read_error", "read_event_error"]

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from pydantic import SecretStr
from yarl import URL

from executors.errors import AccountRefused, ExecutorError, ProviderRejected
from executors.providers.transport.vendor import Refusal, Vendor

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
    **dict.fromkeys(
        (
            "RESOURCE_EXHAUSTED",
            "RateLimitError",
            "overloaded",
            "rate_limit_error",
            "rate_limit_exceeded",
            "too_many_requests",
        ),
        429,
    ),
    **dict.fromkeys(
        ("AuthenticationError", "UNAUTHENTICATED", "authentication_error", "invalid_api_key"), 401
    ),
    **dict.fromkeys(("PERMISSION_DENIED", "PermissionDeniedError", "permission_error"), 403),
    **dict.fromkeys(("NotFoundError", "not_found_error"), 404),
    **dict.fromkeys(
        (
            "BadRequestError",
            "ContextWindowExceededError",
            "INVALID_ARGUMENT",
            "invalid_request_error",
            "model_not_found",
            "validation",
            *_CONTENT,
            *_TOO_LONG,
        ),
        400,
    ),
}
#: Where servers write the status of an error, and its name, and its sentence.
_NUMBERS: Final = ("code", "status_code", "status", "error_code")
_NAMES: Final = ("code", "type", "error_type", "status")
_SENTENCES: Final = ("message", "detail", "error_message", "error_msg", "msg", "reason", "errors")


def openai_vendor(
    base_url: str = OPENAI_URL,
    api_key: SecretStr | None = None,
    *,
    name: str = "openai",
    label: str | None = None,
) -> Vendor:
    """OpenAI, or the server at ``base_url``; a server of one's own may need no key."""
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
    """The error of an answer. Servers agree on little more than the word "error", and not on that."""
    error = _error_in(document)
    words = (error.get(name) for name in _NAMES)
    code = next((word for word in words if isinstance(word, str) and _is_name(word)), "")
    said = (error.get(name) for name in _SENTENCES)
    message = str(next(filter(None, said), ""))[:1000]
    if status == 500 and ("validation error" in message or "role not supported" in message):
        status = 422  # llama.cpp: what it does not understand is called an internal fault
    return Refusal(
        status=status,
        code=code,
        message=message,
        param=param if isinstance(param := error.get("param"), str) and _is_name(param) else "",
    )


def _is_name(word: str) -> bool:
    return word not in {"", "error", "None"} and not word.isdigit()  # LiteLLM writes None as a word


def read_event_error(document: Any) -> Refusal:
    """The error in the middle of a stream, whose status line said 200."""
    refusal = read_error(500, document)
    error = _error_in(document)
    numbers = (str(error.get(name)) for name in _NUMBERS)
    known = (int(number) for number in numbers if re.fullmatch("[45][0-9]{2}", number))
    status = next(known, _STATUS_OF.get(refusal.code, refusal.status))
    return replace(refusal, status=status)


def _error_in(document: Any) -> dict[str, Any]:
    """The part of a document that describes an error, with what stands beside it."""
    if isinstance(document, list) and len(document) == 1:
        document = document[0]
    if not isinstance(document, dict):
        return {"message": document}
    error = document.get("error") or {}
    if isinstance(error, dict):
        return {**document, **error}
    return {**document, "message": error}


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
