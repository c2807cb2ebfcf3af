"""OpenAI's API, as far as it is used: chat completions, whole and streamed, and images."""

from __future__ import annotations

__all__ = ["OpenAILab"]

import base64
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from aiohttp import web

from tests.executors.providers.lab import faults
from tests.executors.providers.lab.server import LAB_KEY, Exchange, Handler, Lab

BASE = "/openai/v1"


class OpenAILab:
    """``{lab.url}/openai/v1``. It answers every question with what it was asked."""

    name = "openai"

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.reply: str | None = None  #: what to answer in place of the question
        self.refuses: set[str] = set()  #: parameters that this server does not know
        self.answers_urls = False  #: pictures come as URLs, whatever was asked for

    def routes(self) -> Iterable[tuple[str, str, str, Handler]]:
        yield "POST", f"{BASE}/chat/completions", "chat", self._chat
        yield "POST", f"{BASE}/images/generations", "images", self._images
        yield "POST", f"{BASE}/images/edits", "edits", self._edits

    def is_known(self, headers: Mapping[str, str]) -> bool:
        return headers.get("Authorization") == f"Bearer {LAB_KEY}"

    def error(self, fault: faults.Status) -> Any:
        kind = "invalid_request_error" if fault.status < 500 else "server_error"
        return {
            "error": {
                "message": fault.message,
                "type": fault.code if fault.code == "insufficient_quota" else kind,
                "param": fault.param,
                "code": fault.code or None,
            }
        }

    def exports(self, url: str) -> Mapping[str, str]:
        return {
            "UVIAN_CHAT_MODEL": "openai",
            "UVIAN_IMAGE_MODEL": "openai",
            "UVIAN_OPENAI_BASE_URL": url + BASE,
            "UVIAN_OPENAI_API_KEY": LAB_KEY,
            "UVIAN_OPENAI_CHAT_MODEL": "lab-chat",
            "UVIAN_OPENAI_IMAGE_MODEL": "lab-image",
        }

    async def _chat(self, exchange: Exchange) -> web.StreamResponse:
        asked = exchange.body
        if (refused := self._refused(asked)) is not None:
            return await exchange.error(refused)
        text = self.reply if self.reply is not None else self._answer(asked)
        usage = {
            "prompt_tokens": sum(len(m["content"].split()) for m in asked["messages"]),
            "completion_tokens": len(_pieces(text)),
        }
        usage["total_tokens"] = sum(usage.values())
        if not asked.get("stream"):
            message = {"role": "assistant", "content": text}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return await exchange.json(
                {**_head(asked, "chat.completion"), "choices": [choice], "usage": usage}
            )
        return await self._streamed(exchange, text, usage)

    async def _streamed(
        self, exchange: Exchange, text: str, usage: Mapping[str, int]
    ) -> web.StreamResponse:
        asked = exchange.body
        common = _head(asked, "chat.completion.chunk")
        with_usage = (asked.get("stream_options") or {}).get("include_usage")

        def chunk(delta: Mapping[str, Any], finish: str | None = None) -> bytes:
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            return _event(
                {**common, "choices": [choice], **({"usage": None} if with_usage else {})}
            )

        last = [_event({**common, "choices": [], "usage": usage})] if with_usage else []
        return await exchange.stream(
            [chunk({"content": piece}) for piece in _pieces(text)],
            head=[chunk({"role": "assistant", "content": None})],
            tail=[chunk({}, "stop"), *last, b"data: [DONE]\n\n"],
            error=lambda fault: _event(self.error(faults.Status(500, fault.code, fault.message))),
        )

    async def _images(self, exchange: Exchange) -> web.StreamResponse:
        asked = exchange.body
        if (refused := self._refused(asked)) is not None:
            return await exchange.error(refused)
        return await self._pictures(exchange, asked)

    async def _edits(self, exchange: Exchange) -> web.StreamResponse:
        asked = exchange.body
        if (refused := self._refused(asked)) is not None:
            return await exchange.error(refused)
        file = asked.get("image")
        if not isinstance(file, tuple) or file[1] != "image/png":
            return await exchange.error(
                faults.Status(400, "invalid_image_file", "Not a PNG.", param="image")
            )
        return await self._pictures(exchange, asked)

    async def _pictures(self, exchange: Exchange, asked: Mapping[str, Any]) -> web.StreamResponse:
        size = re.fullmatch(r"(\d+)x(\d+)", asked.get("size", "1024x1024"))
        if size is None:
            return await exchange.error(
                faults.Status(400, "invalid_value", "Invalid size.", param="size")
            )
        content = self._lab.picture(exchange.fault, int(size[1]), int(size[2]))
        expired = isinstance(exchange.fault, faults.Expired)
        if expired or self.answers_urls or asked.get("response_format") == "url":
            url = self._lab.keep_file(content, "image/png", expired=expired)
            return await exchange.json({"created": 1, "data": [{"url": url}]})
        encoded = base64.b64encode(content).decode()
        return await exchange.json({"created": 1, "data": [{"b64_json": encoded}]})

    def _refused(self, asked: Mapping[str, Any]) -> faults.Status | None:
        """As OpenAI words it when a model does not take a parameter."""
        for name in sorted(self.refuses & set(asked)):
            return faults.Status(
                400,
                "unsupported_parameter",
                f"Unsupported parameter: '{name}' is not supported with this model.",
                param=name,
            )
        return None

    def _answer(self, asked: Mapping[str, Any]) -> str:
        format_ = asked.get("response_format") or {}
        if "json_schema" in format_:
            return json.dumps(_example(format_["json_schema"]["schema"]))
        question = asked["messages"][-1]["content"]
        return f"You said: {question} 🦊 — that is all."


def _head(asked: Mapping[str, Any], kind: str) -> dict[str, Any]:
    return {
        "id": "chatcmpl-lab",
        "object": kind,
        "created": 1,
        "model": f"{asked['model']}-2026",
    }


def _pieces(text: str) -> list[str]:
    return re.findall(r"\s*\S+", text)


def _event(document: Any) -> bytes:
    return b"data: " + json.dumps(document, ensure_ascii=False).encode() + b"\n\n"


def _example(schema: Mapping[str, Any]) -> Any:
    """A document of that form, the smallest."""
    match schema.get("type"):
        case "object":
            return {name: _example(part) for name, part in schema.get("properties", {}).items()}
        case "array":
            return [_example(schema["items"])] * max(1, schema.get("minItems", 1))
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case _:
            return schema.get("enum", ["text"])[0]
