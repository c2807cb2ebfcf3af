"""One serverless endpoint: its requests, their states, and what its errors mean."""

from __future__ import annotations

__all__ = [
    "RUNPOD_URL",
    "Endpoint",
    "Waiting",
    "failure_in",
    "runpod_vendor",
]

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from pydantic import SecretStr

from executors.errors import ExecutorError, ProviderRejected, ProviderUnavailable
from executors.providers.transport.http import Call, RetryBudget, VendorClient, parsed
from executors.providers.transport.limits import CallLimits
from executors.providers.transport.pending_requests import Polling, UnknownRequest, final_failures
from executors.providers.transport.vendor import Refusal, Vendor, refusal_of

RUNPOD_URL: Final = "https://api.runpod.ai/v2"

#: RunPod's own limits are, in 10 s: 1000 requests, 2000 looks, 100 cancels.
_POLLS: Final = CallLimits(concurrency=200, per_second=100.0)
_CANCELS: Final = CallLimits(concurrency=20, per_second=10.0)

_COLD_START: Final = 10.0  #: seconds in the queue after which a worker is probably being started

_FAILED: Final = {"FAILED", "TIMED_OUT"}


def runpod_vendor(
    endpoint: str, base_url: str = RUNPOD_URL, api_key: SecretStr | None = None
) -> Vendor:
    """The endpoint with that id."""
    bearer = SecretStr(f"Bearer {api_key.get_secret_value()}") if api_key else None
    return Vendor(
        name="runpod",
        label="RunPod",
        base_url=f"{base_url.rstrip('/')}/{endpoint}",
        auth={"Authorization": bearer} if bearer else {},
        read=_read_error,
        judge=_judged,
    )


class Endpoint:
    """Submits, polls and cancels requests, each with limits of its own."""

    def __init__(self, client: VendorClient) -> None:
        self.vendor = client.vendor
        self.timeouts = client.timeouts
        self._client = client
        self._polls = client.with_limits(_POLLS)
        self._cancels = client.with_limits(
            _CANCELS, retry_budget=RetryBudget(retries=1, seconds=2.0)
        )

    async def run(self, payload: Mapping[str, Any]) -> str:
        """Submit a request; its id. The vendor drops it when nobody waits for it any more."""
        allowed = max(round(self.timeouts.total * 1000), 10_000)
        body = {"input": payload, "policy": {"executionTimeout": allowed, "ttl": 2 * allowed}}
        document = await self._client.request(Call(url="/run", body=body))
        request_id = document.get("id") if isinstance(document, dict) else None
        if not isinstance(request_id, str) or not request_id:
            self.vendor.malformed("there is no id in it", str(document).encode())
        return request_id

    async def ended(
        self, request_id: str, report: Callable[[str], None], *, poll_every: float, largest: int
    ) -> Any:
        """Wait for the end of a request; its output."""
        polling, waiting = Polling(poll_every, longest=2.0), Waiting(report)
        while True:
            document = await self.poll("status", request_id, largest=largest)
            status = document["status"]
            if status == "COMPLETED":
                return document.get("output")
            with final_failures():
                self.check(document)
            waiting.see(status)
            await polling.pause()

    async def poll(self, what: str, request_id: str, *, largest: int = 0) -> dict[str, Any]:
        """``status`` or ``stream`` of a request; raises ``Unknown`` where it is not known any more."""
        call = Call(method="GET", url=f"/{what}/{request_id}")
        try:
            document = await (
                self._polls.request(call, largest=largest) if largest else self._polls.request(call)
            )
        except ProviderRejected as error:
            refusal = refusal_of(error)
            if refusal is not None and refusal.status in {404, 410}:
                raise UnknownRequest(refusal.message) from error
            raise
        if not isinstance(document, dict) or not isinstance(document.get("status"), str):
            self.vendor.malformed("there is no status in it", str(document).encode())
        return document

    def check(self, document: Mapping[str, Any]) -> None:
        """Raise what a request ended with, unless it goes on or is completed."""
        status = document["status"]
        if status == "CANCELLED":
            raise UnknownRequest("it was cancelled")
        if status in _FAILED:
            self.vendor.refuse(failure_in(document.get("error"), code=status))

    async def cancel(self, request_id: str) -> None:
        """Cancel a request."""
        await self._cancels.request(Call(url=f"/cancel/{request_id}"))


class Waiting:
    """Reports to the user what the job waits for. A worker that must be started first is no failure."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._began = time.monotonic()
        self._reported = ""

    def see(self, status: str) -> None:
        """Report a state, once."""
        sentence = "RunPod is at work"
        if status == "IN_QUEUE":
            sentence = "Waiting in the queue of RunPod"
            if time.monotonic() - self._began > _COLD_START:
                sentence = "RunPod is starting a worker, which can take minutes"
        if sentence != self._reported:
            self._report(sentence)
            self._reported = sentence


def failure_in(error: object, *, code: str = "FAILED") -> Refusal:
    """What a worker says of its failure: the kind and the sentence, and not the trace beside them."""
    found: Any = error
    if isinstance(error, str):
        try:
            found = parsed(error)
        except ValueError:
            found = {"message": error}
    if not isinstance(found, dict):
        return Refusal(status=500, code=code)
    number = found.get("code")
    kind = found.get("error_type") or found.get("type") or ""
    said = str(found.get("error_message") or found.get("message") or "")
    return Refusal(
        status=number if isinstance(number, int) and 400 <= number < 600 else 500,
        code=code,
        message=f"{kind} {said.partition('Traceback')[0][:300]}",
    )


def _read_error(status: int, document: Any) -> Refusal:
    if isinstance(document, dict):
        document = document.get("error") or document.get("detail") or document.get("title") or ""
    return Refusal(status=status, message=str(document)[:300])


def _judged(label: str, refusal: Refusal) -> ExecutorError | None:
    if refusal.code == "TIMED_OUT":
        return ProviderUnavailable(f"{label} took longer than it is allowed to.")
    if refusal.code == "CANCELLED":
        return ProviderUnavailable(f"{label} has dropped the request.")
    if refusal.code == "FAILED" and refusal.status >= 500:
        return ProviderUnavailable(f"{label} has failed to answer.")
    return None
