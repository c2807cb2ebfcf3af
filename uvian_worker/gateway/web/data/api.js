/** The REST side of the gateway: one method per endpoint. */

import { pauseBefore } from "../client/backoff.js";

/** An answer that is an error, or none at all (`code` is then `network`). */
export class Problem extends Error {
  constructor({ code, status = 0, title = "", detail = "", errors = [], ...members }) {
    super(detail || title || code);
    this.name = "Problem";
    this.code = code;
    this.status = status;
    this.title = title;
    this.detail = detail;
    this.errors = errors;
    this.members = members;
  }

  /** Whether the same request may succeed a moment later. */
  get isTransient() {
    return this.code === "network" || this.code === "unavailable" || this.code === "rate_limited";
  }
}

const TRIES = 3;
const PATIENCE_MS = 20_000;
const FIRST_PAUSE_MS = 400;
const LONGEST_PAUSE_MS = 10_000;

/**
 * `token` returns the access token; `onUnauthorized` is called when it is not accepted. A request that changes
 * nothing, or carries a key or an id of its own, is repeated when the network fails.
 */
export class Api {
  constructor({ base, token, onUnauthorized = () => {} }) {
    this.base = base;
    this.token = token;
    this.onUnauthorized = onUnauthorized;
  }

  createJob(type, input, key) {
    return this.#request("POST", "v1/jobs", { body: { type, input, idempotency_key: key }, repeat: true });
  }

  jobs({ status, type, cursor, limit = 20 } = {}) {
    return this.#request("GET", "v1/jobs", { query: { status, type, cursor, limit } });
  }

  job(id) {
    return this.#request("GET", `v1/jobs/${id}`);
  }

  cancel(id) {
    return this.#request("POST", `v1/jobs/${id}/cancel`, { repeat: true });
  }

  retry(id, run) {
    return this.#request("POST", `v1/jobs/${id}/retry`, { body: { expected_run: run }, repeat: true });
  }

  cost(type, input) {
    return this.#request("POST", "v1/cost", { body: { type, input }, repeat: true });
  }

  credits() {
    return this.#request("GET", "v1/credits");
  }

  concepts({ cursor, limit = 12 } = {}) {
    return this.#request("GET", "v1/concepts", { query: { cursor, limit } });
  }

  concept(id) {
    return this.#request("GET", `v1/concepts/${id}`);
  }

  sign(paths) {
    return this.#request("POST", "v1/files/sign", { body: { paths }, repeat: true });
  }

  conversations({ cursor, limit = 30 } = {}) {
    return this.#request("GET", "v1/conversations", { query: { cursor, limit } });
  }

  conversation(id) {
    return this.#request("GET", `v1/conversations/${id}`);
  }

  createConversation(title) {
    return this.#request("POST", "v1/conversations", { body: { id: newId(), title }, repeat: true });
  }

  deleteConversation(id) {
    return this.#request("DELETE", `v1/conversations/${id}`, { repeat: true });
  }

  messages(conversation, { before, limit = 50 } = {}) {
    return this.#request("GET", `v1/conversations/${conversation}/messages`, { query: { before, limit } });
  }

  post(conversation, content, key) {
    return this.#request("POST", `v1/conversations/${conversation}/messages`, {
      body: { content, idempotency_key: key },
      repeat: true,
    });
  }

  stop(conversation, jobId) {
    const body = jobId === undefined ? {} : { job_id: jobId };
    return this.#request("POST", `v1/conversations/${conversation}/stop`, { body, repeat: jobId !== undefined });
  }

  async #request(method, path, { query = {}, body, repeat = method === "GET" } = {}) {
    for (let tried = 1; ; tried += 1) {
      try {
        return await this.#once(method, path, query, body);
      } catch (problem) {
        if (problem.code === "unauthorized" || problem.status === 401) this.onUnauthorized(problem);
        if (!(repeat && problem.isTransient && tried < TRIES)) throw problem;
        await pause(problem, tried);
      }
    }
  }

  async #once(method, path, query, body) {
    const url = new URL(path, this.base);
    for (const [name, value] of Object.entries(query)) {
      if (value !== undefined && value !== null) url.searchParams.set(name, value);
    }
    let response;
    let document = null;
    try {
      response = await fetch(url, {
        method,
        headers: {
          Authorization: `Bearer ${this.token() ?? ""}`,
          ...(body === undefined ? {} : { "Content-Type": "application/json" }),
        },
        body: body === undefined ? undefined : JSON.stringify(body),
        signal: AbortSignal.timeout(PATIENCE_MS),
      });
      if (response.status !== 204) document = await response.json();
    } catch {
      throw new Problem({ code: "network", title: "The server cannot be reached." });
    }
    if (!response.ok) {
      const after = Number(response.headers.get("Retry-After"));
      throw new Problem({ status: response.status, code: "internal_error", ...document, ...(after ? { after } : {}) });
    }
    return document;
  }
}

function pause(problem, tried) {
  const requested = problem.members.after * 1000; // NaN without a Retry-After
  const pause = requested >= 0 ? Math.min(requested, LONGEST_PAUSE_MS) : pauseBefore(tried, FIRST_PAUSE_MS, LONGEST_PAUSE_MS);
  return new Promise((go) => setTimeout(go, pause));
}

/** A key under which a repeated request is the same request. */
export function newKey() {
  return newId();
}

/** A random UUID, also on pages that were not loaded over https. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}
