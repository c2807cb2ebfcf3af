/**
 * Messages put together from events: the text of each, byte for byte as it is stored. The rules are those
 * of docs/contracts/events.md; the worker's own assembler follows the same.
 */

import type { MessageCompleted, UvianEvent } from "./events.js";

/**
 * `void` is a message that will not be. `unknown` is one of which something was missed: read the row, or wait
 * for its snapshot while it is still being written.
 */
export type MessageState = "writing" | "completed" | "cancelled" | "void" | "unknown";

export class AssembledMessage {
  readonly id: string;
  state: MessageState = "unknown";
  replyTo: string | null = null;
  run = 0;
  text = "";
  /** Of the text in UTF-8, as offsets count. */
  bytes = 0;
  /** What is stored, once it is. */
  stored: Pick<MessageCompleted["data"], "length" | "sha256"> | null = null;

  constructor(id: string) {
    this.id = id;
  }

  /**
   * Whether a completed message is what is stored, by its hash. A page that was not loaded over https has
   * none: there the length counts, which was compared when the message was completed.
   */
  async isWhole(): Promise<boolean> {
    if (this.stored === null || this.state === "unknown") return false;
    if (globalThis.crypto?.subtle === undefined) return true;
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", utf8.encode(this.text)));
    return [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("") === this.stored.sha256;
  }

  /** @internal */
  write(text: string): void {
    this.text += text;
    this.bytes += utf8.encode(text).length;
  }

  /** @internal */
  clear(): void {
    this.text = "";
    this.bytes = 0;
  }
}

type MessageEvent = Extract<UvianEvent, { data: { message_id: string } }>;

/** Apply the events of a topic in order, as `Live` delivers them. */
export class MessageAssembler {
  readonly #messages = new Map<string, AssembledMessage>();

  /** All that had an event, by id, in the order of their first one. */
  get messages(): ReadonlyMap<string, AssembledMessage> {
    return this.#messages;
  }

  /** Events were missed: what was being written may have grown, ended or started again. Then apply `state`. */
  restart(state: readonly UvianEvent[] = []): void {
    for (const message of this.#messages.values()) {
      if (message.state === "writing") {
        message.state = "unknown";
        message.run = 0;
      }
    }
    for (const event of state) this.apply(event);
  }

  /** Apply an event; returns the message it changed, or null. */
  apply(event: UvianEvent): AssembledMessage | null {
    if (!isAboutMessage(event)) return null;
    const id = event.data.message_id;
    const message = this.#messages.get(id) ?? new AssembledMessage(id);
    this.#messages.set(id, message);
    if (event.run < message.run) return null;
    change(message, event);
    message.run = event.run;
    return message;
  }
}

const utf8 = new TextEncoder();

/** A newer gateway may send more of them. */
const TYPES: ReadonlySet<string> = new Set<MessageEvent["type"]>([
  "message.started",
  "message.delta",
  "message.snapshot",
  "message.reset",
  "message.completed",
]);

function isAboutMessage(event: UvianEvent): event is MessageEvent {
  return TYPES.has(event.type);
}

function change(message: AssembledMessage, event: MessageEvent): void {
  switch (event.type) {
    case "message.started":
      message.state = "writing";
      message.replyTo = event.data.reply_to;
      message.clear();
      break;
    case "message.delta": {
      // The run of a text whose start was missed is not known: it is the run that goes on writing.
      const goesOn = message.state === "writing" && (message.run === 0 || message.run === event.run);
      if (!goesOn) message.clear();
      const fits = event.data.offset === message.bytes;
      if (fits) message.write(event.data.text);
      message.state = fits ? "writing" : "unknown";
      break;
    }
    case "message.snapshot":
      message.state = "writing";
      message.clear();
      message.write(event.data.text);
      break;
    case "message.reset":
      message.state = event.data.final ? "void" : "writing";
      message.clear();
      break;
    case "message.completed":
      if (event.data.text !== null) {
        message.clear();
        message.write(event.data.text);
      }
      message.stored = { length: event.data.length, sha256: event.data.sha256 };
      message.state = event.data.length === message.bytes ? event.data.status : "unknown";
      break;
  }
}
