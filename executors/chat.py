"""``chat``: the answer to a question in a conversation, published while it is written, stored once."""

from __future__ import annotations

__all__ = ["ChatExecutor", "ChatInput", "ChatOutput", "Usage"]

from collections.abc import Sequence
from contextlib import aclosing
from datetime import timedelta
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, Field

from executors.base import BaseExecutor, JobContext, JobInput, Stage
from executors.errors import ProviderRejected, ProviderUnavailable
from executors.partial_result import Answer, PartialResult
from executors.providers.base import ChatDelta, ChatMessage, FinishReason, VendorRequest
from executors.stages.message_history import estimate_tokens, read_history
from executors.stages.message_stream import MessageStream, Pace
from uvian_common.answers import answer_id


class ChatInput(JobInput):
    """The conversation, the question, and the settings of the answer."""

    conversation_id: UUID
    message_id: UUID | None = None
    """The question; without it the newest in the conversation."""
    system_prompt: Annotated[str, Field(max_length=32_000)] | None = None
    model: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """As the provider names it."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=200_000)] | None = None
    """Of the answer."""


class Usage(BaseModel):
    """Tokens of a question and its answer."""

    prompt_tokens: int
    completion_tokens: int
    estimated: bool
    """Counted by us, since the provider did not say: an answer that was stopped."""


class ChatOutput(BaseModel):
    """What became of it."""

    message_id: str
    finish_reason: FinishReason
    model: str | None
    """As the provider names what answered."""
    usage: Usage


class ChatExecutor(BaseExecutor[ChatInput, ChatOutput]):
    """History → the model's stream → deltas; the settlement stores the message.

    A cancelled answer is stored as far as it was written, and charged for that part. After any other
    interruption (a deploy, a timeout, a provider that broke off) another run begins the answer anew.
    """

    type = "chat"
    Input = ChatInput
    Output = ChatOutput
    timeout = timedelta(minutes=10)
    max_attempts = 3

    def __init__(self) -> None:
        self._pace = Pace()

    async def execute(self, job: JobContext[ChatInput]) -> ChatOutput:
        """Answer the question."""
        request, services = job.input, job.services
        conversation_id = str(request.conversation_id)
        question, prompt = await read_history(
            services.messages,
            conversation_id,
            str(request.message_id) if request.message_id else None,
            system_prompt=request.system_prompt,
            budget=services.history_tokens,
            enter=job.enter,
        )
        stream = MessageStream(job.emit, self._pace, answer_id(job.job.id))
        writing = _Writing(stream, question.id, prompt)
        job.set_partial_result(writing.partial_result)
        async with job.stage("answer", weight=1, label="Answering") as stage:
            stream.begin(conversation_id, question.id, again=job.job.run > 1)
            try:
                await _write(job, writing, stage)
            finally:
                stream.close()
            finish_reason = writing.finished()
        if finish_reason == "content_filter":
            job.warn("content_filter", "The provider's content filter ended the answer.")
        return ChatOutput(
            message_id=stream.message_id,
            finish_reason=finish_reason,
            model=writing.model,
            usage=writing.usage,
        )

    def result_id(self, output: ChatOutput) -> str:
        """The message."""
        return output.message_id


class _Writing:
    """An answer as far as it is written: its text, and what is known of it."""

    def __init__(
        self,
        stream: MessageStream,
        question_id: str,
        prompt: Sequence[ChatMessage],
    ) -> None:
        self.stream = stream
        self.prompt = prompt
        self.model: str | None = None
        self._question_id = question_id
        self._usage: Usage | None = None
        self._finish_reason: FinishReason | None = None

    def add(self, delta: ChatDelta) -> bool:
        """Whether more may follow."""
        self.model = delta.model or self.model
        self._finish_reason = delta.finish_reason or self._finish_reason
        if delta.usage is not None:
            self._usage = Usage(
                prompt_tokens=delta.usage.prompt_tokens,
                completion_tokens=delta.usage.completion_tokens,
                estimated=False,
            )
        if delta.text and not self.stream.write(delta.text):
            self._finish_reason = "length"
            return False
        return True

    @property
    def usage(self) -> Usage:
        """As the provider counts, else as we estimate."""
        if self._usage is not None:
            return self._usage
        return Usage(
            prompt_tokens=sum(estimate_tokens(message.content) for message in self.prompt),
            completion_tokens=estimate_tokens(self.stream.text),
            estimated=True,
        )

    def finished(self) -> FinishReason:
        """The reason why it ended. Raises where there is nothing to store."""
        if self._finish_reason is None:
            raise ProviderUnavailable("the answer was cut off.")
        if self.stream.text.strip():
            return self._finish_reason
        match self._finish_reason:
            case "content_filter":
                raise ProviderRejected("the provider's content filter let nothing through.")
            case "length":
                raise ProviderRejected("the answer is longer than max_tokens allows.")
            case _:
                raise ProviderUnavailable("the model had nothing to say.")

    def partial_result(self) -> PartialResult:
        """The message for the settlement, and what it is worth if it was stopped here."""
        self.stream.close()
        text = self.stream.text
        if not text.strip():
            return PartialResult()
        message = Answer(text, reply_to=self._question_id, usage=self.usage.model_dump())
        # The model had finished: it is a whole answer, whenever the user stopped it.
        return PartialResult(message, charge=None if self._finish_reason is None else 1.0)


async def _write(job: JobContext[ChatInput], writing: _Writing, stage: Stage) -> None:
    """Have the model write the answer; its connection is closed whatever happens."""

    async def save_id(request_id: str) -> None:
        await job.checkpoint(request=request_id)

    deltas = job.services.chat_model.stream(
        writing.prompt,
        model=job.input.model,
        temperature=job.input.temperature,
        max_tokens=job.input.max_tokens,
        request=VendorRequest(
            id=job.checkpoints.get("request"),
            save=save_id,
            report=lambda sentence: stage.progress(0, sentence),
        ),
    )
    async with aclosing(deltas):
        async for delta in deltas:
            if not writing.add(delta):
                break
