/** One job's result while it is made: stages, base image, variations; and what can be done with it. */

import { JobState } from "../data/job.js";
import { arrange, attribute, fill, h, text } from "../dom.js";
import { creditsInWords, duration, number } from "../format.js";
import { icon } from "../icons.js";
import { explained, failureOf, mayRunAgain, priceOf, requeueReason, waitsFor } from "../sentences.js";
import { showProblem } from "./fields.js";
import { Lightbox } from "./lightbox.js";
import { Picture } from "./picture.js";
import { Stages } from "./stages.js";
import { Tile } from "./tile.js";

const TICK_MS = 100;
const POLL_MS = 4000; // while there is no connection, and no event comes

export class Canvas {
  #parts;
  #job;
  #subscription = null;
  #closed = false;
  #timer = null;
  #polling = null;
  #announced = new Set();
  #stages = new Stages();
  #base;
  #cards = new Map();
  #original = h("p", { class: "original", hidden: true });
  #title = h("h2", { class: "result-title", tabindex: "-1" });
  #theme = h("p", { class: "result-theme" });
  #facts = h("dl", { class: "facts" });
  #clock = h("output", { class: "clock", "aria-live": "off" });
  #notes = h("div", { class: "notes" });
  #actions = h("div", { class: "actions" });
  #problem = h("div", { class: "problem", role: "alert", hidden: true });
  #grid = h("ul", { class: "pictures", "aria-label": "Pictures" });
  #lightbox;

  constructor(parts, { job = null, concept = null }) {
    this.#parts = parts;
    this.#job = Object.assign(new JobState(job), parts.begun.get(job));
    this.#base = new Tile(parts.files, "base", () => this.#openPicture("base"));
    this.#base.element.append(h("div", { class: "about" }, this.#original, this.#facts, this.#problem, this.#actions));
    this.#lightbox = new Lightbox(parts, this.#job);
    this.element = h(
      "div",
      { class: "canvas" },
      h("a", { class: "back", href: "#/create" }, icon("back"), "All concepts"),
      h("div", { class: "result-head" }, h("div", {}, this.#title, this.#theme), this.#clock),
      this.#stages.element,
      this.#notes,
      h("div", { class: "pictures-pane" }, this.#grid),
      this.#lightbox.element,
    );
    this.#show();
    if (job !== null) this.#openJob(job);
    else this.#openConcept(concept);
  }

  close() {
    this.#closed = true;
    this.#subscription?.stop();
    clearInterval(this.#timer);
    clearInterval(this.#polling);
    this.#lightbox.close();
  }

  // ─── where it comes from ──────────────────────────────────────────────────────────────────────

  #openJob(id) {
    this.#follow(id);
    this.#readRow(id); // the description is there before the connection is
    this.#polling = setInterval(() => this.#job.isOpen && this.#parts.live.state !== "live" && this.#readRow(id), POLL_MS);
  }

  /** Receive the events of the job, from the last one on where it was followed before. */
  #follow(id) {
    const cursor = this.#subscription?.cursor ?? null;
    this.#subscription?.stop();
    this.#subscription = this.#parts.live.follow(`job:${id}`, {
      cursor,
      onEvent: (event) => this.#receive(event),
      onState: ({ state }) => {
        for (const event of state) this.#receive(event);
        this.#readRow(id);
      },
      onEnd: ({ reason }) => reason === "refused" && this.#readRow(id),
    });
  }

  async #readRow(id) {
    try {
      const row = await this.#parts.api.job(id);
      if (this.#closed) return;
      this.#job.take(row);
      this.#show();
      this.#showOriginal();
    } catch (problem) {
      if (!this.#closed) this.#lost(problem);
    }
  }

  async #openConcept(id) {
    try {
      const concept = await this.#parts.api.concept(id);
      if (this.#closed) return;
      this.#job.id = concept.job_id;
      if (concept.job_id !== null) await this.#takeRow(concept.job_id);
      if (this.#closed) return;
      for (const each of [concept, ...concept.variations]) this.#parts.files.remember(each.image_path, each.image_url);
      this.#job.takeConcept(concept);
      this.#show();
      this.#showOriginal(concept.parent_id);
    } catch (problem) {
      if (!this.#closed) this.#lost(problem);
    }
  }

  async #takeRow(id) {
    try {
      this.#job.take(await this.#parts.api.job(id));
    } catch {
      // The job is gone or hidden; its concept has what counts.
    }
  }

  #lost(problem) {
    if (this.#job.type !== null && problem.isTransient) return; // what is shown is good enough meanwhile
    const [sentence, next] = explained(problem);
    fill(
      this.element,
      h("div", { class: "empty" }, h("h2", { tabindex: "-1" }, sentence), h("p", {}, next), h("a", { class: "secondary", href: "#/create" }, "Back to your concepts")),
    );
  }

  #receive(event) {
    if (!this.#job.apply(event)) return;
    this.#show();
    this.#announce(event);
  }

  #announce({ type, data }) {
    const say = (key, sentence) => {
      if (this.#announced.has(key)) return;
      this.#announced.add(key);
      this.#parts.announcer.say(sentence);
    };
    if (type === "image.ready" && data.kind === "base") say("base", "The base image is ready.");
    if (type === "job.completed") say("end", `Done: ${number(this.#job.images.size, "picture")}.`);
    if (type === "job.failed") say("end", failureOf(this.#job)[0]);
    if (type === "job.cancelled") say("end", "Cancelled.");
  }

  // ─── what is shown ────────────────────────────────────────────────────────────────────────────

  #show() {
    const job = this.#job;
    attribute(this.element, "data-status", job.type === null ? "unknown" : job.status);
    text(this.#title, this.#heading());
    text(this.#theme, job.input?.theme_description ?? "");
    this.#tick();
    this.#showFacts();
    this.#showNotes();
    this.#showActions();
    this.#showPictures();
    clearInterval(this.#timer);
    if (job.isOpen && !this.#closed) this.#timer = setInterval(() => this.#tick(), TICK_MS);
  }

  #heading() {
    const { input, type } = this.#job;
    if (type === "refinement" && input?.refinement_prompt) return `“${input.refinement_prompt}”`;
    return input?.logo_description ?? "\u00a0";
  }

  #tick() {
    const job = this.#job;
    const now = Date.now();
    this.#stages.show(job, now);
    this.#stages.element.hidden = job.type === null || (job.stages.length === 0 && !job.isOpen);
    const elapsed = job.elapsed(now);
    const waits = job.type !== null && job.status === "queued";
    text(this.#clock, waits ? `Waiting for ${waitsFor(job, now)}` : elapsed === null ? "" : duration(Math.floor(elapsed / (job.isOpen ? 100 : 1)) * (job.isOpen ? 100 : 1)));
    attribute(this.#clock, "data-waits", waits ? "" : null);
  }

  #showFacts() {
    const known = factsOf(this.#job).filter(([, value]) => (value ?? "") !== "");
    fill(this.#facts, known.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, String(value)))));
  }

  #showNotes() {
    const job = this.#job;
    const notes = job.warnings.map((warning) => h("p", { class: "note" }, icon("alert"), warning.message));
    if (job.status === "failed") {
      const [sentence, next] = failureOf(job);
      notes.unshift(h("div", { class: "problem" }, icon("alert"), h("p", {}, h("strong", {}, sentence), " ", next)));
    }
    const reason = requeueReason(job);
    if (reason !== null) notes.unshift(h("p", { class: "note" }, icon("retry"), reason));
    if (job.status === "cancelled") notes.unshift(h("p", { class: "note" }, "This was cancelled. Only what was delivered is charged."));
    fill(this.#notes, notes);
  }

  #showActions() {
    const job = this.#job;
    const actions = [];
    if (job.type === null) return;
    if (job.isOpen) actions.push(["cancel", "Cancel", "close", () => this.#act((api) => api.cancel(job.id))]);
    else if (job.status !== "completed") {
      if (mayRunAgain(job)) actions.push(["retry", "Try again", "retry", () => this.#again()]);
    } else actions.push(["refine", "Refine", "refine", () => this.#openPicture("base", { refine: true })]);
    const wanted = actions.map(([name]) => name).join();
    if (this.#actions.dataset.shown === wanted) return; // a button keeps its focus
    this.#actions.dataset.shown = wanted;
    fill(
      this.#actions,
      actions.map(([, label, drawing, act]) => h("button", { class: "secondary", type: "button", onclick: act }, icon(drawing), label)),
    );
  }

  #showPictures() {
    const job = this.#job;
    const what = job.input?.logo_description ?? "the concept";
    const base = job.images.get("base");
    this.#base.show(base, { alt: `Base image: ${what}`, awaited: job.isOpen });
    const made = [...job.images.keys()].filter((key) => key !== "base").sort((a, b) => a - b);
    const slots = job.isOpen ? Array.from({ length: job.expectedVariations }, (_, at) => at) : made;
    const cards = slots.map((at) => {
      let card = this.#cards.get(at);
      if (card === undefined) this.#cards.set(at, (card = new Tile(this.#parts.files, at, () => this.#openPicture(at))));
      const picture = job.images.get(at);
      card.show(picture, { alt: `${what}, in ${picture?.name ?? "another palette"}`, awaited: job.isOpen });
      return card.element;
    });
    attribute(this.#grid, "data-alone", cards.length === 0 ? "" : null);
    arrange(this.#grid, [this.#base.element, ...cards]);
    this.#lightbox.update();
  }

  #openPicture(key, options) {
    if (this.#job.images.has(key)) this.#lightbox.open(key, options);
  }

  async #showOriginal(parentId = null) {
    const { input, type, output } = this.#job;
    if (type !== "refinement" || !this.#original.hidden || !input) return;
    const parent = input.concept_id ?? parentId ?? output?.parent_id ?? null;
    const picture = new Picture(this.#parts.files, "The original");
    try {
      if (parent !== null) {
        const concept = await this.#parts.api.concept(parent);
        this.#parts.files.remember(concept.image_path, concept.image_url);
        const path = input.image_path ?? concept.image_path;
        picture.show({ ...concept, path, url: path === concept.image_path ? concept.image_url : null });
      } else if (input.image_path) picture.show({ path: input.image_path, width: 1, height: 1 });
      else return;
    } catch {
      return; // deleted since
    }
    const label = h("span", {}, "Refined from");
    fill(this.#original, label, parent === null ? picture.element : h("a", { href: `#/concepts/${parent}`, "aria-label": "Open the original" }, picture.element));
    this.#original.hidden = false;
  }

  async #again() {
    await this.#act((api) => api.retry(this.#job.id, this.#job.run));
    this.#announced.clear();
    if (!this.#closed) this.#follow(this.#job.id); // its topic had ended with the run before
  }

  async #act(request) {
    this.#problem.hidden = true;
    for (const button of this.#actions.children) button.disabled = true;
    try {
      await request(this.#parts.api);
      await this.#readRow(this.#job.id);
    } catch (problem) {
      showProblem(this.#problem, problem);
    } finally {
      for (const button of this.#actions.children) button.disabled = false;
    }
  }
}

function factsOf(job) {
  const { size, style, seed } = job.input ?? {};
  const base = job.images.get("base");
  const [width, height] = base ? [base.width, base.height] : [size, size];
  const price = job.isOpen ? null : priceOf(job);
  return [
    ["Size", width && `${width} × ${height}`],
    ["Style", style],
    ["Seed", seed],
    ["Done to it", job.output?.operations?.join(", ")],
    ["Cost", price && (price === "Free" ? price : creditsInWords(price))],
  ];
}
