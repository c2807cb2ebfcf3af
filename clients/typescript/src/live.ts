/**
 * One WebSocket to `/v1/live`, and the topics on it, which outlive every loss of it.
 *
 * After any loss each topic is subscribed to again from the cursor of its last event, so that a listener
 * receives every event once, or learns in `onState` that its history could not be continued.
 */

import { pauseBefore } from "./backoff.js";
import { isOffline, isRefused, watchNetwork } from "./network.js";
import { type EndReason, type Frame, type Listener, type Subscription, Topic } from "./topic.js";

export type { EndReason, Listener, Subscription, TopicState } from "./topic.js";

/** The part of a WebSocket that is used; browsers, Node 22 and `ws` have it. */
export interface WebSocketLike {
  readonly readyState: number;
  onopen: ((event: any) => void) | null;
  onmessage: ((event: any) => void) | null;
  onclose: ((event: any) => void) | null;
  onerror: ((event: any) => void) | null;
  send(data: string): void;
  close(): void;
}

/** `waiting`: for the next try. `offline`: the browser says so. `refused`: the token was not accepted. */
export type ConnectionState = "closed" | "connecting" | "live" | "waiting" | "offline" | "refused";

export interface LiveOptions {
  /** `wss://<gateway>/v1/live`. */
  url: string;
  /** An access token that is valid now; called before every connection, and when one is about to expire. */
  token: () => Promise<string>;
  /** Where there is no global one: `ws`, on Node before 22. */
  WebSocket?: new (url: string, protocols: string[]) => WebSocketLike;
  onConnection?: (state: ConnectionState) => void;
}

const FIRST_PAUSE_MS = 300;
const LONGEST_PAUSE_MS = 20_000;
const PING_AFTER_MS = 15_000; // of silence; the gateway pings too, but a page cannot see that
const PONG_WITHIN_MS = 8_000;
const CONNECT_WITHIN_MS = 10_000;

/** Why the gateway closes a connection: docs/contracts/live.md. */
const CLOSED = { MISTAKES: 4400, UNAUTHORIZED: 4401, LIFETIME: 4408 };

/** Errors of a topic that pass. */
const TRANSIENT = new Set(["unavailable", "rate_limited"]);

type Timer = ReturnType<typeof setTimeout> | undefined;

export class Live {
  readonly #options: LiveOptions;
  readonly #topics = new Map<string, Topic>();
  #state: ConnectionState = "closed";
  #socket: WebSocketLike | null = null;
  #attempt = 0; // which connection it is: what an earlier one waited for comes too late
  #tries = 0;
  #token: string | null = null; // the newest that the gateway was given
  #refusedToken: string | null = null;
  #timers: { retry?: Timer; silence?: Timer; connect?: Timer } = {};
  #stopWatching: () => void = () => {};

  constructor(options: LiveOptions) {
    this.#options = options;
  }

  get state(): ConnectionState {
    return this.#state;
  }

  /** Receive a topic: `job:<id>`, `user:<id>` or `conversation:<id>`. Connects, and stays connected. */
  follow(name: string, listener: Listener): Subscription {
    name = name.toLowerCase(); // an id may be written in capitals; the log knows it in one way
    if (this.#topics.has(name)) throw new Error(`${name} is followed already`);
    const topic: Topic = new Topic(name, listener, () => this.#unsubscribe(topic));
    this.#topics.set(name, topic);
    if (this.#state === "live") this.#subscribe(topic);
    if (this.#state === "closed" || this.#state === "refused") this.#start();
    return topic;
  }

  /** Connect now instead of after the pause; for a button beside `waiting`. */
  reconnect(): void {
    if (this.#state === "waiting" || this.#state === "offline") void this.#connect();
  }

  /** Close the connection and forget every topic. */
  close(): void {
    this.#stopWatching();
    this.#disconnect();
    this.#topics.clear();
    this.#become("closed");
  }

  // ─── the connection ───────────────────────────────────────────────────────────────────────────

  #start(): void {
    this.#stopWatching();
    this.#stopWatching = watchNetwork(
      () => this.reconnect(),
      () => this.#offline(),
    );
    this.#tries = 0;
    void this.#connect();
  }

  async #connect(): Promise<void> {
    this.#disconnect();
    if (isOffline()) return this.#become("offline");
    const attempt = this.#attempt;
    this.#become("connecting");
    let token: string;
    try {
      token = await this.#options.token();
    } catch {
      if (attempt === this.#attempt) this.#retryLater();
      return;
    }
    if (attempt !== this.#attempt) return;
    if (token === this.#refusedToken) return this.#refuse();
    this.#open(token);
  }

  #open(token: string): void {
    const Socket = this.#options.WebSocket ?? (globalThis.WebSocket as NonNullable<LiveOptions["WebSocket"]>);
    const socket = (this.#socket = new Socket(this.#options.url, ["uvian", `bearer.${token}`]));
    this.#token = token;
    this.#timers.connect = setTimeout(() => this.#neverOpened(token), CONNECT_WITHIN_MS);
    socket.onopen = () => {
      clearTimeout(this.#timers.connect);
      this.#tries = 0;
      this.#watchForSilence();
      this.#become("live");
      for (const topic of this.#topics.values()) this.#subscribe(topic);
      socket.onclose = ({ code }) => this.#closed(code, token);
    };
    socket.onmessage = ({ data }) => {
      this.#watchForSilence();
      this.#receive(JSON.parse(String(data)) as Frame);
    };
    socket.onerror = () => {}; // `onclose` comes after it
    socket.onclose = () => this.#neverOpened(token);
  }

  #disconnect(): void {
    this.#attempt += 1;
    for (const timer of Object.values(this.#timers)) clearTimeout(timer);
    const socket = this.#socket;
    this.#socket = null;
    if (socket !== null) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
    }
    for (const topic of this.#topics.values()) topic.reset();
  }

  /** The network, or the token: which of them it was is found out during the pause. */
  async #neverOpened(token: string): Promise<void> {
    this.#disconnect();
    this.#retryLater();
    const attempt = this.#attempt;
    if (this.#state !== "waiting" || !(await isRefused(this.#options.url, token, CONNECT_WITHIN_MS))) return;
    if (attempt === this.#attempt) this.#closed(CLOSED.UNAUTHORIZED, token);
  }

  #closed(code: number, token: string): void {
    this.#disconnect();
    if (code === CLOSED.MISTAKES) return this.#become("closed"); // it knows another protocol than we do
    if (code === CLOSED.UNAUTHORIZED) this.#refusedToken = token; // and there may be a better one
    if (code === CLOSED.LIFETIME || code === CLOSED.UNAUTHORIZED) return void this.#connect();
    return this.#retryLater();
  }

  #retryLater(): void {
    if (isOffline()) return this.#become("offline");
    const pause = pauseBefore(this.#tries, FIRST_PAUSE_MS, LONGEST_PAUSE_MS);
    this.#tries += 1;
    this.#timers.retry = setTimeout(() => void this.#connect(), pause);
    this.#become("waiting");
  }

  #refuse(): void {
    this.#disconnect();
    this.#become("refused");
    for (const topic of [...this.#topics.values()]) {
      this.#end(topic, { reason: "refused", code: "unauthorized", message: "The token is not accepted." });
    }
  }

  #offline(): void {
    if (this.#state === "closed" || this.#state === "refused") return;
    this.#disconnect(); // whatever comes back has another address
    this.#become("offline");
  }

  #become(state: ConnectionState): void {
    if (state === this.#state) return;
    this.#state = state;
    this.#options.onConnection?.(state);
  }

  #watchForSilence(): void {
    clearTimeout(this.#timers.silence);
    this.#timers.silence = setTimeout(() => {
      this.#send({ op: "ping" });
      this.#timers.silence = setTimeout(() => this.#closed(0, ""), PONG_WITHIN_MS);
    }, PING_AFTER_MS);
  }

  #send(frame: Record<string, unknown>): void {
    if (this.#socket?.readyState === 1) this.#socket.send(JSON.stringify(frame));
  }

  async #renewToken(): Promise<void> {
    const attempt = this.#attempt;
    // Without a newer one the connection will be closed, and `token` called again.
    const token = await this.#options.token().catch(() => null);
    if (token === null || token === this.#token || attempt !== this.#attempt) return;
    this.#token = token;
    this.#send({ op: "auth", token });
  }

  // ─── topics ───────────────────────────────────────────────────────────────────────────────────

  #subscribe(topic: Topic): void {
    topic.reset();
    topic.isOpen = true;
    this.#send({ op: "subscribe", topic: topic.name, ...(topic.cursor === null ? {} : { cursor: topic.cursor }) });
  }

  #subscribeLater(topic: Topic): void {
    topic.reset();
    const pause = pauseBefore(topic.tries, FIRST_PAUSE_MS, LONGEST_PAUSE_MS);
    topic.timer = setTimeout(() => this.#state === "live" && this.#subscribe(topic), pause);
    topic.tries += 1;
  }

  #unsubscribe(topic: Topic): void {
    if (this.#topics.get(topic.name) !== topic) return;
    this.#topics.delete(topic.name);
    if (topic.isOpen) this.#send({ op: "unsubscribe", topic: topic.name });
    topic.reset();
  }

  #end(topic: Topic, end: EndReason): void {
    this.#topics.delete(topic.name);
    topic.reset();
    topic.listener.onEnd?.(end);
  }

  #receive(frame: Frame): void {
    if (frame.op === "expiring") return void this.#renewToken();
    const topic = this.#topics.get((frame.op === "event" ? frame.event.topic : frame.topic) ?? "");
    if (topic === undefined) return; // one that was just left
    switch (frame.op) {
      case "subscribed":
        return topic.subscribed(frame);
      case "events":
        return topic.page(frame);
      case "event":
        return topic.event(frame.event);
      case "gap":
        // We were too slow, and events fell out. The terminal events it names are in the next answer.
        return this.#subscribe(topic);
      case "unsubscribed":
        // An earlier subscription to this topic, which was stopped, may have ended as well.
        if (frame.reason === "requested" || !topic.isAnswered) return undefined;
        return this.#end(
          topic,
          frame.reason === "ended" ? { reason: "ended" } : { reason: "refused", code: frame.reason, message: "" },
        );
      case "error":
        if (TRANSIENT.has(frame.code)) return this.#subscribeLater(topic);
        return this.#end(topic, { reason: "refused", code: frame.code, message: frame.message });
      default:
        return undefined; // what a newer gateway may add
    }
  }
}
