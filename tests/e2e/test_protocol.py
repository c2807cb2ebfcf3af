"""The live client that the page runs, in its own browser, on a socket that does what a test says."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.async_api import Page, Route

from tests.e2e.conftest import Visit
from tests.e2e.site import until

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="package")]

#: A socket that does what a test says, and a listener that writes everything down.
_LABORATORY = """async () => {
  const { Live } = await import("/client/live.js");
  const { pauseBefore } = await import("/client/backoff.js");
  window.pauseBefore = pauseBefore;
  window.sockets = [];
  window.received = [];
  window.states = [];
  window.token = "t";
  class Socket {
    constructor() { this.readyState = 0; this.sent = []; sockets.push(this); }
    send(frame) { this.sent.push(JSON.parse(frame)); }
    close() { this.readyState = 3; }
    opens() { this.readyState = 1; this.onopen(); }
    sends(...frames) { for (const frame of frames) this.onmessage({ data: JSON.stringify(frame) }); }
    closes(code) { this.readyState = 3; this.onclose({ code }); }
  }
  window.live = new Live({
    url: `ws://${location.host}/v1/live`, token: async () => token, WebSocket: Socket,
    onConnection: state => states.push(state),
  });
  window.last = () => sockets.at(-1);
  window.settled = async () => { for (let i = 0; i < 20; i += 1) await null; };
  window.reopened = async (code) => { last().closes(code); await settled(); last().opens(); };
  window.event = (seq, epoch = "e") =>
    ({ id: `${epoch}-${seq}-c`, seq, topic: "t", type: `n${seq}`, run: 1, data: {} });
  window.subscribed = (mode, events, cursor, more = false) =>
    ({ op: "subscribed", topic: "t", mode, events, cursor, ended: false, more });
  window.listener = {
    onEvent: e => received.push(e.type),
    onState: ({ mode, state }) => received.push([mode, ...state.map(e => e.type)].join(" ")),
    onEnd: ({ reason, code }) => received.push(code ? `${reason} ${code}` : reason),
  };
  window.subscription = live.follow("t", listener);
  await settled();
  last().opens();
}"""


async def _laboratory(visit: Visit, *allowed: str) -> Page:
    visitor = await visit()
    visitor.allowed += allowed
    page: Page = await visitor.open()
    await page.evaluate(_LABORATORY)
    return page


async def _asked(page: Page) -> list[dict[str, Any]]:
    """What the newest socket was told to subscribe to."""
    sent: list[dict[str, Any]] = await page.evaluate("last().sent")
    return [frame for frame in sent if frame["op"] == "subscribe"]


async def test_a_topic_goes_on_from_the_last_event_that_was_delivered(visit: Visit) -> None:
    """Nothing twice, also where deltas were joined on the way and a page of old ones is repeated."""
    page = await _laboratory(visit)
    await page.evaluate('last().sends(subscribed("resume", [event(1), event(2)], "e-2-c"))')
    await page.evaluate(
        "last().sends(...[3, 5, 5, 4].map(seq => ({op: 'event', event: event(seq)})))"
    )
    await page.evaluate("reopened(4408)")
    assert await _asked(page) == [{"op": "subscribe", "topic": "t", "cursor": "e-5-c"}]
    await page.evaluate('last().sends(subscribed("resume", [event(5), event(6)], "e-6-c"))')
    assert await page.evaluate("received") == ["n1", "n2", "resume", "n3", "n5", "n6", "resume"]


async def test_a_snapshot_is_delivered_whole_or_not_at_all(visit: Visit) -> None:
    """Cut between two pages of it, there is no cursor to resume from: it is requested again."""
    page = await _laboratory(visit)
    await page.evaluate('last().sends(subscribed("snapshot", [event(7)], "e-9-c", true))')
    await page.evaluate("reopened(4408)")
    assert await _asked(page) == [{"op": "subscribe", "topic": "t"}]
    await page.evaluate(
        'last().sends(subscribed("snapshot", [event(7)], "e-9-c", true),'
        '{op: "events", topic: "t", events: [event(8)], more: false}, {op: "event", event: event(9)},'
        '{op: "event", event: event(10)})'
    )
    assert await page.evaluate("received") == ["snapshot n7 n8", "n10"]


async def test_a_gap_and_a_new_epoch_are_made_good(visit: Visit) -> None:
    """Too slow: again from the cursor. Redis lost its data: everything is forgotten and counts anew."""
    page = await _laboratory(visit)
    await page.evaluate('last().sends(subscribed("resume", [event(8)], "e-8-c"))')
    await page.evaluate(
        'last().sends({op: "gap", topic: "t", endings: []}, {op: "event", event: event(9)})'
    )
    assert (await _asked(page))[1:] == [{"op": "subscribe", "topic": "t", "cursor": "e-8-c"}]
    await page.evaluate(
        'last().sends(subscribed("expired", [], "f-1-c"), {op: "event", event: event(2, "f")})'
    )
    assert await page.evaluate("received") == ["n8", "resume", "expired", "n2"]


async def test_a_refused_topic_is_not_requested_again_a_busy_one_is(visit: Visit) -> None:
    """``rate_limited`` and ``unavailable`` pass; ``not_found`` stays."""
    page = await _laboratory(visit)
    busy = '{op: "error", code: "rate_limited", message: "", topic: "t"}'
    await page.evaluate(f"last().sends({busy})")
    await until(lambda: page.evaluate("last().sent.filter(f => f.op === 'subscribe').length === 2"))
    await page.evaluate('last().sends({op: "error", code: "not_found", message: "", topic: "t"})')
    await page.evaluate("reopened(4408)")
    assert await _asked(page) == []
    assert await page.evaluate("received") == ["refused not_found"]


async def test_a_topic_that_the_gateway_has_again_is_not_requested_again(visit: Visit) -> None:
    """After ``unavailable`` the gateway tries again by itself; its answer ends the client's own pause."""
    visitor = await visit()
    page = await visitor.open()
    await page.clock.install()
    await page.evaluate(_LABORATORY)
    await page.evaluate(
        'last().sends({op: "error", code: "unavailable", message: "", topic: "t"},'
        'subscribed("resume", [event(1)], "e-1-c"))'
    )
    await page.clock.run_for(1_000)
    assert len(await _asked(page)) == 1
    assert await page.evaluate("received") == ["n1", "resume"]


async def test_a_topic_that_is_followed_again_outlives_the_end_of_its_last_run(
    visit: Visit,
) -> None:
    """The job runs again: what the gateway still says of the subscription before it does not count."""
    page = await _laboratory(visit)
    await page.evaluate('last().sends(subscribed("resume", [event(1)], "e-1-c"))')
    await page.evaluate(
        "subscription.stop();"
        "live.follow('t', { ...listener, cursor: subscription.cursor });"
        "last().sends({op: 'unsubscribed', topic: 't', reason: 'ended'},"
        "{op: 'unsubscribed', topic: 't', reason: 'requested'}, subscribed('resume', [event(2)], 'e-2-c'),"
        "{op: 'unsubscribed', topic: 't', reason: 'ended'})"
    )
    assert (await _asked(page))[1:] == [{"op": "subscribe", "topic": "t", "cursor": "e-1-c"}]
    assert await page.evaluate("received") == ["n1", "resume", "n2", "resume", "ended"]


async def test_why_a_socket_was_closed_decides_what_is_next(visit: Visit) -> None:
    """At once after its lifetime, soon after a deploy, never without a token that counts."""
    page = await _laboratory(visit)
    assert await page.evaluate("last().closes(4408), live.state") == "connecting"
    await page.evaluate("settled().then(() => last().opens())")
    assert await page.evaluate("last().closes(1001), live.state") == "waiting"
    await until(lambda: page.evaluate("sockets.length === 3"))  # by itself
    await page.evaluate("last().opens(), last().closes(1001), live.reconnect(), settled()")
    assert await page.evaluate("sockets.length") == 4  # at once
    await page.evaluate("last().opens(), last().closes(4401), settled()")
    assert await page.evaluate("[live.state, received]") == ["refused", ["refused unauthorized"]]
    await page.evaluate("token = 'u', live.follow('t', listener), settled()")
    await page.evaluate("last().opens(), last().closes(4400)")
    assert await page.evaluate("live.state") == "closed"


async def test_a_refused_token_is_known_from_http(visit: Visit) -> None:
    """A browser does not tell why a socket never opened; a gateway that is away refuses nobody."""
    page = await _laboratory(visit, "401", r"net::ERR_FAILED")
    answers = [None, 401]

    async def answer(route: Route) -> None:
        status = answers.pop(0)
        await (route.abort() if status is None else route.fulfill(status=status))

    await page.route("**/v1/live", answer)
    await page.evaluate("reopened(4408)")
    await page.evaluate("last().closes(4408), settled().then(() => last().closes(1006))")
    await until(lambda: page.evaluate("sockets.length === 4"))
    assert await page.evaluate("live.state") == "connecting"
    await page.evaluate("last().closes(1006)")
    await until(lambda: page.evaluate("live.state === 'refused'"))
    assert await page.evaluate("received") == ["refused unauthorized"]
    assert answers == []


async def test_a_token_is_renewed_once_and_only_by_another_one(visit: Visit) -> None:
    """Who offers the same token again is warned again: the two would go on until it has expired."""
    page = await _laboratory(visit)
    sent = "last().sent.filter(f => f.op === 'auth').map(f => f.token)"
    expiring = "last().sends({op: 'expiring', expires_in: 60}), settled()"
    await page.evaluate(expiring)
    assert await page.evaluate(sent) == []
    await page.evaluate(f"token = 'u', {expiring}")
    await page.evaluate(expiring)
    assert await page.evaluate(sent) == ["u"]


async def test_tries_come_slower_and_never_together(visit: Visit) -> None:
    """Twice as long each time up to 20 s, spread over half of that."""
    page = await _laboratory(visit)
    least, most = await page.evaluate(
        "[() => 0, () => 1].map(luck =>"
        " [0, 1, 2, 3, 9, 99].map(n => pauseBefore(n, 300, 20_000, luck)))"
    )
    assert most == [300, 600, 1200, 2400, 20_000, 20_000]
    assert least == [each / 2 for each in most]


async def test_a_socket_that_is_silent_is_noticed(visit: Visit) -> None:
    """No network says so: after 15 s it is asked, and given up after 8 more without an answer."""
    visitor = await visit()
    page = await visitor.open()
    await page.clock.install()
    await page.evaluate(_LABORATORY)
    await page.clock.run_for(15_000)
    assert (await page.evaluate("last().sent.at(-1)"))["op"] == "ping"
    await page.evaluate("last().sends({op: 'pong'})")
    await page.clock.run_for(15_000)
    assert await page.evaluate("live.state") == "live"
    await page.clock.run_for(8_000)
    assert await page.evaluate("[states[2], sockets[0].readyState]") == ["waiting", 3]
