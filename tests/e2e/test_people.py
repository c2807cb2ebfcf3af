"""Who may see what, and who is signed in."""

from __future__ import annotations

import time

import pytest
from playwright.async_api import expect

from tests.e2e.conftest import Visit
from tests.e2e.site import Site
from tests.e2e.visitor import Visitor

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="package")]

#: Everything a topic tells a page that asks for it by itself, until the gateway refuses it.
_LISTEN = """([topics, token]) => new Promise((resolve) => {
  const heard = [];
  const socket = new WebSocket(`ws://${location.host}/v1/live`, ["uvian", `bearer.${token}`]);
  socket.onopen = () => topics.forEach(topic => socket.send(JSON.stringify({op: "subscribe", topic})));
  socket.onmessage = ({data}) => {
    const frame = JSON.parse(data);
    heard.push([frame.op, frame.code ?? null, frame.topic ?? null]);
    if (heard.length === topics.length) { socket.close(); resolve(heard); }
  };
})"""

_FETCH = """async ([method, path, token, body]) => {
  const answer = await fetch(path, {method, headers: {Authorization: `Bearer ${token}`,
    "Content-Type": "application/json"}, body: body ? JSON.stringify(body) : undefined});
  return [answer.status, await answer.json()];
}"""


async def test_two_people_do_not_see_each_other(site: Site, visit: Visit) -> None:
    """Neither lists, nor addresses, nor events, nor pictures of another are there."""
    anna, ben = await visit(), await visit()
    page = await anna.open()
    job = await anna.submit("A secret mark", "Nobody's colours", palettes=1)
    await anna.has_result()
    concept = await site.row("concepts", "job_id", job)
    await anna.go("#/chat/new")
    await anna.say("What can you do?")
    await anna.answer("completed")
    conversation = await anna.conversation_id()

    ben.allowed.append("404")
    page = await ben.open()
    await expect(page.get_by_text("Begin with one of these")).to_be_visible()
    addresses = (f"#/create/{job}", f"#/concepts/{concept['id']}", f"#/chat/{conversation}")
    for address in addresses:
        await ben.go(address)
        await expect(page.get_by_role("heading", name="This is not here.")).to_be_visible()
        assert "secret" not in await page.content()
    await ben.go("#/chat")
    await expect(page.get_by_text("Your conversations will be listed here.")).to_be_visible()
    await ben.go("#/jobs")
    await expect(page.get_by_text("Nothing has been done yet")).to_be_visible()

    topics = [f"job:{job}", f"user:{anna.person.id}", f"conversation:{conversation}"]
    heard = await page.evaluate(_LISTEN, [topics, ben.person.token])
    assert sorted(heard) == sorted(["error", "not_found", topic] for topic in topics)
    paths = {"paths": [concept["image_path"]]}
    asked = ["POST", "/v1/files/sign", ben.person.token, paths]
    status, signed = await page.evaluate(_FETCH, asked)
    assert (status, signed["urls"]) == (200, {})


async def test_the_token_leaves_the_address_and_stays_in_the_tab(site: Site, visit: Visit) -> None:
    """A link with a token signs in; the address bar, the history and a new tab do not have it."""
    visitor = await visit()
    page = await visitor.open("#/jobs")
    assert visitor.person.token not in page.url
    await page.reload()
    await expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
    await page.go_back()
    assert visitor.person.token not in page.url
    other = await visitor.context.new_page()
    await other.goto(site.url)
    await expect(other.get_by_role("heading", name="Sign in")).to_be_visible()


async def test_signing_in_and_out_by_hand(site: Site, visit: Visit) -> None:
    """What is no token is refused in a sentence; signing out forgets it."""
    visitor = await visit()
    page = visitor.page
    await page.goto(site.url)
    field = page.get_by_label("Access token")
    await field.fill("not a token")
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("alert")).to_contain_text("This is no access token")
    await field.fill(visitor.person.token)
    await page.keyboard.press("Enter")
    await visitor.is_live()
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    await page.reload()
    await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


async def test_a_session_that_ends_leads_to_signing_in_again(site: Site, visit: Visit) -> None:
    """The socket is closed when the token expires; the page says why and goes on with a new one."""
    visitor = await _live_for_a_moment(site, visit)
    page = visitor.page
    await expect(page.get_by_text("Your session has ended")).to_be_visible()
    again = await site.person()
    await page.get_by_label("Access token").fill(again.token)
    await page.get_by_role("button", name="Sign in").click()
    await visitor.is_live()
    await expect(page.get_by_role("heading", name="Jobs")).to_be_visible()


async def _live_for_a_moment(site: Site, visit: Visit) -> Visitor:
    """Somebody on the page of jobs, live, whose session is as short as this machine allows."""
    for seconds in (4, 12, 36):
        visitor = await visit(await site.person(exp=int(time.time()) + seconds))
        visitor.allowed += ["401", "WebSocket connection"]
        page = visitor.page
        await page.goto(f"{site.url}#access_token={visitor.person.token}")
        live = page.locator(".connection[data-state=live]")
        await expect(live.or_(page.get_by_text("Your session has ended"))).to_be_visible()
        if await live.is_visible():
            await visitor.go("#/jobs")
            return visitor
    pytest.fail("no session was live before it ended")


async def test_a_token_of_nobody_is_not_accepted(site: Site, visit: Visit) -> None:
    """One that reads well and is signed by another: back to signing in, with the reason."""
    visitor = await visit(await site.person(iss="http://somebody.else"))
    visitor.allowed += ["401", "WebSocket connection"]
    await visitor.page.goto(f"{site.url}#access_token={visitor.person.token}")
    await expect(visitor.page.get_by_text("not accepted here")).to_be_visible()
