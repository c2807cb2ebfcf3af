"""The page's own modules in its own browser: the live protocol on a scripted socket, messages from events."""

from __future__ import annotations

import random
from hashlib import sha256
from typing import Any

import pytest
from playwright.async_api import Page

from tests.e2e.conftest import Visit
from tests.e2e.site import Site, until
from uvian_worker.events.assembler import MessageAssembler
from uvian_worker.events.envelope import Envelope
from uvian_worker.events.reader import Expired

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="package")]

# ─── messages ────────────────────────────────────────────────────────────────────────────────────

_ASSEMBLE = """async (histories) => {
  const { MessageAssembler, isWhole } = await import("/messages.js");
  const outcomes = [];
  for (const history of histories) {
    const assembler = new MessageAssembler();
    for (const event of history) {
      if (event === null) { assembler.forget(); continue; }
      const message = assembler.apply(event);
      if (event.type !== "message.completed" || message === null) continue;
      if (!(await isWhole(message))) message.state = "unknown";
    }
    outcomes.push([...assembler.messages.values()].map(m => [m.id, m.state, m.text, m.bytes, m.replyTo]));
  }
  return outcomes;
}"""


async def test_messages_are_put_together_as_python_does_it(site: Site, visit: Visit) -> None:
    """500 histories with gaps, new runs, late starts and wrong hashes: the same states and texts."""
    visitor = await visit()
    page = await visitor.open()
    chance = random.Random(20)
    histories = [_history(chance) for _ in range(500)]
    told = [[None if e is None else _document(e) for e in history] for history in histories]
    assert await page.evaluate(_ASSEMBLE, told) == [_assembled(history) for history in histories]


def _history(chance: random.Random) -> list[Envelope | None]:
    """What a client may hear of two messages; None is that something was missed."""
    history: list[Envelope | None] = []
    texts, run = {"a": "", "b": ""}, 1
    for seq in range(1, chance.randrange(2, 14)):
        name = chance.choice("aab")
        text = texts[name]
        kind = chance.choice(
            ("started", *["delta"] * 6, "snapshot", "reset", "completed", "missed")
        )
        data: dict[str, Any] = {"message_id": name}
        match kind:
            case "missed":
                history.append(None)
                continue
            case "started":
                data["reply_to"], text = f"question of {name}", ""
            case "delta":
                piece = chance.choice(("Grüße", "京都", "🦊", " and ", "\n", "e\u0301"))
                lost = chance.random() < 0.15
                data |= {"offset": len(text.encode()) + (3 if lost else 0), "text": piece}
                text += piece
            case "snapshot":
                text = chance.choice(("", "So far 🦊", text))
                data["text"] = text
            case "reset":
                run += chance.randrange(2)
                data["final"], text = chance.random() < 0.3, ""
            case _:
                hashed = text if chance.random() < 0.8 else f"{text}?"
                shown = text if chance.random() < 0.5 else None
                data |= {"status": chance.choice(("completed", "cancelled")), "text": shown}
                data |= {
                    "length": len(text.encode()),
                    "sha256": sha256(hashed.encode()).hexdigest(),
                }
        texts[name] = text
        history.append(_event(seq, f"message.{kind}", data, run))
    return history


def _event(seq: int, type_: str, data: dict[str, Any], run: int = 1) -> Envelope:
    return Envelope(
        id=f"{'e' * 16}-{seq}-{'c' * 8}",
        seq=seq,
        topic="conversation:1",
        key=f"j:{run}:{seq}",
        type=type_,
        at="2026-01-01T00:00:00Z",
        job_id="j",
        run=run,
        attempt=0,
        data=data,
    )


def _document(event: Envelope) -> dict[str, Any]:
    return {"id": event.id, "type": event.type, "run": event.run, "data": event.data}


def _assembled(history: list[Envelope | None]) -> list[list[Any]]:
    assembler = MessageAssembler()
    for event in history:
        assembler.apply(Expired("conversation:1", "", False) if event is None else event)
    return [
        [each.id, each.state, each.text, len(each.raw), each.reply_to]
        for each in assembler.messages.values()
    ]


# ─── the socket ──────────────────────────────────────────────────────────────────────────────────

#: A socket that says what it is told to, and a listener that writes everything down.
_LABORATORY = """async () => {
  const { Live } = await import("/live.js");
  const { pauseBefore } = await import("/backoff.js");
  window.pauseBefore = pauseBefore;
  window.sockets = [];
  window.told = [];
  window.refusals = 0;
  class Socket {
    constructor() { this.readyState = 0; this.sent = []; sockets.push(this); }
    send(frame) { this.sent.push(JSON.parse(frame)); }
    close() { this.readyState = 3; }
    opens() { this.readyState = 1; this.onopen(); }
    says(...frames) { for (const frame of frames) this.onmessage({ data: JSON.stringify(frame) }); }
    ends(code) { this.readyState = 3; this.onclose({ code }); }
  }
  window.live = new Live({
    url: "", token: () => "t", open: () => new Socket(),
    check: async () => window.accepted ?? true, unauthorized: () => { refusals += 1; },
  });
  window.last = () => sockets.at(-1);
  window.event = (seq, epoch = "e") =>
    ({ id: `${epoch}-${seq}-c`, seq, topic: "t", type: `n${seq}`, run: 1, data: {} });
  window.listener = {
    restart: mode => told.push(`restart ${mode}`), event: e => told.push(e.type),
    placed: ({ mode }) => told.push(`placed ${mode}`), ended: () => told.push("ended"),
    refused: ({ code }) => told.push(`refused ${code}`),
  };
  live.start();
  last().opens();
  window.leave = live.subscribe("t", listener);
}"""

_SUBSCRIBED = """(mode, events, cursor, more = false) =>
  ({op: "subscribed", topic: "t", mode, events, cursor, ended: false, more})"""


async def _laboratory(visit: Visit) -> Page:
    page: Page = await (await visit()).open()
    await page.evaluate(_LABORATORY)
    await page.evaluate(f"window.subscribed = {_SUBSCRIBED}")
    return page


async def _asked(page: Page) -> list[dict[str, Any]]:
    """What the newest socket was told to subscribe to."""
    sent: list[dict[str, Any]] = await page.evaluate("last().sent")
    return [frame for frame in sent if frame["op"] == "subscribe"]


async def test_a_topic_goes_on_from_the_last_event_that_was_told(visit: Visit) -> None:
    """Nothing twice, also where pieces were joined on the way and a page of old ones is repeated."""
    page = await _laboratory(visit)
    await page.evaluate('last().says(subscribed("resume", [event(1), event(2)], "e-2-c"))')
    await page.evaluate(
        "last().says(...[3, 5, 5, 4].map(seq => ({op: 'event', event: event(seq)})))"
    )
    await page.evaluate("last().ends(4408); last().opens()")
    assert await _asked(page) == [{"op": "subscribe", "topic": "t", "cursor": "e-5-c"}]
    await page.evaluate('last().says(subscribed("resume", [event(5), event(6)], "e-6-c"))')
    assert await page.evaluate("told") == [
        *("n1", "n2", "placed resume", "n3", "n5"),
        *("n6", "placed resume"),
    ]


async def test_a_state_counts_when_all_of_it_was_told(visit: Visit) -> None:
    """Cut between two pages of a snapshot, there is no place to go on from: it is asked for again."""
    page = await _laboratory(visit)
    await page.evaluate('last().says(subscribed("snapshot", [event(7)], "e-9-c", true))')
    await page.evaluate("last().ends(4408); last().opens()")
    assert await _asked(page) == [{"op": "subscribe", "topic": "t"}]
    await page.evaluate(
        'last().says(subscribed("snapshot", [event(7)], "e-9-c", true),'
        '{op: "events", topic: "t", events: [event(8)], more: false}, {op: "event", event: event(9)},'
        '{op: "event", event: event(10)})'
    )
    assert await page.evaluate("told") == [
        *("restart snapshot", "n7"),
        *("restart snapshot", "n7", "n8", "placed snapshot", "n10"),
    ]


async def test_a_gap_and_a_new_epoch_are_made_good(visit: Visit) -> None:
    """Too slow: again from the cursor. Redis lost its data: everything is forgotten and counts anew."""
    page = await _laboratory(visit)
    await page.evaluate('last().says(subscribed("resume", [event(8)], "e-8-c"))')
    await page.evaluate(
        'last().says({op: "gap", topic: "t", endings: []}, {op: "event", event: event(9)})'
    )
    assert (await _asked(page))[1:] == [{"op": "subscribe", "topic": "t", "cursor": "e-8-c"}]
    await page.evaluate(
        'last().says(subscribed("expired", [], "f-1-c"), {op: "event", event: event(2, "f")})'
    )
    expected = ["n8", "placed resume", "restart expired", "placed expired", "n2"]
    assert await page.evaluate("told") == expected


async def test_a_refused_topic_is_not_asked_for_again_a_busy_one_is(visit: Visit) -> None:
    """``rate_limited`` and ``unavailable`` pass; ``not_found`` stays."""
    page = await _laboratory(visit)
    busy = '{op: "error", code: "rate_limited", message: "", topic: "t"}'
    await page.evaluate(f"last().says({busy})")
    await until(lambda: page.evaluate("last().sent.filter(f => f.op === 'subscribe').length === 2"))
    await page.evaluate('last().says({op: "error", code: "not_found", message: "", topic: "t"})')
    await page.evaluate("last().ends(4408); last().opens()")
    assert await _asked(page) == []
    assert await page.evaluate("told") == ["refused not_found"]


async def test_why_a_socket_was_closed_decides_what_is_next(visit: Visit) -> None:
    """At once after its lifetime, soon after a deploy, never without a token that counts."""
    page = await _laboratory(visit)
    assert await page.evaluate("last().ends(4408), [live.state, sockets.length]") == [
        "connecting",
        2,
    ]
    await page.evaluate("last().opens(); last().ends(1001)")
    assert await page.evaluate("[live.state, live.retryAt - Date.now() <= 300]") == [
        "waiting",
        True,
    ]
    await page.evaluate("live.retry(); last().opens(); last().ends(4401)")
    assert await page.evaluate("[live.state, refusals]") == ["refused", 1]
    await page.evaluate("live.start(); last().opens(); last().ends(4400)")
    assert await page.evaluate("live.state") == "closed"
    # A refused upgrade tells a page nothing: whether it was the token is asked over REST.
    await page.evaluate("window.accepted = false; live.start(); last().ends(1006)")
    await until(lambda: page.evaluate("live.state === 'refused' && refusals === 2"))


async def test_tries_come_slower_and_never_together(visit: Visit) -> None:
    """Twice as long each time up to 20 s, spread over half of that."""
    page = await _laboratory(visit)
    least, most = await page.evaluate(
        "[() => 0, () => 1].map(luck =>"
        " [0, 1, 2, 3, 9, 99].map(n => pauseBefore(n, 300, 20_000, luck)))"
    )
    assert most == [300, 600, 1200, 2400, 20_000, 20_000]
    assert least == [each / 2 for each in most]


async def test_a_socket_that_has_gone_deaf_is_noticed(visit: Visit) -> None:
    """No network says so: after 15 s of silence it is asked, after 8 more without an answer given up."""
    visitor = await visit()
    page = await visitor.open()
    await page.clock.install()
    await page.evaluate(_LABORATORY)
    await page.clock.run_for(15_000)
    assert (await page.evaluate("last().sent.at(-1)"))["op"] == "ping"
    await page.evaluate("last().says({op: 'pong'})")
    await page.clock.run_for(15_000)
    assert await page.evaluate("live.state") == "live"
    await page.clock.run_for(8_000)
    assert await page.evaluate("[live.state, sockets[0].readyState]") == ["waiting", 3]


# ─── rows and events ─────────────────────────────────────────────────────────────────────────────

_RACES = """async () => {
  const { JobState } = await import("/job.js");
  const { Thread } = await import("/thread.js");
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
  thread.jobHappened(failed);
  answer({ id: "q", position: 1, job: { id: "j", run: 1, status: "queued" } });
  await sent;
  return [states, thread.entries().map(({ role, state }) => [role, state])];
}"""


_FAILS_AFTER_ITS_BEGINNING = """async (seen) => {
  const { Thread } = await import("/thread.js");
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
    topic.event(told("message.started", { message_id: "m", reply_to: "q" }));
    thread.jobHappened(told("job.started", {}));
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
  const endings = [() => topic.event(told("message.reset", { message_id: "m", final: true })),
    () => thread.jobHappened(told("job.failed", { error, error_message: "No" }))];
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
  const { Thread } = await import("/thread.js");
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
  topic.event(told("message.started", { message_id: "m", reply_to: "q" }));
  topic.event(told("message.delta", { message_id: "m", offset: 0, text: "Bec" }));
  topic.restart();
  await topic.placed({ mode: "snapshot" });
  look();
  const failed = told("job.failed", { error: { code: "internal" }, error_message: "No" });
  if (ending === "failed") thread.jobHappened(failed);
  else topic.event(told("message.snapshot", { message_id: "m", text: "Because" }));
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
