"""Networks that go away in the middle: the page says so, comes back by itself, and has missed nothing."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from tests.e2e.conftest import Visit
from tests.e2e.site import Site
from tests.e2e.test_chat import QUESTION, stored_answer

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="package")]

#: What Chromium says about the network of a page that has none.
_CUT = [r"net::ERR_INTERNET_DISCONNECTED", r"WebSocket connection to .* failed"]
_DOWN = [r"net::ERR_CONNECTION_REFUSED", r"net::ERR_(EMPTY_RESPONSE|CONNECTION_RESET)", *_CUT]


async def test_a_cut_in_the_middle_of_an_answer_costs_nothing(site: Site, visit: Visit) -> None:
    """Offline while it is written on: afterwards the text is whole, and as it is stored."""
    visitor = await visit()
    visitor.allowed += _CUT
    await visitor.open("#/chat/new")
    await visitor.say(QUESTION)
    before = await visitor.writes_at_least(20)
    await visitor.context.set_offline(True)
    await visitor.says("offline")
    stored = await stored_answer(site, visitor)  # it went on without us
    await visitor.context.set_offline(False)
    await visitor.is_live()
    shown = await visitor.answer("completed")
    assert shown.startswith(before)
    assert shown == stored["content"]


async def test_a_short_cut_goes_on_where_it_was(site: Site, visit: Visit) -> None:
    """Back before the answer has ended, and then again: the rest is still seen to grow."""
    visitor = await visit()
    visitor.allowed += _CUT
    await visitor.open("#/chat/new")
    await visitor.say(QUESTION)
    text = ""
    for _ in range(2):
        text = await visitor.writes_at_least(len(text) + 15)
        await visitor.context.set_offline(True)
        await visitor.says("offline")
        await visitor.context.set_offline(False)
        await visitor.is_live()
    assert (await visitor.writes_at_least(len(text) + 5)).startswith(text)
    assert await visitor.answer("completed") == (await stored_answer(site, visitor))["content"]


@pytest.mark.parametrize("how", ["killed", "stopped"])
async def test_a_gateway_that_ends_and_returns_costs_nothing(
    site: Site, visit: Visit, how: str
) -> None:
    """An answer and a generation go on meanwhile; both are whole when it is back."""
    chatting, creating = await visit(), await visit()
    for visitor in (chatting, creating):
        visitor.allowed += _DOWN
    await creating.open()
    await chatting.open("#/chat/new")
    await creating.submit("A harbour at night", "Deep blue, lamp yellow", size=2048)
    await chatting.say(QUESTION)
    before = await chatting.writes_at_least(15)
    if how == "killed":
        site.kill_gateway()
    else:
        site.stop_gateway()
    await chatting.says("waiting")
    await expect(chatting.page.locator(".connection")).to_have_text("Reconnecting")
    await site.start_gateway()
    await chatting.is_live()
    await creating.is_live()
    shown = await chatting.answer("completed")
    assert shown.startswith(before)
    assert shown == (await stored_answer(site, chatting))["content"]
    await creating.has_result()
    await expect(creating.page.locator(".picture.is-sharp")).to_have_count(8)


async def test_pictures_wait_for_a_gateway_that_is_away(visit: Visit) -> None:
    """Longer than a picture that is broken is tried again: nobody has to load it by hand."""
    visitor = await visit()
    visitor.allowed += [r"net::ERR_FAILED"]
    page = await visitor.open()
    await visitor.submit("A kite in the wind", "Sky and chalk", palettes=1)
    await visitor.has_result()
    await page.route("**/v1/files/sign", lambda route: route.abort())
    await page.reload()
    await page.wait_for_timeout(4000)
    await expect(page.locator(".picture.is-sharp, .picture.is-missing")).to_have_count(0)
    await page.unroute("**/v1/files/sign")
    await expect(page.locator(".picture.is-sharp")).to_have_count(2)


async def test_what_cannot_be_sent_is_kept_and_sent_again(site: Site, visit: Visit) -> None:
    """A message typed offline stays with its reason; sending it again sends it once."""
    visitor = await visit()
    visitor.allowed += _CUT
    page = await visitor.open("#/chat/new")
    await visitor.say("What can you do?")
    await visitor.answer("completed")
    await visitor.context.set_offline(True)
    await visitor.says("offline")
    await visitor.say("Are you there?")
    await expect(page.get_by_text("Not sent.")).to_be_visible()
    await visitor.context.set_offline(False)
    await visitor.is_live()
    await page.get_by_role("button", name="Send again").click()
    await visitor.answer("completed", 1)
    rows = await site.rows("messages", "conversation_id", await visitor.conversation_id())
    assert [row["content"] for row in rows].count("Are you there?") == 1
