import assert from "node:assert/strict";
import { test } from "node:test";

import { open, startBrowser, startGateway, startSite } from "./kit.js";

const NOTE = "/v1/memory/acme/note";
/** The same value under another URL: a browser forgets what it has cached under the URL that is written. */
const ELSEWHERE = "/v1/memory/%61cme/note";

test("what the browser has cached", async (context) => {
  const browser = await startBrowser(context);
  const gateway = await startGateway(context);
  const answers = [];
  let varies = true;
  const onAnswer = async ({ method, headers }) => {
    // As a service that lets its pages be kept for ten minutes; the layer adds what it has to say.
    if (method === "GET") headers["cache-control"] = [headers["cache-control"], "max-age=600"].filter(Boolean).join(", ");
    if (!varies) delete headers.vary;
    answers.push({ method, headers });
  };
  const site = await startSite(context, { gateway, onAnswer });

  await context.test("is not shown to a session that has written since", async (context) => {
    const page = await open(context, browser, site);
    const run = async (note, elsewhere) => {
      const { Session, withSession } = await import("/dist/index.js");
      const ryw = withSession(fetch, new Session());
      const text = async (call) => (await call(note)).text();
      await ryw(note, { method: "PUT", body: "old" });
      const seen = [await text(ryw)];
      // As a page does that knows nothing of sessions.
      await text((url) => fetch(url, { cache: "reload" }));
      await ryw(elsewhere, { method: "PUT", body: "new" });
      return [...seen, await text(fetch), await text(ryw)];
    };
    varies = false;
    assert.deepEqual(await page.evaluate(run, NOTE, ELSEWHERE), ["old", "old", "new"], "what is cached is old, but for the client");
    varies = true;
    const other = await open(context, browser, site);
    assert.deepEqual(await other.evaluate(run, NOTE, ELSEWHERE), ["old", "new", "new"], "the cookie is another one since");
  });

  await context.test("is the user's own: answers that carry a token are private", async (context) => {
    const page = await open(context, browser, site);
    answers.length = 0;
    await page.evaluate(async (note) => {
      await fetch(note, { method: "PUT", body: "mine" });
      await fetch(note);
    }, NOTE);
    const carrying = answers.filter(({ headers }) => headers["ryw-token"] ?? headers["set-cookie"]);
    assert.ok(carrying.length > 0);
    for (const { headers } of carrying) assert.match(headers["cache-control"], /\bprivate\b/);
  });

  await context.test("goes with a write to the same address, without code", async (context) => {
    const page = await open(context, browser, site);
    for (const value of ["1", "2", "3"]) {
      await page.evaluate((note, value) => fetch(note, { method: "PUT", body: value }).then(() => {}), NOTE, value);
      assert.equal(await (await page.goto(site + NOTE)).text(), value);
      assert.equal(await page.evaluate(async (note) => (await fetch(note)).text(), NOTE), value);
    }
  });
});
