/**
 * How the functions of the schema `uvian` are called, as the service: by PostgREST, or by a supabase-js
 * client of yours. A call that may be repeated is: every function may, since what it makes has ids of ours.
 */

import { pauseBefore } from "./backoff.js";
import { faultOfAnswer } from "./database_faults.js";

/** Runs a function of the schema; throws what is below. */
export type Call = (name: string, args: Record<string, unknown>) => Promise<unknown>;

/** The database refused: `code` is one of those in docs/database.md, `details` has its numbers. */
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
  override readonly name: string = "DatabaseAway";
}

/** The call ran into the server's statement timeout: repeated at once it would again. */
export class StatementTooSlow extends DatabaseAway {
  override readonly name = "StatementTooSlow";
}

/** An error as PostgREST describes it; a proxy's page has none of these. */
interface Problem {
  code?: string | null;
  message?: string | null;
  details?: string | null;
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
export function overPostgrest({ url, key, fetch: send = fetch }: PostgrestOptions): Call {
  const base = url.replace(/\/+$/, "");
  return async (name, args) => {
    let response: Response;
    let text: string;
    try {
      response = await send(`${base}/rpc/${name}`, {
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
      text = await response.text();
    } catch (error) {
      throw new DatabaseAway(String(error));
    }
    const body = parsed(text);
    if (response.ok) return answerOf(body);
    throw meaningOf(name, problemOf(body, text), response.status);
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
        const again = error instanceof DatabaseAway && !(error instanceof StatementTooSlow);
        if (!again || tried === TRIES) throw error;
      }
      await sleep(pauseBefore(tried, FIRST_PAUSE_MS, LONGEST_PAUSE_MS));
    }
  };
}

export function sleep(ms: number): Promise<void> {
  return new Promise((go) => setTimeout(go, ms));
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** A page of a proxy is quoted by its beginning. */
function problemOf(body: unknown, text: string): Problem {
  return typeof body === "object" && body !== null ? body : { details: text.slice(0, 200) };
}

/** Every function answers an object; anything else is a proxy's page. */
function answerOf(body: unknown): unknown {
  if (typeof body === "object" && body !== null && !Array.isArray(body)) return body;
  throw new DatabaseAway("What answers is not PostgREST: a proxy's page, or nothing.");
}

/** The same meanings as in the Python client. */
function meaningOf(name: string, { code, message, details }: Problem, status: number): Error {
  const text = message ?? "";
  const reason = text || code || `status ${status}`;
  const fault = faultOfAnswer(code ?? "", { message: text, status, body: Boolean(text || details) });
  switch (fault) {
    case "away":
    case "locked":
      return new DatabaseAway(reason);
    case "slow":
      return new StatementTooSlow(reason);
    case "schema":
      return new NotSetUp(`The schema uvian is missing or too old (${text}). Run: uvian migrate`);
    case "not_exposed":
      return new NotSetUp("Add uvian under Project Settings > Data API > Exposed schemas.");
    case "not_granted":
    case "key":
      return new NotSetUp(`The project's secret or service_role key is needed (${reason}).`);
    case "address":
      return new NotSetUp(`What answers is not the project that is meant (${reason}). Check the URL.`);
    case "refused":
      return new JobRefused(text, detailsOf(details ?? text));
    case "conflict":
    case "data":
    case "not_found":
      // Of the calls about one job only the id can be wrong.
      return new JobRefused(name === "create_jobs" ? "invalid_input" : "not_found", { message: text });
    case "unknown":
      return new Error(`${code}: ${text}`);
  }
}

/** What goes with a code: its members where the database sends JSON, else a sentence. */
function detailsOf(details: string): Record<string, unknown> {
  if (details.startsWith("{")) {
    try {
      return JSON.parse(details) as Record<string, unknown>;
    } catch {
      // a sentence that begins so
    }
  }
  return { message: details };
}
