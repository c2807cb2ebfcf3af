import assert from "node:assert/strict";
import { test } from "node:test";
import { DatabaseAway, overPostgrest, overSupabase } from "uvian-client";

/** What both ways make of an answer. */
async function read(status, body) {
  const text = typeof body === "string" ? body : JSON.stringify(body);
  const fetch = async () => new Response(text, { status });
  const error = typeof body === "string" ? { message: body } : { message: "", ...body };
  const rpc = async () => ({ data: null, error, status });
  const calls = [overPostgrest({ url: "http://x", key: "k", fetch }), overSupabase({ schema: () => ({ rpc }) })];
  return Promise.all(calls.map((call) => call("create_jobs", {}).then(() => "answered", (thrown) => thrown)));
}

for (const [status, body, name] of [
  [503, { code: "PGRST002", message: "Could not query the database" }, "DatabaseAway"],
  [503, { code: "57P01", message: "terminating connection" }, "DatabaseAway"],
  [500, { code: "53100", message: "No space left on device" }, "DatabaseAway"],
  [500, { code: "58030", message: "could not read" }, "DatabaseAway"],
  [405, { code: "25006", message: "read-only transaction" }, "DatabaseAway"],
  [500, { code: "40003", message: "passes" }, "DatabaseAway"],
  [500, { code: "55006", message: "passes" }, "DatabaseAway"],
  [500, { code: "XX000", message: "DbHandler exited" }, "DatabaseAway"],
  [500, { code: "XX000", message: "Tenant or user not found" }, "NotSetUp"],
  [500, { code: "57014", message: "canceling statement" }, "StatementTooSlow"],
  [400, { code: "", message: "", details: null }, "DatabaseAway"],
  [401, { message: "Invalid API key" }, "NotSetUp"],
  [403, { code: "42501", message: "permission denied" }, "NotSetUp"],
  [404, { code: "PGRST202", message: "no function" }, "NotSetUp"],
  [400, { code: "42703", message: "no column" }, "NotSetUp"],
  [404, { code: "PT404", message: "not_found" }, "JobRefused"],
  [400, { code: "P0001", message: "no" }, "JobRefused"],
  [409, { code: "23503", message: "no such user" }, "JobRefused"],
  [400, { code: "22P02", message: "invalid" }, "JobRefused"],
  [500, { code: "XX001", message: "invalid page" }, "Error"],
]) {
  test(`${status} ${JSON.stringify(body)} is ${name}`, async () => {
    assert.deepEqual((await read(status, body)).map((thrown) => thrown.name), [name, name]);
  });
}

test("a page of a proxy is read by its status", async () => {
  assert.equal((await read(502, "<html>Bad gateway</html>"))[0].name, "DatabaseAway");
  assert.equal((await read(520, "<html>Web server is down</html>"))[0].name, "DatabaseAway");
  assert.equal((await read(404, "<html>Not found</html>"))[0].name, "NotSetUp");
  assert.equal((await read(200, "<html>Welcome</html>"))[0].name, "DatabaseAway");
});

test("a statement that was too slow may be taken for the database being away", async () => {
  assert.ok((await read(500, { code: "57014", message: "" }))[0] instanceof DatabaseAway);
});
