"""The pictures of docs/web-page.md, of real results: `make screenshots`, and look at them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from tests.e2e.conftest import Visit
from tests.e2e.pictures import keep
from tests.e2e.site import Site
from tests.e2e.visitor import PHONE, Visitor
from tests.e2e.words import FORBIDDEN, SLOW

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="package")]


@pytest_asyncio.fixture(loop_scope="package", autouse=True)
async def prices(site: Site) -> AsyncIterator[None]:
    """What things cost here."""
    async with site.priced("generation", "2"), site.priced("refinement", "0.5"):
        yield


_SMALL = {**PHONE, "device_scale_factor": 1.5, "viewport": {"width": 375, "height": 760}}


async def _settled(page: Page) -> Page:
    """Once pictures are sharp, letters are there, and nothing fades any more."""
    await page.evaluate("document.fonts.ready.then(() => null)")
    await page.evaluate(
        "Promise.allSettled(document.getAnimations().map(a => "
        "a.effect.getComputedTiming().endTime === Infinity ? 0 : a.finished))"
    )
    return page


async def _made(visitor: Visitor, logo: str, theme: str, **more: int) -> None:
    await visitor.submit(logo, theme, **{"size": 1024, **more})
    await visitor.has_result()
    shown = visitor.page.locator(".canvas .picture")
    await expect(visitor.page.locator(".canvas .is-sharp")).to_have_count(await shown.count())


async def test_creating(site: Site, visit: Visit) -> None:
    """A first visit; a concept while it is made, at night; the result; one picture of it."""
    visitor = await visit(await site.person("40"))
    page = await visitor.open()
    await expect(page.locator(".credits")).to_be_visible()
    keep("gateway-first-visit", await (await _settled(page)).screenshot())
    await page.emulate_media(color_scheme="dark")
    await visitor.submit(
        "A lighthouse above the waves", "Coral sunrise over deep teal water", size=2048
    )
    await page.locator("details.more summary").click()
    await expect(page.locator("[data-picture='1'] .is-sharp")).to_be_visible()
    keep("gateway-making", await (await _settled(page)).screenshot())
    await visitor.has_result()
    await page.emulate_media(color_scheme="light")
    await visitor.go("#/create")
    await _made(visitor, "A fox curled up asleep", "Autumn woods at dusk")
    await page.locator("details.more summary").click()
    keep("gateway-result", await (await _settled(page)).screenshot(full_page=True))
    await page.locator("[data-picture='2'] button").click()
    await page.get_by_role("button", name="darker background").click()
    await expect(page.locator(".lightbox .is-sharp")).to_be_visible()
    keep("gateway-picture", await (await _settled(page)).screenshot())


async def test_talking(visit: Visit) -> None:
    """An answer while it is written, above it one that was stopped."""
    visitor = await visit()
    page = await visitor.open("#/chat/new")
    await visitor.say("Suggest colours for an autumn market")
    await visitor.answer("completed")
    await visitor.say("Which typeface goes with a hand-drawn fox, and which one does not?")
    await visitor.writes_at_least(60)
    await page.get_by_role("button", name="Stop").click()
    await visitor.answer("cancelled", 1)
    await visitor.say("What can you do?")
    await visitor.writes_at_least(120)
    keep("gateway-chat", await page.screenshot())


async def test_looking_after_jobs(site: Site, visit: Visit) -> None:
    """One that runs, some that are done, one that failed with its stage and its sentence, at night."""
    visitor = await visit(await site.person("40"), color_scheme="dark")
    page = await visitor.open()
    await _made(visitor, "A lighthouse above the waves", "Coral sunrise over deep teal water")
    await page.get_by_role("button", name="Refine").click()
    await page.get_by_label("Refine this picture").fill("Darker background, warmer colours")
    await page.get_by_role("button", name="Refine this").click()
    await expect(page.get_by_role("heading", name="“Darker background")).to_be_visible()
    await visitor.has_result()
    await visitor.go("#/chat/new")
    await visitor.say("What can you do?")
    await visitor.answer("completed")
    await visitor.go("#/create")
    await visitor.submit(f"A {FORBIDDEN} fruit", "Red and green")
    await visitor.has_result("failed")
    await visitor.go("#/create")
    await visitor.submit(f"A tortoise that crosses the road {SLOW}", "Moss and slate")
    await visitor.go("#/jobs")
    await expect(page.locator(".badge", has_text="Running")).to_be_visible()
    await expect(page.locator("tbody tr")).to_have_count(5)
    await expect(page.locator(".cell-took").first).to_have_text("1 s")
    keep("gateway-jobs", await (await _settled(page)).screenshot())
    await page.get_by_role("button", name="Cancel generation").click()


async def test_on_a_phone(site: Site, visit: Visit) -> None:
    """A result, an answer and the jobs, on a small screen."""
    visitor = await visit(await site.person("40"), **_SMALL)
    page = await visitor.open()
    await _made(
        visitor, "A mountain with a river", "Cold spring morning, moss and slate", palettes=5
    )
    await page.evaluate("scrollTo(0, 0)")
    shots = [await (await _settled(page)).screenshot()]
    await visitor.go("#/create")
    await visitor.submit(f"A {FORBIDDEN} fruit", "Red and green")
    await visitor.has_result("failed")
    await page.emulate_media(color_scheme="dark")
    await visitor.go("#/chat/new")
    await visitor.say("Suggest colours for an autumn market")
    await visitor.answer("completed")
    await visitor.say("What can you do?")
    await visitor.writes_at_least(100)
    shots.append(await page.screenshot())
    await visitor.answer("completed", 1)
    await page.emulate_media(color_scheme="light")
    await visitor.go("#/jobs")
    await expect(page.locator("tbody tr")).to_have_count(4)
    shots.append(await (await _settled(page)).screenshot())
    keep("gateway-phone", *shots)
