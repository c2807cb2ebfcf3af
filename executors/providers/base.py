"""What an executor may ask of a model, whoever sells it.

Adapters live one file per vendor beside this one and raise nothing but the errors of
``executors.errors``: ``ProviderRejected``, ``ProviderUnavailable``, ``RateLimited``.

A call may be cancelled at any moment: the adapter then closes its connection and, where the vendor
has requests of its own, cancels that too, unless a later run comes back for it.
"""

from __future__ import annotations

__all__ = [
    "ChatDelta",
    "ChatMessage",
    "ChatModel",
    "ChatUsage",
    "FinishReason",
    "GeneratedImage",
    "ImageModel",
    "VendorRequest",
]

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

FinishReason = Literal["stop", "length", "content_filter"]


async def _forget(_: str) -> None:
    """Where no job is, no request is kept."""


def _ignore(_: str) -> None:
    """Where nobody looks, nothing is told."""


def _never() -> bool:
    """Where no job is, nobody comes back."""
    return False


@dataclass(frozen=True, slots=True)
class VendorRequest:
    """The job's side of one request to a vendor that answers with a request id of its own."""

    #: What an earlier run of the job had sent already: an adapter that can resumes it.
    id: str | None = None
    #: Keeps the id before the result is awaited; ``""`` when there is nothing left to resume.
    #: Raises ``LeaseLost``: then nothing may be paid for.
    keep: Callable[[str], Awaitable[None]] = _forget
    #: Tells the user what is waited for, in a sentence: a place in a queue, a cold start.
    report: Callable[[str], None] = _ignore
    #: Whether a later run comes for the request when this call is cancelled: the worker stops, or
    #: another one has the job. Then it is left with the vendor; else it is called off there.
    comes_back: Callable[[], bool] = _never
    #: Another vendor is asked when this one fails: then nobody comes for the request, and it is
    #: called off and forgotten.
    goes_elsewhere: bool = False

    def at(self, vendor: str) -> VendorRequest:
        """The request as ``vendor`` sees it: what was sent to another one is not its own to resume."""
        mark = f"{vendor}:"
        kept = self.id or ""
        return VendorRequest(
            id=kept.removeprefix(mark) if kept.startswith(mark) else None,
            keep=lambda id_: self.keep(mark + id_ if id_ else ""),
            report=self.report,
            comes_back=self.comes_back,
            goes_elsewhere=self.goes_elsewhere,
        )


@dataclass(frozen=True, slots=True)
class GeneratedImage:
    """An encoded picture as the provider answered it: untrusted until decoded safely."""

    content: bytes
    provider: str
    model: str
    seed: int | None = None
    operations: tuple[str, ...] = ()  #: what was done to the original, where the provider can say


class ImageModel(Protocol):
    """Makes pictures from words."""

    name: str

    async def generate(
        self,
        *,
        subject: str,
        theme: str,
        size: int,
        style: str | None = None,
        seed: int | None = None,
        request: VendorRequest = VendorRequest(),
    ) -> GeneratedImage:
        """Draw ``subject`` in the colours and mood of ``theme``, ``size`` × ``size`` pixels.

        A vendor that has other sizes answers its nearest one.
        """
        ...

    async def refine(
        self,
        *,
        original: bytes,
        prompt: str,
        width: int,
        height: int,
        strength: float | None = None,
        seed: int | None = None,
        request: VendorRequest = VendorRequest(),
    ) -> GeneratedImage:
        """Change ``original`` (a PNG that was decoded safely, of this width and height in pixels).

        ``strength`` says how far the answer may be from it, 0 to 1.
        """
        ...


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class ChatUsage:
    """Tokens as the vendor counted them."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class ChatDelta:
    """A piece of an answer; the last pieces may carry no text, but why it ended and what it used."""

    text: str = ""
    finish_reason: FinishReason | None = None
    usage: ChatUsage | None = None
    model: str | None = None  #: as the vendor names it


class ChatModel(Protocol):
    """Answers a conversation, piece by piece."""

    name: str
    structured: bool  #: whether it keeps to a schema: then it is asked for palettes too

    def stream(
        self,
        messages: Sequence[ChatMessage],
        *,
        model: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        schema: Mapping[str, Any] | None = None,
        request: VendorRequest = VendorRequest(),
    ) -> AsyncGenerator[ChatDelta, None]:
        """The answer as it is written; close the generator to stop it.

        With ``schema`` (JSON Schema) the text is one JSON document of that form, as far as the
        vendor keeps to it: validate it. An answer that ends without a finish reason was cut, and
        raises ``ProviderUnavailable``.
        """
        ...
