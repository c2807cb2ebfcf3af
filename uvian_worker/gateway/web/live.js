/**
 * One WebSocket to `/v1/live`, and the topics on it, which outlive every loss of it.
 *
 * Knows neither the page nor what events mean. A topic's listener is told, in this order:
 *
 *   restart(mode)    forget what you knew: `snapshot` (what follows is the state), or `expired`
 *                    (read the rows once `placed` says so)
 *   event(envelope)  the next event, never twice
 *   placed({mode, ended})  all that there was has been told: what follows happens now
 *   ended()          the job of this topic has ended; nothing follows in this run
 *   refused({code, message})  this topic is not to be heard
 *
 * After any loss each topic is subscribed to again from the cursor of its last event, so that a listener
 * hears everything, or hears `restart`. `change` is dispatched when `state` does: `connecting`, `live`,
 * `waiting` (for the next try), `offline` (the browser says so), `refused` (the token is not accepted) or
 * `closed`.
 */

import { pauseBefore } from "./backoff.js";

const FIRST_PAUSE_MS = 300;
const LONGEST_PAUSE_MS = 20_000;
const PING_AFTER_MS = 15_000; // of silence; the other side pings too, but a page cannot hear that
const DEAF_AFTER_MS = 8_000; // without an answer to a ping
const CONNECT_WITHIN_MS = 10_000;

/** Why the gateway closes a socket; see uvian_worker/gateway/live/session.py. */
const CLOSED = { GOING_AWAY: 1001, MISTAKES: 4400, UNAUTHORIZED: 4401, LIFETIME: 4408 };

class Topic {
  constructor(name, listener) {
    this.name = name;
    this.listener = listener;
    this.cursor = null; // of the last event that was told
    this.heard = { epoch: null, seq: 0 };
    this.next = null; // the cursor to take once a state is complete
    this.answer = null; // of the subscription that is being told, page by page
    this.open = false; // the gateway knows of it on this socket
    this.tries = 0;
    this.timer = null;
  }

  knows(event) {
    const { epoch, seq } = place(event.id);
    if (epoch === this.heard.epoch && seq <= this.heard.seq) return true;
    this.heard = { epoch, seq };
    return false;
  }
}

export class Live extends EventTarget {
  #options;
  #topics = new Map();
  #socket = null;
  #tries = 0;
  #timers = { retry: null, silence: null, connect: null };
  #pinged = false;
  #detach = () => {};

  /**
   * `url` of the socket; `token()` answers the access token. `unauthorized()` is told when it is not
   * accepted; `check()` asks over REST whether it is, since a refused upgrade says nothing to a page.
   */
  constructor({ url, token, unauthorized = () => {}, check = async () => true, open = openSocket }) {
    super();
    this.#options = { url, token, unauthorized, check, open };
    this.state = "closed";
    this.retryAt = null; // when the next try is, while waiting
  }

  /** Connect, and stay connected. */
  start() {
    if (this.state !== "closed" && this.state !== "refused") return;
    this.#detach();
    this.#detach = watchNetwork({ online: () => this.retry(), offline: () => this.#offline() });
    this.#tries = 0;
    this.#connect();
  }

  /** Let go of the socket; topics stay, for another `start`. */
  stop() {
    this.#detach();
    this.#hangUp();
    this.#become("closed");
  }

  /** Try at once instead of waiting. */
  retry() {
    if (this.state === "waiting" || this.state === "offline") this.#connect();
  }

  /** Say who asks, with a token that is valid for longer. */
  renew(token) {
    this.#say({ op: "auth", token });
  }

  /** Hear of a topic from `cursor` on; answers what ends it. A topic has one listener. */
  subscribe(name, listener, cursor = null) {
    if (this.#topics.has(name)) throw new Error(`${name} is listened to already`);
    const topic = new Topic(name, listener);
    topic.cursor = cursor;
    this.#topics.set(name, topic);
    if (this.state === "live") this.#ask(topic);
    return () => this.#leave(topic);
  }

  /** Hear a topic that has ended once more: its job runs again. */
  again(name) {
    const topic = this.#topics.get(name);
    if (topic !== undefined && !topic.open && this.state === "live") this.#ask(topic);
  }

  // ─── the socket ───────────────────────────────────────────────────────────────────────────────

  #connect() {
    this.#hangUp();
    if (globalThis.navigator?.onLine === false) return this.#become("offline");
    this.#become("connecting");
    const token = this.#options.token();
    const socket = (this.#socket = this.#options.open(this.#options.url, ["uvian", `bearer.${token}`]));
    let opened = false;
    this.#timers.connect = setTimeout(() => socket.close(), CONNECT_WITHIN_MS);
    socket.onopen = () => {
      opened = true;
      clearTimeout(this.#timers.connect);
      this.#tries = 0;
      this.#listenForSilence();
      this.#become("live");
      for (const topic of this.#topics.values()) this.#ask(topic);
    };
    socket.onmessage = ({ data }) => {
      this.#listenForSilence();
      this.#hear(JSON.parse(data));
    };
    socket.onclose = ({ code }) => {
      if (this.#socket === socket) this.#lost(code, opened, token);
    };
    return undefined;
  }

  #hangUp() {
    for (const timer of Object.values(this.#timers)) clearTimeout(timer);
    const socket = this.#socket;
    this.#socket = null;
    if (socket !== null) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
    }
    for (const topic of this.#topics.values()) {
      topic.open = false;
      topic.answer = null;
      clearTimeout(topic.timer);
    }
  }

  async #lost(code, opened, token) {
    this.#hangUp();
    if (code === CLOSED.UNAUTHORIZED) return this.#refuse();
    if (code === CLOSED.MISTAKES) return this.#become("closed"); // we do not speak its language: reload
    if (code === CLOSED.LIFETIME) return this.#connect();
    const before = code === CLOSED.GOING_AWAY ? 0 : this.#tries;
    this.#wait(before);
    if (!opened && this.#tries === 1) {
      const accepted = await this.#options.check().catch(() => true);
      if (!accepted && this.state !== "live" && token === this.#options.token()) this.#refuse();
    }
    return undefined;
  }

  #wait(tries) {
    if (globalThis.navigator?.onLine === false) return this.#become("offline");
    this.#tries = tries + 1;
    const pause = pauseBefore(tries, FIRST_PAUSE_MS, LONGEST_PAUSE_MS);
    this.retryAt = Date.now() + pause;
    this.#timers.retry = setTimeout(() => this.#connect(), pause);
    return this.#become("waiting");
  }

  #refuse() {
    this.#hangUp();
    this.#become("refused");
    this.#options.unauthorized();
  }

  #offline() {
    if (this.state === "closed" || this.state === "refused") return;
    this.#hangUp(); // whatever comes back has another address
    this.#become("offline");
  }

  #become(state) {
    if (state !== "waiting") this.retryAt = null;
    if (state === this.state && state !== "waiting") return;
    this.state = state;
    this.dispatchEvent(new Event("change"));
  }

  #listenForSilence() {
    this.#pinged = false;
    clearTimeout(this.#timers.silence);
    const silent = () => {
      if (this.#pinged) return this.#lost(0, true, null);
      this.#pinged = true;
      this.#say({ op: "ping" });
      this.#timers.silence = setTimeout(silent, DEAF_AFTER_MS);
      return undefined;
    };
    this.#timers.silence = setTimeout(silent, PING_AFTER_MS);
  }

  #say(frame) {
    if (this.#socket?.readyState === 1) this.#socket.send(JSON.stringify(frame));
  }

  // ─── topics ───────────────────────────────────────────────────────────────────────────────────

  #ask(topic) {
    clearTimeout(topic.timer);
    topic.open = true;
    topic.answer = null;
    this.#say({ op: "subscribe", topic: topic.name, ...(topic.cursor ? { cursor: topic.cursor } : {}) });
  }

  #askLater(topic) {
    topic.open = false;
    topic.answer = null;
    clearTimeout(topic.timer);
    const pause = pauseBefore(topic.tries, FIRST_PAUSE_MS, LONGEST_PAUSE_MS);
    topic.timer = setTimeout(() => this.state === "live" && this.#ask(topic), pause);
    topic.tries += 1;
  }

  #leave(topic) {
    if (this.#topics.get(topic.name) !== topic) return;
    this.#topics.delete(topic.name);
    clearTimeout(topic.timer);
    if (topic.open) this.#say({ op: "unsubscribe", topic: topic.name });
  }

  #hear(frame) {
    if (frame.op === "expiring") {
      this.dispatchEvent(new CustomEvent("expiring", { detail: frame.expires_in }));
      return;
    }
    const topic = this.#topics.get(frame.op === "event" ? frame.event.topic : frame.topic);
    if (topic === undefined) return; // one that was just left
    switch (frame.op) {
      case "subscribed":
        return this.#placed(topic, frame);
      case "events":
        return this.#told(topic, frame);
      case "event":
        if (topic.answer !== null) this.#tell(topic, frame.event);
        return undefined;
      case "gap":
        // We were too slow, and events fell out. Its `endings` are in what the cursor is answered with.
        return this.#ask(topic);
      case "unsubscribed":
        if (frame.reason === "asked") return undefined; // by an earlier listener
        topic.open = false;
        return frame.reason === "ended" ? topic.listener.ended?.() : this.#refused(topic, frame.reason, "");
      case "error":
        if (PASSING.has(frame.code)) return this.#askLater(topic);
        return this.#refused(topic, frame.code, frame.message);
      default:
        return undefined; // what a newer gateway may add
    }
  }

  #placed(topic, frame) {
    topic.tries = 0;
    topic.answer = { mode: frame.mode, ended: frame.ended };
    topic.next = frame.cursor;
    if (frame.mode !== "resume") {
      // Until all of a state was told there is no place to resume from.
      topic.cursor = null;
      topic.heard = { epoch: null, seq: 0 };
      topic.listener.restart?.(frame.mode);
    }
    this.#told(topic, frame);
  }

  #told(topic, frame) {
    if (topic.answer === null) return;
    const state = topic.answer.mode !== "resume";
    for (const event of frame.events) {
      if (state) topic.listener.event(event);
      else this.#tell(topic, event);
    }
    if (frame.more) return;
    topic.cursor = topic.next;
    topic.heard = place(topic.next);
    topic.listener.placed?.(topic.answer);
  }

  #tell(topic, event) {
    if (topic.knows(event)) return;
    topic.cursor = event.id;
    topic.listener.event(event);
  }

  #refused(topic, code, message) {
    this.#topics.delete(topic.name);
    topic.listener.refused?.({ code, message });
  }
}

/** What asks to be tried again. */
const PASSING = new Set(["unavailable", "rate_limited"]);

/** Where a cursor stands: it is `<epoch>-<seq>-<check>`. */
function place(cursor) {
  const [epoch, seq] = (cursor ?? "").split("-");
  return { epoch, seq: Number(seq) };
}

function openSocket(url, protocols) {
  return new WebSocket(url, protocols);
}

function watchNetwork({ online, offline }) {
  const seen = () => globalThis.document?.visibilityState === "visible" && online();
  globalThis.addEventListener?.("online", online);
  globalThis.addEventListener?.("offline", offline);
  globalThis.document?.addEventListener("visibilitychange", seen);
  return () => {
    globalThis.removeEventListener?.("online", online);
    globalThis.removeEventListener?.("offline", offline);
    globalThis.document?.removeEventListener("visibilitychange", seen);
  };
}
