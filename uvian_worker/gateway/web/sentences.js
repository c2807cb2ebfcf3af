/** What went wrong as a sentence, and what to do next. */

import { stageName } from "./data/job.js";
import { clock, credits, duration, isNothing } from "./format.js";

const NEXT = {
  network: ["The server cannot be reached.", "Check your connection; nothing you typed is lost."],
  unavailable: ["The service is not available at the moment.", "Try again in a few seconds."],
  rate_limited: ["That was too fast.", "Wait a moment, then try again."],
  too_many_queued: ["Too many of your jobs are waiting already.", "Wait until some are done, or cancel one under Jobs."],
  unknown_type: ["No worker here does this kind of work.", "Ask whoever runs this service to enable it."],
  type_disabled: ["This kind of work is switched off.", "Ask whoever runs this service to enable it."],
  type_not_open: ["This kind of work is not open to you.", "Ask whoever runs this service to open it."],
  not_allowed: ["Something in this request is not allowed here.", "Use the default, or ask whoever runs this service."],
  too_many_conversations: ["Too many of your conversations have no message yet.", "Use one of them, or delete some."],
  not_retryable: ["This job is not one that can run again.", "Start a new one instead."],
  conversation_busy: ["An answer is still being written.", "Wait for it, or stop it."],
  input_too_large: ["That is too long.", "Shorten it and try again."],
  unauthorized: ["You are not signed in.", "Sign in and try again."],
  token_expired: ["Your session has ended.", "Sign in and try again."],
  invalid_token: ["Your access token is not accepted here.", "Sign in with another one."],
  not_found: ["This is not here.", "It may have been deleted, or belongs to another account."],
};

/** `[what is wrong, the next step]` for a problem of the gateway. */
export function explained(problem) {
  if (problem.code === "insufficient_credits") {
    const { cost, balance } = problem.members;
    const numbers = cost === undefined ? "" : ` This costs ${credits(cost)}, and you have ${credits(balance)}.`;
    return [`There are not enough credits.${numbers}`, "Ask for less, or top up your account."];
  }
  if (problem.code === "invalid_input") return [named(problem) || "Something in it is not valid.", "Correct it and try again."];
  if (NEXT[problem.code]) return NEXT[problem.code];
  return [problem.detail || problem.title || "Something went wrong here.", "Try again; if it stays, tell whoever runs this service."];
}

/** Why a job failed: its sentence, and whether another try makes sense. */
export function failureOf(job) {
  const sentence = job.errorMessage || job.error?.message || "It failed.";
  const next = NEXT_OF_JOB[job.error?.code] ?? "Try again.";
  return [/[.!?]$/.test(sentence) ? sentence : `${sentence}.`, next];
}

/** Whether the same job may do better in another run: what was wrong with it is wrong then as well. */
export function mayRunAgain(job) {
  if (job.status === "cancelled") return true;
  return job.error?.retryable !== false || PASSES.has(job.error.code);
}

/** What a job that is queued waits for, and until when, as the end of a sentence. */
export function waitsFor(job, now = Date.now()) {
  if (job.runAt === null || !(new Date(job.runAt).getTime() > now)) return "a worker";
  return `${job.run > 1 ? "its next try" : "its time"} at ${clock(job.runAt, now)}`;
}

/** Why a job waits for another run that nobody requested, and for how long on purpose; else null. */
export function requeueReason(job) {
  if (job.status !== "queued" || !job.requeue || job.requeue.outcome === "retried") return null;
  const { outcome, attempt, error, wait } = job.requeue;
  const next = wait < 50 ? "again at once" : `again in ${duration(wait)}`;
  if (outcome !== "retry") return `${REQUEUED[outcome] ?? "It waits for another run"}, ${next}.`;
  const what = attempt >= (error?.attempt ?? 0) ? `Attempt ${attempt} failed` : "It was put off";
  const where = error?.stage ? ` in “${stageName(error.stage)}”` : "";
  return `${what}${where}: ${(error?.message ?? "").replace(/\.$/, "")}, ${next}.`;
}

const REQUEUED = {
  worker_lost: "Its worker was lost",
  interrupted: "Its worker was stopped",
  not_mine: "Its worker does not do this kind of work",
};

/** What a job costs, or has cost. One that failed is not free: it has no price to show. */
export function priceOf(job) {
  if (job.cost === null) return null;
  if (!isNothing(job.cost)) return credits(job.cost);
  return job.status === "failed" || job.status === "cancelled" ? null : "Free";
}

/** Failures that are not the job's own, though the worker does not try again by itself. */
const PASSES = new Set(["worker_lost", "no_executor"]);

const NEXT_OF_JOB = {
  invalid_input: "Change the input and send it again.",
  not_found: "Something it needs has been deleted.",
  provider_rejected: "Use other words, or tell whoever runs this service.",
  provider_unavailable: "This is often temporary: try again in a while.",
  storage_unavailable: "Try again in a while.",
  storage_misconfigured: "Try again in a while, or tell whoever runs this service.",
  storage_refused: "Choose a smaller picture.",
  rate_limited: "Try again in a while.",
  timeout: "Try again, or with less to do.",
  no_executor: "No worker does this kind of work at the moment: try again later.",
  worker_lost: "Its workers crashed. Try again; if it stays, tell whoever runs this service.",
  internal_error: "Try again; if it stays, tell whoever runs this service.",
};

/** What the checks say for programmers. */
const PLAIN = {
  extra_forbidden: "is not expected here.",
  missing: "is missing.",
  string_pattern_mismatch: "has characters that are not allowed here.",
  format: "is not of the form that it has to be.",
};

function named(problem) {
  const first = problem.errors[0];
  if (!first) return problem.detail;
  const field = first.field ? first.field.split(".").at(-1).replaceAll("_", " ") : "";
  if (!field) return first.message;
  const name = `${field[0].toUpperCase()}${field.slice(1)}`;
  if (PLAIN[first.code]) return `${name} ${PLAIN[first.code]}`;
  const should = first.message.match(/^(?:Input|String|Value|List) (should .*)$/);
  return should ? `${name} ${should[1]}.` : `${name}: ${first.message}.`;
}
