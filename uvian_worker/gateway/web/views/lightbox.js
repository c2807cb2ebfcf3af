/** A picture at its full size, its colours, and what can be made of it. */

import { newKey } from "../data/api.js";
import { attribute, fill, h, text } from "../dom.js";
import { shortened } from "../format.js";
import { icon } from "../icons.js";
import { field, mark, range, showProblem } from "./fields.js";
import { Picture } from "./picture.js";

const IDEAS = ["warmer colours", "more contrast", "softer shapes", "darker background", "simpler"];

export class Lightbox {
  #parts;
  #job;
  #key = null; // the picture that is open
  #request = newKey();
  #frame = h("div", { class: "lightbox-picture" });
  #title = h("h2", { id: "lightbox-title", tabindex: "-1" });
  #count = h("p", { class: "lightbox-count" });
  #colours = h("ul", { class: "colours", "aria-label": "Colours" });
  #download = h("a", { class: "secondary", target: "_blank", rel: "noopener" }, icon("download"), "Download");
  #problem = h("div", { class: "problem", role: "alert", hidden: true });
  #prompt = h("textarea", { id: "refine-prompt", rows: 2, maxlength: 2000, placeholder: "Warmer colours, softer shapes" });
  #strength = range("refine-strength", { min: 0, max: 1, step: 0.05, value: 0.5, show: (value) => `${Math.round(value * 100)} %` });
  #submit = h("button", { class: "primary", type: "submit" }, "Refine this");
  #form;
  #side;
  #previous;
  #next;

  constructor(parts, job) {
    this.#parts = parts;
    this.#job = job;
    this.#previous = step("back", "Previous picture", () => this.#move(-1));
    this.#next = step("next", "Next picture", () => this.#move(1));
    this.#form = h(
      "form",
      { class: "form refine", novalidate: true, onsubmit: (event) => this.#refine(event) },
      field("Refine this picture", this.#prompt),
      h("div", { class: "ideas" }, IDEAS.map((idea) => h("button", { class: "chip", type: "button", onclick: () => this.#suggest(idea) }, idea))),
      field("Strength", this.#strength.element, this.#strength.output),
      this.#problem,
      this.#submit,
    );
    this.#form.addEventListener("input", () => {
      this.#request = newKey();
      mark(this.#prompt, null);
    });
    this.#side = h(
      "div",
      { class: "lightbox-side" },
      h("div", { class: "lightbox-head" }, h("div", {}, this.#count, this.#title), step("close", "Close", () => this.element.close())),
      this.#colours,
      h("div", { class: "actions" }, this.#download),
      this.#form,
    );
    this.element = h(
      "dialog",
      { class: "lightbox", "aria-labelledby": "lightbox-title" },
      h("div", { class: "lightbox-stage" }, this.#frame, this.#previous, this.#next),
      this.#side,
    );
    this.element.addEventListener("click", (event) => event.target === this.element && this.element.close());
    this.element.addEventListener("keydown", (event) => this.#onKey(event));
  }

  open(key, { refine = false } = {}) {
    this.#key = key;
    this.#show();
    if (!this.element.open) {
      this.element.showModal();
      // It is where the last picture was left.
      for (const scrolled of [this.element, this.#side]) scrolled.scrollTop = 0;
    }
    if (refine) this.#prompt.focus();
    else this.#title.focus({ preventScroll: true });
  }

  /** Pictures may have come while one looked at another. */
  update() {
    if (this.element.open) this.#showSteps();
  }

  close() {
    if (this.element.open) this.element.close();
  }

  #keys() {
    return [...this.#job.images.keys()].sort((a, b) => (a === "base" ? -1 : b === "base" ? 1 : a - b));
  }

  #show() {
    const picture = this.#job.images.get(this.#key);
    const name = this.#key === "base" ? "Base image" : picture.name ?? `Variation ${this.#key + 1}`;
    const shown = new Picture(this.#parts.files, `${name}: ${this.#job.input?.logo_description ?? "picture"}`);
    shown.show(picture);
    fill(this.#frame, shown.element);
    text(this.#title, name);
    fill(this.#colours, (picture.palette ?? []).map((colour) => this.#colour(colour)));
    this.#colours.hidden = picture.palette === null;
    this.#offerDownload(picture, name);
    this.#showSteps();
  }

  #showSteps() {
    const keys = this.#keys();
    const at = keys.indexOf(this.#key);
    text(this.#count, `${at + 1} of ${keys.length}`);
    this.#previous.disabled = at <= 0;
    this.#next.disabled = at >= keys.length - 1;
    const usable = !this.#job.isOpen || this.#key !== "base";
    this.#submit.disabled = !usable;
  }

  #move(by) {
    const keys = this.#keys();
    const key = keys[keys.indexOf(this.#key) + by];
    if (key === undefined) return;
    this.#key = key;
    this.#show();
  }

  #onKey(event) {
    if (event.target.matches("textarea, input")) return;
    if (event.key === "ArrowLeft") this.#move(-1);
    if (event.key === "ArrowRight") this.#move(1);
  }

  async #offerDownload(picture, name) {
    const url = await this.#parts.files.url(picture.path);
    attribute(this.#download, "hidden", url ? null : "");
    if (!url) return;
    const file = `${shortened(this.#job.input?.logo_description ?? "concept", 40)} - ${name}.${picture.path.split(".").at(-1)}`;
    const address = new URL(url, document.baseURI);
    // Another origin decides by itself what a link downloads; Supabase Storage takes the name like this.
    if (address.origin !== location.origin) address.searchParams.set("download", file);
    this.#download.href = address.href;
    this.#download.download = file;
  }

  #colour(colour) {
    const code = h("span", { class: "colour-code" }, colour);
    const copy = async () => {
      try {
        await navigator.clipboard.writeText(colour);
        text(code, "Copied");
        this.#parts.announcer.say(`${colour} copied.`);
      } catch {
        text(code, "No");
      }
      setTimeout(() => text(code, colour), 1200);
    };
    return h(
      "li",
      {},
      h("button", { class: "colour", type: "button", "aria-label": `Copy ${colour}`, title: "Copy", onclick: copy }, h("span", { class: "colour-patch", style: { "--colour": colour } }), code),
    );
  }

  #suggest(idea) {
    const prompt = this.#prompt.value.trim();
    this.#prompt.value = prompt ? `${prompt}, ${idea}` : idea[0].toUpperCase() + idea.slice(1);
    this.#request = newKey();
    mark(this.#prompt, null);
    this.#prompt.focus();
  }

  async #refine(event) {
    event.preventDefault();
    const prompt = this.#prompt.value.trim();
    if (!prompt) {
      mark(this.#prompt, "Describe what should be different.");
      this.#prompt.focus();
      return;
    }
    const concept = this.#key === "base" ? this.#job.resultId : null;
    const source = concept === null ? { image_path: this.#job.images.get(this.#key).path, ...this.#descriptions() } : { concept_id: concept };
    this.#submit.disabled = true;
    this.#problem.hidden = true;
    try {
      const input = { ...source, refinement_prompt: prompt, strength: this.#strength.value() };
      const made = await this.#parts.api.createJob("refinement", input, this.#request);
      this.#request = newKey();
      this.#parts.begun.set(made.id, { type: "refinement", input });
      this.#parts.announcer.say("Refining the picture.");
      this.element.close();
      this.#parts.go(`#/create/${made.id}`);
    } catch (problem) {
      showProblem(this.#problem, problem);
    } finally {
      this.#submit.disabled = false;
    }
  }

  /** A picture alone does not know what it shows; the concept it is of does. */
  #descriptions() {
    const { logo_description: logo, theme_description: theme } = this.#job.input ?? {};
    return { ...(logo ? { logo_description: logo } : {}), ...(theme ? { theme_description: theme } : {}) };
  }
}

function step(drawing, label, act) {
  return h("button", { class: `quiet step-${drawing}`, type: "button", "aria-label": label, title: label, onclick: act }, icon(drawing));
}
