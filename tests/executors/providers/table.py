"""The table: what goes wrong at a vendor, and how the job ends. Tests and docs/faults.md read it."""

from __future__ import annotations

__all__ = ["TABLE"]

from functools import partial
from typing import Final

from tests.executors.providers.cases import (
    AGAIN,
    CANCELLED,
    DONE,
    DONE_LATER,
    GIVEN_UP,
    HASTY,
    REJECTED,
    Case,
    Ending,
    limit,
    limited,
)
from tests.executors.providers.lab.faults import (
    BrokenImage,
    Cut,
    Endless,
    ErrorInside,
    Expired,
    Html,
    Mislabelled,
    NoEnd,
    Repeated,
    Shuffled,
    Silence,
    Slow,
    Status,
    Trailing,
)
from tests.executors.providers.table_fal import FAL_IMAGE
from tests.executors.providers.table_jigsawstack import JIGSAWSTACK_IMAGE
from tests.executors.providers.table_runpod import RUNPOD_CHAT, RUNPOD_IMAGE

_chat = partial(Case, provider="openai", does="chat")
_image = partial(Case, provider="openai", does="image")

_OPENAI_CHAT = (
    _chat(fault="nothing", script=(None,), first=DONE),
    _chat(fault="slow first word", script=(Slow(0.3, after=0),), first=DONE),
    _chat(
        fault="silence before the answer",
        script=(Silence(),),
        timeouts=HASTY,
        first=AGAIN,
        end=DONE_LATER,
    ),
    _chat(
        fault="silence before the first word",
        script=(Silence(after=0),),
        timeouts=HASTY,
        first=AGAIN,
        end=DONE_LATER,
    ),
    _chat(
        fault="silence in the middle, every time",
        script=(Silence(after=2),),
        timeouts=HASTY,
        forever=True,
        first=AGAIN,
        end=GIVEN_UP,
    ),
    _chat(fault="cut before the answer", script=(Cut(),), asked=2, first=DONE),
    _chat(fault="cut in the middle", script=(Cut(after=2),), first=AGAIN, end=DONE_LATER),
    _chat(fault="an end without finish_reason", script=(NoEnd(),), first=AGAIN, end=DONE_LATER),
    _chat(fault="an error event after 200", script=(ErrorInside(),), first=AGAIN, end=DONE_LATER),
    _chat(
        fault="an error event after 200: rate limit",
        script=(ErrorInside(code="rate_limit_exceeded"),),
        first=limited(15),
        end=DONE,
    ),
    _chat(
        fault="an error event after 200: content filter",
        script=(ErrorInside(code="content_filter"),),
        first=REJECTED,
    ),
    _chat(fault="500, then success", script=(Status(500),), asked=2, first=DONE),
    _chat(
        fault="500, every time",
        script=(Status(500),),
        forever=True,
        asked=3,
        first=AGAIN,
        end=GIVEN_UP,
    ),
    _chat(
        fault="503, `Retry-After: 40`",
        script=(Status(503, headers={"Retry-After": "40"}),),
        first=Ending(status="queued", code="provider_unavailable", attempts=1, wait=40),
        end=DONE_LATER,
    ),
    _chat(fault="429, `Retry-After: 0.5`", script=(limit(retry_after="0.5"),), asked=2, first=DONE),
    _chat(
        fault="429, `Retry-After: 40`",
        script=(limit(retry_after="40"),),
        first=limited(40),
        end=DONE,
    ),
    _chat(
        fault="429, `Retry-After` as a date",
        script=(
            limit(
                date="Tue, 24 Nov 2026 12:00:00 GMT", retry_after="Tue, 24 Nov 2026 12:00:50 GMT"
            ),
        ),
        first=limited(50),
        end=DONE,
    ),
    _chat(
        fault="429, `retry-after-ms: 30000`",
        script=(limit(retry_after_ms="30000"),),
        first=limited(30),
        end=DONE,
    ),
    _chat(
        fault="429, `x-ratelimit-reset-tokens: 6m0s`",
        script=(
            limit(
                x_ratelimit_remaining_requests="7",
                x_ratelimit_reset_requests="8ms",
                x_ratelimit_remaining_tokens="0",
                x_ratelimit_reset_tokens="6m0s",
            ),
        ),
        first=limited(360),
        end=DONE,
    ),
    _chat(
        fault="429 without a time, three times",
        script=(limit(),) * 3,
        asked=3,
        first=limited(15),
        end=DONE,
    ),
    _chat(
        fault="429 `insufficient_quota`",
        script=(Status(429, "insufficient_quota"),),
        first=REJECTED,
    ),
    _chat(
        fault="429 for a request larger than the limit",
        script=(Status(429, "rate_limit_exceeded", "Request too large for this model"),),
        first=REJECTED,
    ),
    _chat(fault="401, a wrong key", script=(Status(401, "invalid_api_key"),), first=REJECTED),
    _chat(
        fault="400, the conversation is too long",
        script=(Status(400, "context_length_exceeded"),),
        first=REJECTED,
    ),
    _chat(fault="400, refused content", script=(Status(400, "content_filter"),), first=REJECTED),
    _chat(fault="404, an unknown model", script=(Status(404, "model_not_found"),), first=REJECTED),
    _chat(
        fault="a redirect",
        script=(Status(307, headers={"Location": "https://elsewhere.example/"}),),
        first=AGAIN,
        end=DONE_LATER,
    ),
    _chat(fault="HTML under 200", script=(Html(),), first=AGAIN, end=DONE_LATER),
    _chat(fault="HTML under 502", script=(Html(502),), asked=2, first=DONE),
    _chat(
        fault="another content type",
        script=(Mislabelled("image/png"),),
        first=AGAIN,
        end=DONE_LATER,
    ),
    _chat(fault="a line without an end", script=(Endless(),), first=AGAIN, end=DONE_LATER),
    _chat(
        fault="every piece twice (they have no numbers: so is the text)",
        script=(Repeated(),),
        first=DONE,
    ),
    _chat(fault="the ending before the last words", script=(Shuffled(),), first=DONE),
    _chat(fault="more words after `[DONE]`", script=(Trailing(),), first=DONE),
    _chat(
        fault="the user cancels before the answer",
        script=(Silence(),),
        cancel=True,
        first=CANCELLED,
    ),
    _chat(
        fault="the user cancels in the middle",
        script=(Silence(after=2),),
        cancel=True,
        first=CANCELLED,
    ),
)

_OPENAI_IMAGE = (
    _image(fault="nothing", script=(None,), first=DONE),
    _image(fault="silence", script=(Silence(),), timeouts=HASTY, first=AGAIN, end=DONE_LATER),
    _image(fault="cut before the answer", script=(Cut(),), asked=2, first=DONE),
    _image(fault="cut in the middle", script=(Cut(after=1),), first=AGAIN, end=DONE_LATER),
    _image(fault="500, then success", script=(Status(500),), asked=2, first=DONE),
    _image(
        fault="429, `Retry-After: 40`",
        script=(limit(retry_after="40"),),
        first=limited(40),
        end=DONE,
    ),
    _image(
        fault="429 `insufficient_quota`",
        script=(Status(429, "insufficient_quota"),),
        first=REJECTED,
    ),
    _image(
        fault="400, refused content",
        script=(Status(400, "moderation_blocked"),),
        first=REJECTED,
    ),
    _image(fault="HTML under 200", script=(Html(),), first=AGAIN, end=DONE_LATER),
    _image(
        fault="another content type over good JSON",
        script=(Mislabelled("text/plain"),),
        first=DONE,
    ),
    _image(fault="an answer without an end", script=(Endless(),), first=AGAIN, end=DONE_LATER),
    _image(fault="half a picture", script=(BrokenImage("truncated"),), first=AGAIN, end=DONE_LATER),
    _image(
        fault="a decompression bomb, every time",
        script=(BrokenImage("bomb"),),
        forever=True,
        first=AGAIN,
        end=GIVEN_UP,
    ),
    _image(
        fault="words in place of a picture",
        script=(BrokenImage("text"),),
        first=AGAIN,
        end=DONE_LATER,
    ),
    _image(fault="an expired URL", script=(Expired(),), first=AGAIN, end=DONE_LATER),
    _image(
        fault="the user cancels while it is drawn",
        script=(Silence(),),
        cancel=True,
        first=CANCELLED,
    ),
)

TABLE: Final[tuple[Case, ...]] = (
    *_OPENAI_CHAT,
    *_OPENAI_IMAGE,
    *FAL_IMAGE,
    *RUNPOD_CHAT,
    *RUNPOD_IMAGE,
    *JIGSAWSTACK_IMAGE,
)
