"""``ChatModel`` by OpenAI's chat completions, streamed."""

from __future__ import annotations

__all__ = ["OpenAIChatModel"]

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Any, Final

from executors.errors import ProviderRejected, ProviderUnavailable
from executors.providers.base import ChatDelta, ChatMessage, VendorRequest
from executors.providers.openai.answer import DONE, Answer, says_something
from executors.providers.openai.dialect import Dialect
from executors.providers.openai.vendor import is_openai
from executors.providers.transport.http import LARGEST_ANSWER, Call, Reply, VendorClient, parsed
from executors.providers.transport.sse import EventStream, ServerEvent, TooLargeError
from executors.providers.transport.vendor import refusal_of

#: Seconds in which usage has to follow the ending; the answer is complete without.
_USAGE_WAIT: Final = 5.0

#: Servers forget to label a stream; what is labelled as something else is something else.
_STREAMS: Final = {"text/event-stream", "text/plain", "application/octet-stream", ""}


class OpenAIChatModel:
    """A ``ChatModel`` of OpenAI, or of a server that speaks its API.

    There are no request ids to resume: closing the stream is the cancellation.
    """

    structured = True

    def __init__(self, client: VendorClient, *, model: str) -> None:
        self.name = client.vendor.name
        self._client = client
        self._model = model
        ours = is_openai(client.vendor.base_url)
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
        """The answer, delta by delta; the last one has the finish reason, and usage where it is known."""
        async with AsyncExitStack() as held:
            body = {"model": model or self._model, "stream": True}
            if temperature is not None:
                body["temperature"] = temperature
            reply = await self._request(held, body, messages, max_tokens=max_tokens, schema=schema)
            answer = Answer(reply.vendor, in_form=schema is not None)
            async with aclosing(self._received(reply, answer)) as all_received:
                async for received in all_received:
                    if text := answer.take(received):
                        yield ChatDelta(text)
                    if answer.fault is not None:
                        raise answer.fault
                    if answer.done:
                        break
            yield answer.final_delta()
            await reply.settle()

    async def _received(
        self, reply: Reply, answer: Answer
    ) -> AsyncGenerator[list[ServerEvent], None]:
        """The events as they arrive, some at a time."""
        if reply.content_type not in _STREAMS:
            yield [await _whole(reply), ServerEvent(DONE)]
            return
        events = EventStream()
        chunk = b"-"
        while chunk:
            chunk = await self._chunk(reply, answer)
            try:
                yield events.feed(chunk) if chunk else events.end()
            except TooLargeError as error:
                reply.vendor.malformed(str(error))

    async def _request(
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
                "messages": _messages(messages, dialect, dialect.instruction(schema)),
                **dialect.parameters(max_tokens=max_tokens, schema=schema),
            }
            call = Call(url="/chat/completions", body=sent, bucket=model)
            try:
                reply = await held.enter_async_context(self._client.open(call))
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

    async def _chunk(self, reply: Reply, answer: Answer) -> bytes:
        """The next chunk; once the answer has ended, an error of the connection ends it too."""
        if not answer.ended:
            return await reply.chunk()
        try:
            return await reply.chunk(within=_USAGE_WAIT)
        except ProviderUnavailable:
            return b""


def _messages(
    messages: Sequence[ChatMessage], dialect: Dialect, instruction: str | None
) -> list[dict[str, str]]:
    sent = [{"role": message.role, "content": message.content} for message in messages]
    if instruction is not None:
        # At the end of the instructions that are there: some servers allow one system message.
        if sent and sent[0]["role"] == "system":
            sent[0]["content"] += f"\n\n{instruction}"
        else:
            sent.insert(0, {"role": "system", "content": instruction})
    if not dialect.system and len(sent) > 1 and sent[0]["role"] == "system":
        sent[1]["content"] = f"{sent[0]['content']}\n\n{sent[1]['content']}"
        del sent[0]
    return sent


async def _whole(reply: Reply) -> ServerEvent:
    """An answer that is no stream: an error under a good status, or all of it at once."""
    content = await reply.read(LARGEST_ANSWER)
    try:
        document = parsed(content)
    except ValueError:
        document = None
    if not says_something(document):
        reply.vendor.malformed(f"a stream was asked for, not {reply.content_type}", content)
    return ServerEvent(content.decode("utf-8", "replace"))
