"""The dialog of a picture on phones: every control can be seen and touched."""

from __future__ import annotations

import os

import pytest
from playwright.async_api import Page, expect

from tests.e2e.conftest import Visit
from tests.e2e.pictures import keep
from tests.e2e.visitor import PHONE

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="package")]

#: Of each control what a finger would hit in its middle, once it was scrolled into view.
_COVERED = """dialog => {
  const covered = [];
  for (const control of dialog.querySelectorAll("button:not(:disabled), a[href], textarea, input")) {
    if (!control.checkVisibility()) continue;
    control.scrollIntoView({ block: "center", behavior: "instant" });
    const box = control.getBoundingClientRect();
    const hit = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
    if (!hit || !(control.contains(hit) || hit.contains(control) && hit.closest("label")))
      covered.push(`${control.getAttribute("aria-label") ?? control.textContent} by ${hit?.className}`);
  }
  for (const it of [dialog, ...dialog.querySelectorAll("*")]) it.scrollTo({ top: 0, behavior: "instant" });
  return covered;
}"""

_OVERLAPS = """dialog => {
  const parts = [...dialog.querySelectorAll(
    ".lightbox-stage, .lightbox-head, .colours, .actions, .refine > *")].filter(p => p.checkVisibility());
  const boxes = parts.map(part => [part.className, part.getBoundingClientRect()]);
  const overlaps = [];
  for (const [i, [a, one]] of boxes.entries())
    for (const [b, other] of boxes.slice(i + 1))
      if (Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top) > 1 &&
          Math.min(one.right, other.right) - Math.max(one.left, other.left) > 1) overlaps.push(`${a} / ${b}`);
  return overlaps;
}"""


#: Widths and heights in points: the small and the usual ones, and one that lies on its side.
_PHONES = [(320, 568), (375, 667), (390, 844), (430, 932), (844, 390)]


async def test_the_dialog_of_a_picture_on_every_phone(visit: Visit) -> None:
    """Nothing of it lies over its controls, a finger scrolls it to its end, and Close is always there."""
    visitor = await visit(**PHONE)
    page = await visitor.open()
    await visitor.submit("A fox curled up asleep", "Autumn woods at dusk", palettes=1)
    await visitor.has_result()
    for width, height in _PHONES:
        for scheme in ("light", "dark"):
            await page.emulate_media(color_scheme=scheme)
            await page.set_viewport_size({"width": width, "height": height})
            await page.locator("[data-picture='0'] button").click()
            await _is_usable(page, f"phone-{width}-{scheme}")


async def _is_usable(page: Page, name: str) -> None:
    """Look at the open dialog, and close it."""
    dialog = page.get_by_role("dialog")
    await expect(dialog.locator(".is-sharp")).to_be_visible()
    if os.environ.get("PICTURES"):
        keep(f"{name}-top", await page.screenshot())
    assert await dialog.evaluate(_OVERLAPS) == [], name
    assert await dialog.evaluate(_COVERED) == [], name
    assert await dialog.evaluate("it => it.scrollWidth <= it.clientWidth"), name
    box = await dialog.locator(".lightbox-head").bounding_box()
    assert box is not None
    await page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] + 80)
    for _ in range(8):
        await page.mouse.wheel(0, 300)
    refine = dialog.get_by_role("button", name="Refine this")
    await expect(refine).to_be_in_viewport(ratio=1, timeout=5_000)
    if os.environ.get("PICTURES"):
        keep(f"{name}-end", await page.screenshot())
    close = dialog.get_by_role("button", name="Close")
    await expect(close).to_be_in_viewport(ratio=1, timeout=5_000)
    await close.click()
    await expect(dialog).to_be_hidden()
