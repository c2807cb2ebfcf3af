/** The state of one job, from its row and from its events. Knows no elements. */

const OPEN = new Set(["queued", "processing"]);

/** Within a run the status only moves up: a row with a lower one was read before the event with the higher one. */
const ORDER = { queued: 0, processing: 1, completed: 2, failed: 2, cancelled: 2 };

/** Whether a `{run, status}` is older than the one that is known. */
export function isOlder(state, known) {
  return state.run < known.run || (state.run === known.run && ORDER[state.status] < ORDER[known.status]);
}

/** What stages a kind of job goes through, so that those to come can be shown. */
const PLANNED = {
  generation: ["base_image", "base_image_storage", "palette_generation", "palette_variations", "concept_storage"],
  refinement: ["original_image", "image_refinement", "base_image_storage", "concept_storage"],
  chat: ["answer"],
};

const SHORT = {
  base_image: "Base image",
  base_image_storage: "Storing",
  palette_generation: "Palettes",
  palette_variations: "Variations",
  concept_storage: "Concept",
  original_image: "Original",
  image_refinement: "Refining",
  answer: "Answer",
};

/** A stage's name for people, in a word or two. */
export function stageName(name, label) {
  return SHORT[name] ?? label ?? name.replaceAll("_", " ");
}

export class JobState {
  constructor(id) {
    this.id = id;
    this.type = null;
    this.status = "queued";
    this.run = 0;
    this.sealed = 0; // the latest run that has ended
    this.input = null;
    this.output = null;
    this.stages = []; // {name, label, status, at, ms} in the order they began
    this.images = new Map(); // "base" or a variation's index → {path, url, width, height, preview, palette, name}
    this.progress = 0;
    this.progressMessage = null;
    this.progressStage = null;
    this.error = null;
    this.errorMessage = null;
    this.runAt = null; // when a run that is queued may start
    this.requeue = null; // why there is another run: {outcome, attempt, error, wait}, the last in ms
    this.resultId = null;
    this.cost = null;
    this.warnings = [];
    this.createdAt = null;
    this.startedAt = null;
    this.finishedAt = null;
  }

  get isOpen() {
    return OPEN.has(this.status);
  }

  /** How long it worked, or has been working, in ms; null before it began. */
  elapsed(now = Date.now()) {
    if (this.startedAt === null) return null;
    const end = this.isOpen ? now : Date.parse(this.finishedAt ?? this.startedAt);
    return Math.max(0, end - Date.parse(this.startedAt));
  }

  /** What it is about, in its user's words; null where nothing says so. */
  get subject() {
    const input = this.input ?? {};
    return input.refinement_prompt ?? input.logo_description ?? input.prompt ?? null;
  }

  /** Stages to show: those that were, and while it is open those that are expected. */
  plan() {
    const begun = new Map(this.stages.map((stage) => [stage.name, stage]));
    const planned = PLANNED[this.type] ?? [];
    const expected = this.input?.num_palettes > 0 && this.type === "refinement"
      ? [...planned.slice(0, 3), "palette_generation", "palette_variations", ...planned.slice(3)]
      : planned;
    const names = this.isOpen || this.stages.length === 0 ? [...new Set([...expected, ...begun.keys()])] : [...begun.keys()];
    return names.map((name) => begun.get(name) ?? { name, label: null, status: "to come", at: null, ms: null });
  }

  /** How many variations there will be. */
  get expectedVariations() {
    const made = [...this.images.keys()].filter((key) => key !== "base").length;
    if (!this.isOpen) return made;
    return Math.max(made, this.input?.num_palettes ?? (this.type === "generation" ? 7 : 0));
  }

  /** Take over a row: the truth of the moment when it was read. */
  take(row) {
    this.input = row.input ?? this.input ?? row.asked ?? null;
    this.createdAt = row.created_at;
    if (isOlder(row, this)) return this;
    if (row.run > this.run) this.#begin(row.run);
    this.type = row.type;
    this.status = row.status;
    if (!this.isOpen) this.sealed = row.run;
    this.output = row.output ?? this.output;
    this.progress = row.progress;
    this.progressMessage = row.progress_message;
    this.progressStage = row.stage;
    this.error = row.error;
    this.errorMessage = row.error_message;
    this.resultId = row.result_id;
    this.cost = row.cost;
    this.runAt = row.run_at ?? this.runAt;
    this.requeue = requeueOf(row) ?? this.requeue;
    this.startedAt = row.started_at;
    this.finishedAt = row.finished_at;
    if (!this.isOpen || this.stages.length === 0) this.stages = row.stages.map((stage) => ({ at: null, ...stage }));
    this.#takeOutput();
    return this;
  }

  /** Take over the concept that the job has made. */
  takeConcept(concept) {
    this.type ??= concept.parent_id ? "refinement" : "generation";
    this.status = "completed";
    this.resultId = concept.id;
    this.createdAt ??= concept.created_at;
    this.input ??= { logo_description: concept.logo_description, theme_description: concept.theme_description };
    this.#picture("base", { ...concept, path: concept.image_path, url: concept.image_url });
    for (const each of concept.variations ?? []) {
      this.#picture(each.position, { ...each, path: each.image_path, url: each.image_url });
    }
    return this;
  }

  /** Apply an event; returns whether anything has changed. */
  apply(event) {
    const { type, run, data } = event;
    if (run < this.run || (run <= this.sealed && !type.startsWith("image."))) return false;
    if (run > this.run) this.#begin(run);
    const change = CHANGES[type];
    if (change === undefined) return false;
    change(this, data, event);
    return true;
  }

  /** Apply a terminal event; the events of later runs go on from here. */
  end(status, data, at) {
    this.status = status;
    this.sealed = this.run;
    this.finishedAt = at;
    this.cost = data.cost;
    for (const reported of data.stages) {
      const stage = this.stages.find((each) => each.name === reported.name);
      if (stage === undefined) this.stages.push({ at: null, ...reported });
      else Object.assign(stage, reported);
    }
  }

  stage(name) {
    return this.stages.find((stage) => stage.name === name);
  }

  setOutput(output) {
    this.output = output;
    this.#takeOutput();
  }

  setImage(key, picture) {
    this.#picture(key, picture);
  }

  #begin(run) {
    this.run = run;
    this.stages = [];
    this.progress = 0;
    this.requeue = this.progressMessage = this.progressStage = this.error = this.errorMessage = this.finishedAt = null;
  }

  #takeOutput() {
    const output = this.output;
    if (!output) return;
    this.warnings = output.warnings ?? [];
    if (output.image_path) this.#picture("base", { path: output.image_path, width: output.width, height: output.height });
    for (const each of output.variations ?? []) this.#picture(each.index, { ...each, path: each.image_path });
  }

  #picture(key, picture) {
    const known = this.images.get(key);
    const { path, url = null, width, height, preview = null, palette = null, name = null } = picture;
    const same = known?.path === path;
    this.images.set(key, {
      path,
      width,
      height,
      url: url ?? (same ? known.url : null),
      preview: preview ?? (same ? known.preview : null),
      palette: palette ?? known?.palette ?? null,
      name: name ?? known?.name ?? null,
    });
  }
}

/** Of a job's own row, which has the runs that have ended; a list's rows have none. */
function requeueOf(row) {
  const last = row.runs?.filter((each) => each.run < row.run).at(-1);
  if (last === undefined) return null;
  return { ...last, outcome: last.retried_at === null ? last.outcome : "retried", wait: between(row.queued_at, row.run_at) };
}

/** Milliseconds from one time to another; 0 where there is no other. */
function between(from, to) {
  return to === null ? 0 : Math.max(0, Date.parse(to) - Date.parse(from));
}

const CHANGES = {
  "job.queued": (job, data, { at }) => {
    job.type = data.job_type;
    job.status = "queued";
    job.runAt = data.run_at ?? null;
    job.createdAt ??= at;
  },
  "job.requeued": (job, data, { at }) => {
    job.type = data.job_type;
    job.status = "queued";
    job.runAt = data.run_at ?? null;
    job.requeue = data.reason && { ...data.reason, wait: between(at, data.run_at) };
    job.startedAt = null;
  },
  "job.started": (job, data, { at }) => {
    job.type = data.job_type;
    job.status = "processing";
    job.startedAt = at;
  },
  "job.progress": (job, data) => {
    job.progress = data.fraction;
    job.progressMessage = data.message;
    job.progressStage = data.stage ?? job.progressStage;
  },
  "stage.started": (job, data, { at }) => {
    job.status = "processing";
    job.progressStage = data.stage;
    if (job.stage(data.stage) === undefined) {
      job.stages.push({ name: data.stage, label: data.label, status: "running", at, ms: null });
    }
  },
  "stage.finished": (job, data) => {
    let stage = job.stage(data.stage);
    if (stage === undefined) job.stages.push((stage = { name: data.stage, at: null }));
    Object.assign(stage, { label: data.label, status: data.status, ms: data.ms });
  },
  "image.ready": (job, data) => {
    job.setImage(data.kind === "base" ? "base" : data.index, data);
  },
  "job.completed": (job, data, { at }) => {
    job.end("completed", data, at);
    job.progress = 1;
    job.resultId = data.result_id;
    job.setOutput(data.output);
  },
  "job.failed": (job, data, { at }) => {
    job.end("failed", data, at);
    job.error = data.error;
    job.errorMessage = data.error_message;
  },
  "job.cancelled": (job, data, { at }) => job.end("cancelled", data, at),
};
