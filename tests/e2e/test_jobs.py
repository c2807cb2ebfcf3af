"""The list of jobs: as they are at the moment, and what can be done with them."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import expect

from tests.e2e.conftest import Visit
from tests.e2e.site import Site
from tests.e2e.visitor import PHONE
from tests.e2e.words import FORBIDDEN, SLOW

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="package")]


async def test_jobs_are_listed_with_status_duration_cost_and_error(
    site: Site, visit: Visit
) -> None:
    """One that is done, one that failed with its stage and sentence, and an answer."""
    visitor = await visit()
    page = await visitor.open()
    done = await visitor.submit("A kite", "Wind and sky", palettes=1)
    await visitor.has_result()
    await visitor.go("#/create")
    failed = await visitor.submit(f"Something {FORBIDDEN}", "Red")
    await visitor.has_result("failed")
    await visitor.go("#/chat/new")
    await visitor.say("What can you do?")
    await visitor.answer("completed")

    await visitor.go("#/jobs")
    row = page.locator(f"tr[data-job='{done}']")
    await expect(row).to_contain_text("Completed")
    await expect(row.get_by_role("link", name="A kite")).to_be_visible()
    await expect(row).to_contain_text("Free")
    assert (await row.locator(".cell-took").text_content() or "").endswith("s")
    row = page.locator(f"tr[data-job='{failed}']")
    await expect(row.locator(".badge")).to_have_text("Failed")
    await expect(row.locator(".job-stage")).to_have_text("Base image")
    await expect(row).to_contain_text("content policy forbids it")
    await expect(page.get_by_role("link", name="What can you do?")).to_be_visible()

    await page.get_by_role("button", name="Failed", exact=True).click()
    await expect(page.locator("tbody tr")).to_have_count(1)
    await row.get_by_role("link").click()
    await expect(page.get_by_role("heading", name=f"Something {FORBIDDEN}")).to_be_visible()


async def test_a_running_job_is_cancelled_and_tried_again_from_the_list(
    site: Site, visit: Visit
) -> None:
    """The list follows by itself: running, cancelled, running again, cancelled again."""
    visitor = await visit()
    page = await visitor.open()
    job = await visitor.submit(f"A snail that moves {SLOW}", "Green", palettes=1)
    await visitor.go("#/jobs")
    row = page.locator(f"tr[data-job='{job}']")
    for run in (1, 2):
        await expect(row.locator(".badge")).to_have_text("Running")
        await row.get_by_role("button", name="Cancel").click()
        await expect(row.locator(".badge")).to_have_text("Cancelled")
        assert (await site.row("jobs", "id", job))["run"] == run
        if run == 1:
            await row.get_by_role("button", name="Retry").click()


async def test_a_job_is_cancelled_where_it_is_shown_and_run_again(visit: Visit) -> None:
    """The page of one job follows its next run, on the same topic."""
    visitor = await visit()
    page = await visitor.open()
    await visitor.submit(f"A snail that moves {SLOW}", "Green", palettes=1)
    for _ in range(2):
        await expect(page.locator(".stage-item[data-status=running]")).to_have_count(1)
        await page.get_by_role("button", name="Cancel").click()
        await visitor.has_result("cancelled")
        await page.get_by_role("button", name="Try again").click()
        await visitor.has_result("processing")
    await page.get_by_role("button", name="Cancel").click()
    await visitor.has_result("cancelled")


async def test_jobs_made_elsewhere_appear_by_themselves(site: Site, visit: Visit) -> None:
    """In a window that lists them while another one makes them."""
    listing = await visit()
    page = await listing.open("#/jobs")
    await expect(page.get_by_text("Nothing has been done yet")).to_be_visible()
    making = await visit(listing.person)
    await making.open()
    job = await making.submit("A boat", "Sea", palettes=1)
    row = page.locator(f"tr[data-job='{job}']")
    await expect(row.get_by_role("link", name="A boat")).to_be_visible()
    await expect(row.locator(".badge")).to_have_text("Completed")


async def test_on_a_phone_jobs_are_cards_with_everything_on_them(visit: Visit) -> None:
    """No sideways scrolling, and the same actions."""
    visitor = await visit(**PHONE)
    page = await visitor.open()
    job = await visitor.submit(f"A snail that moves {SLOW}", "Green", palettes=1)
    await visitor.go("#/jobs")
    card = page.locator(f"tr[data-job='{job}']")
    await expect(card.locator(".badge")).to_have_text("Running")
    await card.get_by_role("button", name="Cancel").tap()
    await expect(card.locator(".badge")).to_have_text("Cancelled")
    box = await card.bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390


#: What the page says of a job after its first run, by the event and by its row.
_REQUEUED = """async () => {
  const app = document.querySelector("script[type=module]").src;
  const { requeueReason } = await import(app.replace("app.js", "sentences.js"));
  const { JobState } = await import(app.replace("app.js", "data/job.js"));
  const error = { stage: "base_image", message: "No answer.", attempt: 1 };
  const [at, then] = ["2040-01-01T12:00:00Z", "2040-01-01T12:00:04Z"];
  const received = (reason, run_at) => {
    const job = new JobState("a");
    job.apply({ type: "job.requeued", run: 2, at, data: { job_type: "generation", run_at, reason } });
    return job;
  };
  const read = new JobState("b").take({
    type: "generation", status: "queued", run: 2, stages: [], queued_at: at, run_at: then,
    runs: [{ run: 1, outcome: "retry", attempt: 1, error, retried_at: null }],
  });
  const started = received({ outcome: "retry", attempt: 1, error }, then);
  started.apply({ type: "job.started", run: 2, at: then, data: { job_type: "generation" } });
  return [
    received({ outcome: "retry", attempt: 1, error }, then), read,
    received({ outcome: "retry", attempt: 0, error }, then),
    received({ outcome: "worker_lost", attempt: 1, error: null }, null),
    received({ outcome: "retried", attempt: 1, error }, null), received(null, null), started,
  ].map(requeueReason);
}"""


async def test_why_a_job_waits_for_another_run_is_said(visit: Visit) -> None:
    """The event and the row give the same sentence; a run that has begun needs none."""
    visitor = await visit()
    received, read, put_off, lost, *others = await (await visitor.open()).evaluate(_REQUEUED)
    assert received == "Attempt 1 failed in “Base image”: No answer, again in 4.0 s."
    assert read == received
    assert put_off == "It was put off in “Base image”: No answer, again in 4.0 s."
    assert lost == "Its worker was lost, again at once."
    assert others == [None] * 3


#: What the page says of jobs that wait, and which of those that ended it offers to run again.
_WORDS = """async () => {
  const app = document.querySelector("script[type=module]").src;
  const { waitsFor, mayRunAgain } = await import(app.replace("app.js", "sentences.js"));
  const at = Date.parse("2040-01-01T12:00:00");
  const failed = (code, retryable) => mayRunAgain({ status: "failed", error: { code, retryable } });
  return {
    waits: [[3, at + 9000], [1, at + 9000], [3, at - 1], [1, null]].map(([run, runAt]) =>
      waitsFor({ run, runAt: runAt === null ? null : new Date(runAt).toISOString() }, at)),
    again: [failed("timeout", true), failed("worker_lost", false), failed("no_executor", false),
      mayRunAgain({ status: "failed", error: null }), mayRunAgain({ status: "cancelled", error: null })],
    never: ["invalid_input", "not_found", "provider_rejected", "storage_refused", "unstorable_output"]
      .map((code) => failed(code, false)),
  };
}"""


async def test_what_waits_and_what_may_run_again(visit: Visit) -> None:
    """A job in its backoff waits for that, until a time; what would fail again is not offered again."""
    visitor = await visit()
    said = await (await visitor.open()).evaluate(_WORDS)
    tried, timed, *others = said["waits"]
    assert re.match(r"its next try at .*12.00.09", tried)
    assert re.match(r"its time at .*12.00.09", timed)
    assert others == ["a worker", "a worker"]
    assert said["again"] == [True] * 5
    assert said["never"] == [False] * 5
