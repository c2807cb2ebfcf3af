"""RunPod's serverless API: run, status, stream, cancel, health; and OpenAI's route of vLLM workers."""

from __future__ import annotations

__all__ = ["RunPodLab", "Shape"]

import base64
import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web

from tests.executors.providers.lab import faults
from tests.executors.providers.lab.openai import OpenAILab
from tests.executors.providers.lab.server import LAB_KEY, Exchange, Handler, Lab

BASE = "/runpod/v2"

Shape = Literal["tokens", "delta", "choice text", "text", "texts", "numbered", "old tokens", "bare"]
Output = Literal["data", "base64", "url", "comfy", "old comfy", "public", "list"]

#: What a worker's failure has in it: nothing for the eyes of a user.
TRACE = 'Traceback (most recent call last):\n  File "/src/handler.py", line 7, in handler'


@dataclass
class _Request:
    """One request. Every look at it brings it one step further; every look at its stream, two pieces."""

    id: str
    body: Mapping[str, Any]
    fault: faults.Fault | None
    pieces: list[dict[str, Any]] = field(default_factory=list)
    looks: int = 0
    given: int = 0  #: pieces that its stream has given away
    cancelled: bool = False

    @property
    def is_chat(self) -> bool:
        return "messages" in self.body

    @property
    def status(self) -> str:
        waits = self.fault.looks if isinstance(self.fault, faults.Waiting) else 1
        if self.cancelled:
            late = isinstance(self.fault, faults.DoneAfterCancel)
            return "COMPLETED" if late else "CANCELLED"
        if self.looks <= waits:
            return "IN_QUEUE"
        return self._ending if self.looks > waits + 1 and self._is_over else "IN_PROGRESS"

    @property
    def most(self) -> int:
        """Pieces that its stream gives away before it goes wrong."""
        match self.fault:
            case faults.Silence(after):
                return after
            case faults.Failed() | faults.ErrorInside():
                return 2
        return len(self.pieces)

    @property
    def _is_over(self) -> bool:
        if isinstance(self.fault, faults.Silence | faults.DoneAfterCancel | faults.ErrorInside):
            return False
        return not self.is_chat or self.given >= self.most

    @property
    def _ending(self) -> str:
        if isinstance(self.fault, faults.Failed):
            return self.fault.code if self.fault.code in {"TIMED_OUT", "CANCELLED"} else "FAILED"
        return "COMPLETED"


class RunPodLab:
    """``{lab.url}/runpod/v2``. A fault of a run is one of the request: it shows when it is looked at."""

    name = "runpod"

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._ids = itertools.count(1)
        self._requests: dict[str, _Request] = {}
        self._openai = OpenAILab(lab)
        self.shape: Shape = "tokens"  #: how its workers write text
        self.output: Output = "data"  #: how they give pictures
        self.collects = False  #: whether the status has all pieces in the end

    def routes(self) -> Iterable[tuple[str, str, str, Handler]]:
        endpoint = f"{BASE}/{{endpoint}}"
        yield "POST", f"{endpoint}/run", "run", self._run
        yield "GET", f"{endpoint}/status/{{id}}", "status", self._known(self._status)
        yield "GET", f"{endpoint}/stream/{{id}}", "stream", self._known(self._stream)
        yield "POST", f"{endpoint}/cancel/{{id}}", "cancel", self._known(self._cancel)
        yield "GET", f"{endpoint}/health", "health", self._health
        yield "POST", f"{endpoint}/openai/v1/chat/completions", "chat", self._openai._chat

    def is_known(self, headers: Mapping[str, str]) -> bool:
        return headers.get("Authorization") == f"Bearer {LAB_KEY}"

    def error(self, fault: faults.Status) -> Any:
        return {"error": fault.message, "status": fault.status}

    def exports(self, url: str) -> Mapping[str, str]:
        return {
            "UVIAN_CHAT_MODEL": "runpod",
            "UVIAN_IMAGE_MODEL": "runpod",
            "UVIAN_RUNPOD_BASE_URL": url + BASE,
            "UVIAN_RUNPOD_API_KEY": LAB_KEY,
            "UVIAN_RUNPOD_CHAT_ENDPOINT": "lab-chat",
            "UVIAN_RUNPOD_IMAGE_ENDPOINT": "lab-image",
        }

    async def _run(self, exchange: Exchange) -> web.StreamResponse:
        asked = exchange.body.get("input")
        if not asked:
            return await exchange.error(faults.Status(400, message="input is required"))
        number = f"lab-{next(self._ids)}-u1"
        request = _Request(number, asked, exchange.fault)
        if request.is_chat:
            request.pieces = self._pieces(asked)
        if not isinstance(exchange.fault, faults.Forgotten):
            self._requests[number] = request
        return await exchange.json({"id": number, "status": "IN_QUEUE"})

    def _known(self, handle: Callable[[Exchange, _Request], Any]) -> Callable[[Exchange], Any]:
        async def answer(exchange: Exchange) -> web.StreamResponse:
            request = self._requests.get(exchange.request.match_info["id"])
            if request is None:
                return await exchange.error(faults.Status(404, message="job not found"))
            response: web.StreamResponse = await handle(exchange, request)
            return response

        return answer

    async def _status(self, exchange: Exchange, request: _Request) -> web.StreamResponse:
        request.looks += 1
        document = self._head(request)
        if request.status == "COMPLETED":
            document |= {"executionTime": 12, "output": self._output(request)}
        return await exchange.json(document)

    async def _stream(self, exchange: Exchange, request: _Request) -> web.StreamResponse:
        request.looks += 1
        items: list[dict[str, Any]] = []
        if request.status == "IN_PROGRESS" and not isinstance(
            request.fault, faults.DoneAfterCancel
        ):
            items = self._next(request)
        return await exchange.json({**self._head(request), "stream": items})

    async def _cancel(self, exchange: Exchange, request: _Request) -> web.StreamResponse:
        if request.status not in {"IN_QUEUE", "IN_PROGRESS"}:
            return await exchange.error(faults.Status(400, message="job is already completed"))
        request.cancelled = True
        return await exchange.json({"id": request.id, "status": "CANCELLED"})

    async def _health(self, exchange: Exchange) -> web.StreamResponse:
        return await exchange.json({"jobs": {"inQueue": 0}, "workers": {"idle": 1}})

    def _head(self, request: _Request) -> dict[str, Any]:
        head: dict[str, Any] = {"id": request.id, "status": request.status}
        if head["status"] != "IN_QUEUE":
            head |= {"delayTime": 5, "workerId": "lab-worker"}
        if head["status"] == "FAILED" and isinstance(request.fault, faults.Failed):
            head["error"] = json.dumps(
                {
                    "error_type": f"<class '{request.fault.code or 'RuntimeError'}'>",
                    "error_message": request.fault.message,
                    "error_traceback": f"{TRACE}\n{request.fault.message}",
                    "hostname": "lab-worker-6444",
                    "worker_id": "lab-worker",
                    "runpod_version": "1.7.13",
                }
            )
        return head

    def _next(self, request: _Request) -> list[dict[str, Any]]:
        pieces, most = request.pieces, request.most
        if isinstance(request.fault, faults.ErrorInside) and request.given >= most:
            error = {"message": request.fault.message, "type": request.fault.code, "code": 400}
            return [{"output": {"error": error}}]
        if isinstance(request.fault, faults.Shuffled):  # every second pair of two comes first
            pieces = [pieces[i ^ 2 if i ^ 2 < most else i] for i in range(most)]
        begin, end = request.given, min(request.given + 2, most)
        request.given = end
        if isinstance(request.fault, faults.Repeated):
            return [*pieces[max(begin - 1, 0) : begin], *pieces[begin:end], *pieces[begin:end]]
        return pieces[begin:end]

    def _pieces(self, asked: Mapping[str, Any]) -> list[dict[str, Any]]:
        words = re.findall(
            r"\s*\S+", f"You said: {asked['messages'][-1]['content']} 🦊 — that is all."
        )
        words = words[: asked["sampling_params"].get("max_tokens", 16)]
        asked_tokens = sum(len(m["content"].split()) for m in asked["messages"])
        return [
            self._piece(word, number, {"input": asked_tokens, "output": number + 1})
            for number, word in enumerate(words)
        ]

    def _piece(self, word: str, number: int, usage: Mapping[str, int]) -> dict[str, Any]:
        outputs: dict[str, Any] = {
            "tokens": {"choices": [{"tokens": [word]}], "usage": usage},
            "delta": {"choices": [{"index": 0, "delta": {"content": word}}]},
            "choice text": {"choices": [{"text": word}]},
            "text": {"text": word},
            "texts": {"text": [word]},
            "numbered": {"text": word},
            "old tokens": {"tokens": [word], "usage": usage},
            "bare": word,
        }
        item = {"output": outputs[self.shape]}
        if self.shape == "numbered":
            item["metrics"] = {"stream_index": number + 2, "scenario": "stream"}
        return item

    def _output(self, request: _Request) -> Any:
        if request.is_chat:
            return [piece["output"] for piece in request.pieces] if self.collects else []
        asked = request.body
        content = self._lab.picture(request.fault, asked.get("width", 64), asked.get("height", 64))
        encoded = base64.b64encode(content).decode()
        if isinstance(request.fault, faults.Expired):
            return {"image_url": self._lab.keep_file(content, "image/png", expired=True)}
        data = f"data:image/png;base64,{encoded}"
        outputs: dict[Output, Any] = {
            "data": {"images": [data], "image_url": data, "seed": asked.get("seed", 42)},
            "base64": encoded,
            "url": {"image_url": self._lab.keep_file(content, "image/png")},
            "comfy": {"images": [{"filename": "a.png", "type": "base64", "data": encoded}]},
            "old comfy": {"message": encoded, "status": "success"},
            "public": {"result": self._lab.keep_file(content, "image/png"), "cost": 0.02},
            "list": [{"image": encoded}],
        }
        return outputs[self.output]
