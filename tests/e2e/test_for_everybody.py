"""Keyboards, screen readers, small screens, and eyes that like it calm."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import pytest
from playwright.async_api import expect

from tests.e2e.conftest import Visit
from tests.e2e.site import Site
from tests.e2e.visitor import PHONE, Visitor
from tests.e2e.words import FORBIDDEN

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="package")]

_AXE = """async () => (await axe.run({runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa",
  "best-practice"]})).violations.map(v => [v.id, v.help, v.nodes.map(n => n.html.slice(0, 160))])"""

_WIDTHS = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"


async def test_everything_can_be_done_from_the_keyboard(visit: Visit) -> None:
    """From signing in to a refined picture without a pointer; the focus returns to where it came from."""
    visitor = await visit()
    page = await visitor.open()
    keys = page.keyboard
    await page.locator("body").press("Tab")
    await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    await keys.press("Enter")
    await expect(page.locator("main")).to_be_focused()
    await keys.press("Tab")
    await expect(page.get_by_label("What should it show?")).to_be_focused()
    await keys.type("A fox")
    await keys.press("Tab")
    await keys.type("Autumn")
    await keys.press("Tab")
    await expect(page.get_by_label("Palettes")).to_be_focused()
    for _ in range(5):
        await keys.press("ArrowLeft")
    await keys.press("Control+Enter")
    await visitor.has_result()
    tile = page.locator("[data-picture='0'] button")
    await tile.focus()
    await keys.press("Enter")
    await expect(page.get_by_role("dialog")).to_be_visible()
    await expect(page.locator(".lightbox-count")).to_have_text("2 of 3")
    await keys.press("ArrowRight")
    await expect(page.locator(".lightbox-count")).to_have_text("3 of 3")
    await keys.press("Escape")
    await expect(page.get_by_role("dialog")).to_be_hidden()
    await expect(tile).to_be_focused()
    await keys.press("Enter")
    while not await page.get_by_label("Refine this picture").evaluate(
        "e => e === document.activeElement"
    ):
        await keys.press("Tab")
    await keys.type("Warmer colours")
    while not await page.get_by_role("button", name="Refine this").evaluate(
        "e => e === document.activeElement"
    ):
        await keys.press("Tab")
    await keys.press("Enter")
    await expect(page.get_by_role("heading", name="“Warmer colours”")).to_be_visible()
    await visitor.has_result()


async def test_a_screen_reader_hears_what_happens_and_no_more(visit: Visit) -> None:
    """A beginning, the first picture and the end: three sentences for eight pictures, two for an answer."""
    visitor = await visit()
    page = await visitor.open()
    await page.evaluate(
        "window.said = []; new MutationObserver(() => said.push(announcer.textContent))"
        ".observe(announcer, {childList: true, characterData: true, subtree: true})"
    )
    await visitor.submit("A fox", "Autumn")
    await visitor.has_result()
    await expect(page.locator("#announcer")).to_have_text("Done: 8 pictures.")
    heard = ["Making a concept: A fox.", "The base image is ready.", "Done: 8 pictures."]
    assert await page.evaluate("said") == heard
    await page.evaluate("said.length = 0")
    await visitor.go("#/chat/new")
    await visitor.say("What can you do?")
    await visitor.answer("completed")
    await expect(page.locator("#announcer")).to_contain_text("Answer: [offline]")
    said: list[str] = await page.evaluate("said")
    assert said[0] == "An answer is being written."
    assert len(said) == 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_no_view_breaks_a_rule_of_accessibility(visit: Visit, scheme: str) -> None:
    """axe finds nothing in any view: names, roles, contrast, headings, landmarks."""
    visitor = await visit(color_scheme=scheme, reduced_motion="reduce", bypass_csp=True)
    visitor.allowed.append("404")
    page = await visitor.open()
    found: dict[str, Any] = {}
    await page.add_script_tag(
        content=files("axe_playwright_python").joinpath("axe.min.js").read_text()
    )
    found["first visit"] = await page.evaluate(_AXE)
    await visitor.submit("A fox", "Autumn", palettes=2)
    await visitor.has_result()
    await expect(page.locator(".picture.is-sharp")).to_have_count(3)
    found["result"] = await page.evaluate(_AXE)
    await page.locator("[data-picture='0'] button").click()
    found["picture"] = await page.evaluate(_AXE)
    await page.keyboard.press("Escape")
    await visitor.go("#/create")
    await expect(page.locator(".concept")).to_have_count(1)
    await page.get_by_label("What should it show?").clear()
    await page.get_by_role("button", name="Create concept").click()
    found["form"] = await page.evaluate(_AXE)
    await visitor.submit(f"Something {FORBIDDEN}", "Red")
    await visitor.has_result("failed")
    found["failure"] = await page.evaluate(_AXE)
    await visitor.go("#/chat/new")
    found["new conversation"] = await page.evaluate(_AXE)
    await visitor.say("What can you do?")
    await visitor.writes_at_least(10)
    found["answering"] = await page.evaluate(_AXE)
    await visitor.answer("completed")
    await visitor.say(f"Something {FORBIDDEN}")
    await visitor.answer("failed", 1)
    found["answers"] = await page.evaluate(_AXE)
    await visitor.go("#/jobs")
    await expect(page.locator("tbody tr")).to_have_count(4)
    found["jobs"] = await page.evaluate(_AXE)
    await visitor.go("#/create/00000000-0000-4000-8000-000000000000")
    await expect(page.get_by_role("heading", name="This is not here.")).to_be_visible()
    found["nothing"] = await page.evaluate(_AXE)
    await page.get_by_role("button", name="Sign out").click()
    found["sign in"] = await page.evaluate(_AXE)
    assert found == {view: [] for view in found}


async def _fits(visitor: Visitor, where: str) -> None:
    content, window = await visitor.page.evaluate(_WIDTHS)
    assert content <= window, f"{where} is {content} pixels wide"


async def test_nothing_is_wider_than_the_smallest_phone(site: Site, visit: Visit) -> None:
    """320 pixels: every view, with long words in it, scrolls in one direction only."""
    visitor = await visit(**{**PHONE, "viewport": {"width": 320, "height": 640}})
    page = await visitor.open()
    await _fits(visitor, "first visit")
    long = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft"
    await visitor.submit(long, long, palettes=2)
    await visitor.has_result()
    await _fits(visitor, "result")
    await page.locator("[data-picture='0'] button").tap()
    await _fits(visitor, "picture")
    await page.get_by_role("button", name="Close").tap()
    await visitor.go("#/chat/new")
    await visitor.say(f"{long} {long}")
    await visitor.answer("completed")
    await _fits(visitor, "answer")
    for address in ("#/chat", "#/jobs", "#/create"):
        await visitor.go(address)
        await _fits(visitor, address)


async def test_who_wants_no_motion_sees_none(visit: Visit) -> None:
    """Nothing runs for longer than a blink, also while there is much to show."""
    visitor = await visit(reduced_motion="reduce")
    page = await visitor.open()
    await visitor.submit("A fox", "Autumn", size=1024)
    longest = "Math.max(0, ...document.getAnimations().map(a => a.effect.getComputedTiming().activeDuration))"
    for _ in range(5):
        assert await page.evaluate(longest) < 20
    await visitor.has_result()


async def test_day_and_night_are_the_systems_unless_chosen(visit: Visit) -> None:
    """The button goes through its three states, and a choice outlives a reload."""
    visitor = await visit(color_scheme="dark")
    page = await visitor.open()
    background = "getComputedStyle(document.body).backgroundColor"
    dark = await page.evaluate(background)
    await page.get_by_role("button", name="Colours: as the system").click()
    light = await page.evaluate(background)
    assert light != dark
    await page.reload()
    assert await page.evaluate(background) == light
    await page.get_by_role("button", name="Colours: light").click()
    await page.get_by_role("button", name="Colours: dark").click()
    await page.emulate_media(color_scheme="light")
    assert await page.evaluate(background) == light
