"""The ``local`` provider: no network, no key, the same answer to the same question every time.

It draws flat vector marks (see ``marks``) in the colours that the theme names, and refines any picture
by the operations that the words of a prompt ask for (see ``refining``).
"""

from __future__ import annotations

__all__ = ["LocalImageModel"]

import asyncio

from PIL import Image

from executors.errors import ProviderRejected
from executors.imaging.codec import DECODERS, Decoders, encode_png
from executors.imaging.palettes import stable_seed
from executors.imaging.tiles import Tiles
from executors.providers.base import GeneratedImage, VendorRequest
from executors.providers.offline.marks.draw import draw_mark, seed_for
from executors.providers.offline.refining.lettering import Unwritable
from executors.providers.offline.refining.refine import refine_picture

_SIZES = range(16, 4097)  # pixels


class LocalImageModel:
    """An ``ImageModel`` that draws on this machine, in a thread."""

    def __init__(self, decoders: Decoders = DECODERS) -> None:
        self._decoders = decoders

    name = "local"
    model = "marks-1"  #: changes when the same seed would draw something else
    refining_model = "refining-1"  #: … and when the same prompt would change a picture otherwise

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
        _check(size)
        if seed is None:
            seed = seed_for(subject, theme, style)
        content = await asyncio.to_thread(_drawn, subject, theme, size, style, seed)
        return GeneratedImage(content, provider=self.name, model=self.model, seed=seed)

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
        """A PNG of the same size; what the prompt asks for is done to it, in real pixels."""
        _check(width, height)
        if seed is None:
            seed = stable_seed(" ".join(prompt.casefold().split()))
        picture = await self._decoders.decode(original)
        content, operations = await asyncio.to_thread(
            _refined, picture, prompt, (width, height), strength, seed
        )
        return GeneratedImage(
            content,
            provider=self.name,
            model=self.refining_model,
            seed=seed,
            operations=operations,
        )


def _check(*sides: int) -> None:
    for side in sides:
        if side not in _SIZES:
            raise ProviderRejected(
                f"local images are {_SIZES.start} to {_SIZES.stop - 1} pixels large, not {side}"
            )


def _drawn(subject: str, theme: str, size: int, style: str | None, seed: int) -> bytes:
    image = draw_mark(subject, theme, size=size, seed=seed, style=style)
    return encode_png(image, flat=True).content


def _refined(
    picture: Image.Image, prompt: str, size: tuple[int, int], strength: float | None, seed: int
) -> tuple[bytes, tuple[str, ...]]:
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    try:
        refined = refine_picture(picture, prompt, strength=strength, seed=seed)
    except Unwritable as error:
        raise ProviderRejected(
            "the offline provider can write in Latin letters only; connect a model for others"
        ) from error
    flat = Tiles.cut(refined.image).flat
    return encode_png(refined.image, flat=flat).content, refined.operations
