/**
 * Jobs from a server of yours: a row in Postgres first, then the dispatch on Redis.
 *
 * The database is the truth. When Redis is away a job is dispatched by the sweeper as soon as it is back;
 * a call whose reply was lost is repeated with the same ids, and made once.
 */

import { type Call, JobRefused, patient } from "./database.js";
import { type Dispatched, type JobRow, Queue, type RedisLike } from "./redis.js";

export interface NewJob {
  userId: string;
  type: string;
  input: Record<string, unknown>;
  /** An id of yours: the same id makes the same job. */
  id?: string;
  /** The same key of a user makes one job. */
  idempotencyKey?: string;
  /** Seconds of head start. */
  priority?: number;
  /** Not before. */
  runAt?: Date;
  /** Refuse if it costs more: a decimal number as text. */
  maxCost?: string;
  /** Where a user's own wish is passed on: what the operator opened to them then holds. */
  door?: Door;
}

/** How somebody came whose request is passed on: signed in, or by an anonymous sign-in. */
export type Door = "browser" | "anonymous";

/** A job as the database answered it. */
export interface Job {
  id: string;
  status: string;
  run: number;
  /** Credits reserved or charged, a decimal number as text. */
  cost: string;
}

export interface SubmittedJob extends Job {
  /** False when the same request had made it before. */
  created: boolean;
  /** What Redis answered; null where there was nothing to dispatch (yet). */
  dispatched: Dispatched | null;
}

export interface ClientOptions {
  call: Call;
  redis: RedisLike;
  /** `UVIAN_NAMESPACE` of the workers. */
  namespace?: string;
}

interface Made {
  job: JobRow;
  created: boolean;
  dispatch: boolean;
  delayed?: boolean;
}

/** With numbers that go with the code. */
interface Refused {
  job?: never;
  code: string;
}

/** For any number of users: check who is calling before you use it. */
export class Client {
  readonly #call: Call;
  readonly #queue: Queue;

  constructor({ call, redis, namespace = "uvian" }: ClientOptions) {
    this.#call = patient(call);
    this.#queue = new Queue(redis, namespace);
  }

  /** Create a job, reserve its credits, and wake a worker. Throws `JobRefused`. */
  async submit(job: NewJob): Promise<SubmittedJob> {
    const [made] = await this.createJobs([job]);
    if (made instanceof JobRefused) throw made;
    return made!;
  }

  /** Many jobs in one transaction; one answer each, in order. One that is refused stops no other. */
  async createJobs(jobs: readonly NewJob[]): Promise<(SubmittedJob | JobRefused)[]> {
    const items = jobs.map(itemOf);
    const answer = (await this.#call("create_jobs", { request: { jobs: items } })) as { jobs: (Made | Refused)[] };
    const rows = answer.jobs.flatMap((made) =>
      made.job !== undefined && made.dispatch ? [{ ...made.job, delayed: made.delayed ?? false }] : [],
    );
    const outcomes = await this.#queue.dispatch(rows);
    const dispatched = new Map(rows.map((row, n) => [row.id, outcomes[n] ?? "lost"]));
    return answer.jobs.map((made, n) => {
      if (made.job === undefined) return new JobRefused(made.code, { ...made });
      // The first reply may have been lost; an id that we have made up shows that the job is ours.
      const created = made.created || (jobs[n]?.id === undefined && made.job.id === items[n]?.id);
      return { ...handleOf(made.job), created, dispatched: dispatched.get(made.job.id) ?? null };
    });
  }

  /**
   * Cancel a job: at once when it waits, within a second when it runs. With `userId` another user's job is
   * `not_found`. Throws `JobRefused`.
   */
  async cancel(jobId: string, { userId }: { userId?: string } = {}): Promise<Job> {
    const answer = (await this.#call("cancel_job", { job_id: jobId, user_id: userId ?? null })) as {
      job: JobRow;
      requested: boolean;
      dispatch: JobRow[];
    };
    if (answer.requested) await this.#queue.cancel(answer.job);
    await this.#queue.dispatch(answer.dispatch);
    return handleOf(answer.job);
  }

  /** Run a failed or cancelled job again; `expectedRun` is the run the caller saw. Throws `JobRefused`. */
  async retry(
    jobId: string,
    { expectedRun, userId, door }: { expectedRun: number; userId?: string; door?: Door },
  ): Promise<Job> {
    const request = { job_id: jobId, expected_run: expectedRun, user_id: userId ?? null, door: door ?? null };
    const answer = (await this.#call("retry_job", request)) as { job: JobRow; dispatch: JobRow[] };
    await this.#queue.dispatch(answer.dispatch);
    return handleOf(answer.job);
  }
}

function itemOf(job: NewJob): Record<string, unknown> {
  return {
    // The id is the client's, so that repeating the call after a lost reply cannot make two jobs.
    id: job.id ?? crypto.randomUUID(),
    user_id: job.userId,
    type: job.type,
    input: job.input,
    priority: job.priority ?? 0,
    run_at: momentOf(job.runAt),
    idempotency_key: job.idempotencyKey ?? null,
    max_cost: job.maxCost ?? null,
    door: job.door ?? null,
  };
}

/** As text with its offset from UTC: what is no moment, such as a text without one, is refused here. */
function momentOf(runAt: Date | null | undefined): string | null {
  if (runAt === undefined || runAt === null) return null;
  if (!(runAt instanceof Date) || Number.isNaN(runAt.getTime())) {
    throw new JobRefused("invalid_input", { field: "run_at", message: "runAt is a valid Date." });
  }
  return runAt.toISOString();
}

function handleOf({ id, status, run, cost }: JobRow): Job {
  return { id, status, run, cost };
}
