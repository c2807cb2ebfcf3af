"""Several models in place of one: when a vendor is away or busy, the next one is called.

There is no fallback when a vendor refuses the content: otherwise a model would be found that does not
mind. A refusal of our account (``AccountRefused``), or a failure that stays (``ProviderFailed``), says
nothing about the content; it counts as an outage. There is no fallback either after the first text was
passed on: an answer comes from one vendor.

A request that is given up is cancelled and forgotten before the next vendor is called: otherwise both
would be paid. The request of the last vendor is saved for a later run.
"""

from __future__ import annotations

__all__ = ["FallbackChatModel", "FallbackImageModel"]

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, TypeVar

from executors.errors import (
    AccountRefused,
    ExecutorError,
    ProviderFailed,
    ProviderUnavailable,
    RateLimited,
)
from executors.providers.base import (
    ChatDelta,
    ChatMessage,
    ChatModel,
    GeneratedImage,
    ImageModel,
    VendorRequest,
)

log = logging.getLogger("uvian.providers")

ModelT = TypeVar("ModelT", ChatModel, ImageModel)

#: Errors after which the next one is called.
GOES_ON = (ProviderUnavailable, RateLimited, AccountRefused, ProviderFailed)


class FallbackChatModel:
    """A ``ChatModel`` of several, the preferred one first."""

    def __init__(self, models: Sequence[ChatModel]) -> None:
        self._models = tuple(models)
        self.name = self._models[0].name
        self.structured = any(model.structured for model in self._models)

    async def stream(
        self,
        messages: Sequence[ChatMessage],
        *,
        model: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        schema: Mapping[str, Any] | None = None,
        request: VendorRequest = VendorRequest(),
    ) -> AsyncGenerator[ChatDelta, None]:
        """The answer of the first that begins one. ``model`` is a name of the preferred vendor's.

        With a ``schema`` only models that follow one are called, if there are any.
        """
        errors: list[ExecutorError] = []
        able = [one for one in self._models if schema is None or one.structured]
        for one, own in _in_order(able or self._models, request):
            answer = one.stream(
                messages,
                model=model if one is self._models[0] else None,
                temperature=temperature,
                max_tokens=max_tokens,
                schema=schema,
                request=own,
            )
            began = False
            async with aclosing(answer):
                try:
                    async for delta in answer:
                        began = began or bool(delta.text)
                        yield delta
                except GOES_ON as error:
                    if began:
                        raise
                    _note(one.name, error, errors)
                else:
                    return
        raise _most_hopeful(errors)


class FallbackImageModel:
    """An ``ImageModel`` of several, the preferred one first."""

    def __init__(self, models: Sequence[ImageModel]) -> None:
        self._models = tuple(models)
        self.name = self._models[0].name

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
        """The picture of the first that makes one."""
        return await self._first_picture(
            request,
            lambda one, own: one.generate(
                subject=subject, theme=theme, size=size, style=style, seed=seed, request=own
            ),
        )

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
        """The changed picture of the first that makes one."""
        return await self._first_picture(
            request,
            lambda one, own: one.refine(
                original=original,
                prompt=prompt,
                width=width,
                height=height,
                strength=strength,
                seed=seed,
                request=own,
            ),
        )

    async def _first_picture(
        self,
        request: VendorRequest,
        call: Callable[[ImageModel, VendorRequest], Awaitable[GeneratedImage]],
    ) -> GeneratedImage:
        errors: list[ExecutorError] = []
        for one, own in _in_order(self._models, request):
            try:
                return await call(one, own)
            except GOES_ON as error:
                _note(one.name, error, errors)
        raise _most_hopeful(errors)


def _in_order(
    models: Sequence[ModelT], request: VendorRequest
) -> list[tuple[ModelT, VendorRequest]]:
    """As configured, but first the model that has this request of an earlier run: it is paid for.

    Each model comes with the request as it may use it: only the last one has no fallback.
    """
    *others, last = sorted(models, key=lambda one: request.at(one.name).id is None)
    passing: VendorRequest = replace(request, goes_elsewhere=True)
    return [*((one, passing) for one in others), (last, request)]


def _note(name: str, error: ExecutorError, errors: list[ExecutorError]) -> None:
    log.warning("%s", error.__cause__ or f"{name}: {error}")
    errors.append(error)


def _most_hopeful(errors: Sequence[ExecutorError]) -> ExecutorError:
    """What the job ends its run with: the shortest wait, else an outage, else the last refusal."""
    limits = [error for error in errors if isinstance(error, RateLimited)]
    if limits:
        return min(limits, key=lambda error: error.retry_after)
    outages = [error for error in errors if error.retryable]
    return (outages or errors)[-1]
