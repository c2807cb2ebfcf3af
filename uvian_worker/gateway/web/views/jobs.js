/** All jobs, as they are at the moment. */

import { JobState, stageName } from "../data/job.js";
import { arrange, attribute, fill, h, text } from "../dom.js";
import { ago, duration, shortened } from "../format.js";
import { icon } from "../icons.js";
import { explained, failureOf, mayRunAgain, priceOf, requeueReason, waitsFor } from "../sentences.js";
import { showProblem } from "./fields.js";

const FILTERS = [
  [null, "All"],
  ["processing", "Running"],
  ["queued", "Waiting"],
  ["completed", "Completed"],
  ["failed", "Failed"],
  ["cancelled", "Cancelled"],
];

const WORDS = { queued: "Waiting", processing: "Running", completed: "Completed", failed: "Failed", cancelled: "Cancelled" };
const TICK_MS = 500;

export class JobsView {
  #parts;
  #jobs = new Map();
  #rows = new Map();
  #filter = null;
  #cursor = null;
  #closed = false;
  #state = "loading"; // loading, ready or a problem
  #loads = 0;
  #titles = null; // of conversations, by id; null before they are needed
  #timer;
  #onJob = (event) => this.#receive(event.detail);
  #onStale = () => this.#load();
  #body = h("tbody");
  #pane = h("div", { class: "jobs-pane" });
  #more = h("button", { class: "secondary load-more", type: "button", hidden: true }, "Show more");
  #problem = h("div", { class: "problem", role: "alert", hidden: true });
  #filters;

  constructor(parts) {
    this.#parts = parts;
    this.#filters = h(
      "div",
      { class: "filters", role: "group", "aria-label": "Show" },
      FILTERS.map(([status, label]) =>
        h("button", { class: "chip", type: "button", data: { status: status ?? "" }, "aria-pressed": String(status === null), onclick: () => this.#choose(status) }, label),
      ),
    );
    this.#more.addEventListener("click", () => this.#load(this.#cursor));
    this.element = h(
      "div",
      { class: "jobs" },
      h("div", { class: "part-head" }, h("h1", { tabindex: "-1" }, "Jobs"), this.#filters),
      this.#problem,
      this.#pane,
      this.#more,
    );
    parts.feed.addEventListener("job", this.#onJob);
    parts.feed.addEventListener("stale", this.#onStale);
    this.#timer = setInterval(() => this.#tick(), TICK_MS);
    this.#show();
    this.#load();
  }

  open() {}

  close() {
    this.#closed = true;
    clearInterval(this.#timer);
    this.#parts.feed.removeEventListener("job", this.#onJob);
    this.#parts.feed.removeEventListener("stale", this.#onStale);
  }

  #choose(status) {
    if (status === this.#filter) return;
    this.#filter = status;
    for (const chip of this.#filters.children) attribute(chip, "aria-pressed", String((chip.dataset.status || null) === status));
    this.#jobs.clear();
    this.#state = "loading";
    this.#show();
    this.#load();
  }

  async #load(cursor = null) {
    const load = ++this.#loads;
    try {
      const page = await this.#parts.api.jobs({ status: this.#filter, cursor });
      if (this.#closed || load !== this.#loads) return;
      for (const row of page.items) this.#of(row.id).take(row);
      this.#cursor = page.next_cursor;
      this.#state = "ready";
    } catch (problem) {
      if (this.#closed || load !== this.#loads) return;
      if (this.#jobs.size === 0) this.#state = problem;
      else showProblem(this.#problem, problem);
    }
    this.#more.hidden = this.#cursor === null;
    this.#show();
    if (this.#titles === null && [...this.#jobs.values()].some((job) => job.type === "chat")) this.#loadTitles();
  }

  /** A chat is known by what it is part of. */
  async #loadTitles() {
    this.#titles = new Map();
    try {
      const { items } = await this.#parts.api.conversations({ limit: 100 });
      for (const { id, title } of items) this.#titles.set(id, title);
      if (!this.#closed) this.#show();
    } catch {
      // The list is useful without them.
    }
  }

  #of(id) {
    let job = this.#jobs.get(id);
    if (job === undefined) this.#jobs.set(id, (job = new JobState(id)));
    return job;
  }

  #receive(event) {
    const job = this.#of(event.job_id);
    if (job.createdAt === null) {
      // It is not on this page, or new: its row has the input.
      this.#jobs.delete(event.job_id);
      if (event.type.startsWith("job.") && event.type !== "job.progress") this.#load();
      return;
    }
    if (job.apply(event)) this.#show();
  }

  // ─── showing ──────────────────────────────────────────────────────────────────────────────────

  #show() {
    const jobs = [...this.#jobs.values()]
      .filter((job) => this.#filter === null || job.status === this.#filter)
      .sort((a, b) => Date.parse(b.createdAt) - Date.parse(a.createdAt) || (a.id < b.id ? -1 : 1));
    if (jobs.length > 0) this.#showTable(jobs);
    else if (this.#state === "loading") fill(this.#pane, skeleton());
    else fill(this.#pane, this.#empty());
  }

  #showTable(jobs) {
    if (!this.#body.isConnected) fill(this.#pane, table(this.#body));
    arrange(
      this.#body,
      jobs.map((job) => {
        let row = this.#rows.get(job.id);
        if (row === undefined) this.#rows.set(job.id, (row = new Row(job, (request) => this.#act(request))));
        row.show(job, this.#titles?.get(job.input?.conversation_id) ?? null);
        return row.element;
      }),
    );
  }

  #tick() {
    for (const job of this.#jobs.values()) if (job.isOpen) this.#rows.get(job.id)?.tick(job);
  }

  #empty() {
    if (this.#state !== "ready") {
      const [sentence, next] = explained(this.#state);
      const again = h("button", { class: "secondary", type: "button", onclick: () => this.#load() }, "Try again");
      return h("div", { class: "empty" }, h("p", {}, h("strong", {}, sentence), " ", next), again);
    }
    if (this.#filter !== null) return h("div", { class: "empty" }, h("p", {}, `No job is ${WORDS[this.#filter].toLowerCase()}.`));
    return h(
      "div",
      { class: "empty" },
      h("h2", {}, "Nothing has been done yet"),
      h("p", {}, "Every concept, refinement and answer is a job. They are listed here with what they took."),
      h("a", { class: "primary", href: "#/create" }, "Create a concept"),
    );
  }

  async #act(request) {
    this.#problem.hidden = true;
    try {
      await request(this.#parts.api);
      await this.#load();
    } catch (problem) {
      showProblem(this.#problem, problem);
    }
  }
}

class Row {
  #act;
  #cells;
  #shown = null;

  constructor(job, act) {
    this.#act = act;
    this.#cells = {
      status: h("td", { class: "cell-status" }),
      what: h("th", { class: "cell-what", scope: "row" }),
      when: h("td", { class: "cell-when", data: { label: "Created" } }),
      took: h("td", { class: "cell-took", data: { label: "Took" } }),
      cost: h("td", { class: "cell-cost", data: { label: "Cost" } }),
      acts: h("td", { class: "cell-acts" }),
    };
    this.element = h("tr", { data: { job: job.id } }, Object.values(this.#cells));
  }

  tick(job) {
    const elapsed = job.elapsed();
    text(this.#cells.when, ago(job.createdAt));
    text(this.#cells.took, elapsed === null ? "–" : job.isOpen ? secondsOf(elapsed) : duration(elapsed));
  }

  /** `title` is that of the conversation it is part of. */
  show(job, title) {
    const { status, what, cost, acts } = this.#cells;
    attribute(this.element, "data-status", job.status);
    this.tick(job);
    text(cost, priceOf(job) ?? "–");
    const wanted = JSON.stringify([job.status, job.progress, job.progressStage, job.errorMessage, job.run, job.requeue, job.resultId, title]);
    if (wanted === this.#shown) return;
    const before = this.#shown === null ? null : JSON.parse(this.#shown)[0];
    this.#shown = wanted;
    fill(status, h("span", { class: "badge" }, WORDS[job.status]));
    fill(what, this.#title(job, title), this.#detail(job));
    if (before !== job.status) fill(acts, this.#buttons(job));
  }

  #title(job, title) {
    const kind = `${job.type[0].toUpperCase()}${job.type.slice(1)}`;
    const subject = job.subject ?? title;
    const name = subject === null ? kind : shortened(subject, 90);
    const address = addressOf(job);
    return [
      address ? h("a", { class: "job-name", href: address }, name) : h("span", { class: "job-name" }, name),
      h("p", { class: "job-note" }, subject === null ? null : `${kind} · `, h("span", { class: "job-id" }, job.id.slice(0, 8))),
    ];
  }

  #detail(job) {
    if (job.status === "failed") {
      const [sentence] = failureOf(job);
      return h("p", { class: "job-error" }, job.error?.stage && h("span", { class: "job-stage" }, stageName(job.error.stage)), sentence);
    }
    if (job.status === "processing") {
      const words = job.progressMessage ?? (job.progressStage ? stageName(job.progressStage) : "Starting");
      return h(
        "div",
        { class: "job-progress" },
        h("span", { class: "meter", role: "progressbar", "aria-label": "Progress", "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": Math.round(job.progress * 100) }, h("i", { style: { "--share": job.progress } })),
        h("span", {}, words),
      );
    }
    if (job.status !== "queued") return null;
    const waits = job.run > 1 ? `Run ${job.run} waits for ${waitsFor(job)}` : `Waits for ${waitsFor(job)}`;
    const reason = requeueReason(job);
    return [h("p", { class: "job-note" }, waits), reason && h("p", { class: "job-note" }, reason)];
  }

  #buttons(job) {
    if (job.isOpen) return act("close", "Cancel", job, (id) => this.#act((api) => api.cancel(id)));
    if (job.status === "completed" || !mayRunAgain(job)) return null;
    return act("retry", "Retry", job, (id) => this.#act((api) => api.retry(id, job.run)));
  }
}

/** Of a job that runs: what changes every moment is not read to the millisecond. */
function secondsOf(ms) {
  return ms < 60_000 ? `${Math.floor(ms / 1000)} s` : duration(ms);
}

/** Where its result is to be seen. */
function addressOf(job) {
  if (job.type === "generation" || job.type === "refinement") return `#/create/${job.id}`;
  if (job.type === "chat" && job.input?.conversation_id) return `#/chat/${job.input.conversation_id}`;
  return null;
}

function act(drawing, label, job, does) {
  const button = h("button", { class: "secondary small", type: "button" }, icon(drawing), label, h("span", { class: "unseen" }, ` ${job.type} ${job.id.slice(0, 8)}`));
  button.addEventListener("click", async () => {
    button.disabled = true;
    await does(job.id);
    button.disabled = false;
  });
  return button;
}

function table(body) {
  return h(
    "table",
    {},
    h("caption", { class: "unseen" }, "Your jobs, the newest first"),
    h("thead", {}, h("tr", {}, ["Status", "Job", "Created", "Took", "Cost"].map((name) => h("th", { scope: "col" }, name)), h("th", { scope: "col" }, h("span", { class: "unseen" }, "Actions")))),
    body,
  );
}

function skeleton() {
  return h("div", { class: "jobs-skeleton", "aria-hidden": "true" }, Array.from({ length: 6 }, () => h("div", { class: "skeleton" })));
}
