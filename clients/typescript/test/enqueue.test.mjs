import assert from "node:assert/strict";
import { after, test } from "node:test";
import { createClient as createSupabase } from "@supabase/supabase-js";
import { Redis } from "ioredis";
import { createClient } from "redis";
import WebSocket from "ws";
import { Client, DatabaseAway, JobRefused, NotSetUp, overPostgrest, overSupabase } from "uvian-client";
import { follow, control, ioredis, liveOf, overIoredis, project, redisUrl, rest, logOf, until, uvian } from "./site.mjs";

after(() => ioredis.disconnect());

const input = { logo_description: "A fox", theme_description: "autumn", size: 256, num_palettes: 1 };
const generation = (person, more = {}) => ({ userId: person.id, type: "generation", input, ...more });

const isNews = (event) => event.type !== "job.progress";

test("a job is enqueued, and its completion is received live", async (t) => {
  const person = await control("person");
  const job = await uvian.submit(generation(person));
  assert.deepEqual([job.created, job.dispatched, job.run], [true, "queued", 1]);
  const received = follow(liveOf(t, person), `job:${job.id}`);
  await until(() => received.end);
  assert.deepEqual(received.end, { reason: "ended" });
  // Once and in order, all that was published; of progress only the latest, where the gateway fell behind.
  const seqs = received.events.map((event) => event.seq);
  assert.deepEqual(seqs, [...new Set(seqs)].sort((a, b) => a - b));
  assert.deepEqual(received.events.filter(isNews), (await logOf(`job:${job.id}`)).filter(isNews));
  assert.equal(received.events[0].type, "job.queued");
  assert.equal(received.events.at(-1).type, "job.completed");
  assert.equal(received.subscription.cursor, received.events.at(-1).id);
});

test("over supabase-js and node-redis it is the same", async (t) => {
  const redis = await createClient({ url: redisUrl }).connect();
  t.after(() => redis.destroy());
  const supabase = createSupabase(project.url, project.key, { realtime: { transport: WebSocket } });
  const client = new Client({
    call: overSupabase(supabase),
    redis: { eval: (script, keys, args) => redis.eval(script, { keys, arguments: args }) },
  });
  const person = await control("person");
  const [job, refused] = await client.createJobs([generation(person), generation(person, { type: "nothing" })]);
  assert.equal(job.dispatched, "queued");
  assert.ok(refused instanceof JobRefused);
  assert.equal(refused.code, "unknown_type");
  await assert.rejects(client.cancel("no id"), { name: "JobRefused", code: "not_found" });
});

test("a reply that was lost makes no second job", async () => {
  const person = await control("person");
  let lost = 0;
  const lossy = async (...request) => {
    const answer = await fetch(...request);
    lost += 1;
    if (lost === 1) throw new TypeError("fetch failed");
    return answer;
  };
  const client = new Client({ call: overPostgrest({ ...rest, fetch: lossy }), redis: overIoredis(ioredis) });
  const job = await client.submit(generation(person, { idempotencyKey: "once" }));
  assert.equal(lost, 2);
  assert.equal(job.created, true);
  const again = await client.submit(generation(person, { idempotencyKey: "once" }));
  assert.deepEqual([again.id, again.created], [job.id, false]);
});

test("without Redis the job runs all the same, found by the sweeper", async (t) => {
  const nowhere = new Redis("redis://127.0.0.1:1", { maxRetriesPerRequest: null });
  nowhere.on("error", () => {});
  t.after(() => nowhere.disconnect());
  const client = new Client({ call: overPostgrest(rest), redis: overIoredis(nowhere) });
  const person = await control("person");
  const job = await client.submit(generation(person));
  assert.equal(job.dispatched, "lost");
  const received = follow(liveOf(t, person), `job:${job.id}`);
  await until(() => received.events.at(-1)?.type === "job.completed");
});

test("a time without its zone is refused, in whatever language it is written", async () => {
  const person = await control("person");
  for (const runAt of ["2030-01-01T12:00:00", "tomorrow", new Date("nonsense")]) {
    await assert.rejects(uvian.submit(generation(person, { runAt })), { name: "JobRefused", code: "invalid_input" });
  }
  const job = await uvian.submit(generation(person, { runAt: new Date(Date.now() + 3_600_000) }));
  assert.equal(job.status, "queued");
  await uvian.cancel(job.id);
});

test("what the operator opened holds where an API passes a user's wish on", async () => {
  const person = await control("person");
  const anonymous = generation(person, { door: "anonymous" });
  await assert.rejects(uvian.submit(anonymous), { name: "JobRefused", code: "type_not_open" });
});

test("an id in capitals is the same job", async (t) => {
  const person = await control("person");
  const job = await uvian.submit(generation(person, { id: crypto.randomUUID().toUpperCase() }));
  const received = follow(liveOf(t, person), `job:${job.id.toUpperCase()}`);
  await until(() => received.end);
  assert.deepEqual(received.end, { reason: "ended" });
  await assert.rejects(uvian.retry(job.id.toUpperCase(), { expectedRun: 1 }), { code: "not_retryable" });
});

test("a running job is cancelled, and run again", async (t) => {
  const person = await control("person");
  const slow = { ...input, logo_description: "painted slowly" };
  const job = await uvian.submit(generation(person, { input: slow }));
  const received = follow(liveOf(t, person), `job:${job.id}`);
  await until(() => received.events.some((event) => event.type === "job.started"));
  await assert.rejects(uvian.cancel(job.id, { userId: (await control("person")).id }), { code: "not_found" });
  await uvian.cancel(job.id, { userId: person.id });
  await until(() => received.end);
  assert.equal(received.events.at(-1).type, "job.cancelled");
  const again = await uvian.retry(job.id, { expectedRun: 1, userId: person.id });
  assert.deepEqual([again.run, again.status], [2, "queued"]);
  const rest = follow(liveOf(t, person), `job:${job.id}`, received.subscription.cursor);
  await until(() => rest.events.some((event) => event.type === "job.started" && event.run === 2));
  assert.equal(rest.events[0].seq, received.events.at(-1).seq + 1);
  await uvian.cancel(job.id);
  await until(() => rest.end);
});

test("what is wrong is named: the key, and a database that is away", async () => {
  const redis = overIoredis(ioredis);
  const stranger = new Client({ call: overPostgrest({ ...rest, key: "sb_secret_wrong" }), redis });
  await assert.rejects(stranger.cancel(crypto.randomUUID()), (error) => error instanceof NotSetUp);
  const nowhere = new Client({ call: overPostgrest({ ...rest, url: "http://127.0.0.1:1" }), redis });
  await assert.rejects(nowhere.cancel(crypto.randomUUID()), (error) => error instanceof DatabaseAway);
});
