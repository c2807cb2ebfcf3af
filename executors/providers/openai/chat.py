"""``ChatModel`` by OpenAI's chat completions, streamed."""

from __future__ import annotations

__all__ = ["OpenAIChatModel"]

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

from executors.errors import ExecutorError, ProviderRejected, ProviderUnavailable
from executors.providers.base import (
    ChatDelta,
    ChatMessage,
    ChatUsage,
    FinishReason,
    VendorRequest,
)
from executors.providers.http import LARGEST_ERROR, Call, Reply, Wire, parsed
from executors.providers.openai.dialect import Dialect
from executors.providers.openai.vendor import is_openai, read_event_error
from executors.providers.sse import EventStream, ServerEvent, TooLargeError
from executors.providers.text import TextCleaner
from executors.providers.vendor import Vendor, refusal_of

#: Seconds in which usage has to follow the ending; the answer is complete without.
_LAST_WORDS: Final = 5.0

#: Servers forget to label a stream; what is labelled as something else is something else.
_STREAMS: Final = {"text/event-stream", "text/plain", "application/octet-stream", ""}

_CUT: Final = "broke off in the middle of its answer"


class OpenAIChatModel:
    """A ``ChatModel`` of OpenAI, or of a server that speaks its API.

    There are no request ids to resume: closing the stream is the cancellation.
    """

    structured = True

    def __init__(self, wire: Wire, *, model: str) -> None:
        self.name = wire.vendor.name
        self._wire = wire
        self._model = model
        ours = is_openai(wire.vendor.base_url)
        self._usual = Dialect("max_completion_tokens" if ours else "max_tokens")
        self._dialects: dict[str, Dialect] = {}  # by model, where it is not the usual one

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
        """The answer, piece by piece; the last delta has the ending, and usage where it is known."""
        vendor = self._wire.vendor
        async with AsyncExitStack() as held:
            body = {"model": model or self._model, "stream": True}
            if temperature is not None:
                body["temperature"] = temperature
            reply = await self._ask(held, body, messages, max_tokens=max_tokens, schema=schema)
            if reply.content_type not in _STREAMS:
                await _refuse_document(reply, vendor)
            answer = _Answer(vendor, in_form=schema is not None)
            events = EventStream()
            while not answer.done:
                piece = await self._piece(reply, answer)
                try:
                    heard = events.feed(piece) if piece else events.end()
                except TooLargeError as error:
                    vendor.confuse(str(error))
                if text := answer.take(heard):
                    yield ChatDelta(text)
                if answer.fault is not None:
                    raise answer.fault
                if not piece:
                    break
            yield answer.ending()
            await reply.settle()

    async def _ask(
        self,
        held: AsyncExitStack,
        body: Mapping[str, Any],
        messages: Sequence[ChatMessage],
        *,
        max_tokens: int | None,
        schema: Mapping[str, Any] | None,
    ) -> Reply:
        """The reply to the question, put as this server understands it; ``held`` closes it."""
        model = str(body["model"])
        dialect = self._dialects.get(model, self._usual)
        while True:
            sent = {
                **body,
                "messages": _messages(messages, dialect.instruction(schema)),
                **dialect.parameters(max_tokens=max_tokens, schema=schema),
            }
            call = Call(url="/chat/completions", body=sent, bucket=model)
            try:
                reply = await held.enter_async_context(self._wire.open(call))
            except ProviderRejected as error:
                refusal = refusal_of(error)
                other = dialect.without(refusal) if refusal is not None else None
                if other is None:
                    raise
                dialect = other
            else:
                if dialect != self._usual:
                    self._dialects[model] = dialect
                return reply

    async def _piece(self, reply: Reply, answer: _Answer) -> bytes:
        """The next piece; once the answer has ended, a fault of the line ends it too."""
        if not answer.ended:
            return await reply.piece()
        try:
            return await reply.piece(within=_LAST_WORDS)
        except ProviderUnavailable:
            return b""


class _Answer:
    """What a stream has said so far."""

    def __init__(self, vendor: Vendor, *, in_form: bool) -> None:
        self.done = False  #: nothing that counts will follow
        self.fault: ExecutorError | None = (
            None  #: to be raised when the text before it is passed on
        )
        self._vendor = vendor
        self._in_form = in_form
        self._cleaner = TextCleaner()
        self._refused = False
        self._finish: FinishReason | None = None
        self._usage: ChatUsage | None = None
        self._model: str | None = None

    @property
    def ended(self) -> bool:
        """Whether it said how it ends."""
        return self._finish is not None

    def take(self, events: Iterable[ServerEvent]) -> str:
        """The text of these events, up to an error or the end."""
        texts = []
        try:
            for event in events:
                if event.data.strip() == "[DONE]":
                    self.done = True
                    break
                if event.data.strip():
                    texts.append(self._text(event))
        except ExecutorError as error:
            self.fault = error
        return self._cleaner.clean("".join(texts)) if texts else ""

    def ending(self) -> ChatDelta:
        """Why it ended and what it used."""
        if self._finish is None:
            self._vendor.fail(_CUT, "no finish_reason")
        if self._refused and self._in_form:
            raise ProviderRejected(f"{self._vendor.label} refuses to answer this.")
        return ChatDelta("", self._finish, self._usage, self._model)

    def _text(self, event: ServerEvent) -> str:
        document = self._document(event)
        if event.event == "error" or document.get("error"):
            self._vendor.refuse(read_event_error(document))
        if isinstance(model := document.get("model"), str):
            self._model = model
        self._usage = _usage(document.get("usage")) or self._usage
        return "".join(
            self._choice(choice)
            for choice in document.get("choices") or ()
            if isinstance(choice, dict) and not choice.get("index")
        )

    def _document(self, event: ServerEvent) -> dict[str, Any]:
        try:
            document = parsed(event.data)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            self._vendor.confuse("a piece of the stream is no JSON object", event.data.encode())
        return document

    def _choice(self, choice: Mapping[str, Any]) -> str:
        reason = choice.get("finish_reason")
        if reason == "error":
            self._vendor.fail(_CUT, "finish_reason: error")
        if reason and self._finish is None:
            self._finish = _finish(reason)
        delta = choice.get("delta") or choice.get("message")
        if not isinstance(delta, dict):
            return ""
        refusal = _words(delta.get("refusal"))
        self._refused = self._refused or bool(refusal)
        # What the model says in refusing is an answer, but no document.
        return _words(delta.get("content")) + ("" if self._in_form else refusal)


def _messages(messages: Sequence[ChatMessage], instruction: str | None) -> list[dict[str, str]]:
    sent = [{"role": message.role, "content": message.content} for message in messages]
    if instruction is not None:
        # At the end of the instructions that are there: some servers allow one system message.
        if sent and sent[0]["role"] == "system":
            sent[0]["content"] += f"\n\n{instruction}"
        else:
            sent.insert(0, {"role": "system", "content": instruction})
    return sent


async def _refuse_document(reply: Reply, vendor: Vendor) -> None:
    """An answer that is no stream: an error under a good status, or something else altogether."""
    content = await reply.read(LARGEST_ERROR)
    try:
        document = parsed(content)
    except ValueError:
        document = None
    if isinstance(document, dict) and document.get("error"):
        vendor.refuse(read_event_error(document))
    vendor.confuse(f"a stream was asked for, not {reply.content_type}", content)


def _finish(reason: object) -> FinishReason:
    match reason:
        case "length" | "max_tokens":
            return "length"
        case "content_filter":
            return "content_filter"
        case _:  # servers have words of their own for having said everything
            return "stop"


def _words(content: object) -> str:
    """The text of a piece; some servers write it in parts, some of which are only thoughts."""
    if isinstance(content, list):
        return "".join(_words(part.get("text")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _usage(usage: object) -> ChatUsage | None:
    if not isinstance(usage, dict):
        return None
    asked, answered = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if isinstance(asked, int) and isinstance(answered, int) and asked >= 0 and answered >= 0:
        return ChatUsage(asked, answered)
    return None
