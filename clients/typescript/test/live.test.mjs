import assert from "node:assert/strict";
import { after, test } from "node:test";
import { MessageAssembler } from "uvian-client";
import { request, follow, control, ioredis, liveOf, until } from "./site.mjs";

after(() => ioredis.disconnect());

const QUESTION = "What can you do? „Grüße“ 漢字 🎨";

/** A chat that is being answered, and what a live client makes of it. */
async function chat(t, person, options) {
  const { id } = await request(person, "POST", "/v1/conversations", { title: "Test" });
  const assembler = new MessageAssembler();
  const seen = { states: [], events: [], texts: [] };
  const live = liveOf(t, person, { ...options, onConnection: (state) => seen.states.push(state) });
  live.follow(`conversation:${id}`, {
    onEvent(event) {
      seen.events.push(event);
      const message = assembler.apply(event);
      if (message?.state === "writing") seen.texts.push(message.text);
    },
    onState({ mode, state }) {
      seen.states.push(mode);
      if (mode !== "resume") assembler.restart(state);
    },
  });
  await until(() => seen.states.some((state) => ["resume", "snapshot", "expired"].includes(state)));
  const posted = await request(person, "POST", `/v1/conversations/${id}/messages`, { content: QUESTION });
  const message = () => assembler.messages.get(posted.answer_id);
  const stored = async () => {
    const { items } = await request(person, "GET", `/v1/conversations/${id}/messages`);
    return items.find((each) => each.id === posted.answer_id);
  };
  await until(() => (message()?.text.length ?? 0) > 10);
  return { live, seen, message, stored };
}

async function isWhole({ message, stored }) {
  await until(() => message().state === "completed");
  assert.equal(message().text, (await stored()).content);
  assert.equal(await message().isWhole(), true);
}

test("an answer is streamed, and in the end is the stored text", async (t) => {
  const talk = await chat(t, await control("person"));
  await isWhole(talk);
  assert.ok(talk.seen.texts.length > 5);
  const seqs = talk.seen.events.map((event) => event.seq); // pieces that wait for a slow socket are joined
  assert.deepEqual(seqs, [...new Set(seqs)].sort((a, b) => a - b));
});

for (const how of ["kill", "stop"]) {
  test(`a gateway that ends (${how}) and returns costs nothing`, async (t) => {
    const talk = await chat(t, await control("person"));
    const before = talk.message().text;
    await control(how);
    await until(() => talk.live.state === "waiting");
    await control("start");
    await until(() => talk.live.state === "live");
    await isWhole(talk);
    assert.ok(talk.message().text.startsWith(before));
    const keys = talk.seen.events.map((event) => event.key);
    assert.equal(new Set(keys).size, keys.length, "no event twice");
    assert.equal(talk.seen.states.filter((state) => state === "live").length, 2);
    assert.equal(talk.seen.states.at(-1), "resume");
  });
}

test("a Redis that is flushed in the middle costs nothing that is stored", async (t) => {
  const talk = await chat(t, await control("person"));
  await ioredis.flushall();
  await isWhole(talk);
});

test("another user's topic is refused, and one's own is not", async (t) => {
  const [owner, stranger] = [await control("person"), await control("person")];
  const { id } = await request(owner, "POST", "/v1/conversations", {});
  const live = liveOf(t, stranger);
  const theirs = follow(live, `conversation:${id}`);
  const own = follow(live, `user:${stranger.id}`);
  await until(() => theirs.end && own.states.length > 0);
  assert.equal(theirs.end.reason, "refused");
  assert.equal(theirs.end.code, "not_found");
  assert.equal(own.end, null);
});

test("a job that has ended, and whose events are gone, is delivered from its row", async (t) => {
  const person = await control("person");
  const { id } = await request(person, "POST", "/v1/jobs", {
    type: "generation",
    input: { logo_description: "A fox", theme_description: "autumn", size: 256, num_palettes: 1 },
  });
  await until(async () => (await request(person, "GET", `/v1/jobs/${id}`)).status === "completed");
  const received = follow(liveOf(t, person), `job:${id}`);
  await until(() => received.end);
  await ioredis.del(...["topic", "log", "state"].map((kind) => `uvian:${kind}:job:${id}`));
  const late = follow(liveOf(t, person), `job:${id}`);
  await until(() => late.end);
  const [{ mode, ended, state }] = late.states;
  assert.deepEqual([mode, ended, state.map((event) => event.type)], ["expired", true, ["job.completed"]]);
  assert.deepEqual(late.end, { reason: "ended" });
});

test("a token is renewed on the open socket", async (t) => {
  const person = await control("person");
  let calls = 0;
  const token = async () => {
    calls += 1;
    return (await control("token", { user: person.id, seconds: calls === 1 ? 4 : 600 })).token;
  };
  const states = [];
  const live = liveOf(t, person, { token, onConnection: (state) => states.push(state) });
  const received = follow(live, `user:${person.id}`);
  await until(() => calls >= 2 && received.states.length > 0);
  const opened = Date.now();
  await until(() => Date.now() > opened + 5_000); // longer than the first one was valid
  await request({ token: await token() }, "POST", "/v1/jobs", {
    type: "generation",
    input: { logo_description: "A fox", theme_description: "autumn", size: 256, num_palettes: 1 },
  });
  await until(() => received.events.some((event) => event.type === "job.queued"));
  assert.deepEqual(states, ["connecting", "live"]);
});

test("a token that has expired is requested again; one that stays refused ends it", async (t) => {
  const person = await control("person");
  const { token } = await control("token", { user: person.id, seconds: 3 });
  const live = liveOf(t, person, { token: async () => token });
  const received = follow(live, `user:${person.id}`);
  await until(() => received.end);
  assert.deepEqual([live.state, received.end.reason, received.end.code], ["refused", "refused", "unauthorized"]);
});

test("a token that was never accepted ends it, although a socket does not say why it cannot be opened", async (t) => {
  const person = await control("person");
  const live = liveOf(t, person, { token: async () => `${person.token}x` });
  const received = follow(live, `user:${person.id}`);
  await until(() => received.end);
  assert.deepEqual([live.state, received.end.code], ["refused", "unauthorized"]);
});
