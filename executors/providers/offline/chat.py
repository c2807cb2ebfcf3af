"""The offline voice: a ``ChatModel`` with no network, no key and no mind, which says so.

Every answer begins with a label. It is there so that a conversation can be seen to work (streaming,
history, cancelling, limits) before any model is configured; the few things it does, it really does.
"""

from __future__ import annotations

__all__ = ["LABEL", "LocalChatModel", "tokens_of"]

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any, Final

from executors.errors import ProviderRejected
from executors.imaging.palettes import harmonies
from executors.providers.base import ChatDelta, ChatMessage, ChatUsage, FinishReason, VendorRequest

LABEL: Final = "[offline]"

_PIECE = re.compile(r"\s*\S{1,24}|\s+")  # a script without spaces still arrives piece by piece
_QUOTED = re.compile('["“„«「](.+?)["”“»」]', re.DOTALL)
_LONGEST_QUOTE = 160  # characters
_READ_LENGTH = 2000  # characters of a question that are searched for its subject
_BYTES_PER_TOKEN = 4
_STOP: Final[FinishReason] = "stop"
_LENGTH: Final[FinishReason] = "length"

_ABILITIES: Final = (
    "I can count the words of a text, look back at this conversation, and suggest colours for a "
    "theme. uvian itself makes logo concepts from a description (generation), changes a picture "
    "by a prompt (refinement) and keeps conversations like this one (chat), all of it live."
)


class LocalChatModel:
    """Answers from the words of the conversation alone: the same question, the same answer."""

    name = "local"
    model = "offline-1"  #: changes when the same conversation would be answered otherwise
    structured = False

    def __init__(self, *, pace: float = 0.02) -> None:
        """``pace`` is how many seconds a word takes."""
        self._pace = pace

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
        """The answer, word by word; see the port."""
        if schema is not None:
            raise ProviderRejected("the offline voice speaks prose, and fills in no forms")
        said, finish = "", _STOP
        for piece in _PIECE.findall(await asyncio.to_thread(answer, messages)):
            if max_tokens is not None and tokens_of(said + piece) > max_tokens:
                finish = _LENGTH
                break
            await asyncio.sleep(self._pace)
            said += piece
            yield ChatDelta(piece, model=self.model)
        asked = sum(tokens_of(message.content) for message in messages)
        yield ChatDelta(
            finish_reason=finish, usage=ChatUsage(asked, tokens_of(said)), model=self.model
        )


def tokens_of(text: str) -> int:
    """An estimate: four bytes are about a token."""
    return -(-len(text.encode("utf-8", "replace")) // _BYTES_PER_TOKEN)


def answer(messages: Sequence[ChatMessage]) -> str:
    """What the offline voice says next, whole."""
    turns = [message for message in messages if message.role == "user"]
    question = turns[-1].content.strip() if turns else ""
    if not question:
        return f"{LABEL} Nobody has asked me anything yet. {_ABILITIES}"
    for asks, reply in _REPLIES:
        if asks.search(question[:_READ_LENGTH]):
            return f"{LABEL} {reply(question, messages)}"
    return f"{LABEL} {_reflection(question, messages)}"


def _count(question: str, messages: Sequence[ChatMessage]) -> str:
    quoted = _QUOTED.search(question)
    earlier = [m.content for m in messages[:-1] if m.role != "system"]
    text = quoted[1] if quoted else (earlier[-1] if earlier else question)
    words, letters = len(words_of(text)), len(text)
    return f"{_quote(text)} has {_number(words, 'word')} and {_number(letters, 'character')}."


def _look_back(_: str, messages: Sequence[ChatMessage]) -> str:
    said = [m for m in messages[:-1] if m.role != "system"]
    if not said:
        return "This is where our conversation begins: there is nothing before your question."
    mine = sum(m.role == "assistant" for m in said)
    yours = [m.content for m in said if m.role == "user"]
    lines = [f"So far you have written {_number(len(yours), 'message')}, and I {mine}."]
    if yours:
        lines.append(f"You began with {_quote(yours[0])}.")
    if len(yours) > 1:
        lines.append(f"Right before this you wrote {_quote(yours[-1])}.")
    return " ".join(lines)


def _colours(question: str, _: Sequence[ChatMessage]) -> str:
    first, second = harmonies(question, 2)
    return (
        f"For that I would take {first.name}: {', '.join(first.colours)}. "
        f"Or, in another mood, {second.name}: {', '.join(second.colours)}."
    )


def _abilities(_: str, __: Sequence[ChatMessage]) -> str:
    return f"No model is connected, so I am a stand-in. {_ABILITIES}"


def _reflection(question: str, messages: Sequence[ChatMessage]) -> str:
    """What can be said honestly of any message."""
    turn = sum(message.role == "user" for message in messages)
    kind = "question" if question.rstrip().endswith(("?", "\uff1f", "؟")) else "message"
    topics = sorted(set(words_of(question)), key=lambda word: (-len(word), word))[:3]
    long = [word for word in words_of(question) if word in topics and len(word) > 3]
    about = f" It seems to be about {', '.join(dict.fromkeys(long))}." if long else ""
    return (
        f"I have read your {kind} {_quote(question)}, number {turn} in this conversation."
        f"{_cut(about)} No model is connected, so I cannot think about it; connect one and ask "
        "again. Until then, ask me what I can do."
    )


_Reply = Callable[[str, Sequence[ChatMessage]], str]

#: What a question asks for, in the languages that most ask in; the first that fits answers.
_REPLIES: Final[tuple[tuple[re.Pattern[str], _Reply], ...]] = tuple(
    (re.compile("|".join(patterns), re.IGNORECASE), reply)
    for reply, *patterns in (
        (
            _count,
            r"\b(how many|count the) (words?|characters?|letters?)",
            r"\bword ?count",
            r"\bwie ?viele (wörter|worte|zeichen)",
            r"\bcombien de (mots|caractères)",
            r"\bcuánt[ao]s (palabras|letras)",
            r"\bquant[ei] parole",
            r"何文字|多少个?[字词]",
        ),
        (
            _look_back,
            r"\b(what|which) (did|have) (i|we|you)\b",
            r"\b(summari[sz]e|summary|recap|our conversation)\b",
            r"\b(zusammenfassung|zusammen|was habe ich)\b",
            r"\b(résum|resum|riassum)",
            r"まとめ|总结",
        ),
        (
            _colours,
            r"\b(colou?rs?|palettes?|farben?|farbpalette|couleurs?|colores|colori|paleta)\b",
            r"配色|颜色",
        ),
        (
            _abilities,
            r"\b(help|hilfe|aide|ayuda|aiuto|uvian)\b",
            r"\bwh(at (can|do|are)|o are) you\b",
            r"\b(was kannst|wer bist) du",
            r"\bque (peux|sais)-tu|\bqué puedes|\bcosa sai fare",
            r"何ができ|你能做什么",
        ),
    )
)

_SPACELESS: Final = r"\u3040-\u30ff\u3400-\u9fff"
_WORD: Final = re.compile(rf"[{_SPACELESS}]|[^\W_{_SPACELESS}]+(?:['\u2019][^\W_]+)*")


def words_of(text: str) -> list[str]:
    """Words as Unicode has them; of scripts that write none, every character."""
    return _WORD.findall(text)


def _quote(text: str) -> str:
    return f"“{_cut(' '.join(text.split()))}”"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_QUOTE else text[: _LONGEST_QUOTE - 1] + "…"


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
