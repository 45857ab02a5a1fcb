import assert from "node:assert/strict";
import { createServer } from "node:http";
import { test } from "node:test";

import { Session, withSession } from "../../dist/index.js";
import { token } from "./kit.js";

const API = "https://api.example.com/notes/1";
const ENFORCED = { "x-consistency-enforced": "true" };
const one = token({ positions: [[1, 1, 10]] });
const two = token({ session: 2, positions: [[1, 1, 20]] });

/** A `fetch` that answers as it is told, and keeps what it was asked. */
function answering(...answers) {
  const asked = [];
  const fetch = async (input, init) => {
    const request = new Request(input, init);
    asked.push(request);
    const answer = answers.length > 1 ? answers.shift() : answers[0];
    if (answer instanceof Error) throw answer;
    return typeof answer === "function" ? answer(request) : answer.clone();
  };
  return { fetch, asked };
}
const reply = (status, headers = {}, body = null) => new Response(body, { status, headers });
const put = { method: "PUT", body: "text" };
const carried = (request) => request.headers.get("ryw-token");

test("what an answer says is carried by the next request, errors included", async () => {
  for (const status of [200, 409, 500]) {
    const { fetch, asked } = answering(reply(status, { ...ENFORCED, "ryw-token": one, "x-session-id": "born" }));
    const ryw = withSession(fetch, new Session());
    await ryw(API, put);
    await ryw(new URL(API));
    await ryw(new Request(API));
    assert.deepEqual(asked.map(carried), [null, one, one]);
    assert.deepEqual(asked.map((request) => request.headers.get("x-session-id")), [null, "born", "born"]);
  }
});

test("several tokens are one field", async () => {
  const { fetch, asked } = answering(reply(200, { ...ENFORCED, "ryw-token": `${one}, ${two}` }));
  const ryw = withSession(fetch, new Session());
  await ryw(API);
  await ryw(API);
  assert.equal(carried(asked[1]), `${one}, ${two}`);
});

test("what the caller sets stays, and the caller's request is not changed", async () => {
  const { fetch, asked } = answering(reply(200, ENFORCED));
  const ryw = withSession(fetch, new Session({ id: "mine", sendTo: ["api.example.com"] }), { level: "RYW" });
  const headers = { "x-session-id": "theirs", "x-consistency-level": "STRONG", "content-type": "text/x" };
  const request = new Request(API, { method: "POST", body: "text", headers });
  await ryw(request);
  await ryw(API);
  assert.deepEqual([...asked[0].headers], [...new Headers(headers)]);
  assert.equal(await asked[0].text(), "text");
  assert.equal(asked[1].headers.get("x-consistency-level"), "RYW");
  assert.equal(carried(request), null);
});

test("other hosts are told nothing and teach nothing", async () => {
  for (const options of [{ sendTo: ["api.example.com"] }, {}]) {
    const { fetch, asked } = answering(reply(200, { ...ENFORCED, "ryw-token": one, "x-session-id": "born" }));
    const session = new Session(options);
    const ryw = withSession(fetch, session, { level: "RYW" });
    await ryw(API);
    const known = session.save();
    for (const url of ["https://evil.example/", "https://api.example.com.evil.example/", "data:,x"]) {
      await ryw(url, { headers: { "x-mine": "1" } });
      assert.deepEqual([...asked.at(-1).headers.keys()], ["x-mine"], url);
    }
    assert.equal(session.save(), known);
  }
});

test("a write without an answer makes the session unknown, a read does not", async () => {
  const failed = new TypeError("failed");
  for (const [answer, init, expected] of [
    [failed, put, `${one}, unknown`],
    [failed, {}, one],
    [reply(502), put, `${one}, unknown`],
    [reply(502, ENFORCED), put, one],
    [reply(404), put, one],
    [reply(502), {}, one],
  ]) {
    const { fetch, asked } = answering(reply(200, { ...ENFORCED, "ryw-token": one }), answer, reply(200));
    const ryw = withSession(fetch, new Session());
    await ryw(API, put);
    await ryw(API, init).catch((error) => assert.equal(error, failed));
    await ryw(API);
    assert.equal(carried(asked[2]), expected, `${answer} ${JSON.stringify(init)}`);
  }
});

test("a read that no node was fresh enough for is made again, with what is known by then", async () => {
  const behind = reply(503, { ...ENFORCED, "retry-after": "0", "ryw-token": one });
  const { fetch, asked } = answering(behind, reply(412), reply(200, ENFORCED, "fresh"));
  const response = await withSession(fetch, new Session())(API);
  assert.equal(await response.text(), "fresh");
  assert.deepEqual(asked.map(carried), [null, one, one]);
});

test("what must not be made again is handed to the caller", async () => {
  const behind = reply(503, { "retry-after": "0" });
  for (const [answer, init, retry, attempts] of [
    [behind, put, {}, 1],
    [behind, {}, {}, 4],
    [behind, {}, { limit: 1 }, 2],
    [behind, {}, { reserve: 2, percent: 0 }, 3],
    [behind, {}, false, 1],
    [reply(503), {}, {}, 1],
    [reply(503, { "retry-after": "6" }), {}, {}, 1],
    [reply(503, { "retry-after": "9".repeat(400) }), {}, { limit: 0 }, 1],
    [reply(412), { headers: { "if-none-match": '"a"' } }, {}, 1],
    [reply(429, { "retry-after": "0" }), {}, {}, 1],
  ]) {
    const { fetch, asked } = answering(answer);
    const response = await withSession(fetch, new Session(), { retry })(API, init);
    assert.deepEqual([response.status, asked.length], [answer.status, attempts], JSON.stringify([init, retry]));
  }
});

test("who gives up while a retry waits is not kept waiting", async () => {
  const { fetch, asked } = answering(reply(503, { "retry-after": "4" }));
  const controller = new AbortController();
  const reading = withSession(fetch, new Session())(API, { signal: controller.signal });
  setImmediate(() => controller.abort(new Error("enough")));
  await assert.rejects(reading, /enough/);
  assert.equal(asked.length, 1);
});

test("who has written does not read from the cache without asking, unless it says so", async () => {
  const { fetch, asked } = answering(reply(200, { ...ENFORCED, "ryw-token": one }), reply(200, ENFORCED), new TypeError("failed"), reply(200));
  const ryw = withSession(fetch, new Session());
  await ryw(API);
  await ryw(API);
  await ryw(API, put).catch(() => {});
  await ryw(API);
  await ryw(API, { cache: "force-cache" });
  assert.deepEqual(asked.map((request) => request.cache), ["default", "no-cache", "default", "reload", "force-cache"]);
});

test("what a cache repeats takes nothing away", async () => {
  const repeated = reply(200, { ...ENFORCED, "ryw-token": two });
  const { fetch, asked } = answering(reply(204, { ...ENFORCED, "ryw-token": one }), repeated, reply(204, { ...ENFORCED, "ryw-token": two }), reply(200));
  const ryw = withSession(fetch, new Session());
  for (const init of [put, {}, put, {}]) await ryw(API, init);
  assert.deepEqual(asked.map(carried), [null, one, `${one}, ${two}`, two], "an answer that can come from no cache does");
});

test("a loss is told to the caller, and its acknowledgement to the server", async () => {
  const { fetch, asked } = answering(reply(409, { ...ENFORCED, "ryw-lost": "?1;epoch=2;was=1", "ryw-token": one }), reply(200, ENFORCED));
  const session = new Session();
  const ryw = withSession(fetch, session);
  await ryw(API, put);
  assert.deepEqual(session.lost, { epoch: 2, was: 1 });
  session.acknowledgeLost();
  await ryw(API);
  await ryw(API);
  assert.deepEqual(asked.map((request) => request.headers.get("ryw-lost")), [null, "ack;epoch=2", null]);
});

test("what is no request is refused as fetch refuses it", async () => {
  const ryw = withSession(fetch, new Session());
  await assert.rejects(ryw("/relative"), TypeError);
  await assert.rejects(ryw(API, { method: "GET", body: "x" }), TypeError);
});

/** A server of this process, and what it was asked. */
async function server(context, answer) {
  const asked = [];
  const listening = createServer((request, response) => {
    const chunks = [];
    request.on("data", (chunk) => chunks.push(chunk));
    request.on("end", () => {
      asked.push({ method: request.method, url: request.url, headers: request.headers, body: Buffer.concat(chunks).toString() });
      const [status, headers, body] = answer(request);
      response.writeHead(status, headers).end(body);
    });
  });
  await new Promise((resolve) => listening.listen(0, "127.0.0.1", resolve));
  context.after(() => listening.close() && listening.closeAllConnections());
  return { url: `http://127.0.0.1:${listening.address().port}`, asked };
}

test("a redirect takes the session along, with what it has taught, and not to other hosts", async (context) => {
  const foreign = await server(context, () => [200, { "ryw-token": two, ...ENFORCED }, "theirs"]);
  const own = await server(context, (request) => {
    if (request.url === "/post") return [303, { location: "/page", "ryw-token": one, ...ENFORCED }];
    if (request.url === "/keep") return [307, { location: "/kept" }];
    if (request.url === "/away") return [302, { location: `${foreign.url}/` }];
    if (request.url === "/loop") return [302, { location: "/loop" }];
    return [200, ENFORCED, "ours"];
  });
  const session = new Session({ id: "me", sendTo: [new URL(own.url).host] });
  const ryw = withSession(fetch, session);
  const page = await ryw(`${own.url}/post`, { method: "POST", body: "text", headers: { "content-type": "text/plain" } });
  assert.deepEqual([page.url, await page.text()], [`${own.url}/page`, "ours"]);
  const [, get] = own.asked;
  assert.deepEqual([get.method, get.body, get.headers["content-type"], get.headers["ryw-token"]], ["GET", "", undefined, one]);

  await ryw(`${own.url}/keep`, put);
  assert.deepEqual([own.asked.at(-1).method, own.asked.at(-1).url, own.asked.at(-1).body], ["PUT", "/kept", "text"]);

  const away = await ryw(`${own.url}/away`, { headers: { authorization: "Bearer secret" } });
  assert.equal(await away.text(), "theirs");
  for (const name of ["ryw-token", "x-session-id", "authorization"]) assert.equal(foreign.asked[0].headers[name], undefined, name);
  assert.ok(!session.save().includes(two));

  await assert.rejects(ryw(`${own.url}/loop`), /redirects/);
  assert.equal((await ryw(`${own.url}/post`, { method: "POST", redirect: "manual" })).status, 303);
});
