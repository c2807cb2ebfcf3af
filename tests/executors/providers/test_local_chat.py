"""The offline voice: labelled, the same every time, relevant, and within its limits."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from executors.errors import ProviderRejected
from executors.providers.base import ChatDelta, ChatMessage, ChatModel
from executors.providers.offline.chat import LABEL, LocalChatModel, answer, tokens_of, words_of

HISTORY = [
    ChatMessage("system", "Be kind."),
    ChatMessage("user", "My shop sells tea."),
    ChatMessage("assistant", "How nice of it."),
]
PIECE = 24  # characters of text that arrive at once, and the space before them


def asked(question: str, history: Sequence[ChatMessage] = ()) -> str:
    """The answer to one question."""
    return answer([*history, ChatMessage("user", question)])


async def streamed(
    messages: Sequence[ChatMessage], max_tokens: int | None = None
) -> list[ChatDelta]:
    """The answer as it comes, without a pace."""
    model: ChatModel = LocalChatModel(pace=0)
    return [delta async for delta in model.stream(messages, max_tokens=max_tokens)]


@pytest.mark.parametrize(
    "question",
    [
        "What is the meaning of life?",
        "日本語で答えてください\uff1f",
        "هل تسمعني؟",
        "🦊 👨‍👩‍👧 \u202e",
        "x" * 10_000,
        "  \n ",
        "count " * 5000,
        'How many words has "“”"?',
    ],
)
async def test_every_answer_is_labelled_and_arrives_in_pieces(question: str) -> None:
    """In any script: the pieces are the whole, and say why they end and what they used."""
    messages = [ChatMessage("user", question)]
    *pieces, last = await streamed(messages)
    text = "".join(piece.text for piece in pieces)
    assert text == answer(messages)
    assert text.startswith(LABEL + " ")
    assert len(pieces) > 5
    assert all(0 < len(piece.text.strip()) <= PIECE for piece in pieces)
    assert {piece.model for piece in (*pieces, last)} == {"offline-1"}
    assert (last.text, last.finish_reason) == ("", "stop")
    assert last.usage is not None
    assert last.usage.prompt_tokens == tokens_of(question)
    assert last.usage.completion_tokens == tokens_of(text)
    assert len(text) < 700


def test_the_same_conversation_gets_the_same_answer() -> None:
    """And another one another."""
    assert asked("Hello?", HISTORY) == asked("Hello?", HISTORY)
    assert asked("Hello?", HISTORY) != asked("Goodbye?", HISTORY)


@pytest.mark.parametrize(
    ("question", "count"),
    [
        ('How many words are in "to be or not"?', "4 words and 12 characters"),
        ("Wie viele Wörter hat „eins zwei drei“?", "3 words and 14 characters"),
        ("Combien de mots dans « l'été »?", "1 word"),
        ("How many words was that?", "4 words"),  # the last answer
        ("Word count of “猫が好き”", "4 words"),
        ("count the letters", "4 words"),
    ],
)
def test_it_counts(question: str, count: str) -> None:
    """Words of what is quoted, else of what was said last."""
    assert count in asked(question, HISTORY)


def test_it_looks_back() -> None:
    """At what was really said."""
    said = asked("Summarize our conversation, please", HISTORY)
    assert "My shop sells tea." in said
    assert "1 message" in said
    assert "Be kind" not in said, "a system prompt is not part of the talk"
    assert "begins" in asked("What did we say?")


def test_it_suggests_colours_of_the_theme() -> None:
    """Palettes that could be used as they are."""
    assert asked("Which colours for an ocean brand?").count("#") == 10


@pytest.mark.parametrize("question", ["help", "What can you do?", "Was kannst du?", "你能做什么"])
def test_it_says_what_it_can_do(question: str) -> None:
    """And that it is no model."""
    assert "No model is connected" in asked(question)
    assert "refinement" in asked(question)


def test_it_reflects_what_it_cannot_answer() -> None:
    """With the question's own words."""
    said = asked("Should penguins own umbrellas?")
    assert "“Should penguins own umbrellas?”" in said
    assert "Should, penguins, umbrellas" in said


@pytest.mark.parametrize("limit", [0, 1, 2, 10, 30])
async def test_a_limit_of_tokens_is_kept(limit: int) -> None:
    """It ends before the word that would be too much, and says why."""
    whole = asked("What can you do?")
    *pieces, last = await streamed([ChatMessage("user", "What can you do?")], max_tokens=limit)
    text = "".join(piece.text for piece in pieces)
    assert whole.startswith(text)
    assert tokens_of(text) <= limit
    assert last.finish_reason == "length"


async def test_a_limit_that_is_enough_is_no_limit() -> None:
    """All of it fits."""
    messages = [ChatMessage("user", "What can you do?")]
    *_, last = await streamed(messages, max_tokens=tokens_of(answer(messages)))
    assert last.finish_reason == "stop"


async def test_it_fills_in_no_forms() -> None:
    """Who needs a document is told so, before a word is said."""
    model = LocalChatModel(pace=0)
    assert not model.structured
    with pytest.raises(ProviderRejected):
        await anext(model.stream([ChatMessage("user", "x")], schema={"type": "object"}))


async def test_it_can_be_seen_to_stream() -> None:
    """There is time between the words; who closes the stream stops it."""
    stream = LocalChatModel(pace=0.01).stream([ChatMessage("user", "Hello")])
    began = time.perf_counter()
    for _ in range(5):
        await anext(stream)
    assert time.perf_counter() - began > 0.04
    await stream.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("don't stop", 2),
        ("l'été — déjà", 2),
        ("猫が好き", 4),
        ("Привет, мир", 2),
        ("🦊 !?", 0),
        ("", 0),
    ],
)
def test_words_of_any_script(text: str, count: int) -> None:
    """Of scripts that write no spaces every character counts."""
    assert len(words_of(text)) == count
