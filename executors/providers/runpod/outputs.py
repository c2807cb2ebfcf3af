"""What workers put into ``output``: each has a form of its own.

Text: ``choices[0].tokens[]`` (vLLM), ``choices[0].delta.content``, ``choices[0].message.content``,
``choices[0].text``, ``text`` (TGI; a string or several), ``tokens[]`` (older vLLM), or a bare string.

Pictures, as a URL, a ``data:`` URL or base64: a bare string, the first of a list, or below one of
``image_url``, ``images``, ``image``, ``url``, ``data``, ``result``, ``message``.
"""

from __future__ import annotations

__all__ = ["Order", "finish_in", "picture_in", "seed_in", "text_in", "usage_in"]

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from executors.providers.base import ChatUsage, FinishReason
from executors.providers.transport.finish_reasons import read_finish

_PICTURES: Final = ("image_url", "images", "image", "url", "data", "result", "message", "output")


def text_in(output: object) -> str:
    """The text of one output, or of several."""
    if isinstance(output, str):
        return output
    if isinstance(output, list):
        return "".join(map(text_in, output))
    if not isinstance(output, dict):
        return ""
    choice = _choice(output)
    for found in (
        choice.get("tokens"),
        _inside(choice.get("delta")),
        _inside(choice.get("message")),
        choice.get("text"),
        output.get("text"),
        output.get("tokens"),
    ):
        if isinstance(found, str | list):
            return text_in(found)
    return ""


def usage_in(output: object) -> ChatUsage | None:
    """Tokens, as vLLM workers count them or as OpenAI does."""
    usage = output.get("usage") if isinstance(output, dict) else None
    if not isinstance(usage, dict):
        return None
    prompt = usage.get("input", usage.get("prompt_tokens"))
    completion = usage.get("output", usage.get("completion_tokens"))
    if isinstance(prompt, int) and isinstance(completion, int) and prompt >= 0 and completion >= 0:
        return ChatUsage(prompt, completion)
    return None


def finish_in(output: object) -> FinishReason | None:
    """Why an answer ended, where the worker says so."""
    return read_finish(_choice(output).get("finish_reason")) if isinstance(output, dict) else None


def picture_in(output: object, depth: int = 0) -> str:
    """Where the picture is, or the picture itself; empty where there is none."""
    if isinstance(output, str):
        return output
    if isinstance(output, list):
        return picture_in(output[0], depth + 1) if output and depth < 4 else ""
    if not isinstance(output, dict) or depth >= 4:
        return ""
    found = (picture_in(output[name], depth + 1) for name in _PICTURES if name in output)
    return next(filter(None, found), "")


def seed_in(output: object) -> int | None:
    """The seed that the worker has drawn with."""
    seed = output.get("seed") if isinstance(output, dict) else None
    return seed if isinstance(seed, int) else None


class Order:
    """Puts the chunks of a stream in order, each once.

    vLLM counts the tokens up to the end of each chunk (``usage.output``): such chunks wait for those
    before them. Other workers number theirs (``metrics.stream_index``), perhaps with gaps: they are in
    order within one poll, and one that comes too late breaks the answer. All others have no number, or
    numbers that make no sense, and are taken as they come: "ha" after "ha" may be meant, and to drop one
    could lose text.
    """

    def __init__(self) -> None:
        self.is_broken = False  #: a chunk came after those that belong behind it
        self._next = 0  # the token that comes next
        self._held: dict[int, _Chunk] = {}
        self._taken: set[_Chunk] = set()
        self._numbers: set[int] = set()

    @property
    def has_gap(self) -> bool:
        """Whether something is missing before chunks that are here."""
        return bool(self._held)

    def take(self, items: Iterable[object]) -> list[Any]:
        """The outputs whose turn it is."""
        ready: list[Any] = []
        for item in sorted(items, key=lambda item: _number(item) or 0):
            output = item.get("output") if isinstance(item, dict) else None
            number, chunk = _number(item), _chunk(output)
            if number is not None:
                if number in self._numbers:
                    continue
                self.is_broken |= number < max(self._numbers, default=number)
                self._numbers.add(number)
                ready.append(output)
            elif chunk is None:
                ready.append(output)
            elif chunk.begin >= self._next:
                self._held.setdefault(chunk.begin, chunk)
                ready += self._in_turn()
            elif chunk not in self._taken:
                ready.append(output)
        return ready

    def _in_turn(self) -> Iterator[Any]:
        while self._next in self._held:
            chunk = self._held.pop(self._next)
            self._next = chunk.end
            self._taken.add(chunk)
            yield chunk.output


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Tokens, from one to another."""

    begin: int
    end: int
    text: str
    output: Any = field(compare=False)


def _chunk(output: object) -> _Chunk | None:
    tokens = _choice(output).get("tokens") if isinstance(output, dict) else None
    usage = usage_in(output)
    if not isinstance(tokens, list) or usage is None:
        return None
    end = usage.completion_tokens
    return (
        _Chunk(end - len(tokens), end, text_in(output), output) if 0 < len(tokens) <= end else None
    )


def _number(item: object) -> int | None:
    metrics = item.get("metrics") if isinstance(item, dict) else None
    number = metrics.get("stream_index") if isinstance(metrics, dict) else None
    return number if isinstance(number, int) else None


def _choice(output: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = output.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else {}


def _inside(message: object) -> object:
    return message.get("content") if isinstance(message, dict) else None
