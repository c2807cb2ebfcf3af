/**
 * One WebSocket to `/v1/live`, and the topics on it, which outlive every loss of it.
 *
 * After any loss each topic is subscribed to again from the cursor of its last event, so that a listener
 * hears every event once, or hears in `onState` that its history could not be continued.
 */

import { pauseBefore } from "./backoff.js";
import type { UvianEvent } from "./events.js";

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

/** `waiting` is for the next try, `offline` says the browser, `refused` is a token that was not accepted. */
export type ConnectionState = "closed" | "connecting" | "live" | "waiting" | "offline" | "refused";

export interface LiveOptions {
  /** `wss://<gateway>/v1/live`. */
  url: string;
  /** An access token that is valid now; asked before every connection, and when one is about to expire. */
  token: () => Promise<string>;
  /** Where there is no global one: `ws`, on Node before 22. */
  WebSocket?: new (url: string, protocols: string[]) => WebSocketLike;
  onConnection?: (state: ConnectionState) => void;
}

/** Where a topic begins, or goes on, each time that it was subscribed to. */
export interface TopicState {
  /**
   * `resume`: all that was missed has been told by `onEvent`. `snapshot`: forget what you knew, `state` is
   * how it stands. `expired`: read the rows now, then apply `state` (messages that are being written, the ending of
   * a job that has ended).
   */
  mode: "resume" | "snapshot" | "expired";
  state: UvianEvent[];
  /** Of a job: its latest run has ended. */
  ended: boolean;
  cursor: string;
}

/** `ended`: the job has. `refused`: this topic is not to be heard, by `code`. */
export type EndReason = { reason: "ended" } | { reason: "refused"; code: string; message: string };

export interface Listener {
  /** Go on after this event: the `id` of one, or `Following.cursor`. */
  cursor?: string | null;
  /** The next event, never twice. */
  onEvent?: (event: UvianEvent) => void;
  onState?: (state: TopicState) => void;
  /** Nothing follows. */
  onEnd?: (end: EndReason) => void;
}

export interface Following {
  /** Of what was told last; keep it, and hand it to another `follow`. */
  readonly cursor: string | null;
  stop(): void;
}

const FIRST_PAUSE_MS = 300;
const LONGEST_PAUSE_MS = 20_000;
const PING_AFTER_MS = 15_000; // of silence; the other side pings too, but a page cannot hear that
const DEAF_AFTER_MS = 8_000; // without an answer to a ping
const CONNECT_WITHIN_MS = 10_000;

/** Why the gateway closes a socket; see uvian_worker/gateway/live/session.py. */
const CLOSED = { GOING_AWAY: 1001, MISTAKES: 4400, UNAUTHORIZED: 4401, LIFETIME: 4408 };

/** What asks to be tried again. */
const PASSING = new Set(["unavailable", "rate_limited"]);

type Timer = ReturnType<typeof setTimeout> | undefined;

interface Answer {
  op: "subscribed";
  topic: string;
  mode: TopicState["mode"];
  cursor: string;
  ended: boolean;
  events: UvianEvent[];
  more: boolean;
}

type Frame =
  | Answer
  | { op: "events"; topic: string; events: UvianEvent[]; more: boolean }
  | { op: "event"; event: UvianEvent; topic?: undefined }
  | { op: "gap"; topic: string }
  | { op: "unsubscribed"; topic: string; reason: string }
  | { op: "error"; code: string; message: string; topic?: string }
  | { op: "expiring" | "authenticated" | "pong"; topic?: undefined };

class Topic implements Following {
  cursor: string | null;
  heard: { epoch: string; seq: number } | null = null;
  /** Of the subscription that is being told, page by page. */
  answer: Answer | null = null;
  state: UvianEvent[] = [];
  /** The gateway knows of it on this socket. */
  open = false;
  tries = 0;
  timer: Timer;

  constructor(
    readonly name: string,
    readonly listener: Listener,
    readonly stop: () => void,
  ) {
    this.cursor = listener.cursor ?? null;
  }

  tell(event: UvianEvent): void {
    const place = placeOf(event.id);
    if (this.heard !== null && place.epoch === this.heard.epoch && place.seq <= this.heard.seq) return;
    this.heard = place;
    this.cursor = event.id;
    this.listener.onEvent?.(event);
  }

  rest(): void {
    clearTimeout(this.timer);
    this.open = false;
    this.answer = null;
  }
}

export class Live {
  readonly #options: LiveOptions;
  readonly #topics = new Map<string, Topic>();
  #state: ConnectionState = "closed";
  #socket: WebSocketLike | null = null;
  #attempt = 0; // which connection it is: an answer to an earlier one comes too late
  #tries = 0;
  #refusedToken: string | null = null;
  #timers: { retry?: Timer; silence?: Timer; connect?: Timer } = {};
  #detach: () => void = () => {};

  constructor(options: LiveOptions) {
    this.#options = options;
  }

  get state(): ConnectionState {
    return this.#state;
  }

  /** Hear of a topic: `job:<id>`, `user:<id>` or `conversation:<id>`. Connects, and stays connected. */
  follow(name: string, listener: Listener): Following {
    name = name.toLowerCase(); // an id may be written in capitals; the log knows it in one way
    if (this.#topics.has(name)) throw new Error(`${name} is followed already`);
    const topic: Topic = new Topic(name, listener, () => this.#leave(topic));
    this.#topics.set(name, topic);
    if (this.#state === "live") this.#ask(topic);
    if (this.#state === "closed" || this.#state === "refused") this.#start();
    return topic;
  }

  /** Let go of the socket and of every topic. */
  close(): void {
    this.#detach();
    this.#hangUp();
    this.#topics.clear();
    this.#become("closed");
  }

  // ─── the socket ───────────────────────────────────────────────────────────────────────────────

  #start(): void {
    this.#detach();
    this.#detach = watchNetwork(
      () => (this.#state === "waiting" || this.#state === "offline") && void this.#connect(),
      () => this.#offline(),
    );
    this.#tries = 0;
    void this.#connect();
  }

  async #connect(): Promise<void> {
    this.#hangUp();
    if (isOffline()) return this.#become("offline");
    const attempt = this.#attempt;
    this.#become("connecting");
    let token: string;
    try {
      token = await this.#options.token();
    } catch {
      if (attempt === this.#attempt) this.#wait(this.#tries);
      return;
    }
    if (attempt !== this.#attempt) return;
    if (token === this.#refusedToken) return this.#refuse();
    this.#open(token);
  }

  #open(token: string): void {
    const Socket = this.#options.WebSocket ?? (globalThis.WebSocket as NonNullable<LiveOptions["WebSocket"]>);
    const socket = (this.#socket = new Socket(this.#options.url, ["uvian", `bearer.${token}`]));
    this.#timers.connect = setTimeout(() => this.#lost(0, token), CONNECT_WITHIN_MS);
    socket.onopen = () => {
      clearTimeout(this.#timers.connect);
      this.#tries = 0;
      this.#listenForSilence();
      this.#become("live");
      for (const topic of this.#topics.values()) this.#ask(topic);
    };
    socket.onmessage = ({ data }) => {
      this.#listenForSilence();
      this.#hear(JSON.parse(String(data)) as Frame);
    };
    socket.onerror = () => {}; // `onclose` comes after it
    socket.onclose = ({ code }) => this.#socket === socket && this.#lost(code, token);
  }

  #hangUp(): void {
    this.#attempt += 1;
    for (const timer of Object.values(this.#timers)) clearTimeout(timer);
    const socket = this.#socket;
    this.#socket = null;
    if (socket !== null) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
    }
    for (const topic of this.#topics.values()) topic.rest();
  }

  #lost(code: number, token: string): void {
    this.#hangUp();
    if (code === CLOSED.MISTAKES) return this.#become("closed"); // we do not speak its language
    if (code === CLOSED.UNAUTHORIZED) this.#refusedToken = token; // and there may be a better one
    if (code === CLOSED.LIFETIME || code === CLOSED.UNAUTHORIZED) return void this.#connect();
    return this.#wait(code === CLOSED.GOING_AWAY ? 0 : this.#tries);
  }

  #wait(tries: number): void {
    if (isOffline()) return this.#become("offline");
    this.#tries = tries + 1;
    this.#timers.retry = setTimeout(() => void this.#connect(), pauseBefore(tries, FIRST_PAUSE_MS, LONGEST_PAUSE_MS));
    this.#become("waiting");
  }

  #refuse(): void {
    this.#hangUp();
    this.#become("refused");
    for (const topic of [...this.#topics.values()]) {
      this.#end(topic, { reason: "refused", code: "unauthorized", message: "The token is not accepted." });
    }
  }

  #offline(): void {
    if (this.#state === "closed" || this.#state === "refused") return;
    this.#hangUp(); // whatever comes back has another address
    this.#become("offline");
  }

  #become(state: ConnectionState): void {
    if (state === this.#state) return;
    this.#state = state;
    this.#options.onConnection?.(state);
  }

  #listenForSilence(): void {
    clearTimeout(this.#timers.silence);
    this.#timers.silence = setTimeout(() => {
      this.#say({ op: "ping" });
      this.#timers.silence = setTimeout(() => this.#lost(0, ""), DEAF_AFTER_MS);
    }, PING_AFTER_MS);
  }

  #say(frame: Record<string, unknown>): void {
    if (this.#socket?.readyState === 1) this.#socket.send(JSON.stringify(frame));
  }

  async #renew(): Promise<void> {
    const attempt = this.#attempt;
    // Without a new one the socket will be closed, and `token` asked again.
    const token = await this.#options.token().catch(() => null);
    if (token !== null && attempt === this.#attempt) this.#say({ op: "auth", token });
  }

  // ─── topics ───────────────────────────────────────────────────────────────────────────────────

  #ask(topic: Topic): void {
    topic.rest();
    topic.open = true;
    this.#say({ op: "subscribe", topic: topic.name, ...(topic.cursor === null ? {} : { cursor: topic.cursor }) });
  }

  #askLater(topic: Topic): void {
    topic.rest();
    const pause = pauseBefore(topic.tries, FIRST_PAUSE_MS, LONGEST_PAUSE_MS);
    topic.timer = setTimeout(() => this.#state === "live" && this.#ask(topic), pause);
    topic.tries += 1;
  }

  #leave(topic: Topic): void {
    if (this.#topics.get(topic.name) !== topic) return;
    this.#topics.delete(topic.name);
    if (topic.open) this.#say({ op: "unsubscribe", topic: topic.name });
    topic.rest();
  }

  #end(topic: Topic, end: EndReason): void {
    this.#topics.delete(topic.name);
    topic.rest();
    topic.listener.onEnd?.(end);
  }

  #hear(frame: Frame): void {
    if (frame.op === "expiring") return void this.#renew();
    const topic = this.#topics.get((frame.op === "event" ? frame.event.topic : frame.topic) ?? "");
    if (topic === undefined) return; // one that was just left
    switch (frame.op) {
      case "subscribed":
        topic.tries = 0;
        topic.answer = frame;
        topic.state = [];
        return this.#told(topic, topic.answer, frame);
      case "events":
        return topic.answer === null ? undefined : this.#told(topic, topic.answer, frame);
      case "event":
        return topic.answer === null ? undefined : topic.tell(frame.event);
      case "gap":
        // We were too slow, and events fell out. Its `endings` are in what the cursor is answered with.
        return this.#ask(topic);
      case "unsubscribed":
        if (frame.reason === "asked") return undefined; // by an earlier listener
        return this.#end(
          topic,
          frame.reason === "ended" ? { reason: "ended" } : { reason: "refused", code: frame.reason, message: "" },
        );
      case "error":
        if (PASSING.has(frame.code)) return this.#askLater(topic);
        return this.#end(topic, { reason: "refused", code: frame.code, message: frame.message });
      default:
        return undefined; // what a newer gateway may add
    }
  }

  #told(topic: Topic, { mode, cursor, ended }: Answer, page: { events: UvianEvent[]; more: boolean }): void {
    for (const event of page.events) {
      if (topic.answer === null) return; // its listener has stopped
      if (mode === "resume") topic.tell(event);
      else topic.state.push(event);
    }
    // Until all of a state is here the old cursor stands: a state is told whole, or not at all.
    if (page.more || topic.answer === null) return;
    topic.cursor = cursor;
    topic.heard = placeOf(cursor);
    topic.listener.onState?.({ mode, state: topic.state, ended, cursor });
    topic.state = [];
  }
}

/** Where a cursor stands: it is `<epoch>-<seq>-<check>`. */
function placeOf(cursor: string): { epoch: string; seq: number } {
  const [epoch = "", seq] = cursor.split("-");
  return { epoch, seq: Number(seq) };
}

/** Node 21 has a navigator, which knows nothing of networks. */
function isOffline(): boolean {
  return globalThis.navigator?.onLine === false;
}

function watchNetwork(online: () => void, offline: () => void): () => void {
  const page = globalThis.document as Document | undefined;
  if (page === undefined) return () => {};
  const seen = () => page.visibilityState === "visible" && online();
  globalThis.addEventListener("online", online);
  globalThis.addEventListener("offline", offline);
  page.addEventListener("visibilitychange", seen);
  return () => {
    globalThis.removeEventListener("online", online);
    globalThis.removeEventListener("offline", offline);
    page.removeEventListener("visibilitychange", seen);
  };
}
