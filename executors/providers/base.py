"""The ports ``ChatModel`` and ``ImageModel``: what an executor calls, whichever vendor is behind it.

Each vendor has a folder beside this file. Its models raise only errors of ``executors.errors``:
``ProviderRejected``, ``ProviderUnavailable``, ``RateLimited``.

A call may be cancelled at any moment. The model then closes its connection. If the vendor gave a request
id, the request is cancelled there too, unless a later run resumes it.
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
    """Without a job no request id is saved."""


def _ignore(_: str) -> None:
    """Without a user nobody reads the report."""


def _never() -> bool:
    """Without a job no run follows."""
    return False


@dataclass(frozen=True, slots=True)
class VendorRequest:
    """The job's side of one request to a vendor that answers with a request id of its own."""

    #: The id of the request that an earlier run submitted; a model that can, resumes it.
    id: str | None = None
    #: Saves the id before the result is awaited; ``""`` when there is nothing left to resume.
    #: Raises ``LeaseLost``: then nothing may be paid for.
    save: Callable[[str], Awaitable[None]] = _forget
    #: Reports to the user what the job waits for, in a sentence: a queue, a cold start.
    report: Callable[[str], None] = _ignore
    #: Whether a later run resumes the request when this call is cancelled: the worker shuts down, or
    #: another one has the job. Then the request goes on at the vendor; else it is cancelled there.
    comes_back: Callable[[], bool] = _never
    #: Another vendor is called when this one fails. Then no run resumes the request: it is cancelled
    #: and forgotten.
    goes_elsewhere: bool = False

    def at(self, vendor: str) -> VendorRequest:
        """The request as ``vendor`` sees it: without the id of another vendor's request."""
        mark = f"{vendor}:"
        saved = self.id or ""
        return VendorRequest(
            id=saved.removeprefix(mark) if saved.startswith(mark) else None,
            save=lambda id_: self.save(mark + id_ if id_ else ""),
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
    """The next text of an answer; the last deltas may have no text, but a finish reason and usage."""

    text: str = ""
    finish_reason: FinishReason | None = None
    usage: ChatUsage | None = None
    model: str | None = None  #: as the vendor names it


class ChatModel(Protocol):
    """Answers a conversation, delta by delta."""

    name: str
    structured: bool  #: whether it follows a schema: then it makes palettes too

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
