/** Conversations on one side, the one that is open on the other. */

import { attribute, fill, h } from "../dom.js";
import { ago, shortened } from "../format.js";
import { icon } from "../icons.js";
import { explained } from "../sentences.js";
import { Talk } from "./talk.js";

export class ChatView {
  #parts;
  #talk = null;
  #id = null;
  #closed = false;
  #list = h("ul", { class: "conversations" });
  #more = h("button", { class: "secondary small", type: "button", hidden: true }, "Show more");
  #cursor = null;
  #items = [];

  constructor(parts) {
    this.#parts = parts;
    this.#more.addEventListener("click", () => this.#load(this.#cursor));
    this.main = h("section", { class: "talk-pane", "aria-label": "Conversation" });
    this.element = h(
      "div",
      { class: "chat" },
      h(
        "aside",
        { class: "conversations-part", "aria-label": "Conversations" },
        h(
          "div",
          { class: "part-head" },
          h("h1", { tabindex: "-1" }, "Chat"),
          h("a", { class: "secondary small", href: "#/chat/new" }, icon("plus"), "New"),
        ),
        this.#list,
        this.#more,
      ),
      this.main,
    );
    this.#load();
  }

  /** `#/chat` is the list (and on wide screens a new conversation), `#/chat/new`, `#/chat/<id>`. */
  open({ id }) {
    this.element.classList.toggle("has-talk", id !== null);
    const wanted = id === "new" ? null : id;
    if (this.#talk === null || wanted !== this.#id || wanted === null) {
      const isOpen = wanted !== null && this.#talk?.id === wanted; // it was new, and has its address now
      if (!isOpen) {
        this.#talk?.close();
        this.#talk = new Talk(this.#parts, wanted, { changed: () => this.#load(), title: (each) => this.#titleOf(each) });
        fill(this.main, this.#talk.element);
        this.#talk.start({ focus: id !== null });
      }
    }
    this.#id = wanted;
    this.#mark();
  }

  close() {
    this.#closed = true;
    this.#talk?.close();
  }

  #titleOf(id) {
    return this.#items.find((item) => item.id === id)?.title ?? null;
  }

  async #load(cursor = null) {
    if (this.#items.length === 0) fill(this.#list, Array.from({ length: 4 }, () => h("li", { class: "skeleton conversation-skeleton", "aria-hidden": "true" })));
    try {
      const page = await this.#parts.api.conversations({ cursor });
      if (this.#closed) return;
      this.#items = cursor === null ? page.items : [...this.#items, ...page.items];
      this.#cursor = page.next_cursor;
      this.#more.hidden = this.#cursor === null;
      this.#show();
    } catch (problem) {
      if (this.#closed || this.#items.length > 0) return;
      const [sentence, next] = explained(problem);
      const again = h("button", { class: "secondary small", type: "button", onclick: () => this.#load() }, "Try again");
      fill(this.#list, h("li", { class: "list-note" }, h("strong", {}, sentence), " ", next, again));
    }
  }

  #show() {
    if (this.#items.length === 0) fill(this.#list, h("li", { class: "list-note" }, "Your conversations will be listed here."));
    else fill(this.#list, this.#items.map((item) => this.#item(item)));
    this.#mark();
    this.#talk?.rename();
  }

  #item(item) {
    return h(
      "li",
      {},
      h(
        "a",
        { class: "conversation", href: `#/chat/${item.id}`, data: { id: item.id } },
        h("span", { class: "conversation-title" }, shortened(item.title ?? "Untitled", 80)),
        h("span", { class: "conversation-when" }, ago(item.last_message_at)),
      ),
    );
  }

  #mark() {
    for (const link of this.#list.querySelectorAll("a")) attribute(link, "aria-current", link.dataset.id === this.#id ? "true" : null);
  }
}
