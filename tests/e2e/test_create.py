"""A concept from a sentence: stages that fill, eight pictures one by one, one of them refined."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from playwright.async_api import expect

from tests.e2e.conftest import Visit
from tests.e2e.site import Site
from tests.e2e.words import FORBIDDEN

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="package")]

#: Writes down what appears, in the order in which it does.
_WATCH = """
window.seen = [];
const note = (what) => seen.includes(what) || seen.push(what);
new MutationObserver(() => {
  for (const tile of document.querySelectorAll(".tile[data-state=ready]")) note(tile.dataset.picture);
  for (const stage of document.querySelectorAll(".stage-item"))
    note(`${stage.querySelector(".stage-name").textContent} ${stage.dataset.status}`);
  const canvas = document.querySelector(".canvas");
  if (canvas && canvas.dataset.status !== "unknown") note(canvas.dataset.status);
}).observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
"""


async def test_eight_pictures_appear_one_by_one_while_stages_fill(site: Site, visit: Visit) -> None:
    """Base image first, seven variations each when it is ready, all of them whole in the end."""
    visitor = await visit()
    page = await visitor.open()
    await page.evaluate(_WATCH)
    job_id = await visitor.submit("A fox curled up asleep", "Autumn woods at dusk", size=1024)
    await visitor.has_result()
    await expect(page.locator(".picture.is-sharp")).to_have_count(8)

    seen: list[str] = await page.evaluate("seen")
    pictures = [what for what in seen if what == "base" or what.isdigit()]
    assert pictures[0] == "base"
    assert sorted(pictures[1:]) == [str(index) for index in range(7)]
    assert seen.index("base") < seen.index("Variations completed") < seen.index("completed")
    for index in range(7):
        assert seen.index(str(index)) < seen.index("completed")
    for stage in ("Base image", "Palettes", "Variations", "Concept"):
        assert seen.index(f"{stage} to come") < seen.index(f"{stage} completed")
    times = await page.locator(".stage-time").all_text_contents()
    assert len(times) == 5
    assert all(time.endswith("s") for time in times)

    sizes = await page.locator(".picture-image").evaluate_all("all => all.map(i => i.naturalWidth)")
    assert sizes == [1024] * 8
    concept = await site.row("concepts", "job_id", job_id)
    stored = await site.rows("concept_variations", "concept_id", concept["id"])
    shown = await page.locator(".tile .swatches").evaluate_all(_COLOURS)
    assert shown == [each["palette"] for each in sorted(stored, key=lambda row: row["position"])]
    names = await page.locator(".tile-name").all_text_contents()
    assert names == [each["name"] for each in sorted(stored, key=lambda row: row["position"])]


#: Of swatches, as `#rrggbb`.
_COLOURS = """all => all.map(swatches => [...swatches.children].map(swatch => "#" +
  getComputedStyle(swatch).backgroundColor.match(/\\d+/g).slice(0, 3)
    .map(part => Number(part).toString(16).padStart(2, "0")).join("")))"""


async def test_a_result_is_there_again_after_a_reload_and_in_the_gallery(visit: Visit) -> None:
    """By its address while its events are kept, and by the concept that was stored."""
    visitor = await visit()
    page = await visitor.open()
    await visitor.submit("A lighthouse above the waves", "Coral sunrise", palettes=3)
    await visitor.has_result()
    await page.reload()
    await visitor.has_result()
    await expect(page.locator(".picture.is-sharp")).to_have_count(4)

    await page.get_by_role("link", name="All concepts").click()
    await page.get_by_role("link", name="A lighthouse above the waves").click()
    await visitor.has_result()
    await expect(page.locator(".canvas .picture.is-sharp")).to_have_count(4)
    await expect(page.locator(".stage-item[data-status=completed]")).to_have_count(5)


async def test_a_reload_in_the_middle_of_a_generation_misses_nothing(visit: Visit) -> None:
    """What was announced before is there, what comes after appears."""
    visitor = await visit()
    page = await visitor.open()
    await visitor.submit("A mountain with a river", "Moss and slate", size=2048)
    await expect(page.locator(".tile[data-state=ready]").first).to_be_visible()
    await page.reload()
    await visitor.has_result()
    await expect(page.locator(".picture.is-sharp")).to_have_count(8)


async def test_a_variation_is_refined(site: Site, visit: Visit) -> None:
    """A picture, a prompt and a strength become a new concept that shows its original."""
    visitor = await visit()
    page = await visitor.open()
    await visitor.submit("An owl on a branch", "Night blue and amber", palettes=2)
    await visitor.has_result()
    await page.locator("[data-picture='1'] button").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_role("button", name="more contrast").click()
    await dialog.get_by_label("Strength").fill("0.8")
    await dialog.get_by_role("button", name="Refine this").click()
    await expect(page.get_by_role("heading", name="“More contrast”")).to_be_visible()
    refined = await visitor.job_id()
    await visitor.has_result()
    await expect(page.locator("[data-picture=base] .tile-open .is-sharp")).to_be_visible()
    await expect(page.locator(".original .is-sharp")).to_be_visible()
    job = await site.row("jobs", "id", refined)
    assert (job["type"], job["input"]["strength"]) == ("refinement", 0.8)
    assert job["input"]["image_path"].startswith(visitor.person.id)


async def test_a_base_image_is_refined_as_its_concept(site: Site, visit: Visit) -> None:
    """The new concept knows its parent, and leads back to it."""
    visitor = await visit()
    page = await visitor.open()
    first = await visitor.submit("A bear", "Honey and pine", palettes=1)
    await visitor.has_result()
    await page.get_by_role("button", name="Refine").click()
    await page.get_by_label("Refine this picture").fill("Darker background")
    await page.get_by_role("button", name="Refine this").click()
    await expect(page.get_by_role("heading", name="“Darker background”")).to_be_visible()
    await visitor.has_result()
    parent = await site.row("concepts", "job_id", first)
    concept = await site.row("concepts", "job_id", await visitor.job_id())
    assert concept["parent_id"] == parent["id"]
    await page.get_by_role("link", name="Open the original").click()
    await expect(page.get_by_role("heading", name="A bear")).to_be_visible()


async def test_what_is_missing_is_said_where_it_is_missing(visit: Visit) -> None:
    """Nothing is sent; the first field that lacks something has the focus and says what."""
    visitor = await visit()
    page = await visitor.open()
    await page.get_by_role("button", name="Create concept").click()
    logo = page.get_by_label("What should it show?")
    await expect(logo).to_be_focused()
    await expect(logo).to_have_attribute("aria-invalid", "true")
    await expect(page.get_by_text("Describe what it should show.")).to_be_visible()
    await logo.fill("A fox")
    await expect(page.get_by_text("Describe what it should show.")).to_be_hidden()
    assert page.url.endswith("#/create")


async def test_who_has_too_few_credits_hears_how_many_it_takes(site: Site, visit: Visit) -> None:
    """The price beside the button, the numbers in the refusal, and the balance above after a success."""
    async with site.priced("generation", "2.5"):
        visitor = await visit(await site.person("3.5"))
        visitor.allowed.append("402")
        page = await visitor.open()
        await expect(page.locator(".credits")).to_have_text("3.5 credits")
        await expect(page.locator(".cost")).to_have_text("2.5 credits")
        await visitor.submit("A first", "Blue", palettes=1)
        await visitor.has_result()
        await expect(page.locator(".credits")).to_have_text("1 credit")
        await page.get_by_label("What should it show?").fill("A second")
        await page.get_by_role("button", name="Create concept").click()
        alert = page.get_by_role("alert").filter(has_text="not enough credits")
        await expect(alert).to_contain_text("This costs 2.5, and you have 1.")


async def test_a_failure_names_its_stage_and_the_next_step(visit: Visit) -> None:
    """The sentence of the stage, in words for its user; what would fail again is not offered again."""
    visitor = await visit()
    page = await visitor.open()
    await visitor.submit(f"Something {FORBIDDEN}", "Red")
    await visitor.has_result("failed")
    await expect(page.locator(".notes")).to_contain_text("Base concept generation failed")
    await expect(page.locator(".notes")).to_contain_text("Use other words")
    await expect(page.locator(".stage-item[data-status=failed]")).to_have_count(1)
    await expect(page.get_by_role("button", name="Try again")).to_have_count(0)


async def test_a_double_click_makes_one_job(site: Site, visit: Visit) -> None:
    """Impatience costs nothing."""
    visitor = await visit()
    page = await visitor.open()
    await page.get_by_label("What should it show?").fill("A snail")
    await page.get_by_label("Colours and mood").fill("Green")
    await page.get_by_role("button", name="Create concept").dblclick()
    await visitor.has_result()
    await asyncio.sleep(0)
    jobs: list[dict[str, Any]] = await site.rows("jobs", "user_id", visitor.person.id)
    assert len(jobs) == 1
