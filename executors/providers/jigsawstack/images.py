"""``ImageModel`` by JigsawStack's image generation, which the vendor keeps up and no longer develops."""

from __future__ import annotations

__all__ = ["JIGSAWSTACK_URL", "JigsawStackImageModel", "jigsawstack_vendor"]

import asyncio
import logging
import uuid
from collections.abc import Mapping
from typing import Any, Final

from pydantic import SecretStr

from executors.errors import ExecutorError, ProviderRejected
from executors.providers.base import GeneratedImage, VendorRequest
from executors.providers.transport.http import Call, RetryBudget, VendorClient, parsed
from executors.providers.transport.limits import CallLimits
from executors.providers.transport.pending_requests import run_to_end
from executors.providers.transport.prompts import picture_prompt
from executors.providers.transport.results import Results
from executors.providers.transport.vendor import Refusal, Vendor

log = logging.getLogger("uvian.providers")

JIGSAWSTACK_URL: Final = "https://api.jigsawstack.com/v1"

_SMALLEST, _LARGEST = 256, 1920  # pixels of a side
_LONGEST_PROMPT: Final = 5000  # characters
_DELETING: Final = 3.0  #: seconds
_CLEANING: Final = CallLimits(concurrency=50, per_second=25.0)


def jigsawstack_vendor(base_url: str = JIGSAWSTACK_URL, api_key: SecretStr | None = None) -> Vendor:
    """JigsawStack, or what stands in for it."""
    return Vendor(
        name="jigsawstack",
        label="JigsawStack",
        base_url=base_url.rstrip("/"),
        auth={"x-api-key": api_key} if api_key else {},
        read=_read_error,
        judge=_judged,
    )


class JigsawStackImageModel:
    """An ``ImageModel`` of JigsawStack.

    It knows no ``strength``. There are no request ids to resume: closing the connection is the
    cancellation. The original of a change goes to the vendor's file store first, and is deleted
    there whatever happens.
    """

    def __init__(self, client: VendorClient, results: Results) -> None:
        self.name = client.vendor.name
        self._client = client
        self._results = results
        self._cleaning = client.with_limits(
            _CLEANING, retry_budget=RetryBudget(retries=1, seconds=2.0)
        )

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
        return await self._made(picture_prompt(subject, theme, style), size, size, seed, {})

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
        """``original`` changed as the words say."""
        # The key is ours: the upload can be deleted even if its answer never arrived.
        key = f"uvian-{uuid.uuid4()}.png"
        try:
            await self._upload(key, original)
            return await self._made(prompt, width, height, seed, {"file_store_key": key})
        finally:
            await run_to_end(self._delete(key))

    async def _made(
        self, prompt: str, width: int, height: int, seed: int | None, source: Mapping[str, str]
    ) -> GeneratedImage:
        wide, high = size_of(width, height)
        payload: dict[str, Any] = {
            "prompt": prompt[:_LONGEST_PROMPT],
            "width": wide,
            "height": high,
            "output_format": "png",
            "return_type": "binary",
            **source,
        }
        if seed is not None:
            payload["advance_config"] = {"seed": seed}
        call = Call(url="/ai/image_generation", body=payload)
        async with self._client.open(call) as reply:
            kind = reply.content_type
            content = await reply.read(self._results.largest_text)
        found = await self._picture(kind, content)
        return GeneratedImage(found, provider=self.name, model="image_generation", seed=seed)

    async def _picture(self, kind: str, content: bytes) -> bytes:
        """Bytes, or a document with a URL or base64: which of them, the vendor decides."""
        vendor = self._client.vendor
        unnamed = kind in {"application/octet-stream", ""} and not content.startswith(b"{")
        if kind.startswith("image/") or unnamed:
            return content
        try:
            document = parsed(content)
        except ValueError:
            vendor.malformed(f"a picture was asked for, not {kind}", content)
        if isinstance(document, dict) and document.get("success") is False:
            vendor.refuse(_read_error(500, document))
        url = document.get("url") if isinstance(document, dict) else None
        if not isinstance(url, str) or not url:
            vendor.malformed("there is no picture in it", content)
        if url.startswith(("http://", "https://")):
            return await self._results.fetched(url)
        return await self._results.decoded(url)

    async def _upload(self, key: str, original: bytes) -> None:
        await self._client.request(
            Call(
                url=f"/store/file?key={key}&overwrite=true",
                form=lambda: original,
                headers={"Content-Type": "image/png"},
            )
        )

    async def _delete(self, key: str) -> None:
        try:
            async with asyncio.timeout(_DELETING):
                await self._cleaning.request(Call(method="DELETE", url=f"/store/file/read/{key}"))
        except ProviderRejected:
            log.debug("jigsawstack: %s never came there", key)
        except (ExecutorError, TimeoutError, RuntimeError) as error:
            # Or the worker has closed its session.
            log.warning("jigsawstack: %s may still be in the file store: %s", key, error)


def size_of(width: int, height: int) -> tuple[int, int]:
    """The size to ask for: the same shape as far as the vendor's limits for a side allow."""
    scale = max(min(1.0, _LARGEST / max(width, height)), _SMALLEST / min(width, height))
    wide, high = round(width * scale), round(height * scale)
    return min(max(wide, _SMALLEST), _LARGEST), min(max(high, _SMALLEST), _LARGEST)


def _read_error(status: int, document: Any) -> Refusal:
    if not isinstance(document, dict):
        return Refusal(status=status, message=str(document)[:300])
    error = document.get("error")
    code = error if isinstance(error, str) and " " not in error else ""
    message = f"{document.get('message') or ''} {error if not code and error else ''}"
    return Refusal(status=status, code=code, message=message.strip()[:300])


def _judged(label: str, refusal: Refusal) -> ExecutorError | None:
    if refusal.status in {400, 422} and any(
        word in f"{refusal.code} {refusal.message}".lower() for word in ("nsfw", "safety", "policy")
    ):
        return ProviderRejected(f"{label} refuses this content: it is against its rules.")
    return None
