"""``ImageModel`` by OpenAI's image generations and edits."""

from __future__ import annotations

__all__ = ["OpenAIImageModel"]

import io
import math
from collections.abc import Mapping
from typing import Any, Final

import aiohttp

from executors.errors import ProviderRejected
from executors.providers.base import GeneratedImage, VendorRequest
from executors.providers.openai.vendor import read_event_error
from executors.providers.transport.http import Call, VendorClient
from executors.providers.transport.prompts import picture_prompt
from executors.providers.transport.results import Results
from executors.providers.transport.vendor import refusal_of

#: The sizes of GPT Image models up to 1.5; later ones take any, within these limits.
_STANDARD: Final = ((1024, 1024), (1536, 1024), (1024, 1536))
_FEWEST, _MOST = 1024 * 1024, 3840 * 2160  # pixels
_LONGEST: Final = 3840
_STEP: Final = 16


class OpenAIImageModel:
    """An ``ImageModel`` of OpenAI, or of a server that speaks its API.

    It knows no seed, and of ``strength`` only what the prompt says. There are no request ids to
    resume: closing the connection is the cancellation.
    """

    def __init__(self, client: VendorClient, results: Results, *, model: str) -> None:
        self.name = client.vendor.name
        self._client = client
        self._results = results
        self._model = model
        self._wants_base64 = not _is_gpt_image(model)  # GPT Image knows no other form of answer

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
        """A picture from words."""
        return await self._made(
            {
                "model": self._model,
                "prompt": picture_prompt(subject, theme, style),
                "n": 1,
                "size": size_of(self._model, size, size),
            }
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
        """``original`` (a PNG) changed as the words say."""
        return await self._made(
            {
                "model": self._model,
                "prompt": prompt,
                "n": 1,
                "size": size_of(self._model, width, height),
            },
            original,
        )

    async def _made(
        self, payload: Mapping[str, Any], original: bytes | None = None
    ) -> GeneratedImage:
        if not self._wants_base64:
            return await self._once(payload, original)
        try:
            return await self._once({**payload, "response_format": "b64_json"}, original)
        except ProviderRejected as error:
            refusal = refusal_of(error)
            named = f"{refusal.param} {refusal.message}" if refusal is not None else ""
            if "response_format" not in named:
                raise
        self._wants_base64 = False
        return await self._once(payload, original)

    async def _once(self, payload: Mapping[str, Any], original: bytes | None) -> GeneratedImage:
        if original is None:
            call = Call(url="/images/generations", body=payload, bucket=self._model)
        else:
            call = Call(
                url="/images/edits", form=lambda: _form(payload, original), bucket=self._model
            )
        document = await self._client.request(call, largest=self._results.largest_text)
        content = await self._content(document)
        return GeneratedImage(content, provider=self.name, model=self._model)

    async def _content(self, document: Any) -> bytes:
        if isinstance(document, dict) and document.get("error"):  # under a status that says 200
            self._client.vendor.refuse(read_event_error(document))
        data = document.get("data") if isinstance(document, dict) else None
        first = data[0] if isinstance(data, list) and data else None
        found = first if isinstance(first, dict) else {}
        if isinstance(text := found.get("b64_json"), str) and text:
            return await self._results.decoded(text)
        if isinstance(url := found.get("url"), str) and url:
            return await self._results.fetched(url)
        return self._client.vendor.malformed("there is no picture in it")


def size_of(model: str, width: int, height: int) -> str:
    """The size to ask for: the nearest that the model has, no smaller where there is one."""
    if _is_gpt_image(model):
        if model.startswith(("gpt-image-1", "chatgpt-image")):
            wanted = math.log(width / height)
            width, height = min(_STANDARD, key=lambda s: abs(math.log(s[0] / s[1]) - wanted))
        else:
            width, height = _stepped(width, height)
    return f"{width}x{height}"


def _stepped(width: int, height: int) -> tuple[int, int]:
    """In steps of 16 pixels, no side three times the other, neither too few pixels nor too many."""
    width, height = max(width, -(-height // 3)), max(height, -(-width // 3))
    scale = max(1.0, math.sqrt(_FEWEST / (width * height)))
    scale = min(scale, math.sqrt(_MOST / (width * height)), _LONGEST / max(width, height))
    rounded = math.ceil if scale >= 1 else math.floor
    return (
        rounded(round(width * scale / _STEP, 6)) * _STEP,
        rounded(round(height * scale / _STEP, 6)) * _STEP,
    )


def _is_gpt_image(model: str) -> bool:
    return model.startswith(("gpt-image", "chatgpt-image"))


def _form(payload: Mapping[str, Any], original: bytes) -> aiohttp.FormData:
    form = aiohttp.FormData()
    file = io.BytesIO(original)
    form.add_field("image", file, filename="original.png", content_type="image/png")
    for name, value in payload.items():
        form.add_field(name, str(value))
    return form
