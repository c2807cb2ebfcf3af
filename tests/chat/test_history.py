"""What of a conversation goes to the model."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executors.errors import InvalidInput, NotFound
from executors.providers.base import ChatMessage
from executors.stages.message_history import PER_MESSAGE, estimate_tokens, read_history
from repositories import errors as repository_errors
from tests.chat.rows import CONVERSATION, OTHER, Rows


async def history(rows: Rows, question: str | None = None, **options: Any) -> list[tuple[str, str]]:
    """What is sent, as pairs."""
    options = {"system_prompt": None, "budget": 10_000, **options}
    _, sent = await read_history(rows.messages, CONVERSATION, question, **options)
    return [(message.role, message.content) for message in sent]


@pytest.fixture
def rows() -> Rows:
    """An empty conversation."""
    return Rows()


async def test_the_conversation_in_order_with_the_question_last(rows: Rows) -> None:
    """System prompt, then question and answer in turn, then what is asked now."""
    first = rows.say("What is red?")
    rows.say("A colour.", role="assistant", reply_to=first)
    now = rows.say("And blue?")
    assert await history(rows, now, system_prompt="Be brief.") == [
        ("system", "Be brief."),
        ("user", "What is red?"),
        ("assistant", "A colour."),
        ("user", "And blue?"),
    ]


async def test_without_an_id_the_newest_question_is_meant(rows: Rows) -> None:
    """A job made by hand names the conversation alone."""
    rows.say("old")
    newest = rows.say("new")
    rows.say("said by nobody's question", role="assistant")
    question, sent = await read_history(
        rows.messages, CONVERSATION, None, system_prompt=None, budget=1000
    )
    assert question.id == newest
    assert sent[-1] == ChatMessage("user", "new")


async def test_what_was_asked_later_is_left_out(rows: Rows) -> None:
    """A question that waited is answered as if the ones behind it were not there yet."""
    first = rows.say("first")
    second = rows.say("second")
    third = rows.say("third")
    rows.say("to the first", role="assistant", reply_to=first)
    rows.say("to the third", role="assistant", reply_to=third)
    assert await history(rows, second) == [
        ("user", "first"),
        ("assistant", "to the first"),
        ("user", "second"),
    ]


async def test_an_earlier_answer_to_the_same_question_is_left_out(rows: Rows) -> None:
    """A question that is answered again is not told what was said the first time."""
    question = rows.say("again?")
    rows.say("no", role="assistant", reply_to=question)
    assert await history(rows, question) == [("user", "again?")]


async def test_a_stopped_answer_is_part_of_the_conversation(rows: Rows) -> None:
    """The user has seen it, and may ask about it; one without words is nothing to send."""
    first = rows.say("count")
    rows.say("one, two", role="assistant", reply_to=first, status="cancelled")
    rows.say("", role="assistant", reply_to=first, status="cancelled")
    now = rows.say("why did you stop?")
    assert [text for _, text in await history(rows, now)] == [
        "count",
        "one, two",
        "why did you stop?",
    ]


async def test_questions_without_an_answer_are_one_turn(rows: Rows) -> None:
    """Refused, stopped before a word, answered with blanks: the next question follows in the same turn."""
    rows.say("refused")
    stopped = rows.say("stopped")
    rows.say(" \n ", role="assistant", reply_to=stopped, status="cancelled")
    answered = rows.say("answered")
    rows.say("yes", role="assistant", reply_to=answered, status="cancelled")
    rows.say("and yes", role="assistant", reply_to=answered)
    now = rows.say("now")
    assert await history(rows, now) == [
        ("user", "refused\n\nstopped\n\nanswered"),
        ("assistant", "yes\n\nand yes"),
        ("user", "now"),
    ]


async def test_system_rows_stand_behind_the_system_prompt(rows: Rows) -> None:
    """Written by hand in the middle of a conversation: templates have one place for them, in front."""
    rows.say("Hello")
    rows.say("The user is a child.", role="system")
    rows.say("Hi!", role="assistant")
    now = rows.say("now")
    talk = [("user", "Hello"), ("assistant", "Hi!"), ("user", "now")]
    assert await history(rows, now) == [("system", "The user is a child."), *talk]
    assert await history(rows, now, system_prompt="Be brief.") == [
        ("system", "Be brief.\n\nThe user is a child."),
        *talk,
    ]


async def test_the_newest_that_fit_are_sent(rows: Rows) -> None:
    """Old messages go first, and what is left begins with a question."""
    for number in range(200):
        asked = rows.say(f"question {number} " + "x" * 100)
        rows.say(f"answer {number} " + "y" * 100, role="assistant", reply_to=asked)
    now = rows.say("now")
    sent = await history(rows, now, budget=1000)
    assert sent[0][0] == "user"
    assert [text.split()[1] for _, text in sent[-3:-1]] == ["199", "199"]
    assert 10 < len(sent) < 40
    assert rows.selects < 10


async def test_many_pages_are_read_until_the_budget_is_full(rows: Rows) -> None:
    """A long conversation of short messages: as many as there is room for, in order."""
    for number in range(300):
        rows.say(str(number))
    sent = await history(rows, rows.say("now"), budget=100_000)
    assert sent == [("user", BETWEEN.join([*map(str, range(300)), "now"]))]


@pytest.mark.parametrize(("earlier", "most"), [(0, 2), (48, 2), (49, 3), (118, 3), (1000, 5)])
@pytest.mark.parametrize("named", [True, False])
async def test_few_queries_come_before_the_first_token(
    rows: Rows, earlier: int, most: int, named: bool
) -> None:
    """Whether the user takes part is asked once, beside the first page; a page that is short is the last."""
    for number in range(earlier):
        rows.say(str(number), role="assistant" if number % 2 else "user")
    now = rows.say("now")
    sent = await history(rows, now if named else None, budget=100_000)
    assert sent[-1][1].endswith("now")
    assert len(sent) >= earlier
    assert rows.selects <= most


async def test_an_old_question_costs_one_query_more(rows: Rows) -> None:
    """It is not among the newest: what stands before it is read on from there."""
    old = rows.say("old")
    for number in range(60):
        rows.say(str(number))
    assert await history(rows, old) == [("user", "old")]
    assert rows.selects == 4


async def test_a_question_of_another_conversation_is_not_found(rows: Rows) -> None:
    """Nor one of a stranger's conversation, nor an answer, nor what is not there."""
    strange = rows.say("theirs", conversation_id=OTHER)
    answer = rows.say("an answer", role="assistant")
    for id_ in (strange, "00000000-0000-4000-8000-000000000000", "nonsense"):
        with pytest.raises(repository_errors.NotFound):
            await history(rows, id_)
    with pytest.raises(NotFound):
        await history(rows, answer)
    rows.tables["conversation_members"].append(
        {"conversation_id": OTHER, "user_id": rows.messages.user_id, "role": "member"}
    )
    with pytest.raises(repository_errors.NotFound):
        await history(rows, strange)


async def test_a_conversation_without_a_question(rows: Rows) -> None:
    """Nothing was asked: there is nothing to answer."""
    rows.say("Welcome!", role="assistant")
    with pytest.raises(NotFound, match="Nothing was asked"):
        await history(rows)


async def test_a_question_beyond_the_budget_is_refused_in_words(rows: Rows) -> None:
    """The user reads how long it is and how long it may be."""
    question = rows.say("word " * 1000)
    with pytest.raises(InvalidInput, match=r"too long: about 16\d\d tokens .* 500 are allowed"):
        await history(rows, question, budget=500)


BETWEEN = "\n\n"
texts = st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=200)
turns = st.lists(st.tuples(st.sampled_from(["user", "assistant", "system"]), texts), max_size=60)


@settings(deadline=None)
@given(turns, texts, st.none() | texts, st.integers(0, 600), st.data())
def test_turns_alternate_within_the_budget_whatever_was_said(
    said: list[tuple[str, str]], asked: str, system: str | None, budget: int, data: st.DataObject
) -> None:
    """One system message, then the user and the assistant in turn, the question last; never beyond the
    budget; the rest is the newest.
    """
    rows = Rows()
    users: list[str] = []
    for role, content in said:
        reply_to = data.draw(st.sampled_from(users)) if users and role == "assistant" else None
        id_ = rows.say(content, role=role, reply_to=reply_to)
        if role == "user":
            users.append(id_)
    question = rows.say(asked)

    def cost(texts: list[str]) -> int:
        return sum(estimate_tokens(text) + PER_MESSAGE for text in texts)

    least = cost([asked, *filter(None, [system])])
    try:
        sent = asyncio.run(history(rows, question, system_prompt=system, budget=budget))
    except InvalidInput:
        assert least > budget
        return
    assert cost([text for _, text in sent]) <= budget
    talk = sent[1:] if sent[0][0] == "system" else sent
    assert [role for role, _ in talk] == (["user", "assistant"] * len(talk))[: len(talk)]
    assert talk[-1][0] == "user"
    pieces = [(role, text) for role, content in sent for text in content.split(BETWEEN)]
    assert pieces.pop() == ("user", asked)
    if system:
        assert pieces.pop(0) == ("system", system)
    newest = [turn for turn in reversed(said) if turn[1].strip()]
    while cost([text for _, text in newest]) > budget - least:
        del newest[-1]
    left_out = Counter(newest) - Counter(pieces)
    assert not Counter(pieces) - Counter(newest), "something older than what is left out"
    assert all(role == "assistant" for role, _ in left_out), "only answers without their question"


def measured() -> Iterator[Any]:
    """Text, and the higher count of OpenAI's cl100k and o200k, taken once with a tokenizer of theirs."""
    for line in Path(__file__).with_name("tokens.tsv").read_text("utf-8").splitlines():
        name, tokens, text = line.split("\t")
        yield pytest.param(orjson.loads(text), int(tokens), id=name)


@pytest.mark.parametrize(("text", "tokens"), list(measured()))
def test_estimates_are_about_what_tokenizers_count(text: str, tokens: int) -> None:
    """Rather too little history than a request that the model refuses."""
    assert 0.85 * tokens <= estimate_tokens(text) <= 2.2 * tokens
