/** One message, in whatever state it is. */

import { attribute, fill, h, text } from "../dom.js";
import { icon } from "../icons.js";
import { explained, failureOf, mayRunAgain } from "../sentences.js";
import { showProse } from "./prose.js";

const WHO = { user: "You", assistant: "Answer", system: "System" };

export class MessageItem {
  #parts;
  #actions;
  #entry = null;
  #shown = null;
  #who = h("span", { class: "unseen" });
  #body = h("div", { class: "message-body" });
  #foot = h("div", { class: "message-foot" });

  constructor(parts, actions) {
    this.#parts = parts;
    this.#actions = actions;
    this.element = h("li", { class: "message" }, this.#who, this.#body, this.#foot);
  }

  show(entry) {
    this.#entry = entry;
    attribute(this.element, "data-role", entry.role);
    attribute(this.element, "data-state", entry.state);
    attribute(this.element, "data-key", entry.key);
    text(this.#who, `${WHO[entry.role] ?? entry.role}: `);
    if (entry.role === "user") text(this.#body, entry.text);
    else if (entry.state === "waiting") this.#showWaiting(entry.job.status);
    else showProse(this.#body, entry.text);
    this.#showFoot();
  }

  #showWaiting(status) {
    const words = status === "processing" ? "Thinking" : "Waiting for its turn";
    if (this.#body.textContent.trim() === words) return;
    fill(this.#body, h("p", { class: "thinking" }, h("span", { class: "dots", "aria-hidden": "true" }, h("i"), h("i"), h("i")), words));
  }

  #showFoot() {
    const { state, role } = this.#entry;
    const wanted = `${role} ${state}`;
    if (this.#shown === wanted) return; // a button keeps its focus
    this.#shown = wanted;
    fill(this.#foot, ...this.#footOf());
    this.#foot.hidden = this.#foot.childElementCount === 0;
  }

  #footOf() {
    const entry = this.#entry;
    switch (entry.state) {
      case "unsent": {
        const [sentence, next] = explained(entry.problem);
        return [
          h("p", { class: "message-problem" }, h("strong", {}, "Not sent. "), sentence, " ", next),
          h("button", { class: "link", type: "button", onclick: () => this.#actions.sendAgain(entry.key) }, "Send again"),
          h("button", { class: "link", type: "button", onclick: () => this.#actions.takeBack(entry.key) }, "Edit"),
        ];
      }
      case "failed": {
        const [sentence, next] = failureOf({ error: entry.job.error, errorMessage: entry.job.errorMessage });
        return [
          h("p", { class: "message-problem" }, h("strong", {}, sentence), " ", next),
          mayRunAgain({ status: "failed", error: entry.job.error })
            ? h("button", { class: "link", type: "button", onclick: () => this.#actions.retry(entry.question) }, icon("retry"), "Try again")
            : null,
        ];
      }
      case "stopped":
        return [h("span", { class: "tag" }, "Stopped before it began"), h("button", { class: "link", type: "button", onclick: () => this.#actions.retry(entry.question) }, icon("retry"), "Answer after all")];
      case "cancelled":
        return [h("span", { class: "tag" }, "Stopped"), this.#copyButton()];
      case "completed":
        return entry.role === "assistant" ? [this.#copyButton()] : [];
      default:
        return [];
    }
  }

  #copyButton() {
    const label = h("span", {}, "Copy");
    const copy = async () => {
      try {
        await navigator.clipboard.writeText(this.#entry.text);
        text(label, "Copied");
        this.#parts.announcer.say("Copied.");
      } catch {
        text(label, "Not allowed");
      }
      setTimeout(() => text(label, "Copy"), 1500);
    };
    return h("button", { class: "link", type: "button", onclick: copy }, icon("copy"), label);
  }
}
