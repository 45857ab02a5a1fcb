import { parse } from "./hosts.js";
import { MAX_REDIRECTS, redirected, showsRedirects } from "./redirect.js";
import { Budget, isSafe, pause, type RetryOptions } from "./retry.js";
import { type Sent, type Session, speaks } from "./session.js";
import * as wire from "./wire.js";

/** The consistency levels, weakest to strongest. `BOUNDED;max=250`: at most so many ms old. */
export type Level =
  | "EVENTUAL"
  | "BOUNDED"
  | `BOUNDED;max=${number}`
  | "MONOTONIC"
  | "RYW"
  | "SESSION"
  | "CAUSAL"
  | "STRONG";

/** Settings of {@link withSession}. */
export interface FetchOptions {
  /** Asked for where a request does not ask for a level itself. Default: what the service gives. */
  level?: Level;
  /** Whether and for how long reads that no node is fresh enough for are made again; `false`: never. */
  retry?: RetryOptions | false;
}

/**
 * `fetch` with a session: each request to its hosts says what the session must see, each response, errors included, teaches
 * it. Requests to other hosts are left as they are.
 *
 * A read that was answered with 503 and `Retry-After`, or with a 412 to a request that set no condition itself, is made
 * again, after the time that was asked for. A write that goes without an answer may have happened: servers find out for
 * themselves what the session must see until one has answered to that.
 *
 * A session that has written does not read from the browser's cache without asking the server, unless the request says so
 * with its `cache` mode.
 */
export function withSession(fetch: typeof globalThis.fetch, session: Session, options: FetchOptions = {}): typeof fetch {
  const { level, retry = {} } = options;
  const budget = new Budget(retry === false ? { limit: 0 } : retry);

  /** Makes one request, and learns from its answer. */
  async function exchange(request: Request, url: URL): Promise<Response> {
    const sent = session.outgoing(url);
    if (sent === undefined) return fetch(request);
    const safe = isSafe(request.method);
    const carrying = carry(request, sent, level, safe);
    let response: Response;
    try {
      response = await fetch(carrying);
    } catch (error) {
      if (!safe) session.doubt(url);
      throw error;
    }
    const hidden = response.redirected || response.type === "opaque" || response.type === "opaqueredirect";
    // A proxy that gave up knows nothing of what the server goes on to do, and a browser hides what a redirect says.
    if (!safe && (hidden || (response.status >= 500 && !speaks(response.headers)))) session.doubt(url);
    const cached = safe && carrying.cache !== "no-store" && carrying.cache !== "reload";
    session.learn(parse(response.url) ?? url, sent, response.headers, cached);
    return response;
  }

  return async (input, init) => {
    let url = parse(target(input), globalThis.document?.baseURI ?? globalThis.location?.href);
    // What is no URL is told by the inner one.
    if (url === undefined || session.trust(url) === "foreign") return fetch(input, init);
    let request = new Request(input, init);
    const [began, follows] = [performance.now(), request.redirect === "follow" && showsRedirects()];
    if (follows) request = new Request(request, { redirect: "manual" });
    budget.earn();
    for (let retries = 0, redirects = 0; ; ) {
      const again: Request | undefined = follows || isSafe(request.method) ? request.clone() : undefined;
      const response: Response = await exchange(request, url);
      if (again === undefined) return response;
      const next: Request | undefined = follows ? redirected(response, again) : undefined;
      if (next !== undefined) {
        redirects += 1;
        if (redirects > MAX_REDIRECTS) throw new TypeError(`more than ${MAX_REDIRECTS} redirects`);
        [request, url] = [next, new URL(next.url)];
      } else {
        // What others mean by such an answer is for the caller to know.
        const ms = session.trust(url) === "foreign" ? undefined : budget.spend(again, response, retries, performance.now() - began);
        if (ms === undefined) return response;
        retries += 1;
        request = again;
        await discard(response);
        await pause(ms, request.signal);
        continue;
      }
      await discard(response);
    }
  };
}

/** The request with what it has to carry. */
function carry(request: Request, sent: Sent, level: Level | undefined, safe: boolean): Request {
  const stale = safe && request.cache === "default" && sent.tokens.length > 0;
  const carrying = stale ? new Request(request, { cache: sent.needsAnswer ? "reload" : "no-cache" }) : request;
  const { headers } = carrying;
  if (sent.id !== undefined && !headers.has(wire.SESSION_ID)) headers.set(wire.SESSION_ID, sent.id);
  // Written as one field, separated by commas.
  sent.tokens.forEach((token) => headers.append(wire.TOKEN, token));
  if (sent.acknowledges) headers.set(wire.LOST, `ack;epoch=${sent.acknowledges.epoch}`);
  if (level !== undefined && !headers.has(wire.CONSISTENCY_LEVEL)) headers.set(wire.CONSISTENCY_LEVEL, level);
  return carrying;
}

function target(input: RequestInfo | URL): string {
  return typeof input === "string" ? input : "url" in input ? input.url : String(input);
}

/** The connection is free again. */
async function discard(response: Response): Promise<void> {
  await response.body?.cancel().catch(() => undefined);
}
