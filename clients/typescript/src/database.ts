/**
 * How the functions of the schema `uvian` are called, as the service: by PostgREST, or by a supabase-js
 * client of yours. A call that may be repeated is: every function may, since what it makes has ids of ours.
 */

import { pauseBefore } from "./backoff.js";

/** Runs a function of the schema; throws what is below. */
export type Call = (name: string, args: Record<string, unknown>) => Promise<unknown>;

/** The database said no: `code` is one of those in docs/database.md, `details` has its numbers. */
export class JobRefused extends Error {
  override readonly name = "JobRefused";
  readonly code: string;
  readonly details: Readonly<Record<string, unknown>>;

  constructor(code: string, details: Record<string, unknown> = {}) {
    super(code);
    this.code = code;
    this.details = details;
  }
}

/** The project is not ready for calls, and repeating them does not help: the message says what does. */
export class NotSetUp extends Error {
  override readonly name = "NotSetUp";
}

/** The database did not answer, or not at the moment. The request may have been carried out all the same. */
export class DatabaseAway extends Error {
  override readonly name = "DatabaseAway";
}

/** The part of supabase-js that is used: `createClient(url, secretKey)` has it. */
export interface SupabaseLike {
  schema(name: string): {
    rpc(name: string, args: Record<string, unknown>): PromiseLike<{
      data: unknown;
      error: { code?: string; message: string; details?: string | null } | null;
      status: number;
    }>;
  };
}

export interface PostgrestOptions {
  /** Where PostgREST is: `https://<ref>.supabase.co/rest/v1`. */
  url: string;
  /** The project's secret (or `service_role`) key. Never in a browser. */
  key: string;
  fetch?: typeof fetch;
}

const PATIENCE_MS = 10_000; // for one call
const TRIES = 4;
const FIRST_PAUSE_MS = 50;
const LONGEST_PAUSE_MS = 800;

/** Calls by `fetch`, without any library. */
export function overPostgrest({ url, key, fetch: ask = fetch }: PostgrestOptions): Call {
  const base = url.replace(/\/+$/, "");
  return async (name, args) => {
    let response: Response;
    let body: unknown;
    try {
      response = await ask(`${base}/rpc/${name}`, {
        method: "POST",
        headers: {
          apikey: key,
          Authorization: `Bearer ${key}`,
          "Content-Type": "application/json",
          "Content-Profile": "uvian",
        },
        body: JSON.stringify(args),
        signal: AbortSignal.timeout(PATIENCE_MS),
      });
      body = await response.json();
    } catch (error) {
      throw new DatabaseAway(String(error));
    }
    if (response.ok) return answerOf(body);
    const problem = (body ?? {}) as { code?: string; message?: string; details?: string | null };
    throw meaningOf(name, problem, response.status);
  };
}

/** Calls through a client of yours that has the secret key. */
export function overSupabase(supabase: SupabaseLike): Call {
  return async (name, args) => {
    let outcome;
    try {
      outcome = await supabase.schema("uvian").rpc(name, args);
    } catch (error) {
      throw new DatabaseAway(String(error));
    }
    if (outcome.error === null) return answerOf(outcome.data);
    throw meaningOf(name, outcome.error, outcome.status);
  };
}

/** A call that is repeated while the database is away. */
export function patient(call: Call): Call {
  return async (name, args) => {
    for (let tried = 1; ; tried += 1) {
      try {
        return await call(name, args);
      } catch (error) {
        if (!(error instanceof DatabaseAway) || tried === TRIES) throw error;
      }
      await sleep(pauseBefore(tried, FIRST_PAUSE_MS, LONGEST_PAUSE_MS));
    }
  };
}

export function sleep(ms: number): Promise<void> {
  return new Promise((go) => setTimeout(go, ms));
}

/** Every function answers an object; anything else is a proxy's page. */
function answerOf(body: unknown): unknown {
  if (typeof body === "object" && body !== null && !Array.isArray(body)) return body;
  throw new DatabaseAway("What answers is not PostgREST: a proxy's page, or nothing.");
}

/** As `uvian_worker.calls` reads PostgREST's errors, and those of the gateway before it. */
function meaningOf(
  name: string,
  { code = "", message = "", details }: { code?: string; message?: string; details?: string | null },
  status: number,
): Error {
  const told = details ? { message: details } : { message };
  if (code === "PGRST106") {
    return new NotSetUp("Add uvian under Project Settings > Data API > Exposed schemas.");
  }
  if (code === "PGRST202" || code === "PGRST203" || /^(42883|3F000|42P01)$/.test(code)) {
    return new NotSetUp(`The schema uvian is missing or too old (${message}). Run: uvian migrate`);
  }
  if (code.startsWith("PGRST30") || code === "42501" || /API key/.test(message) || (!code && status === 401)) {
    return new NotSetUp(`The project's secret or service_role key is needed (${message}).`);
  }
  if (code.startsWith("PT")) return new JobRefused(message, told);
  if (code.startsWith("22") || code === "23514") {
    // Of the calls about one job only the id can be wrong.
    return new JobRefused(name === "create_jobs" ? "invalid_input" : "not_found", { message });
  }
  const passes = !code || /^(PGRST00|08|57P|55P03|40P01|40001|53300|\d{3}$)/.test(code);
  return passes ? new DatabaseAway(message || `status ${status}`) : new Error(`${code}: ${message}`);
}
