import assert from "node:assert/strict";
import { after, test } from "node:test";
import { MessageAssembler } from "uvian-client";
import { ask, follow, hand, ioredis, liveOf, until } from "./place.mjs";

after(() => ioredis.disconnect());

const QUESTION = "What can you do? „Grüße“ 漢字 🎨";

/** A chat that is being answered, and what a live client makes of it. */
async function chat(t, person, options) {
  const { id } = await ask(person, "POST", "/v1/conversations", { title: "Test" });
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
  const posted = await ask(person, "POST", `/v1/conversations/${id}/messages`, { content: QUESTION });
  const message = () => assembler.messages.get(posted.answer_id);
  const stored = async () => {
    const { items } = await ask(person, "GET", `/v1/conversations/${id}/messages`);
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
  const talk = await chat(t, await hand("person"));
  await isWhole(talk);
  assert.ok(talk.seen.texts.length > 5);
  const seqs = talk.seen.events.map((event) => event.seq); // pieces that wait for a slow socket are joined
  assert.deepEqual(seqs, [...new Set(seqs)].sort((a, b) => a - b));
});

for (const how of ["kill", "stop"]) {
  test(`a gateway that ends (${how}) and returns costs nothing`, async (t) => {
    const talk = await chat(t, await hand("person"));
    const before = talk.message().text;
    await hand(how);
    await until(() => talk.live.state === "waiting");
    await hand("start");
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
  const talk = await chat(t, await hand("person"));
  await ioredis.flushall();
  await isWhole(talk);
});

test("another user's topic is refused, and one's own is not", async (t) => {
  const [owner, stranger] = [await hand("person"), await hand("person")];
  const { id } = await ask(owner, "POST", "/v1/conversations", {});
  const live = liveOf(t, stranger);
  const theirs = follow(live, `conversation:${id}`);
  const own = follow(live, `user:${stranger.id}`);
  await until(() => theirs.end && own.states.length > 0);
  assert.equal(theirs.end.reason, "refused");
  assert.equal(theirs.end.code, "not_found");
  assert.equal(own.end, null);
});

test("a job that has ended, and whose events are gone, is told from its row", async (t) => {
  const person = await hand("person");
  const { id } = await ask(person, "POST", "/v1/jobs", {
    type: "generation",
    input: { logo_description: "A fox", theme_description: "autumn", size: 256, num_palettes: 1 },
  });
  await until(async () => (await ask(person, "GET", `/v1/jobs/${id}`)).status === "completed");
  const told = follow(liveOf(t, person), `job:${id}`);
  await until(() => told.end);
  await ioredis.del(...["topic", "log", "state"].map((kind) => `uvian:${kind}:job:${id}`));
  const late = follow(liveOf(t, person), `job:${id}`);
  await until(() => late.end);
  const [{ mode, ended, state }] = late.states;
  assert.deepEqual([mode, ended, state.map((event) => event.type)], ["expired", true, ["job.completed"]]);
  assert.deepEqual(late.end, { reason: "ended" });
});

test("a token is renewed on the open socket", async (t) => {
  const person = await hand("person");
  let asked = 0;
  const token = async () => {
    asked += 1;
    return (await hand("token", { user: person.id, seconds: asked === 1 ? 4 : 600 })).token;
  };
  const states = [];
  const live = liveOf(t, person, { token, onConnection: (state) => states.push(state) });
  const told = follow(live, `user:${person.id}`);
  await until(() => asked >= 2 && told.states.length > 0);
  const opened = Date.now();
  await until(() => Date.now() > opened + 5_000); // longer than the first one was valid
  await ask({ token: await token() }, "POST", "/v1/jobs", {
    type: "generation",
    input: { logo_description: "A fox", theme_description: "autumn", size: 256, num_palettes: 1 },
  });
  await until(() => told.events.some((event) => event.type === "job.queued"));
  assert.deepEqual(states, ["connecting", "live"]);
});

test("a token that ran out is asked anew; one that stays refused ends it", async (t) => {
  const person = await hand("person");
  const { token } = await hand("token", { user: person.id, seconds: 3 });
  const live = liveOf(t, person, { token: async () => token });
  const told = follow(live, `user:${person.id}`);
  await until(() => told.end);
  assert.deepEqual([live.state, told.end.reason, told.end.code], ["refused", "refused", "unauthorized"]);
});
