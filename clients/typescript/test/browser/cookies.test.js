import assert from "node:assert/strict";
import { test } from "node:test";

import { peek } from "../../dist/token.js";
import { open, startBrowser, startGateway, startSite, within } from "./kit.js";

// Browsers open at most six connections to one host.
const PARALLEL = 5;
const url = (key) => `/v1/memory/acme/${key}`;

/** Answers that are kept back until a test lets them go. */
class Gate {
  held = [];
  #waiting = () => {};
  closed = false;

  pass(answer) {
    if (!this.closed || answer.method !== "PUT") return Promise.resolve();
    return new Promise((resolve) => {
      this.held.push({ ...answer, resolve });
      this.#waiting();
    });
  }

  async holds(number) {
    while (this.held.length < number) {
      await within(new Promise((resolve) => (this.#waiting = resolve)), `${number} answers`);
    }
  }
}

/** Runs in the page. */
async function put(url) {
  const answer = await fetch(url, { method: "PUT", body: url });
  if (!answer.ok) throw new Error(`${answer.status}`);
}

async function stale(urls, credentials) {
  const texts = await Promise.all(urls.map(async (url) => (await fetch(url, { credentials })).text()));
  return urls.filter((url, index) => texts[index] !== url).length;
}

/** Writes all at once; the answers come in the order from the newest write to the oldest. Returns them. */
async function putInWrongOrder(page, gate, urls, call) {
  gate.held = [];
  gate.closed = true;
  const start = (urls) => page.evaluate((urls, call) => {
    window.done ??= new Map();
    for (const url of urls) window.done.set(url, window[call](url, { method: "PUT", body: url }));
  }, urls, call);
  // Replicas have the oldest before the others are made: its mark alone sends nobody to the primary.
  await start(urls.slice(0, 1));
  await gate.holds(1);
  const everywhere = async () => {
    for (let n = 0; n < 24; n += 1) if ((await page.evaluate(stale, urls.slice(0, 1), "omit")) > 0) return false;
    return true;
  };
  await within((async () => { while (!(await everywhere())); })(), "replicas have the first write");
  await start(urls.slice(1));
  await gate.holds(urls.length);
  const place = ({ headers }) => peek(headers["ryw-token"]).positions[0].offset;
  const newestFirst = gate.held.sort((one, other) => (place(one) < place(other) ? 1 : -1));
  for (const answer of newestFirst) {
    answer.resolve();
    const status = await page.evaluate(async (url) => (await window.done.get(url)).status, answer.url);
    assert.equal(status, 204);
  }
  gate.closed = false;
  return newestFirst;
}

/** The session's own, in a tenant. */
const OWN = /^ryw\.[0-9a-f]{8}$/;

async function ownCookie(page) {
  return (await page.browserContext().cookies()).find(({ name }) => OWN.test(name));
}

test("a page without code for it", async (context) => {
  const browser = await startBrowser(context);
  const gate = new Gate();
  // Long enough to read what has just been written, and short enough to wait for.
  const gateway = await startGateway(context, "--lag-ms", "8000");
  const site = await startSite(context, { gateway, onAnswer: (answer) => gate.pass(answer) });

  await context.test("what it has written it sees, by its cookie alone", async (context) => {
    const page = await open(context, browser, site);
    await page.evaluate(put, url("note"));
    const cookie = await ownCookie(page);
    assert.deepEqual([cookie.httpOnly, cookie.secure, cookie.sameSite, cookie.session], [true, false, "Lax", false]);
    const counted = [await page.evaluate(stale, [url("note")], "same-origin"), await page.evaluate(stale, [url("note")], "omit")];
    assert.deepEqual(counted, [0, 1], "with the cookie, and without");
    // A link that is followed, and a page that is loaded again.
    for (let n = 0; n < 3; n += 1) {
      const shown = await page.goto(site + url("note"));
      assert.equal(await shown.text(), url("note"));
    }
    const stranger = await open(context, browser, site);
    assert.equal((await stranger.goto(site + url("note"))).status(), 404, "the replicas do lag");
  });

  await context.test("answers in the wrong order lose nothing", async (context) => {
    const page = await open(context, browser, site);
    await page.evaluate(put, url("first"));
    const urls = Array.from({ length: PARALLEL }, (_, n) => url(`parallel-${n}`));
    const newestFirst = await putInWrongOrder(page, gate, urls, "fetch");
    const cookie = await ownCookie(page);
    assert.equal(cookie.value, newestFirst.at(-1).headers["ryw-token"], "the oldest came last: what the browser keeps");
    assert.equal(await page.evaluate(stale, urls, "same-origin"), 0);
    assert.ok((await page.evaluate(stale, urls, "omit")) >= PARALLEL - 1, "without the cookie all but the first are stale");
  });

  await context.test("not even of first writes, each of which begins a session", async (context) => {
    const page = await open(context, browser, site);
    const urls = Array.from({ length: PARALLEL }, (_, n) => url(`first-${n}`));
    await putInWrongOrder(page, gate, urls, "fetch");
    const names = (await page.browserContext().cookies()).map(({ name }) => name);
    assert.equal(names.filter((name) => /^ryw\.[0-9a-f]{8}(-[0-9a-f]{8})?$/.test(name)).length, PARALLEL + 1, `${names}`);
    assert.equal(await page.evaluate(stale, urls, "same-origin"), 0);
    assert.ok((await page.evaluate(stale, urls, "omit")) >= PARALLEL - 1, "without the cookies all but the first are stale");
  });

  await context.test("and with the client not even of first writes, each of which begins a session", async (context) => {
    const page = await open(context, browser, site);
    await page.evaluate(async () => {
      const { Session, withSession } = await import("/dist/index.js");
      const withoutCookies = (input, init) => fetch(input, { ...init, credentials: "omit" });
      window.session = new Session();
      window.ryw = withSession(withoutCookies, window.session);
    });
    const urls = Array.from({ length: PARALLEL }, (_, n) => url(`born-${n}`));
    await putInWrongOrder(page, gate, urls, "ryw");
    const texts = await page.evaluate((urls) => Promise.all(urls.map(async (url) => (await window.ryw(url)).text())), urls);
    assert.deepEqual(texts, urls);
  });
});

test("with the prefix that browsers guard", async (context) => {
  const browser = await startBrowser(context);
  const gateway = await startGateway(context, "--secure-cookie");
  const site = (await startSite(context, { gateway })).replace("127.0.0.1", "localhost");

  await context.test("a page sees what it has written, by cookies of this host alone", async (context) => {
    const page = await open(context, browser, site);
    await page.evaluate(put, url("note"));
    const cookies = await page.browserContext().cookies();
    assert.equal(cookies.length, 2);
    for (const { name, domain, path, secure, httpOnly, sameSite } of cookies) {
      assert.match(name, /^__Host-ryw\.[0-9a-f]{8}(-[0-9a-f]{8})?$/);
      assert.deepEqual([domain, path, secure, httpOnly, sameSite], ["localhost", "/", true, true, "Lax"]);
    }
    const counted = [await page.evaluate(stale, [url("note")], "same-origin"), await page.evaluate(stale, [url("note")], "omit")];
    assert.deepEqual(counted, [0, 1], "with the cookies, and without");
    assert.equal(await (await page.goto(site + url("note"))).text(), url("note"));
  });
});
