"""What a stream of chat completions has said so far.

Servers that call themselves compatible agree on the text of a piece, and on little else. Known here:
OpenAI, Azure, vLLM (errors without the word "error" as a key), llama.cpp, Ollama, TGI, SGLang,
LiteLLM, OpenRouter, Mistral, DeepSeek, and gateways that answer in one document.
"""

from __future__ import annotations

__all__ = ["DONE", "Answer", "says_something"]

from collections.abc import Iterable, Mapping
from typing import Any, Final

from executors.errors import ExecutorError, ProviderRejected
from executors.providers.base import ChatDelta, ChatUsage, FinishReason
from executors.providers.openai.vendor import read_event_error
from executors.providers.transport.finish_reasons import is_cut, read_finish
from executors.providers.transport.http import parsed
from executors.providers.transport.sse import ServerEvent
from executors.providers.transport.vendor import Vendor
from uvian_common.text import TextCleaner

#: What OpenAI's streams end with.
DONE: Final = "[DONE]"

_CUT: Final = "broke off in the middle of its answer"

#: Of a document without choices: it is there to say what went wrong.
_COMPLAINS: Final = ("detail", "error_code", "error_message", "error_msg", "error_type", "errors")

#: Parts of a text that are not said to the user.
_THOUGHTS: Final = {"thinking", "reasoning", "redacted_thinking"}


class Answer:
    """Give it every event; it knows the text, why it ended, and what went wrong."""

    def __init__(self, vendor: Vendor, *, in_form: bool) -> None:
        self.done = False  #: nothing that counts will follow
        self.fault: ExecutorError | None = (
            None  #: to be raised when the text before it is passed on
        )
        self._vendor = vendor
        self._in_form = in_form
        self._cleaner = TextCleaner()
        self._spoke = False
        self._refused = False
        self._calls = False  # a tool instead of an answer
        self._strange = b""  # what is no piece of an answer, for the log
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
                if event.data.strip() == DONE:
                    self.done = True
                    break
                if event.data.strip():
                    texts.append(self._text(event))
        except ExecutorError as error:
            self.fault = error
        text = "".join(texts)
        self._spoke = self._spoke or bool(text.strip())
        return self._cleaner.clean(text) if text else ""

    def final_delta(self) -> ChatDelta:
        """Why it ended and what it used. Raises where the end is missing."""
        if self._calls and not self._spoke:
            self._vendor.fail("called a tool instead of answering")
        if self._finish is None:
            if not (self.done and self._spoke):
                self._miss_the_end()
            self._finish = "stop"  # a server that says that it is done need not say why
        if self._refused and self._in_form:
            raise ProviderRejected(f"{self._vendor.label} refuses to answer this.")
        return ChatDelta("", self._finish, self._usage, self._model)

    def _miss_the_end(self) -> None:
        if self._strange and not self._spoke:
            self._vendor.malformed("there is no piece of an answer in it", self._strange)
        self._vendor.fail(_CUT, "no finish_reason")

    def _text(self, event: ServerEvent) -> str:
        document = self._document(event)
        if event.event == "error" or _complains(document):
            self._vendor.refuse(read_event_error(document))
        if isinstance(model := document.get("model"), str):
            self._model = model
        self._usage = _usage(document.get("usage")) or self._usage
        if not says_something(document):
            self._strange = self._strange or event.data.encode()
        return "".join(map(self._choice, _choices(document)))

    def _document(self, event: ServerEvent) -> dict[str, Any]:
        try:
            document = parsed(event.data)
        except ValueError:
            # An error may come as plain text.
            document = {"error": event.data} if event.event == "error" else None
        if isinstance(document, list) and len(document) == 1:
            document = document[0]  # Google's errors come in a list
        if isinstance(document, str) and event.event == "error":
            document = {"error": document}
        if not isinstance(document, dict):
            self._vendor.malformed("a piece of the stream is no JSON object", event.data.encode())
        return document

    def _choice(self, choice: Mapping[str, Any]) -> str:
        reason = choice.get("finish_reason")
        if choice.get("error"):
            self._vendor.refuse(read_event_error(choice))
        if is_cut(reason):
            self._vendor.fail(_CUT, f"finish_reason: {reason}")
        self._finish = self._finish or read_finish(reason)
        delta = choice.get("delta") or choice.get("message") or {"content": choice.get("text")}
        if not isinstance(delta, dict):
            return ""
        self._calls |= bool(delta.get("tool_calls") or delta.get("function_call"))
        refusal = _words(delta.get("refusal"))
        self._refused = self._refused or bool(refusal)
        # What the model says in refusing is an answer, but no document.
        return _words(delta.get("content")) + ("" if self._in_form else refusal)


def says_something(document: object) -> bool:
    """Whether it is a piece of an answer, a whole one, or an error."""
    return isinstance(document, dict) and ("choices" in document or _complains(document))


def _complains(document: Mapping[str, Any]) -> bool:
    """Whether a document is an error; those of older vLLM servers are not below a key "error"."""
    if document.get("error") or "error" in (document.get("object"), document.get("type")):
        return True
    if document.get("choices"):
        return False
    said = document.get("message")
    named = isinstance(said, str) and ("code" in document or "status" in document)
    return named or any(document.get(name) for name in _COMPLAINS)


def _choices(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The first choice, in all deltas: one answer is requested."""
    choices = document.get("choices")
    if not isinstance(choices, list):
        return []
    return [
        choice
        for choice in choices
        if isinstance(choice, dict) and str(choice.get("index") or 0) == "0"
    ]


def _words(content: object) -> str:
    """The text of a piece; some servers write it in parts, some of which are only thoughts."""
    if isinstance(content, list):
        return "".join(map(_words, content))
    if isinstance(content, dict):
        if str(content.get("type")) in _THOUGHTS:
            return ""
        return _words(content.get("text") or content.get("value") or content.get("refusal"))
    return content if isinstance(content, str) else ""


def _usage(usage: object) -> ChatUsage | None:
    if not isinstance(usage, dict):
        return None
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if isinstance(prompt, int) and isinstance(completion, int) and prompt >= 0 and completion >= 0:
        return ChatUsage(prompt, completion)
    return None
