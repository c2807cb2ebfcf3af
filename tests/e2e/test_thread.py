"""Jobs and conversations from rows and events, whichever came first: the page's modules in its browser."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import Visit

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="package")]

_RACES = """async () => {
  const { JobState } = await import("/data/job.js");
  const { Thread } = await import("/data/thread.js");
  const row = (run, status) => ({ id: "j", type: "chat", run, status, input: {}, stages: [], progress: 0,
    error: null, error_message: null, created_at: "2026-01-01T00:00:00Z" });
  const event = (type, run, data) => ({ type, run, job_id: "j", at: "2026-01-01T00:00:01Z", data });
  const ending = { error: { code: "timeout" }, error_message: "No", stages: [], cost: "0" };
  const failed = event("job.failed", 1, ending);

  const job = new JobState("j");
  job.apply(event("job.started", 1, { job_type: "chat" }));
  job.apply(failed);
  const states = [job.take(row(1, "processing")).status, job.take(row(2, "queued")).status,
    (job.apply(failed), job.status)];

  let answer;
  const api = { post: () => new Promise((go) => { answer = go; }) };
  const thread = new Thread(api, "c", () => {});
  const sent = thread.send("Why?");
  thread.receiveJob(failed);
  answer({ id: "q", position: 1, job: { id: "j", run: 1, status: "queued" } });
  await sent;
  return [states, thread.entries().map(({ role, state }) => [role, state])];
}"""


_FAILS_AFTER_ITS_BEGINNING = """async (seen) => {
  const { Thread } = await import("/data/thread.js");
  const told = (type, data) => ({ type, run: 1, job_id: "j", data });
  const question = { id: "q", position: 1, role: "user", status: "completed", content: "Why?", job_id: "j",
    reply_to: null };
  const job = { id: "j", run: 1, status: "queued", error: null, error_message: null };
  let answer;
  const api = { post: () => new Promise((go) => { answer = () => go({ id: "q", position: 1, job }); }),
    messages: async () => ({ items: [question], more: false }),
    job: async () => ({ ...job, status: "processing" }) };
  const thread = new Thread(api, "c", () => {});
  const topic = thread.listener({});
  const begins = () => {
    topic.onEvent(told("message.started", { message_id: "m", reply_to: "q" }));
    thread.receiveJob(told("job.started", {}));
  };
  if (seen === "posted") {
    const sent = thread.send("Why?");
    begins();
    answer();
    await sent;
  } else {
    begins();
    await thread.load();
  }
  const states = [thread.entries().map(({ state }) => state)];
  const error = { code: "content_policy" };
  const endings = [() => topic.onEvent(told("message.reset", { message_id: "m", final: true })),
    () => thread.receiveJob(told("job.failed", { error, error_message: "No" }))];
  if (seen === "reloaded, reason first") endings.reverse();
  endings.forEach((ends) => ends());
  return [...states, thread.entries().map(({ state }) => state)];
}"""


@pytest.mark.parametrize("seen", ["posted", "reloaded", "reloaded, reason first"])
async def test_an_answer_that_fails_after_its_beginning_was_seen(visit: Visit, seen: str) -> None:
    """It had begun before the question's own row was there: the reason takes its place all the same."""
    page = await (await visit()).open()
    begun, ended = await page.evaluate(_FAILS_AFTER_ITS_BEGINNING, seen)
    assert begun == ["completed", "writing"]
    assert ended == ["completed", "failed"]


_HALF_TOLD = """async (ending) => {
  const { Thread } = await import("/data/thread.js");
  const told = (type, data) => ({ type, run: 1, job_id: "j", data });
  const question = { id: "q", position: 1, role: "user", status: "completed", content: "Why?", job_id: "j",
    reply_to: null };
  const api = { messages: async () => ({ items: [question], more: false }),
    job: async () => ({ id: "j", run: 1, status: "processing", error: null, error_message: null }) };
  const thread = new Thread(api, "c", () => {});
  const topic = thread.listener({});
  await thread.load();
  const states = [];
  const look = () => states.push(thread.entries().map(({ state, text }) => [state, text]));
  topic.onEvent(told("message.started", { message_id: "m", reply_to: "q" }));
  topic.onEvent(told("message.delta", { message_id: "m", offset: 0, text: "Bec" }));
  await topic.onState({ mode: "snapshot", state: [] });
  look();
  const failed = told("job.failed", { error: { code: "internal" }, error_message: "No" });
  if (ending === "failed") thread.receiveJob(failed);
  else topic.onEvent(told("message.snapshot", { message_id: "m", text: "Because" }));
  look();
  return states;
}"""


@pytest.mark.parametrize(
    ("ending", "last"), [("snapshot", ["writing", "Because"]), ("failed", ["failed", ""])]
)
async def test_an_answer_of_which_some_was_missed_is_shown_once(
    visit: Visit, ending: str, last: list[str]
) -> None:
    """As far as it was told, with nobody waiting beside it; where its end was missed the reason is shown."""
    page = await (await visit()).open()
    missed, then = await page.evaluate(_HALF_TOLD, ending)
    assert missed == [["completed", "Why?"], ["writing", "Bec"]]
    assert then == [["completed", "Why?"], last]


async def test_what_comes_too_late_does_not_undo_what_is_known(visit: Visit) -> None:
    """A row read before the ending that was heard; an ending heard before the job it ends was known."""
    page = await (await visit()).open()
    states, entries = await page.evaluate(_RACES)
    assert states == ["failed", "queued", "queued"]
    assert entries == [["user", "completed"], ["assistant", "failed"]]
