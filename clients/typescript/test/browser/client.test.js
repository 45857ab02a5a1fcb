import assert from "node:assert/strict";
import { test } from "node:test";

import { open, startBrowser, startGateway, startSite } from "./kit.js";

const WRITES = 40;

/** Runs in the page: writes, reads back at once, and counts what is stale. */
async function writeAndRead({ gateway, writes, client, dist, drop = [] }) {
  const { Session, withSession } = await import(dist);
  const saved = sessionStorage.getItem("ryw");
  const session = Session.restore(saved, { sendTo: [new URL(gateway).host] });
  const dropping = (request) => {
    drop.forEach((name) => request.headers.delete(name));
    return fetch(request);
  };
  const call = client ? withSession(dropping, session) : fetch;
  let stale = 0;
  let headers = [];
  const pair = async (number) => {
    const url = `${gateway}/v1/memory/acme/${client}-${drop.length}-${number}`;
    const written = await call(url, { method: "PUT", body: String(number) });
    if (!written.ok) throw new Error(`${written.status}`);
    headers = [...written.headers.keys()];
    const text = await (await call(url)).text();
    stale += Number(text !== String(number));
  };
  // One after the other, and then six at a time.
  for (let number = 0; number < writes / 2; number += 1) await pair(number);
  const rest = Array.from({ length: writes / 2 }, (_, n) => writes / 2 + n);
  await Promise.all(Array.from({ length: 6 }, async () => {
    for (let next = rest.pop(); next !== undefined; next = rest.pop()) await pair(next);
  }));
  sessionStorage.setItem("ryw", session.save());
  return { stale, headers, id: session.id, carried: session.save().split(";")[2].split(".").length };
}

test("a page of another origin", async (context) => {
  const browser = await startBrowser(context);
  const site = await startSite(context);
  const stranger = await startSite(context);
  const gateway = await startGateway(context, "--allow-origin", site);
  const task = (origin, client, ...drop) => ({ gateway, writes: WRITES, client, drop, dist: `${origin}/dist/index.js` });

  await context.test("with the client nothing is stale, and without it all is", async (context) => {
    const page = await open(context, browser, site);
    const told = await page.evaluate(writeAndRead, task(site, true));
    assert.deepEqual([told.stale, told.carried], [0, 1], JSON.stringify(told));
    const exposed = ["ryw-token", "x-session-id", "x-consistency-enforced", "ryw-route"];
    assert.deepEqual(exposed.filter((name) => !told.headers.includes(name)), [], `CORS exposes these: ${told.headers}`);
    assert.match(told.id, /^[0-9a-f]{32}$/);
    const plain = await page.evaluate(writeAndRead, task(site, false));
    assert.equal(plain.stale, WRITES, JSON.stringify(plain));
  });

  await context.test("it is the token that does it, where the session's name is not known", async (context) => {
    const page = await open(context, browser, site);
    const tokenAlone = await page.evaluate(writeAndRead, task(site, true, "x-session-id"));
    assert.equal(tokenAlone.stale, 0, JSON.stringify(tokenAlone));
    const nothing = await page.evaluate(writeAndRead, task(site, true, "x-session-id", "ryw-token"));
    assert.equal(nothing.stale, WRITES, JSON.stringify(nothing));
  });

  await context.test("a saved session goes on after the page is loaded again", async (context) => {
    const page = await open(context, browser, site);
    const read = async (gateway) => {
      const { Session, withSession } = await import("/dist/index.js");
      const session = Session.restore(sessionStorage.getItem("ryw"));
      const answer = await withSession(fetch, session)(`${gateway}/v1/memory/acme/true-0-0`);
      return { status: answer.status, text: await answer.text() };
    };
    await page.evaluate(writeAndRead, task(site, true));
    await page.reload();
    assert.deepEqual(await page.evaluate(read, gateway), { status: 200, text: "0" });
    await page.evaluate(() => sessionStorage.removeItem("ryw"));
    await page.reload();
    assert.equal((await page.evaluate(read, gateway)).status, 404, "nothing was carried");
  });

  await context.test("a page that is not admitted learns nothing", async (context) => {
    const page = await open(context, browser, stranger);
    await assert.rejects(page.evaluate(writeAndRead, task(stranger, true)), /Failed to fetch/);
  });

  await context.test("the cookie travels between origins of one site, when it is asked to", async (context) => {
    const page = await open(context, browser, site);
    const stale = (credentials) => page.evaluate(async (gateway, credentials) => {
      const url = `${gateway}/v1/memory/acme/cookie-${credentials}`;
      await fetch(url, { method: "PUT", body: "fresh", credentials });
      return (await (await fetch(url, { credentials })).text()) !== "fresh";
    }, gateway, credentials);
    assert.deepEqual([await stale("omit"), await stale("include")], [true, false]);
  });
});
