"""``ImageModel`` by FAL's queue.

A submit returns the path of the request: ``{owner}/{app}/requests/{id}``. That is its id here; below it
are status, result and cancel. A request that failed is ``COMPLETED`` like any other: its status may
say so, and its result has the HTTP status of the model.

Whether an error passes is decided by its kind (``error_type``, or the header ``X-Fal-Error-Type``), then by
``X-Fal-Retryable``, then by its status.
"""

from __future__ import annotations

__all__ = ["FAL_URL", "FalImageModel", "fal_vendor"]

import base64
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, NoReturn, TypeGuard

from pydantic import SecretStr
from yarl import URL

from executors.errors import (
    AccountRefused,
    ExecutorError,
    ProviderFailed,
    ProviderRejected,
    ProviderUnavailable,
)
from executors.providers.base import GeneratedImage, VendorRequest
from executors.providers.transport.http import Call, RetryBudget, VendorClient
from executors.providers.transport.limits import CallLimits
from executors.providers.transport.pending_requests import (
    FinalFailure,
    Polling,
    UnknownRequest,
    final_failures,
    picture,
    resume_or_submit,
)
from executors.providers.transport.prompts import picture_prompt
from executors.providers.transport.results import Results
from executors.providers.transport.vendor import Refusal, Vendor, refusal_of

FAL_URL: Final = "https://queue.fal.run"

#: Polling is free and cheap, but a hundred jobs poll at once.
_POLLS: Final = CallLimits(concurrency=100, per_second=100.0)
_CANCELS: Final = CallLimits(concurrency=50, per_second=50.0)

_CONTENT: Final = {"content_policy_violation", "nsfw_content_detected"}
_ENDED_BY_US: Final = {"client_cancelled", "client_disconnected"}

#: Kinds that pass, whatever their status is: of the platform, and two of models, whose framework says
#: of every error that it stays unless somebody has thought of it.
_PASSING: Final = {
    "downstream_service_unavailable",
    "generation_timeout",
    "internal_error",
    "request_timeout",
    "runner_connection_error",
    "runner_connection_refused",
    "runner_connection_timeout",
    "runner_disconnected",
    "runner_incomplete_response",
    "runner_scheduling_failure",
    "runner_server_error",
    "startup_timeout",
}
#: Codes of ours, for an error that has no kind in its document.
_NO_KIND: Final = {"", "error", "model_error"}
#: Statuses that are about the key, the place or the pace, and say themselves what is to be done.
_CLEAR: Final = {401, 402, 403, 404, 408, 409, 410, 425, 429}

#: What the platform says without a status of its own.
_STATUS_OF: Final[Mapping[str, int]] = {"bad_request": 400, "content_policy_violation": 422}


def fal_vendor(base_url: str = FAL_URL, api_key: SecretStr | None = None) -> Vendor:
    """FAL's queue, or what stands in for it."""
    key = SecretStr(f"Key {api_key.get_secret_value()}") if api_key else None
    return Vendor(
        name="fal",
        label="FAL",
        base_url=base_url.rstrip("/"),
        auth={"Authorization": key} if key else {},
        read=read_error,
        amend=_amended,
        judge=_judged,
    )


class FalImageModel:
    """An ``ImageModel`` of FAL: one model that draws, one that changes.

    They are named as FAL names them, with their path: ``fal-ai/flux/dev/image-to-image``. What is
    sent are the fields that most of them share: ``prompt``, ``image_size``, ``seed``, and for
    changes ``image_url`` (the picture itself, as a ``data:`` URL) and ``strength``.
    """

    def __init__(
        self,
        client: VendorClient,
        results: Results,
        *,
        model: str,
        refine_model: str,
        poll_every: float = 0.3,
    ) -> None:
        self.name = client.vendor.name
        self._client = client
        self._results = results
        self._model = model
        self._refine_model = refine_model
        self._poll_every = poll_every  # seconds, at first
        self._polls = client.with_limits(_POLLS)
        # The answer of a model that failed stays what it is.
        self._failures = client.with_limits(_POLLS, retry_budget=RetryBudget(retries=0))
        self._cancels = client.with_limits(
            _CANCELS, retry_budget=RetryBudget(retries=1, seconds=2.0)
        )

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
        payload = {
            "prompt": picture_prompt(subject, theme, style),
            "image_size": {"width": size, "height": size},
            "num_images": 1,
            **_given(seed=seed),
        }
        return await self._made(self._model, payload, seed, request)

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
        """``original`` changed as the words say, in the size that the model gives it."""
        payload = {
            "prompt": prompt,
            "image_url": "data:image/png;base64," + base64.b64encode(original).decode(),
            "num_images": 1,
            **_given(strength=None if strength is None else max(strength, 0.01), seed=seed),
        }
        return await self._made(self._refine_model, payload, seed, request)

    async def _made(
        self, model: str, payload: Mapping[str, Any], seed: int | None, request: VendorRequest
    ) -> GeneratedImage:
        own = request.at(self.name)

        async def submit() -> str:
            return await self._submit(model, payload)

        async def answer(request_id: str) -> GeneratedImage:
            failed = await self._completed(request_id, own.report)
            if failed is not None:
                await self._refuse(request_id, failed)
            return await self._picture(await self._result(request_id), model, seed)

        return await resume_or_submit(
            self._client.vendor, own, submit=submit, answer=answer, cancel=self._cancel
        )

    async def _submit(self, model: str, payload: Mapping[str, Any]) -> str:
        vendor = self._client.vendor
        # Nobody polls after that time, so a request that still waits in the queue need not begin.
        headers = {"X-Fal-Request-Timeout": f"{self._client.timeouts.total:g}"}
        call = Call(url=f"/{model}", body=payload, headers=headers, bucket=model)
        document = await self._client.request(call)
        url = document.get("status_url") if isinstance(document, dict) else None
        if not _is_word(url) or not url.endswith("/status"):
            vendor.malformed("there is no status_url in it", str(document).encode())
        if url.startswith(vendor.base_url):
            return url.removeprefix(vendor.base_url).removesuffix("/status")
        # Behind a proxy FAL names its own address; the way there is still the one that is set.
        return URL(url).path.removesuffix("/status")

    async def _completed(self, request_id: str, report: Callable[[str], None]) -> Refusal | None:
        """Wait for the end; what the status says of a failure."""
        polling = Polling(self._poll_every, longest=2.0)
        reported = ""
        while True:
            document = await self._poll(Call(method="GET", url=f"{request_id}/status"))
            match document.get("status"):
                case "COMPLETED":
                    return _failure(document)
                case "IN_QUEUE":
                    sentence = _queue_position(document.get("queue_position"))
                case "IN_PROGRESS":
                    sentence = "FAL is drawing"
                case other:
                    self._client.vendor.malformed(f"the status is {str(other)[:50]!r}")
            if sentence != reported:
                report(sentence)
                reported = sentence
            await polling.pause()

    async def _poll(self, call: Call) -> dict[str, Any]:
        try:
            document = await self._polls.request(call)
        except ProviderRejected as error:
            _check_known(error)
            raise
        if not isinstance(document, dict):
            self._client.vendor.malformed("it is no JSON object", str(document).encode())
        return document

    async def _result(self, request_id: str) -> Any:
        call = Call(method="GET", url=request_id)
        try:
            return await self._polls.request(call, largest=self._results.largest_text)
        except ExecutorError as error:
            _check_known(error)
            if _is_the_models(error):
                raise FinalFailure(error) from error
            raise

    async def _refuse(self, request_id: str, failed: Refusal) -> NoReturn:
        """Raise what a failure was: the result knows more of it than the status."""
        if failed.code in _ENDED_BY_US:
            raise UnknownRequest(failed.code)
        try:
            await self._failures.request(Call(method="GET", url=request_id))
        except ExecutorError as error:
            if _is_the_models(error):
                raise FinalFailure(error) from error
        with final_failures():
            self._client.vendor.refuse(failed)

    async def _picture(self, document: Any, model: str, seed: int | None) -> GeneratedImage:
        with final_failures():
            url, used = self._found(document, seed)
        content = await picture(self._results, url)
        return GeneratedImage(content, provider=self.name, model=model, seed=used)

    def _found(self, document: Any, seed: int | None) -> tuple[str, int | None]:
        """Where the picture is, and the seed it was drawn with."""
        found = document if isinstance(document, dict) else {}
        images = found.get("images")
        image = images[0] if isinstance(images, list) and images else found.get("image")
        flagged = found.get("has_nsfw_concepts")
        if isinstance(flagged, list) and flagged[:1] == [True]:
            # The picture that is there is black.
            self._client.vendor.refuse(Refusal(status=422, code="nsfw_content_detected"))
        url = image.get("url") if isinstance(image, dict) else None
        if not _is_word(url):
            self._client.vendor.malformed("there is no picture in it", str(document).encode())
        used = found.get("seed")
        return url, used if isinstance(used, int) else seed

    async def _cancel(self, request_id: str) -> None:
        await self._cancels.request(Call(method="PUT", url=f"{request_id}/cancel"))


def read_error(status: int, document: Any) -> Refusal:
    """The error of an answer: of a model (a list) or of the platform (a sentence and a type).

    What comes from neither, a page of something in between, has no code.
    """
    found = document if isinstance(document, dict) else {}
    detail = found.get("detail")
    kind = found.get("error_type")
    if isinstance(detail, list) and detail and isinstance(detail[0], dict):
        first = detail[0]
        where = first.get("loc")
        return Refusal(
            status=status,
            code=str(first.get("type") or "model_error"),
            message=str(first.get("msg"))[:1000],
            param=".".join(map(str, where)) if isinstance(where, list) else "",
        )
    code = str(kind) if kind else "error" if detail is not None else ""
    said = detail if detail is not None else document
    return Refusal(status=status, code=code, message=str(said)[:1000])


def _amended(refusal: Refusal, headers: Mapping[str, str]) -> Refusal:
    """With the kind, where the document has none, and with what FAL thinks of asking again."""
    kind = headers.get("X-Fal-Error-Type", "").strip()
    hint = headers.get("X-Fal-Retryable", "").strip().lower()
    return replace(
        refusal,
        code=kind if kind and refusal.code in _NO_KIND else refusal.code,
        passes={"true": True, "false": False}.get(hint),
    )


def _judged(label: str, refusal: Refusal) -> ExecutorError | None:
    if refusal.code in _CONTENT:
        return ProviderRejected(f"{label} refuses this content: it is against its rules.")
    if refusal.status == 403 and "balance" in refusal.message.lower():
        return AccountRefused(f"{label} wants the account of this worker to be paid for.")
    if refusal.status == 499:
        return ProviderUnavailable(f"{label} has dropped the request.")
    return None if refusal.status in _CLEAR else _by_kind(label, refusal)


def _by_kind(label: str, refusal: Refusal) -> ExecutorError | None:
    if refusal.code in _PASSING or (refusal.passes and refusal.code != "bad_request"):
        return ProviderUnavailable(
            f"{label} has an internal fault.", retry_after=refusal.wait or 0.0
        )
    if refusal.code == "bad_request":
        return ProviderRejected(f"{label} refuses the request.")
    if refusal.passes is False and refusal.status >= 500:
        return ProviderFailed(f"{label} fails at this request, and would again.")
    return None


def _failure(document: Mapping[str, Any]) -> Refusal | None:
    error, kind = document.get("error"), document.get("error_type")
    if not error and not kind:
        return None
    code = str(kind or "error")
    return Refusal(status=_STATUS_OF.get(code, 500), code=code, message=str(error)[:1000])


def _check_known(error: ExecutorError) -> None:
    refusal = refusal_of(error)
    if refusal is not None and (refusal.status in {404, 410} or refusal.code in _ENDED_BY_US):
        raise UnknownRequest(f"{refusal.status} {refusal.code}") from error


def _is_the_models(error: ExecutorError) -> bool:
    """Whether the request has failed, rather than this poll of it."""
    refusal = refusal_of(error)
    if refusal is None or refusal.status in {401, 403, 404, 408, 409, 410, 425, 429}:
        return False
    return 400 <= refusal.status < 500 or bool(refusal.code) or refusal.passes is not None


def _queue_position(position: object) -> str:
    if isinstance(position, int) and position > 0:
        return f"{position} ahead in the queue of FAL"
    return "Next in the queue of FAL"


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _is_word(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and bool(value)
