"""FAL's queue: submit, status by looking and by stream, result, cancel."""

from __future__ import annotations

__all__ = ["FalLab"]

import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from tests.executors.providers.lab import faults
from tests.executors.providers.lab.server import LAB_KEY, Exchange, Handler, Lab

BASE = "/fal"
REQUEST = f"{BASE}/{{owner}}/{{app}}/requests/{{id}}"

#: Where traces of the platform's own machinery stand, in errors that nobody should see whole.
TRACE = "Traceback (most recent call last): File /home/fal/app.py"


@dataclass
class _Request:
    """One request, from its submit to its end. Every look at it brings it one step further."""

    id: str
    url: str
    body: Mapping[str, Any]
    fault: faults.Fault | None
    looks: int = 0
    cancelled: bool = False

    @property
    def status(self) -> str:
        waits = self.fault.looks if isinstance(self.fault, faults.Waiting) else 1
        if self.cancelled:
            return "COMPLETED"
        if isinstance(self.fault, faults.DoneAfterCancel):
            return "IN_QUEUE" if self.looks < 3 else "IN_PROGRESS"
        if self.looks <= waits:
            return "IN_QUEUE"
        return "IN_PROGRESS" if self.looks == waits + 1 else "COMPLETED"

    @property
    def error(self) -> faults.Failed | None:
        if self.cancelled and not isinstance(self.fault, faults.DoneAfterCancel):
            return faults.Failed("client_cancelled", 499, "Request was cancelled")
        return self.fault if isinstance(self.fault, faults.Failed) else None


class FalLab:
    """``{lab.url}/fal``. A fault of the submit is one of the request: it shows when it is looked at."""

    name = "fal"

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._ids = itertools.count(1)
        self._requests: dict[str, _Request] = {}

    def routes(self) -> Iterable[tuple[str, str, str, Handler]]:
        yield "GET", f"{REQUEST}/status", "status", self._status
        yield "GET", f"{REQUEST}/status/stream", "stream", self._stream
        yield "GET", REQUEST, "result", self._result
        yield "PUT", f"{REQUEST}/cancel", "cancel", self._cancel
        yield "POST", f"{BASE}/{{model:.+}}", "submit", self._submit

    def is_known(self, headers: Mapping[str, str]) -> bool:
        return headers.get("Authorization") == f"Key {LAB_KEY}"

    def error(self, fault: faults.Status) -> Any:
        """Of the platform; what a model says is in its result."""
        document = {"detail": fault.message}
        return {**document, "error_type": fault.code} if fault.code else document

    def exports(self, url: str) -> Mapping[str, str]:
        return {
            "UVIAN_IMAGE_MODEL": "fal",
            "UVIAN_FAL_BASE_URL": url + BASE,
            "UVIAN_FAL_API_KEY": LAB_KEY,
            "UVIAN_FAL_IMAGE_MODEL": "lab/draw",
            "UVIAN_FAL_REFINE_MODEL": "lab/draw/image-to-image",
        }

    async def _submit(self, exchange: Exchange) -> web.StreamResponse:
        owner, app = exchange.request.match_info["model"].split("/")[:2]
        number = f"lab-{next(self._ids)}"
        url = f"{self._lab.url}{BASE}/{owner}/{app}/requests/{number}"
        request = _Request(number, url, exchange.body, exchange.fault)
        if not isinstance(exchange.fault, faults.Forgotten):
            self._requests[number] = request
        return await exchange.json(
            {
                "status": "IN_QUEUE",
                "request_id": number,
                "response_url": url,
                "status_url": f"{url}/status",
                "cancel_url": f"{url}/cancel",
                "queue_position": 1,
            }
        )

    async def _status(self, exchange: Exchange) -> web.StreamResponse:
        request = self._requests.get(exchange.request.match_info["id"])
        if request is None:
            return await exchange.error(faults.Status(404, message="Request not found"))
        document = self._looked_at(request)
        return await exchange.json(document, 200 if document["status"] == "COMPLETED" else 202)

    async def _stream(self, exchange: Exchange) -> web.StreamResponse:
        request = self._requests.get(exchange.request.match_info["id"])
        if request is None:
            return await exchange.error(faults.Status(404, message="Request not found"))
        told = [self._looked_at(request)]
        while told[-1]["status"] != "COMPLETED":
            told.append(self._looked_at(request))
        return await exchange.stream([b"data: " + json.dumps(d).encode() + b"\n\n" for d in told])

    async def _result(self, exchange: Exchange) -> web.StreamResponse:
        request = self._requests.get(exchange.request.match_info["id"])
        if request is None:
            return await exchange.error(faults.Status(404, message="Request not found"))
        if request.status != "COMPLETED":
            return await exchange.error(faults.Status(400, message="Request is still in progress"))
        if (failed := request.error) is not None:
            return await exchange.json(_refusal(failed), failed.status, _headers(failed))
        return await exchange.json(self._drawn(exchange, request))

    async def _cancel(self, exchange: Exchange) -> web.StreamResponse:
        request = self._requests.get(exchange.request.match_info["id"])
        if request is None:
            return await exchange.json({"status": "NOT_FOUND"}, 404)
        if request.status == "COMPLETED":
            return await exchange.json({"status": "ALREADY_COMPLETED"}, 400)
        request.cancelled = True
        return await exchange.json({"status": "CANCELLATION_REQUESTED"}, 202)

    def _looked_at(self, request: _Request) -> dict[str, Any]:
        request.looks += 1
        common = {
            "status": request.status,
            "request_id": request.id,
            "response_url": request.url,
            "status_url": f"{request.url}/status",
            "cancel_url": f"{request.url}/cancel",
        }
        match request.status:
            case "IN_QUEUE":
                return {**common, "queue_position": 1 if request.looks == 1 else 0}
            case "IN_PROGRESS":
                return {**common, "logs": []}
        done: dict[str, Any] = {**common, "logs": [], "metrics": {"inference_time": 0.1}}
        if (failed := request.error) is not None:
            done |= {"error": f"{failed.message} {TRACE}", "error_type": failed.code or None}
        return done

    def _drawn(self, exchange: Exchange, request: _Request) -> dict[str, Any]:
        size = request.body.get("image_size") or {"width": 64, "height": 64}
        content = self._lab.picture(request.fault, size["width"], size["height"])
        expired = isinstance(request.fault, faults.Expired)
        url = self._lab.keep_file(content, "image/png", expired=expired)
        image = {"url": url, "content_type": "image/png", **size}
        return {
            "images": [image],
            "seed": request.body.get("seed", 42),
            "has_nsfw_concepts": [False],
            "prompt": request.body["prompt"],
        }


def _headers(failed: faults.Failed) -> dict[str, str]:
    headers = {"X-Fal-Error-Type": failed.code}
    if failed.retryable is not None:
        headers["X-Fal-Retryable"] = str(failed.retryable).lower()
    return headers


def _refusal(failed: faults.Failed) -> dict[str, Any]:
    """As the model words it where the request was wrong, else as the platform does."""
    said = f"{failed.message} {TRACE}"
    if failed.status == 422:
        return {"detail": [{"loc": ["body", "prompt"], "msg": said, "type": failed.code}]}
    return {"detail": said, **({"error_type": failed.code} if failed.code else {})}
