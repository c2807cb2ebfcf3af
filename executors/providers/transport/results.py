"""Pictures that a vendor answers as text or leaves behind a URL."""

from __future__ import annotations

__all__ = ["Fetch", "Results", "is_gone"]

import asyncio
import base64
import binascii
from typing import Final, Protocol

import aiohttp
from yarl import URL

from executors.errors import ExecutorError, InvalidInput, ProviderUnavailable
from executors.imaging.codec import LIMITS
from executors.providers.transport.http import Timeouts, VendorClient
from executors.providers.transport.vendor import Refusal, Vendor, refusal_of

#: A download is not a model: what does not begin soon never will.
_TIMEOUTS: Final = Timeouts(first_byte=20.0, idle=10.0, total=60.0)


class Fetch(Protocol):
    """Reads what is at a URL of the public internet, and refuses every other URL."""

    async def __call__(self, url: str, *, max_bytes: int) -> bytes:
        """Raises ``InvalidInput`` for what may not be fetched, ``ProviderUnavailable`` for faults."""
        ...


class Results:
    """Gets the pictures of one vendor, within limits. Whatever goes wrong is the vendor's fault.

    What lies beside the vendor's API (``base_url`` has the same origin) is fetched directly, for a
    server on the operator's own network; everything else through ``fetch``, which is guarded. No key
    goes with either.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        vendor: Vendor,
        fetch: Fetch,
        *,
        largest: int = LIMITS.bytes,
    ) -> None:
        self.largest = largest  #: bytes
        self._vendor = vendor
        self._fetch = fetch
        beside = Vendor(name=vendor.name, label=vendor.label, judge=_gone)
        self._beside = VendorClient(session, beside, timeouts=_TIMEOUTS)

    @property
    def largest_text(self) -> int:
        """Bytes of a JSON document with such a picture in base64."""
        return self.largest * 4 // 3 + 64 * 1024

    async def decoded(self, text: str) -> bytes:
        """A picture in base64, or in a ``data:`` URL."""
        _, _, encoded = text.rpartition("base64,")
        try:
            return await asyncio.to_thread(base64.b64decode, encoded, validate=True)
        except (binascii.Error, ValueError):
            self._vendor.malformed(
                "its picture is no base64", text[:100].encode("utf-8", "replace")
            )

    async def fetched(self, url: str) -> bytes:
        """The picture behind a URL."""
        if url.startswith("data:"):
            return await self.decoded(url)
        if self._is_beside(url):
            return await self._beside.fetch(url, largest=self.largest)
        try:
            return await self._fetch(url, max_bytes=self.largest)
        except InvalidInput as error:
            # For the job it is no invalid input: the vendor wrote that URL.
            self._beside.vendor.refuse(Refusal(status=410, message=str(error)))

    def _is_beside(self, url: str) -> bool:
        base = self._vendor.base_url
        try:
            return bool(base) and URL(url).origin() == URL(base).origin()
        except ValueError:
            return False


def is_gone(error: ExecutorError) -> bool:
    """Whether a picture is not where its URL says, and will not be: :meth:`Results.fetched` raised it."""
    refusal = refusal_of(error)
    return refusal is not None and 400 <= refusal.status < 500


def _gone(label: str, refusal: Refusal) -> ExecutorError | None:
    if 400 <= refusal.status < 500 and refusal.status != 429:
        return ProviderUnavailable(f"{label} left its picture where it cannot be fetched.")
    return None
