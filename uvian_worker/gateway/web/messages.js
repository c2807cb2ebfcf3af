/**
 * Messages put together from events: the text of each, byte for byte as it is stored.
 *
 * Knows neither the page nor the network; the rules are those of docs/contracts/events.md, and the same
 * as in `uvian_worker.events.assembler`. `void` is a message that will not be; `unknown` is one of
 * which something was missed: it is in the row, or will be told whole while it is still being written.
 */

const utf8 = new TextEncoder();

export class AssembledMessage {
  constructor(id) {
    this.id = id;
    this.state = "unknown"; // writing | completed | cancelled | void | unknown
    this.replyTo = null;
    this.run = 0;
    this.text = "";
    this.bytes = 0; // of the text in UTF-8, as offsets count
    this.told = null; // {length, sha256} of what is stored
  }

  write(text) {
    this.text += text;
    this.bytes += utf8.encode(text).length;
  }

  clear() {
    this.text = "";
    this.bytes = 0;
  }
}

export class MessageAssembler {
  /** All that were heard of, by id, in the order of their beginning. */
  messages = new Map();

  /** Events were missed: what was being written may have grown, ended or begun anew. */
  forget() {
    for (const message of this.messages.values()) {
      if (message.state === "writing") {
        message.state = "unknown";
        message.run = 0;
      }
    }
  }

  /** Take in an event, in order and once; answers the message it changed, or null. */
  apply(event) {
    const happened = HAPPENED[event.type];
    if (happened === undefined) return null;
    const id = event.data.message_id;
    let message = this.messages.get(id);
    if (message === undefined) this.messages.set(id, (message = new AssembledMessage(id)));
    if (event.run < message.run) return null;
    happened(message, event.run, event.data);
    message.run = event.run;
    return message;
  }
}

const HAPPENED = {
  "message.started": (message, run, data) => {
    message.state = "writing";
    message.replyTo = data.reply_to;
    message.clear();
  },
  "message.delta": (message, run, data) => {
    // Of a text whose start was lost nobody knows the run; it is the one that goes on writing.
    if (message.state !== "writing" || (message.run !== 0 && message.run !== run)) message.clear();
    const fits = data.offset === message.bytes;
    if (fits) message.write(data.text);
    message.state = fits ? "writing" : "unknown";
  },
  "message.snapshot": (message, run, data) => {
    message.state = "writing";
    message.clear();
    message.write(data.text);
  },
  "message.reset": (message, run, data) => {
    message.state = data.final ? "void" : "writing";
    message.clear();
  },
  "message.completed": (message, run, data) => {
    if (data.text !== null) {
      message.clear();
      message.write(data.text);
    }
    message.told = { length: data.length, sha256: data.sha256 };
    message.state = data.length === message.bytes ? data.status : "unknown";
  },
};

/**
 * Whether a completed message is what is stored. Where the page was not loaded over https there is no
 * digest, and the length, which `apply` has compared, must do.
 */
export async function isWhole(message) {
  if (message.told === null || message.state === "unknown") return false;
  if (globalThis.crypto?.subtle === undefined) return true;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", utf8.encode(message.text)));
  const hex = [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex === message.told.sha256;
}
