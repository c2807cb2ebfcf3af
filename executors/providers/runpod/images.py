"""``ImageModel`` by a serverless endpoint that draws."""

from __future__ import annotations

__all__ = ["RunPodImageModel"]

import base64
from collections.abc import Mapping
from typing import Any

from executors.providers.base import GeneratedImage, VendorRequest
from executors.providers.runpod.endpoint import Endpoint
from executors.providers.runpod.outputs import picture_in, seed_in
from executors.providers.transport.http import VendorClient
from executors.providers.transport.pending_requests import final_failures, picture, resume_or_submit
from executors.providers.transport.prompts import picture_prompt
from executors.providers.transport.results import Results


class RunPodImageModel:
    """An ``ImageModel`` of an endpoint whose worker takes what those of Stable Diffusion and FLUX take.

    ``prompt``, ``width`` and ``height`` (in steps of 8), ``num_images``, ``seed``, and for changes
    ``image_url`` (the picture itself, as a ``data:`` URL) and ``strength``. Workers that want a whole
    workflow, as ComfyUI's, cannot be used this way.
    """

    def __init__(self, client: VendorClient, results: Results, *, poll_every: float = 0.3) -> None:
        self.name = client.vendor.name
        self._endpoint = Endpoint(client)
        self._results = results
        self._poll_every = poll_every  # seconds, at first

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
        side = _stepped(size)
        payload = {"prompt": picture_prompt(subject, theme, style), "width": side, "height": side}
        return await self._made(payload, seed, request)

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
        """``original`` changed as the words say. RunPod takes no request above 10 MB."""
        payload: dict[str, Any] = {
            "prompt": prompt,
            "width": _stepped(width),
            "height": _stepped(height),
            "image_url": "data:image/png;base64," + base64.b64encode(original).decode(),
        }
        if strength is not None:
            payload["strength"] = strength
        return await self._made(payload, seed, request)

    async def _made(
        self, payload: Mapping[str, Any], seed: int | None, request: VendorRequest
    ) -> GeneratedImage:
        endpoint, own = self._endpoint, request.at(self.name)
        sent = {**payload, "num_images": 1}
        if seed is not None:
            sent["seed"] = seed

        async def submit() -> str:
            return await endpoint.run(sent)

        async def answer(request_id: str) -> GeneratedImage:
            output = await endpoint.ended(
                request_id,
                own.report,
                poll_every=self._poll_every,
                largest=self._results.largest_text,
            )
            with final_failures():
                found = picture_in(output)
                if not found:
                    endpoint.vendor.malformed("there is no picture in it", str(output).encode())
            content = await picture(self._results, found)
            used = seed_in(output)
            model = endpoint.vendor.base_url.rpartition("/")[2]
            return GeneratedImage(
                content, provider=self.name, model=model, seed=seed if used is None else used
            )

        return await resume_or_submit(
            endpoint.vendor, own, submit=submit, answer=answer, cancel=endpoint.cancel
        )


def _stepped(side: int) -> int:
    """In steps of 8 pixels, as these models want it."""
    return max(side // 8, 1) * 8
