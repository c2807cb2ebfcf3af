/** The stages of a job as one line that fills, with the time each takes. */

import { stageName } from "../data/job.js";
import { arrange, attribute, h, text } from "../dom.js";
import { duration } from "../format.js";

const WORDS = { "to come": "to come", running: "running", completed: "done", failed: "failed", cancelled: "stopped" };

export class Stages {
  #items = new Map();
  #list = h("ol", { class: "stages-list" });
  #now = h("p", { class: "stages-now", "aria-hidden": "true" });

  constructor() {
    this.element = h("div", { class: "stages" }, this.#list, this.#now);
  }

  /** Show where a job is. */
  show(job, now = Date.now()) {
    const plan = job.plan();
    const made = [...job.images.keys()].filter((key) => key !== "base").length;
    arrange(this.#list, plan.map((stage) => this.#item(stage, job, made, now)));
    const running = plan.filter((stage) => stage.status === "running");
    const latest = running.at(-1);
    text(this.#now, latest ? `${stageName(latest.name, latest.label)} · ${this.#time(latest, now)}` : "");
  }

  #item(stage, job, made, now) {
    let item = this.#items.get(stage.name);
    if (item === undefined) this.#items.set(stage.name, (item = create()));
    const expected = job.expectedVariations;
    const counted = stage.name === "palette_variations" && expected > 0 && stage.status === "running";
    attribute(item, "data-status", stage.status);
    attribute(item, "data-counted", counted ? "" : null);
    item.style.setProperty("--share", counted ? made / expected : stage.status === "completed" ? 1 : 0);
    text(item.querySelector(".stage-name"), stageName(stage.name, stage.label));
    text(item.querySelector(".stage-time"), counted ? `${made} of ${expected}` : this.#time(stage, now));
    text(item.querySelector(".unseen"), WORDS[stage.status] ?? stage.status);
    return item;
  }

  #time(stage, now) {
    if (stage.ms !== null) return duration(stage.ms);
    if (stage.status !== "running" || stage.at === null) return "";
    // Tenths that tick are restless to read: a stage that runs shows whole ones of its own pace.
    return duration(Math.max(0, Math.floor((now - Date.parse(stage.at)) / 100) * 100));
  }
}

function create() {
  return h(
    "li",
    { class: "stage-item" },
    h("span", { class: "stage-bar", "aria-hidden": "true" }),
    h("span", { class: "stage-name" }),
    h("span", { class: "stage-time" }),
    h("span", { class: "unseen" }),
  );
}
