/** The two calls of Redis: the dispatch, and the message to the worker of a job that shall stop. */

import { DISPATCH_SCRIPT } from "./dispatch_script.js";

/** A Redis client of your choice: ARGV is `args`, and `keys` is always empty. */
export interface RedisLike {
  eval(script: string, keys: string[], args: string[]): Promise<unknown>;
}

/** A job as the functions of the schema answer it. */
export interface JobRow {
  id: string;
  run: number;
  user_id: string;
  type: string;
  status: string;
  priority: number;
  run_at: string;
  attempt: number;
  cost: string;
  /** `run_at` is yet to come. */
  delayed?: boolean;
  /** How the last run ended. */
  reason?: Record<string, unknown> | null;
}

/** What became of a dispatch; `lost` is one that Redis did not answer, which the sweeper repeats. */
export type Dispatched = "queued" | "waiting" | "claiming" | "fenced" | "sealed" | "lost";

const PATIENCE_MS = 1_000;

// Which server this is; empty where it does not answer. Histories of two servers are never mixed up.
const WHO = `
local server = redis.pcall('INFO', 'server')
local replication = redis.pcall('INFO', 'replication')
if type(server) ~= 'string' or type(replication) ~= 'string' then return '' end
return (server:match('run_id:(%w+)') or '') .. ':' .. (replication:match('master_replid:(%w+)') or '')
`;
const PUBLISH = "return redis.call('PUBLISH', ARGV[1], ARGV[2])";

export class Queue {
  readonly #redis: RedisLike;
  readonly #namespace: string;

  constructor(redis: RedisLike, namespace: string) {
    this.#redis = redis;
    this.#namespace = namespace;
  }

  /** Put jobs into the queue, all in one call. Never throws because Redis is away. */
  async dispatch(jobs: readonly JobRow[]): Promise<Dispatched[]> {
    if (jobs.length === 0) return [];
    const answer = await this.#within(this.#dispatch(jobs));
    return Array.isArray(answer) ? answer.map((outcome) => String(outcome) as Dispatched) : jobs.map(() => "lost");
  }

  /** Publish that a run shall stop. Its row says so already: a lost message costs a moment. */
  async cancel({ id, run }: Pick<JobRow, "id" | "run">): Promise<void> {
    const document = JSON.stringify({ type: "job.cancel", job_id: id, run });
    await this.#within(this.#redis.eval(PUBLISH, [], [`${this.#namespace}:control`, document]));
  }

  async #dispatch(jobs: readonly JobRow[]): Promise<unknown> {
    const server = String(await this.#redis.eval(WHO, [], []));
    const args = jobs.flatMap((job) => [
      job.id,
      String(job.run),
      job.user_id,
      job.type,
      String(job.priority),
      job.delayed ? String(Date.parse(job.run_at)) : "",
      String(job.attempt),
      job.reason ? JSON.stringify(job.reason) : "",
    ]);
    return this.#redis.eval(DISPATCH_SCRIPT, [], [this.#namespace, server, random(), ...args]);
  }

  /** The answer; undefined where there was none in time. */
  async #within(call: Promise<unknown>): Promise<unknown> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<undefined>((done) => {
      timer = setTimeout(() => done(undefined), PATIENCE_MS);
    });
    return Promise.race([call.catch(() => undefined), late]).finally(() => clearTimeout(timer));
  }
}

/** 16 hexadecimal digits. */
function random(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
