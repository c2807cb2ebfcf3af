"""The ``local`` provider: no network, no key, the same answer to the same question every time.

It draws flat vector marks (see ``marks``) in the colours that the theme names.
"""

from __future__ import annotations

__all__ = ["LocalImageModel"]

import asyncio

from executors.errors import ProviderRejected
from executors.imaging.codec import encode_png
from executors.providers.base import GeneratedImage, VendorRequest
from executors.providers.marks.draw import draw_mark, seed_for

_SIZES = range(16, 4097)  # pixels


class LocalImageModel:
    """An ``ImageModel`` that draws on this machine, in a thread."""

    name = "local"
    model = "marks-1"  #: changes when the same seed would draw something else

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
        """A PNG mark; without a seed, one that follows from the words."""
        if size not in _SIZES:
            raise ProviderRejected(
                f"local images are {_SIZES.start} to {_SIZES.stop - 1} pixels large, not {size}"
            )
        if seed is None:
            seed = seed_for(subject, theme, style)
        content = await asyncio.to_thread(_drawn, subject, theme, size, style, seed)
        return GeneratedImage(content, provider=self.name, model=self.model, seed=seed)


def _drawn(subject: str, theme: str, size: int, style: str | None, seed: int) -> bytes:
    image = draw_mark(subject, theme, size=size, seed=seed, style=style)
    return encode_png(image, flat=True).content
