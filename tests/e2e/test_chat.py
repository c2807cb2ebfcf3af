"""Answers while they are written: whole after a reload, stopped when asked, byte for byte as stored."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from tests.e2e.conftest import Visit
from tests.e2e.site import Site, until
from tests.e2e.visitor import Visitor
from tests.e2e.words import FORBIDDEN

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="package")]

#: The offline voice quotes it: characters of one to four bytes, and combined ones.
QUESTION = "Grüße aus Kyōto 京都 🦊👩‍👩‍👧: what makes a naïve façade feel warm in winter, and why?"


async def stored_answer(site: Site, visitor: Visitor, number: int = 0) -> dict[str, object]:
    """The answer's row, once it is there."""
    conversation = await visitor.conversation_id()

    async def answer() -> dict[str, object] | None:
        rows = await site.rows("messages", "conversation_id", conversation)
        answers = sorted((row for row in rows if row["role"] == "assistant"), key=_position)
        return answers[number] if len(answers) > number else None

    row: dict[str, object] = await until(answer)
    return row


def _position(row: dict[str, object]) -> int:
    return int(str(row["position"]))


async def test_an_answer_grows_and_is_what_is_stored(site: Site, visit: Visit) -> None:
    """Piece by piece, and in the end the row, to the letter."""
    visitor = await visit()
    await visitor.open("#/chat/new")
    await visitor.say(QUESTION)
    first = await visitor.writes_at_least(10)
    second = await visitor.writes_at_least(len(first) + 10)
    assert second.startswith(first)
    shown = await visitor.answer("completed")
    assert shown.startswith(second)
    assert "京都 🦊👩‍👩‍👧" in shown
    assert shown == (await stored_answer(site, visitor))["content"]


async def test_a_reload_in_the_middle_of_an_answer_loses_no_character(
    site: Site, visit: Visit
) -> None:
    """Twice: what was there is there again, the rest follows, and nothing twice."""
    visitor = await visit()
    page = await visitor.open("#/chat/new")
    await visitor.say(QUESTION)
    before = ""
    for _ in range(2):
        before = await visitor.writes_at_least(len(before) + 25)
        await page.reload()
        again = await visitor.writes_at_least(len(before))
        assert again.startswith(before)
    shown = await visitor.answer("completed")
    assert shown.startswith(before)
    assert shown == (await stored_answer(site, visitor))["content"]


async def test_another_window_sees_the_same_answer_live(site: Site, visit: Visit) -> None:
    """Opened while it is written, on a phone."""
    visitor = await visit()
    await visitor.open("#/chat/new")
    await visitor.say(QUESTION)
    await visitor.writes_at_least(20)
    other = await visit(visitor.person)
    await other.open(f"#/chat/{await visitor.conversation_id()}")
    await other.writes_at_least(30)
    assert await other.answer("completed") == await visitor.answer("completed")


async def test_an_answer_is_stopped_and_stays_as_far_as_it_was_written(
    site: Site, visit: Visit
) -> None:
    """The button, the model's end, and the row: all the same text, marked as stopped."""
    visitor = await visit()
    page = await visitor.open("#/chat/new")
    await visitor.say(QUESTION)
    written = await visitor.writes_at_least(20)
    await page.get_by_role("button", name="Stop").click()
    shown = await visitor.answer("cancelled")
    assert shown.startswith(written)
    row = await stored_answer(site, visitor)
    assert (row["content"], row["status"]) == (shown, "cancelled")
    assert not shown.rstrip().endswith("ask me what I can do.")
    job = await site.row("jobs", "id", str(row["job_id"]))
    assert job["status"] == "cancelled"
    await expect(visitor.answers.get_by_text("Stopped")).to_be_visible()
    await expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    await page.reload()
    assert await visitor.answer("cancelled") == shown


async def test_enter_sends_and_shift_enter_begins_a_line(site: Site, visit: Visit) -> None:
    """Escape stops; the field keeps the focus throughout."""
    visitor = await visit()
    page = await visitor.open("#/chat/new")
    field = page.get_by_label("Your message")
    await expect(field).to_be_focused()
    await page.keyboard.type("One")
    await page.keyboard.press("Shift+Enter")
    await page.keyboard.type("Two")
    await expect(field).to_have_value("One\nTwo")
    await page.keyboard.press("Enter")
    await visitor.writes_at_least(5)
    await expect(field).to_have_value("")
    await expect(field).to_be_focused()
    await page.keyboard.press("Escape")
    await visitor.answer("cancelled")
    rows = await site.rows("messages", "conversation_id", await visitor.conversation_id())
    assert {row["content"] for row in rows if row["role"] == "user"} == {"One\nTwo"}


async def test_a_message_while_an_answer_is_written_waits_for_its_turn(
    site: Site, visit: Visit
) -> None:
    """Both are answered, each answer beneath its own question."""
    visitor = await visit()
    page = await visitor.open("#/chat/new")
    await visitor.say(QUESTION)
    await visitor.writes_at_least(10)
    await visitor.say("What can you do?")
    await expect(page.get_by_text("Waiting for its turn")).to_be_visible()
    await visitor.answer("completed", 0)
    await visitor.answer("completed", 1)
    order = await page.locator(".message").evaluate_all("all => all.map(m => m.dataset.role)")
    assert order == ["user", "assistant", "user", "assistant"]
    assert "what I can do" in await visitor.answer("completed", 0)
    assert "I can count the words" in await visitor.answer("completed", 1)


async def test_an_answer_that_fails_says_why_and_what_helps(visit: Visit) -> None:
    """A sentence and a next step in place of the answer, after a reload as well; the same again is none."""
    visitor = await visit()
    page = await visitor.open("#/chat/new")
    await visitor.say(f"Something {FORBIDDEN}")
    await expect(visitor.answers.get_by_text("content policy forbids it")).to_be_visible()
    await page.reload()
    await expect(visitor.answers.get_by_text("content policy forbids it")).to_be_visible()
    await expect(visitor.answers.get_by_text("Use other words")).to_be_visible()
    await expect(page.get_by_role("button", name="Try again")).to_have_count(0)


async def test_markup_in_a_message_stays_text(visit: Visit) -> None:
    """What somebody or a model writes is never part of the page."""
    visitor = await visit()
    page = await visitor.open("#/chat/new")
    attack = "<img src=x onerror=alert(1)><script>alert(2)</script> [x](javascript:alert(3)) **so**"
    await visitor.say(attack)
    shown = await visitor.answer("completed")
    assert "<img src=x onerror=alert(1)>" in shown
    assert await page.locator(".message img, .message script").count() == 0
    assert await page.locator(".message a").count() == 0


async def test_conversations_are_listed_by_their_first_words_and_deleted(
    site: Site, visit: Visit
) -> None:
    """Deleting asks once more; then it is gone from the list and from the database."""
    visitor = await visit()
    page = await visitor.open("#/chat/new")
    await visitor.say("Which green goes with brass?")
    await visitor.answer("completed")
    conversation = await visitor.conversation_id()
    await page.get_by_role("link", name="New").click()
    await page.get_by_role("link", name="Which green goes with brass?").click()
    await visitor.answer("completed")
    await page.get_by_role("button", name="Delete this conversation").click()
    await page.get_by_role("button", name="Delete for good?").click()
    await expect(page.get_by_role("link", name="Which green goes with brass?")).to_have_count(0)
    assert await site.rows("conversations", "id", conversation) == []
