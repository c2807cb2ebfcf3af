/**
 * The state of one conversation: its rows, the answers that are being written, and the questions that wait
 * for theirs. Knows no elements; `changed` is called when there is something else to show.
 */

import { MessageAssembler } from "../client/messages.js";
import { newKey } from "./api.js";
import { isOlder } from "./job.js";

const REMEMBERED = 100; // jobs
const OPEN_QUESTIONS = 5; // without an answer, whose jobs are read when a conversation is opened

export class Thread {
  #api;
  #id;
  #changed;
  #rows = new Map(); // id → row
  #assembler = new MessageAssembler();
  #waiting = new Map(); // question's id → {jobId, run, status, errorMessage, error}
  #jobs = new Map(); // job's id → its latest state by events, also of jobs that are not known yet
  #sending = []; // {key, content, problem}

  constructor(api, id, changed) {
    this.#api = api;
    this.#id = id;
    this.#changed = changed;
    this.loaded = false;
    this.hasEarlier = false;
  }

  // ─── what is received ─────────────────────────────────────────────────────────────────────────

  /** A listener for the conversation's topic. */
  listener({ onEnd } = {}) {
    return {
      onEvent: (event) => this.#receive(event),
      onState: ({ mode, state }) => {
        if (mode !== "resume") this.#assembler.restart();
        for (const event of state) this.#receive(event);
        return mode === "resume" && this.loaded ? undefined : this.load();
      },
      onEnd,
    };
  }

  #receive(event) {
    const message = this.#assembler.apply(event);
    if (message === null) return;
    const row = this.#rows.get(message.id);
    if (row !== undefined && message.state !== "writing") this.#finish(message, event);
    else if (event.type === "message.completed") this.#finish(message, event);
    else this.#changed({ event, message });
  }

  async #finish(message, event) {
    this.#changed({ event, message });
    // What is shown must be what is stored: where that is not certain, the row is read.
    if (event.type === "message.completed" && !(await message.isWhole())) await this.load();
  }

  /** Apply an event of the user's topic; some of them are of this conversation's jobs. */
  receiveJob({ type, job_id: jobId, run, data }) {
    const status = STATUS_AFTER[type];
    if (status === undefined) return;
    this.#jobs.delete(jobId);
    this.#jobs.set(jobId, { jobId, run, status, error: data.error ?? null, errorMessage: data.error_message ?? null });
    if (this.#jobs.size > REMEMBERED) this.#jobs.delete(this.#jobs.keys().next().value);
    // Also of a question whose answer was begun: where it fails there is no message, but a reason.
    const question = [...this.#rows.values()].find((row) => row.role === "user" && row.job_id === jobId);
    if (question !== undefined) this.#await(question.id, this.#waiting.get(question.id) ?? this.#jobs.get(jobId));
  }

  /** A question waits for a job. Events of the job may have come before its row, or before the reply to the post. */
  #await(question, job) {
    const latest = this.#jobs.get(job.jobId);
    this.#waiting.set(question, latest === undefined || isOlder(latest, job) ? job : latest);
    this.#changed({});
  }

  // ─── requests ─────────────────────────────────────────────────────────────────────────────────

  /** Read the latest rows, and what became of questions without an answer. */
  async load() {
    const page = await this.#api.messages(this.#id);
    if (!this.loaded) this.hasEarlier = page.more;
    this.#take(page.items);
    this.loaded = true;
    this.#changed({});
    await this.#readOpenJobs();
  }

  async loadEarlier() {
    const first = Math.min(...[...this.#rows.values()].map((row) => row.position));
    const page = await this.#api.messages(this.#id, { before: first });
    this.hasEarlier = page.more;
    this.#take(page.items);
    this.#changed({});
  }

  /** Post a message; it is shown at once, and stays with its problem when it cannot be sent. */
  async send(content) {
    const sending = { key: newKey(), content, problem: null };
    this.#sending.push(sending);
    await this.#post(sending);
  }

  async sendAgain(key) {
    const sending = this.#sending.find((each) => each.key === key);
    if (sending !== undefined) await this.#post(sending);
  }

  /** Remove a message that could not be sent; returns its text. */
  takeBack(key) {
    const at = this.#sending.findIndex((each) => each.key === key);
    const [sending] = at < 0 ? [null] : this.#sending.splice(at, 1);
    this.#changed({});
    return sending?.content ?? "";
  }

  /** Stop the answer that is shown as the next to come, and no other that began meanwhile. */
  stop() {
    const meant = this.entries().find(isAwaited);
    return this.#api.stop(this.#id, this.#rows.get(meant?.question)?.job_id);
  }

  /** Have a question answered whose chat has failed. */
  async retry(question) {
    const { jobId, run } = this.#waiting.get(question);
    const again = await this.#api.retry(jobId, run);
    this.#await(question, { jobId, run: again.run, status: again.status, error: null, errorMessage: null });
  }

  async #post(sending) {
    sending.problem = null;
    this.#changed({ sent: true });
    try {
      const { id, position, job } = await this.#api.post(this.#id, sending.content, sending.key);
      this.#sending = this.#sending.filter((each) => each !== sending);
      const known = this.#rows.get(id);
      this.#take([known ?? { id, position, role: "user", content: sending.content, status: "completed", job_id: job.id, reply_to: null, created_at: new Date().toISOString() }]);
      this.#await(id, { jobId: job.id, run: job.run, status: job.status, error: null, errorMessage: null });
    } catch (problem) {
      sending.problem = problem;
    }
    this.#changed({ sent: true });
  }

  #take(rows) {
    for (const row of rows) this.#rows.set(row.id, row);
  }

  async #readOpenJobs() {
    const open = [...this.#rows.values()]
      .filter((row) => row.role === "user" && row.job_id && !this.#isAnswered(row.id) && !this.#waiting.has(row.id))
      .slice(-OPEN_QUESTIONS);
    for (const row of open) {
      try {
        const job = await this.#api.job(row.job_id);
        if (job.status === "completed" || this.#isAnswered(row.id)) continue;
        this.#await(row.id, { jobId: job.id, run: job.run, status: job.status, error: job.error, errorMessage: job.error_message });
      } catch {
        // Another member's job, or one that is deleted: there is nothing to show.
      }
    }
  }

  // ─── what there is ────────────────────────────────────────────────────────────────────────────

  #isAnswered(question) {
    const isStreamed = [...this.#assembler.messages.values()].some((each) => each.replyTo === question && each.state !== "void" && each.state !== "unknown");
    return isStreamed || [...this.#rows.values()].some((row) => row.reply_to === question);
  }

  /** Whether an answer of which some was missed goes on; not where its job is known to have ended or to wait. */
  #mayBeWritten(question) {
    const job = this.#waiting.get(question);
    return job === undefined || job.status === "processing";
  }

  /** Whether an answer is being written or awaited. */
  get isAnswering() {
    return this.entries().some(isAwaited);
  }

  /**
   * What to show, every answer beneath its question:
   * `{key, role, state, text, question?, job?, problem?, usage?, at?}`; `state` is completed, cancelled,
   * writing, waiting, failed, sending or unsent.
   */
  entries() {
    const entries = [...this.#rows.values()].map(rowEntry);
    const positions = new Map([...this.#rows.values()].map((row) => [row.id, row.position]));
    for (const message of this.#assembler.messages.values()) {
      if (message.state === "void" || this.#rows.has(message.id)) continue;
      if (message.state === "unknown" && (message.bytes === 0 || !this.#mayBeWritten(message.replyTo))) continue;
      const state = message.state === "unknown" ? "writing" : message.state;
      entries.push({ key: message.id, role: "assistant", state, text: message.text, question: message.replyTo, position: Infinity });
    }
    const answered = new Set(entries.map(({ question }) => question));
    for (const [question, job] of this.#waiting) {
      if (answered.has(question)) continue;
      const state = job.status === "failed" ? "failed" : job.status === "cancelled" ? "stopped" : "waiting";
      entries.push({ key: `waiting ${question}`, role: "assistant", state, text: "", question, job, position: Infinity });
    }
    const group = (entry) => positions.get(entry.question) ?? entry.position;
    entries.sort((a, b) => group(a) - group(b) || (a.position === b.position ? 0 : a.position - b.position));
    const unsent = this.#sending.map(({ key, content, problem }) => ({ key, role: "user", state: problem ? "unsent" : "sending", text: content, problem }));
    return [...entries, ...unsent];
  }
}

function isAwaited(entry) {
  return entry.state === "writing" || entry.state === "waiting";
}

function rowEntry(row) {
  return {
    key: row.id,
    role: row.role,
    state: row.status,
    text: row.content,
    question: row.reply_to,
    usage: row.usage,
    at: row.created_at,
    position: row.position,
  };
}

const STATUS_AFTER = {
  "job.queued": "queued",
  "job.requeued": "queued",
  "job.started": "processing",
  "job.failed": "failed",
  "job.cancelled": "cancelled",
};
