"""Somebody in front of the page: a browser window, and everything its console complained about."""

from __future__ import annotations

__all__ = ["CHROMIUM", "DESKTOP", "PHONE", "Visitor", "chromium"]

import contextlib
import re
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from tests.e2e.site import PATIENCE, Person, Site

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"

_FLAGS = (
    "--headless",
    "--no-sandbox",  # tests run as root, in containers
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)

DESKTOP: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}}
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "has_touch": True,
    "is_mobile": True,
}

#: What the page breaks of its own policy is told to nobody but its own document.
_TELL_OF_VIOLATIONS = """
addEventListener("securitypolicyviolation", (event) =>
  console.error(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
"""


@contextlib.asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Debian's Chromium, with a profile that is thrown away."""
    expect.set_options(timeout=PATIENCE * 1000)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(_FLAGS))
        try:
            yield browser
        finally:
            await browser.close()


#: What Chromium says of the font where the machine is slow.
_SLOW = "preloaded using link preload but not used within a few seconds"


@dataclass
class Visitor:
    """One window. ``allowed`` are patterns of complaints that a test brings about on purpose."""

    site: Site
    person: Person
    context: BrowserContext
    page: Page
    complaints: list[str] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)

    @classmethod
    async def arrive(cls, browser: Browser, site: Site, person: Person, **window: Any) -> Visitor:
        """Open a window of their own; nothing is loaded yet."""
        context = await browser.new_context(**{**DESKTOP, **window})
        context.set_default_timeout(PATIENCE * 1000)
        await context.add_init_script(_TELL_OF_VIOLATIONS)
        page = await context.new_page()
        visitor = cls(site, person, context, page)
        page.on("console", lambda message: visitor._console(message.type, message.text))
        page.on("pageerror", lambda error: visitor.complaints.append(f"error: {error}"))
        return visitor

    async def open(self, address: str = "#/create") -> Page:
        """Sign in, go to an address of the page, and wait until it is live."""
        await self.page.goto(f"{self.site.url}#access_token={self.person.token}")
        await self.is_live()
        await self.go(address)
        return self.page

    async def go(self, address: str) -> None:
        """Another address of the page, without loading it again."""
        await self.page.evaluate("address => { location.hash = address }", address)

    async def is_live(self) -> None:
        """Wait until the page says that it is connected."""
        await self.says("live")

    async def says(self, state: str) -> None:
        """Wait until the page says that its connection is in this state."""
        await expect(self.page.locator(".connection")).to_have_attribute("data-state", state)

    async def submit(self, logo: str, theme: str, *, palettes: int = 7, size: int = 512) -> str:
        """Fill in the form and send it; the job's id."""
        page = self.page
        await page.get_by_label("What should it show?").fill(logo)
        await page.get_by_label("Colours and mood").fill(theme)
        await page.get_by_label("Palettes").fill(str(palettes))
        more = page.locator("details.more")
        if await more.get_attribute("open") is None:
            await more.locator("summary").click()
        await page.get_by_role("radio", name=str(size)).check()
        await page.get_by_role("button", name="Create concept").click()
        return await self.job_id()

    async def job_id(self) -> str:
        """Of the result that is open."""
        await self.page.wait_for_url(re.compile(r"#/create/[0-9a-f-]{36}$"))
        return str(self.page.url.rpartition("/")[2])

    async def conversation_id(self) -> str:
        """Of the conversation that is open."""
        await self.page.wait_for_url(re.compile(r"#/chat/[0-9a-f-]{36}$"))
        return str(self.page.url.rpartition("/")[2])

    async def has_result(self, status: str = "completed") -> None:
        """Wait until the job that is open has ended like this."""
        await expect(self.page.locator(".canvas")).to_have_attribute("data-status", status)

    async def say(self, words: str) -> None:
        """Send a message."""
        await self.page.get_by_label("Your message").fill(words)
        await self.page.keyboard.press("Enter")

    async def answer(self, state: str, number: int = 0) -> str:
        """The text of an answer, once it is in this state."""
        answer = self.answers.nth(number)
        await expect(answer).to_have_attribute("data-state", state)
        return str(await answer.locator(".message-body").text_content())

    @property
    def answers(self) -> Any:
        """The answers of the open conversation, in their order."""
        return self.page.locator(".message[data-role=assistant]")

    async def writes_at_least(self, length: int) -> str:
        """The text of the answer that is being written, once it is this long."""
        body = self.page.locator(".message[data-state=writing] .message-body")
        await expect(body).to_have_text(re.compile(rf"^[\s\S]{{{length},}}$"))
        return str(await body.text_content())

    async def leave(self) -> None:
        """Close the window; fails if the console has complained."""
        await self.context.close()
        surprises = [
            complaint
            for complaint in self.complaints
            if not any(re.search(pattern, complaint) for pattern in (_SLOW, *self.allowed))
        ]
        assert surprises == []

    def _console(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(f"{kind}: {text}")
