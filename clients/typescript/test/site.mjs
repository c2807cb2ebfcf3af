/** Where the tests are: a gateway, a worker, Postgres behind PostgREST and Redis, all of them real. */

import { setTimeout as sleep } from "node:timers/promises";
import { Redis } from "ioredis";
import WebSocket from "ws";
import { Client, Live, overPostgrest } from "uvian-client";

const { UVIAN_GATEWAY, UVIAN_REDIS, UVIAN_REST, UVIAN_KEY, UVIAN_CONTROLS } = process.env;

export const rest = { url: `${UVIAN_REST}/rest/v1`, key: UVIAN_KEY };
export const project = { url: UVIAN_REST, key: UVIAN_KEY };
export const redisUrl = UVIAN_REDIS;

export const ioredis = new Redis(UVIAN_REDIS);
/** As the README shows it. */
export const overIoredis = (redis) => ({
  eval: (script, keys, args) => redis.eval(script, keys.length, ...keys, ...args),
});

export const uvian = new Client({ call: overPostgrest(rest), redis: overIoredis(ioredis) });

/** What only the other side can do: `person`, `token`; `kill`, `stop` and `start` (the gateway). */
export async function control(what, query = {}) {
  const answer = await fetch(`${UVIAN_CONTROLS}/${what}?${new URLSearchParams(query)}`, { method: "POST" });
  if (!answer.ok) throw new Error(await answer.text());
  return answer.json();
}

/** The gateway's REST API, as this person. */
export async function request(person, method, path, body) {
  const answer = await fetch(`${UVIAN_GATEWAY}${path}`, {
    method,
    headers: { Authorization: `Bearer ${person.token}`, "Content-Type": "application/json" },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
  return answer.json();
}

export const liveUrl = `${UVIAN_GATEWAY.replace("http", "ws")}/v1/live`;

/** A live client of this person; closed when the test is over. */
export function liveOf(t, person, options = {}) {
  const live = new Live({ url: liveUrl, token: async () => person.token, WebSocket, ...options });
  t.after(() => live.close());
  return live;
}

/** All events in the log of a topic. */
export async function logOf(topic) {
  const entries = await ioredis.xrange(`uvian:log:${topic}`, "-", "+");
  return entries.map(([, [, envelope]]) => JSON.parse(envelope));
}

/** Follows a topic and collects all that is delivered. */
export function follow(live, topic, cursor = null) {
  const received = { events: [], states: [], end: null };
  received.subscription = live.follow(topic, {
    cursor,
    onEvent: (event) => received.events.push(event),
    onState: (state) => received.states.push(state),
    onEnd: (end) => (received.end = end),
  });
  return received;
}

/** What the condition answers once it is true. */
export async function until(condition, what = String(condition)) {
  const deadline = Date.now() + 60_000;
  for (;;) {
    const answer = await condition();
    if (answer) return answer;
    if (Date.now() > deadline) throw new Error(`it did not come true: ${what}`);
    await sleep(20);
  }
}
