"""JigsawStack's image generation, and the file store that its originals come from."""

from __future__ import annotations

__all__ = ["JigsawStackLab"]

import base64
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from aiohttp import web

from tests.executors.providers.lab import faults
from tests.executors.providers.lab.server import LAB_KEY, Exchange, Handler, Lab

BASE = "/jigsawstack/v1"


class JigsawStackLab:
    """``{lab.url}/jigsawstack/v1``."""

    name = "jigsawstack"

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.files: dict[str, bytes] = {}  #: what is in the file store
        #: How pictures come, where it is not as they were asked for.
        self.answers: Literal["url", "base64", "binary"] | None = None

    def routes(self) -> Iterable[tuple[str, str, str, Handler]]:
        yield "POST", f"{BASE}/ai/image_generation", "images", self._images
        yield "POST", f"{BASE}/store/file", "upload", self._upload
        yield "GET", f"{BASE}/store/file/read/{{key}}", "read", self._read
        yield "DELETE", f"{BASE}/store/file/read/{{key}}", "delete", self._delete

    def is_known(self, headers: Mapping[str, str]) -> bool:
        return headers.get("x-api-key") == LAB_KEY

    def error(self, fault: faults.Status) -> Any:
        return {"success": False, "message": fault.message, "error": fault.code or None}

    def exports(self, url: str) -> Mapping[str, str]:
        return {
            "UVIAN_IMAGE_MODEL": "jigsawstack",
            "UVIAN_JIGSAWSTACK_BASE_URL": url + BASE,
            "UVIAN_JIGSAWSTACK_API_KEY": LAB_KEY,
        }

    async def _images(self, exchange: Exchange) -> web.StreamResponse:
        asked = exchange.body
        if (wrong := self._wrong(asked)) is not None:
            return await exchange.error(faults.Status(400, "validation_error", wrong))
        width, height = asked.get("width", 512), asked.get("height", 512)
        content = self._lab.picture(exchange.fault, width, height)
        form = self.answers or asked.get("return_type", "url")
        if isinstance(exchange.fault, faults.Expired):
            form = "url"
        if form == "binary":
            return await exchange.content(content, "image/png")
        expired = isinstance(exchange.fault, faults.Expired)
        url = (
            self._lab.keep_file(content, "image/png", expired=expired)
            if form == "url"
            else f"data:image/png;base64,{base64.b64encode(content).decode()}"
        )
        return await exchange.json({"success": True, "url": url, "_usage": {"total_tokens": 7}})

    def _wrong(self, asked: Mapping[str, Any]) -> str | None:
        if not 1 <= len(asked.get("prompt", "")) <= 5000:
            return "prompt must be between 1-5000 characters"
        for side in ("width", "height"):
            if not 256 <= asked.get(side, 512) <= 1920:
                return f"{side} must be between 256-1920"
        if "file_store_key" in asked and asked["file_store_key"] not in self.files:
            return "file_store_key is unknown"
        return None

    async def _upload(self, exchange: Exchange) -> web.StreamResponse:
        key = exchange.request.query.get("key", f"lab-{len(self.files)}")
        if key in self.files and exchange.request.query.get("overwrite") != "true":
            return await exchange.error(faults.Status(400, "file_exists", "File already exists."))
        self.files[key] = exchange.body
        url = f"{self._lab.url}{BASE}/store/file/read/{key}"
        return await exchange.json({"key": key, "url": url, "size": len(exchange.body)})

    async def _read(self, exchange: Exchange) -> web.StreamResponse:
        content = self.files.get(exchange.request.match_info["key"])
        if content is None:
            return await exchange.error(faults.Status(404, "not_found", "File not found."))
        return await exchange.content(content, "image/png")

    async def _delete(self, exchange: Exchange) -> web.StreamResponse:
        if self.files.pop(exchange.request.match_info["key"], None) is None:
            return await exchange.error(faults.Status(404, "not_found", "File not found."))
        return await exchange.json({"success": True})
