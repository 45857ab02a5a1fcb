// memory-gateway, a proxy before it, a page, and Chromium: real programs on free ports.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createServer, request as send } from "node:http";
import { createInterface } from "node:readline";

import puppeteer from "puppeteer-core";

/** For whatever must come: far beyond what it takes. */
export const DEADLINE_MS = 60_000;

const DIST = new URL("../../dist/", import.meta.url);
const PAGE = "<!doctype html><meta charset=utf-8><title>a page</title><link rel=icon href=data:,>";

export function within(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${DEADLINE_MS} ms: ${what}`)), DEADLINE_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** The store's replicas are so late that they certainly lack the writes of a test. Reads are at RYW by default. */
export async function startGateway(context, ...options) {
  const target = process.env.CARGO_TARGET_DIR ?? new URL("../../../../target", import.meta.url).pathname;
  const binary = process.env.RYW_GATEWAY ?? `${target}/debug/memory-gateway`;
  assert.ok(existsSync(binary), `${binary} is missing: cargo build -p memory-gateway, or set RYW_GATEWAY`);
  const lag = options.includes("--lag-ms") ? [] : ["--lag-ms", "60000"];
  const child = spawn(binary, ["--listen", "127.0.0.1:0", ...lag, ...options], {
    env: { DEFAULT_CONSISTENCY_LEVEL: "RYW", RUST_LOG: "warn" },
    stdio: ["ignore", "pipe", "inherit"],
  });
  context.after(() => child.kill("SIGKILL"));
  const line = await within(createInterface({ input: child.stdout })[Symbol.asyncIterator]().next(), "the gateway listens");
  const url = /http:\/\/\S+/.exec(line.value ?? "")?.[0];
  assert.ok(url, `the gateway says where it listens: ${line.value}`);
  return url;
}

/**
 * Serves `/` and `/dist/…`, and hands everything else to the gateway. `onAnswer` gets each of its answers before it leaves:
 * it may change the headers, and keep it back by what it returns.
 */
export async function startSite(context, { gateway, onAnswer = async () => {} } = {}) {
  const server = createServer((request, response) => {
    const fail = (error) => response.headersSent || response.writeHead(502).end(String(error));
    serve(request, response, gateway, onAnswer).catch(fail);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  context.after(() => {
    server.close();
    server.closeAllConnections();
  });
  return `http://127.0.0.1:${server.address().port}`;
}

async function serve(request, response, gateway, onAnswer) {
  if (request.url === "/") {
    response.writeHead(200, { "content-type": "text/html" }).end(PAGE);
  } else if (/^\/dist\/[a-z]+\.js$/.test(request.url)) {
    const script = await readFile(new URL(request.url.slice("/dist/".length), DIST));
    response.writeHead(200, { "content-type": "text/javascript" }).end(script);
  } else {
    const { method, url, headers } = request;
    const answer = await new Promise((resolve, reject) => {
      request.pipe(send(new URL(url, gateway), { method, headers }, resolve).on("error", reject));
    });
    const fields = { ...answer.headers };
    // To be shown as a page, and not downloaded.
    if (answer.statusCode === 200) fields["content-type"] = "text/plain";
    await onAnswer({ method, url, headers: fields });
    response.writeHead(answer.statusCode, fields);
    answer.pipe(response);
  }
}

/** A browser of its own, for all tests of a file. */
export async function startBrowser(context) {
  const found = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find((path) => existsSync(path));
  const executablePath = process.env.CHROMIUM ?? found;
  assert.ok(executablePath, "Chromium is missing: install it, or set CHROMIUM");
  const browser = await puppeteer.launch({ executablePath, args: ["--no-sandbox", "--disable-dev-shm-usage"], timeout: DEADLINE_MS });
  context.after(() => browser.close());
  return browser;
}

/** A page in a profile of its own: no cookies, nothing cached. */
export async function open(context, browser, url) {
  const profile = await browser.createBrowserContext();
  context.after(() => profile.close());
  const page = await profile.newPage();
  page.setDefaultTimeout(DEADLINE_MS);
  await page.goto(url);
  return page;
}
