"""Why an answer ended, in the words that servers have for it."""

from __future__ import annotations

__all__ = ["is_cut", "read_finish"]

from collections.abc import Mapping
from typing import Final

from executors.providers.base import FinishReason

#: Serialised without a value, for "not yet".
_NOT_YET: Final = {"", "null", "none"}

_WORDS: Final[Mapping[str, FinishReason]] = {
    **dict.fromkeys(
        ("length", "max_tokens", "max_output_tokens", "max_length", "model_length"), "length"
    ),
    **dict.fromkeys(
        (
            "content_filter",
            "content-filter",
            "blocklist",
            "prohibited_content",
            "recitation",
            "refusal",
            "safety",
            "sensitive",
            "spii",
        ),
        "content_filter",
    ),
}

#: The server gave up in the middle of it: vLLM, SGLang, DeepSeek, Zhipu, OpenRouter.
_CUT: Final = {
    "abort",
    "aborted",
    "canceled",
    "cancelled",
    "error",
    "insufficient_system_resource",
    "network_error",
    "timeout",
}


def _word(reason: object) -> str:
    """SGLang has an object with ``type``."""
    if isinstance(reason, Mapping):
        reason = reason.get("type")
    return reason.strip().lower() if isinstance(reason, str) else ""


def read_finish(reason: object) -> FinishReason | None:
    """What a ``finish_reason`` means; None while there is none."""
    word = _word(reason)
    if word in _NOT_YET or word in _CUT:
        return None
    return _WORDS.get(word, "stop")  # servers have words of their own for having said everything


def is_cut(reason: object) -> bool:
    """Whether it says that the answer broke off."""
    return _word(reason) in _CUT
