/** One topic of a live connection: who listens to it, and how far it was delivered. */

import type { UvianEvent } from "./events.js";

/** Where a topic begins, or goes on, each time that it was subscribed to. */
export interface TopicState {
  /**
   * `resume`: all that was missed has been delivered to `onEvent`. `snapshot`: forget what you knew, `state`
   * is how it stands. `expired`: read the rows now, then apply `state` (messages that are being written, the
   * terminal event of a job that has ended).
   */
  mode: "resume" | "snapshot" | "expired";
  state: UvianEvent[];
  /** Of a job: its latest run has ended. */
  ended: boolean;
  cursor: string;
}

/** `ended`: the job has. `refused`: this topic may not be received, by `code`. */
export type EndReason = { reason: "ended" } | { reason: "refused"; code: string; message: string };

export interface Listener {
  /** Go on after this event: the `id` of one, or `Subscription.cursor`. */
  cursor?: string | null;
  /** The next event, never twice. */
  onEvent?: (event: UvianEvent) => void;
  onState?: (state: TopicState) => void;
  /** Nothing follows. */
  onEnd?: (end: EndReason) => void;
}

export interface Subscription {
  /** Of what was delivered last; keep it, and give it to another `follow`. */
  readonly cursor: string | null;
  stop(): void;
}

/** What a gateway answers to `subscribe`. */
export interface SubscribedFrame {
  op: "subscribed";
  topic: string;
  mode: TopicState["mode"];
  cursor: string;
  ended: boolean;
  events: UvianEvent[];
  more: boolean;
}

/** What a gateway sends: docs/contracts/live.md. */
export type Frame =
  | SubscribedFrame
  | { op: "events"; topic: string; events: UvianEvent[]; more: boolean }
  | { op: "event"; event: UvianEvent; topic?: undefined }
  | { op: "gap"; topic: string }
  | { op: "unsubscribed"; topic: string; reason: string }
  | { op: "error"; code: string; message: string; topic?: string }
  | { op: "expiring" | "authenticated" | "pong"; topic?: undefined };

export class Topic implements Subscription {
  cursor: string | null;
  /** It was requested on this connection. */
  isOpen = false;
  /** Subscriptions that failed, one after the other. */
  tries = 0;
  timer: ReturnType<typeof setTimeout> | undefined;
  /** The gateway's answer on this connection; null until it is there. */
  #answer: SubscribedFrame | null = null;
  /** Of a snapshot, until all of it is here. */
  #state: UvianEvent[] = [];
  #delivered: Position | null = null;

  constructor(
    readonly name: string,
    readonly listener: Listener,
    readonly stop: () => void,
  ) {
    this.cursor = listener.cursor ?? null;
  }

  /** Whether the gateway has answered on this connection. */
  get isAnswered(): boolean {
    return this.#answer !== null;
  }

  /** The connection, or this subscription on it, is over. */
  reset(): void {
    clearTimeout(this.timer);
    this.isOpen = false;
    this.#answer = null;
  }

  /** The gateway has answered: the first page of what was missed, or of a snapshot. */
  subscribed(frame: SubscribedFrame): void {
    clearTimeout(this.timer); // the gateway has tried again by itself
    this.isOpen = true;
    this.tries = 0;
    this.#answer = frame;
    this.#state = [];
    this.page(frame);
  }

  /** A page of the answer, the first or a later one. */
  page({ events, more }: { events: UvianEvent[]; more: boolean }): void {
    for (const event of events) {
      if (this.#answer?.mode === "resume") this.event(event);
      else this.#state.push(event);
    }
    // Until all of a snapshot is here the old cursor stands: a snapshot is delivered whole, or not at all.
    if (more || this.#answer === null) return;
    const { mode, cursor, ended } = this.#answer;
    const state = this.#state;
    this.#state = [];
    this.cursor = cursor;
    this.#delivered = positionOf(cursor);
    this.listener.onState?.({ mode, state, ended, cursor });
  }

  /** The next event, unless it was delivered, or belongs to an earlier subscription. */
  event(event: UvianEvent): void {
    if (this.#answer === null) return;
    const { epoch, seq } = positionOf(event.id);
    if (this.#delivered !== null && epoch === this.#delivered.epoch && seq <= this.#delivered.seq) return;
    this.#delivered = { epoch, seq };
    this.cursor = event.id;
    this.listener.onEvent?.(event);
  }
}

interface Position {
  epoch: string;
  seq: number;
}

/** A cursor is `<epoch>-<seq>-<check>`. */
function positionOf(cursor: string): Position {
  const [epoch = "", seq] = cursor.split("-");
  return { epoch, seq: Number(seq) };
}
