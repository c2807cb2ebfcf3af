"""What of a conversation goes to the model: the newest first, as much as the budget has room for.

Tokens are estimated: every vendor counts them in its own way, and a tokenizer is a download of
megabytes. Each kind of character has a weight; compared with OpenAI's cl100k and o200k on prose in
21 languages, code and JSON the sum is 1 to 2 times the higher count for most, a tenth too low for
Finnish and Hebrew, a quarter for Georgian, half for Ethiopic and for base64. Set the budget to what
the model takes, less its longest answer.
"""

from __future__ import annotations

__all__ = ["estimate_tokens", "read_history"]

import math
import string
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from itertools import groupby
from typing import Literal, cast

from executors.errors import InvalidInput, NotFound
from executors.providers.base import ChatMessage
from repositories.messages import Message, ReadingBack, UserMessages

#: Tokens around each message: its role, where it begins and ends.
PER_MESSAGE = 4

_EASY = (string.ascii_letters + " ").encode()
_KINDS: tuple[tuple[bytes, float], ...] = (
    (_EASY, 0.33),
    (bytes(code for code in range(0x80) if code not in _EASY), 0.7),  # digits, signs, line ends
    (bytes(range(0xC0, 0xE0)), 1.0),  # begins two bytes: accents, Greek, Cyrillic, Hebrew, Arabic
    (bytes(range(0xE0, 0xF0)), 1.5),  # three: the scripts of India and East Asia
    (bytes(range(0xF0, 0x100)), 3.0),  # four: emoji
)
#: What to delete of a text to be left with one kind.
_OTHERS = tuple((bytes(set(range(0x100)) - set(kind)), weight) for kind, weight in _KINDS)

#: Between messages of one turn: fewer tokens than the two messages would need around them.
_BETWEEN = "\n\n"

Role = Literal["system", "user", "assistant"]


def estimate_tokens(text: str) -> int:
    """About how many tokens a model makes of a text; rather too many than too few."""
    raw = text.encode()
    return math.ceil(sum(len(raw.translate(None, rest)) * weight for rest, weight in _OTHERS))


async def read_history(
    messages: UserMessages,
    conversation_id: str,
    question_id: str | None,
    *,
    system_prompt: str | None,
    budget: int,
    enter: Callable[[str], None] = lambda _: None,
) -> tuple[Message, list[ChatMessage]]:
    """The question (without an id the newest), and what the model is sent: the question last.

    What came after the question is left out, answers stand behind what they answer, and what is cut
    off begins with a question. There is one system message, in front (the prompt, then what system
    rows say), and behind it user and assistant take turns: many models refuse anything else, and a
    question may have stayed without an answer. ``enter`` is called with the conversation once it is known
    that the user takes part. Raises ``NotFound``, and ``InvalidInput`` when system prompt and question alone
    are beyond the budget.
    """
    newest_first = messages.back(conversation_id)
    await newest_first.open()
    enter(conversation_id)
    question = await _question(newest_first, question_id)
    system = [ChatMessage("system", system_prompt)] if system_prompt else []
    room = budget - _cost(question.content) - sum(_cost(message.content) for message in system)
    if room < 0:
        raise InvalidInput(
            f"The question is too long: about {budget - room} tokens with the system prompt; "
            f"{budget} are allowed."
        )
    chosen: list[Message] = []
    async for message in _before(newest_first, question):
        room -= _cost(message.content)
        if room < 0:
            break
        chosen.append(message)
    history = [_turn(message) for message in (*_in_order(chosen), question)]
    system += [turn for turn in history if turn.role == "system"]
    turns = _merged(turn for turn in history if turn.role != "system")
    if turns[0].role == "assistant":
        del turns[0]
    return question, [*_merged(system), *turns]


def _turn(message: Message) -> ChatMessage:
    return ChatMessage(cast("Role", message.role), message.content)


def _merged(turns: Iterable[ChatMessage]) -> list[ChatMessage]:
    """One turn for all that the same side says in a row."""
    return [
        ChatMessage(role, _BETWEEN.join(turn.content for turn in same))
        for role, same in groupby(turns, key=lambda turn: turn.role)
    ]


def _cost(content: str) -> int:
    return estimate_tokens(content) + PER_MESSAGE


async def _question(newest_first: ReadingBack, question_id: str | None) -> Message:
    if question_id is not None:
        question = await newest_first.find(question_id)
        if question.role != "user":
            raise NotFound("There is no such question in this conversation.")
        return question
    async for message in newest_first:
        if message.role == "user":
            return message
    raise NotFound("Nothing was asked in this conversation yet.")


async def _before(newest_first: ReadingBack, question: Message) -> AsyncIterator[Message]:
    """What the question follows, the newest first.

    An answer that came late may stand behind this question: it belongs here unless it answers this
    question, or a later one.
    """
    later = {question.id}
    late: list[Message] = []
    async for message in newest_first:
        if message.position >= question.position:
            if message.role == "assistant":
                late.append(message)
            else:
                later.add(message.id)
            continue
        while late:
            answer = late.pop(0)
            if answer.reply_to not in later and answer.content.strip():
                yield answer
        if message.content.strip():
            yield message


def _in_order(chosen: Sequence[Message]) -> list[Message]:
    """As one reads them: each answer behind what it answers, if that was chosen."""
    positions = {message.id: message.position for message in chosen}

    def order(message: Message) -> tuple[int, int]:
        question = positions.get(message.reply_to or "")
        return (message.position, 0) if question is None else (question, message.position)

    return sorted(chosen, key=order)
