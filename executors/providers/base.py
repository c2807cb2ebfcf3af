"""What an executor may ask of a model, whoever sells it.

Adapters live one file per vendor beside this one and raise nothing but the errors of
``executors.errors``: ``ProviderRejected``, ``ProviderUnavailable``, ``RateLimited``.
"""

from __future__ import annotations

__all__ = ["GeneratedImage", "ImageModel"]

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class GeneratedImage:
    """An encoded picture as the provider answered it: untrusted until decoded safely."""

    content: bytes
    provider: str
    model: str
    seed: int | None = None


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
    ) -> GeneratedImage:
        """Draw ``subject`` in the colours and mood of ``theme``, ``size`` × ``size`` pixels."""
        ...
