"""``ChatModel`` by RunPod's own API: a request is run, and its stream is polled."""

from __future__ import annotations

__all__ = ["RunPodChatModel"]

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Final

from executors.errors import ExecutorError
from executors.providers.base import (
    ChatDelta,
    ChatMessage,
    ChatUsage,
    FinishReason,
    VendorRequest,
)
from executors.providers.runpod.endpoint import Endpoint, Waiting, failure_in
from executors.providers.runpod.outputs import Order, finish_in, text_in, usage_in
from executors.providers.transport.http import Timeouts, VendorClient
from executors.providers.transport.pending_requests import (
    Polling,
    UnknownRequest,
    cancel_request,
    save_id,
    submit_request,
)
from executors.providers.transport.vendor import Vendor
from uvian_common.text import TextCleaner

#: A worker without a limit in its request stops after 16 tokens, or 100.
_MOST_TOKENS: Final = 1024

_CUT: Final = "broke off in the middle of its answer"

_OVER: Final = {"COMPLETED", "FAILED", "TIMED_OUT", "CANCELLED"}


class RunPodChatModel:
    """A ``ChatModel`` of an endpoint with a vLLM or TGI worker, which serves one model.

    An answer is written for those who read it now: one that nobody reads any more is cancelled, and
    another run of the chat submits a new request.
    """

    structured = False

    def __init__(self, client: VendorClient, *, poll_every: float = 0.25) -> None:
        self.name = client.vendor.name
        self._endpoint = Endpoint(client)
        self._poll_every = poll_every  # seconds, while there is text

    async def stream(
        self,
        messages: Sequence[ChatMessage],
        *,
        model: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        schema: Mapping[str, Any] | None = None,
        request: VendorRequest = VendorRequest(),
    ) -> AsyncGenerator[ChatDelta, None]:
        """The answer, delta by delta. The endpoint has one model: ``model`` changes nothing."""
        endpoint, own = self._endpoint, request.at(self.name)
        if own.id is not None:
            await cancel_request(own.id, endpoint.cancel)
        sampling: dict[str, Any] = {"max_tokens": max_tokens or _MOST_TOKENS}
        if temperature is not None:
            sampling["temperature"] = temperature
        request_id = await self._submit(own, messages, sampling)
        answer = _Answer(endpoint.vendor, endpoint.timeouts, sampling["max_tokens"])
        polling, waiting = Polling(self._poll_every, longest=1.0), Waiting(own.report)
        try:
            try:
                while not answer.over:
                    document = await self._poll("stream", request_id)
                    if text := answer.take(document):
                        polling.restart()
                        yield ChatDelta(text)
                    if answer.fault is not None:
                        raise answer.fault
                    if not answer.finished:
                        waiting.see(document["status"])
                        answer.check_silence()
                        await polling.pause()
                if text := answer.complete(await self._poll("status", request_id)):
                    yield ChatDelta(text)
            finally:
                if not answer.finished:
                    await cancel_request(request_id, endpoint.cancel)
        except ExecutorError:
            await own.save("")  # no run resumes it
            raise
        yield answer.final_delta()

    async def _submit(
        self, own: VendorRequest, messages: Sequence[ChatMessage], sampling: Mapping[str, Any]
    ) -> str:
        """Submit the request and save its id."""
        endpoint = self._endpoint
        payload = {
            "messages": [{"role": m.role, "content": m.content} for m in messages],
            "stream": True,
            "sampling_params": sampling,
        }
        request_id = await submit_request(lambda: endpoint.run(payload), endpoint.cancel)
        await save_id(own, request_id, endpoint.cancel)
        return request_id

    async def _poll(self, what: str, request_id: str) -> dict[str, Any]:
        try:
            return await self._endpoint.poll(what, request_id)
        except UnknownRequest as error:
            self._endpoint.vendor.fail("has dropped the request", error)


class _Answer:
    """The answer so far."""

    def __init__(self, vendor: Vendor, timeouts: Timeouts, max_tokens: int) -> None:
        self.fault: ExecutorError | None = (
            None  #: to be raised when the text before it is passed on
        )
        self.finished = False  #: the worker is done with it
        self.over = False  #: and everything it has said is here
        self._vendor = vendor
        self._timeouts = timeouts
        self._max_tokens = max_tokens
        self._order = Order()
        self._cleaner = TextCleaner()
        self._said = ""
        self._usage: ChatUsage | None = None
        self._finish: FinishReason | None = None
        self._waits_until = time.monotonic() + timeouts.total
        self._runs = False

    def take(self, document: Mapping[str, Any]) -> str:
        """The text of one poll of the stream."""
        status, items = document["status"], document.get("stream")
        items = items if isinstance(items, list) else []
        self.finished = status in _OVER
        self.over = self.finished and not items
        if status != "IN_QUEUE" and not self._runs:
            self._runs = True
            self._wait(self._timeouts.first_byte)
        if items:
            self._wait(self._timeouts.idle)
        texts: list[str] = []
        try:
            for output in self._order.take(items):
                texts.append(self._text(output))  # noqa: PERF401 - up to an error
            if self._order.is_broken:
                self._vendor.fail(_CUT, "a piece came too late")
            if self.over:
                self._check(document)
        except ExecutorError as error:
            self.fault = error
        text = "".join(texts)
        self._said += text
        return self._cleaner.clean(text) if text else ""

    def complete(self, document: Mapping[str, Any]) -> str:
        """What the stream has left out: workers that collect their pieces give them all in the end."""
        self._check(document)
        output = document.get("output")
        chunks = output if isinstance(output, list) else []
        whole = "".join(map(self._text, chunks))
        if whole.startswith(self._said):
            return self._cleaner.clean(whole[len(self._said) :])
        if whole or self._order.has_gap:
            self._vendor.fail(_CUT, "pieces are missing")
        return ""

    def check_silence(self) -> None:
        """Raise when no text came for too long. A request in the queue may wait."""
        if time.monotonic() > self._waits_until:
            self._vendor.fail("said nothing for too long in the middle of its answer")

    def final_delta(self) -> ChatDelta:
        """Why it ended and what it used."""
        if self._finish is None:
            cut = self._usage is not None and self._usage.completion_tokens >= self._max_tokens
            self._finish = "length" if cut else "stop"
        return ChatDelta("", self._finish, self._usage)

    def _text(self, output: object) -> str:
        if isinstance(output, dict) and output.get("error"):
            self._vendor.refuse(failure_in(output["error"]))
        self._usage = usage_in(output) or self._usage
        self._finish = finish_in(output) or self._finish
        return text_in(output)

    def _check(self, document: Mapping[str, Any]) -> None:
        if document["status"] != "COMPLETED":
            failure = failure_in(document.get("error"), code=str(document["status"]))
            self._vendor.refuse(failure)

    def _wait(self, seconds: float) -> None:
        self._waits_until = time.monotonic() + seconds
