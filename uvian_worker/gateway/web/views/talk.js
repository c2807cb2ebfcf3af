/** One conversation: its messages, the answer that is being written, and a field for the next message. */

import { Thread } from "../data/thread.js";
import { arrange, attribute, fill, h, text } from "../dom.js";
import { shortened } from "../format.js";
import { icon } from "../icons.js";
import { explained } from "../sentences.js";
import { certain } from "./certain.js";
import { showProblem } from "./fields.js";
import { MessageItem } from "./message.js";

const NEAR_END_PX = 80;
const IDEAS = ["What can you do?", "Suggest colours for an autumn market", "How many words are in “to be or not to be”?"];

export class Talk {
  #parts;
  #hooks;
  #thread = null;
  #subscription = null;
  #onJob = (event) => this.#thread?.receiveJob(event.detail);
  #items = new Map();
  #frame = null;
  #atEnd = true;
  #stopping = false;
  #announced = new Set();
  #title = h("h2", { class: "talk-title", tabindex: "-1" });
  #list = h("ol", { class: "messages" });
  #earlier = h("button", { class: "secondary small", type: "button", hidden: true }, "Earlier messages");
  #scroll;
  #toEnd = h("button", { class: "to-end", type: "button", hidden: true, "aria-label": "To the latest message" }, icon("down"));
  #field;
  #send = h("button", { class: "primary round send", type: "submit", "aria-label": "Send", title: "Send (Enter)" }, icon("send"));
  #stop = h("button", { class: "secondary stop", type: "button", hidden: true }, icon("stop"), h("span", {}, "Stop"));
  #problem = h("div", { class: "problem", role: "alert", hidden: true });
  #welcome;
  #delete;

  constructor(parts, id, hooks) {
    this.#parts = parts;
    this.#hooks = hooks;
    this.id = id;
    this.#field = h("textarea", { id: "say", rows: 1, maxlength: 100000, placeholder: "Write a message", "aria-describedby": "say-hint" });
    this.#welcome = this.#greeting();
    this.#scroll = h("div", { class: "messages-pane", tabindex: "0", role: "region", "aria-label": "Messages" }, this.#welcome, this.#earlier, this.#list);
    this.#delete = certain("Delete this conversation", "Delete for good?", () => this.#remove());
    this.element = h(
      "div",
      { class: "talk" },
      h("div", { class: "talk-head" }, h("a", { class: "quiet to-list", href: "#/chat", "aria-label": "All conversations" }, icon("back")), this.#title, this.#delete),
      this.#scroll,
      h("div", { class: "talk-foot" }, this.#toEnd, this.#problem, this.#composer()),
    );
    this.#scroll.addEventListener("scroll", () => this.#noticeScroll(), { passive: true });
    this.#toEnd.addEventListener("click", () => this.#scrollToEnd());
    this.#earlier.addEventListener("click", () => this.#loadEarlier());
    this.#stop.addEventListener("click", () => this.#stopAnswer());
    parts.feed.addEventListener("job", this.#onJob);
  }

  start({ focus }) {
    if (this.id !== null) this.#follow();
    this.rename();
    this.#show();
    if (focus && matchMedia("(hover: hover)").matches) this.#field.focus({ preventScroll: true });
  }

  close() {
    this.#subscription?.stop();
    cancelAnimationFrame(this.#frame);
    this.#parts.feed.removeEventListener("job", this.#onJob);
  }

  /** The list of conversations knows the title. */
  rename() {
    const title = this.id === null ? "New conversation" : this.#hooks.title(this.id) ?? "Conversation";
    text(this.#title, shortened(title, 80));
    this.#delete.hidden = this.id === null;
  }

  #follow() {
    this.#thread = new Thread(this.#parts.api, this.id, (what) => this.#changed(what));
    this.#subscription = this.#parts.live.follow(
      `conversation:${this.id}`,
      this.#thread.listener({ onEnd: ({ code }) => this.#lost({ code, errors: [] }) }),
    );
    this.#thread.load().catch((problem) => this.#lost(problem));
  }

  #lost(problem) {
    if (problem.code !== "not_found") {
      if (!this.#thread?.loaded) showProblem(this.#problem, problem);
      return;
    }
    const [sentence, next] = explained(problem);
    fill(this.element, h("div", { class: "empty" }, h("h2", {}, sentence), h("p", {}, next), h("a", { class: "secondary", href: "#/chat/new" }, "New conversation")));
  }

  // ─── showing ──────────────────────────────────────────────────────────────────────────────────

  #changed({ event, sent }) {
    if (sent) this.#atEnd = true;
    if (event?.type === "message.completed" || event?.type === "message.reset") this.#stopping = false;
    // Many deltas are drawn once a frame.
    this.#frame ??= requestAnimationFrame(() => {
      this.#frame = null;
      this.#show();
    });
  }

  #show() {
    const entries = this.#thread?.entries() ?? [];
    const shown = entries.map((entry) => {
      let item = this.#items.get(entry.key);
      if (item === undefined) this.#items.set(entry.key, (item = new MessageItem(this.#parts, this.#actions())));
      item.show(entry);
      this.#announce(entry);
      return item.element;
    });
    arrange(this.#list, shown);
    const keys = new Set(entries.map((entry) => entry.key));
    for (const key of this.#items.keys()) if (!keys.has(key)) this.#items.delete(key);
    this.#welcome.hidden = entries.length > 0 || (this.id !== null && !this.#thread?.loaded);
    this.#earlier.hidden = !this.#thread?.hasEarlier;
    this.#showStop(entries);
    if (this.#atEnd) this.#scrollToEnd();
    else this.#noticeScroll();
  }

  #showStop(entries) {
    const answering = entries.some((entry) => entry.state === "writing" || entry.state === "waiting");
    attribute(this.#scroll, "aria-busy", answering ? "true" : null);
    if (!answering) this.#stopping = false;
    const hadFocus = document.activeElement === this.#stop;
    this.#stop.hidden = !answering;
    if (hadFocus && !answering) this.#field.focus({ preventScroll: true });
    this.#stop.disabled = this.#stopping;
    text(this.#stop.querySelector("span"), this.#stopping ? "Stopping" : "Stop");
  }

  #announce(entry) {
    if (entry.role !== "assistant") return;
    const say = (what, sentence) => {
      const key = `${entry.question ?? entry.key} ${what}`;
      if (this.#announced.has(key)) return;
      this.#announced.add(key);
      if (sentence !== null) this.#parts.announcer.say(sentence);
    };
    const isAwaited = this.#announced.has(`${entry.question ?? entry.key} writing`);
    if (entry.state === "writing" || entry.state === "waiting") say("writing", "An answer is being written.");
    // Only what one has waited for: nobody wants a whole history read out.
    else if (entry.state === "completed" && isAwaited) say("end", `Answer: ${shortened(entry.text, 300)}`);
    else if (entry.state === "cancelled" && isAwaited) say("end", "Stopped. What was written stays.");
    else if (entry.state === "failed" && isAwaited) say("end", "The answer failed.");
  }

  #noticeScroll() {
    const { scrollHeight, scrollTop, clientHeight } = this.#scroll;
    this.#atEnd = scrollHeight - scrollTop - clientHeight < NEAR_END_PX;
    this.#toEnd.hidden = this.#atEnd;
  }

  #scrollToEnd() {
    this.#scroll.scrollTop = this.#scroll.scrollHeight;
    this.#atEnd = true;
    this.#toEnd.hidden = true;
  }

  #greeting() {
    return h(
      "div",
      { class: "welcome" },
      h("h3", {}, "Ask away"),
      h("p", { class: "lead" }, "Answers appear as they are written. Leave, reload, come back: they go on without you."),
      h("div", { class: "ideas" }, IDEAS.map((idea) => h("button", { class: "chip", type: "button", onclick: () => this.#submit(idea) }, idea))),
    );
  }

  // ─── doing ────────────────────────────────────────────────────────────────────────────────────

  #composer() {
    const form = h(
      "form",
      { class: "composer" },
      h("label", { class: "unseen", for: "say" }, "Your message"),
      this.#field,
      h("div", { class: "composer-foot" }, h("p", { class: "hint", id: "say-hint" }, h("kbd", {}, "Enter"), " sends, ", h("kbd", {}, "Shift Enter"), " starts a new line"), this.#stop, this.#send),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit(this.#field.value);
    });
    this.#field.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        form.requestSubmit();
      }
      if (event.key === "Escape" && !this.#stop.hidden) this.#stopAnswer();
    });
    this.#field.addEventListener("input", () => this.#grow());
    return form;
  }

  #grow() {
    if (CSS.supports("field-sizing", "content")) return;
    this.#field.style.height = "auto";
    this.#field.style.height = `${this.#field.scrollHeight}px`;
  }

  async #submit(message) {
    const content = message.trim();
    if (!content || this.#send.disabled) return;
    this.#problem.hidden = true;
    if (this.id === null && !(await this.#create(content))) return;
    this.#field.value = "";
    this.#grow();
    await this.#thread.send(content);
    this.#hooks.changed();
  }

  async #create(content) {
    this.#send.disabled = true;
    try {
      const made = await this.#parts.api.createConversation(shortened(content, 80));
      this.id = made.id;
    } catch (problem) {
      showProblem(this.#problem, problem);
      return false;
    } finally {
      this.#send.disabled = false;
    }
    this.#follow();
    this.#parts.go(`#/chat/${this.id}`);
    return true;
  }

  #actions() {
    return {
      sendAgain: (key) => this.#thread.sendAgain(key),
      takeBack: (key) => {
        this.#field.value = this.#thread.takeBack(key);
        this.#field.focus();
      },
      retry: (question) => this.#thread.retry(question).catch((problem) => showProblem(this.#problem, problem)),
    };
  }

  async #stopAnswer() {
    if (this.#stopping) return;
    this.#stopping = true;
    this.#show();
    try {
      const { stopped } = await this.#thread.stop();
      if (!stopped) await this.#thread.load(); // it had ended before
    } catch (problem) {
      showProblem(this.#problem, problem);
    }
    setTimeout(() => {
      this.#stopping = false; // where no event comes it may be pressed again
      this.#show();
    }, 4000);
  }

  async #loadEarlier() {
    const { scrollHeight } = this.#scroll;
    this.#earlier.disabled = true;
    try {
      await this.#thread.loadEarlier();
      this.#atEnd = false;
      this.#show();
      this.#scroll.scrollTop += this.#scroll.scrollHeight - scrollHeight;
    } catch (problem) {
      showProblem(this.#problem, problem);
    } finally {
      this.#earlier.disabled = false;
    }
  }

  async #remove() {
    try {
      await this.#parts.api.deleteConversation(this.id);
      this.#parts.announcer.say("The conversation is deleted.");
      this.#hooks.changed();
      this.#parts.go("#/chat");
    } catch (problem) {
      showProblem(this.#problem, problem);
    }
  }
}
