/**
 * Redirects outside of browsers: there `fetch` copies the session's headers to every host that it is sent to, and asks
 * nobody. A browser asks the other host first (CORS), and does not show a redirect to anybody else.
 */

import { parse } from "./hosts.js";

/** As browsers do. */
export const MAX_REDIRECTS = 20;
const MAX_LOCATION_LENGTH = 8 * 1024;
const BODY_HEADERS = ["content-encoding", "content-language", "content-location", "content-type", "content-length"];
const CREDENTIALS = ["authorization", "cookie", "proxy-authorization"];

/** Whether redirects can be followed by hand. */
export function showsRedirects(): boolean {
  return !("document" in globalThis) && !("WorkerGlobalScope" in globalThis);
}

/**
 * The request that a redirect asks for. `spare` is the request that was redirected, with its body.
 * `undefined` when the response is none, or none that can be followed.
 */
export function redirected(response: Response, spare: Request): Request | undefined {
  const { status } = response;
  const location = response.headers.get("location");
  if (![301, 302, 303, 307, 308].includes(status) || location === null || location.length > MAX_LOCATION_LENGTH) {
    return undefined;
  }
  const [from, to] = [parse(spare.url), parse(location, spare.url)];
  if (from === undefined || to === undefined || !["http:", "https:"].includes(to.protocol)) return undefined;
  // What stands before an `@` is a password, and not ours.
  [to.username, to.password] = ["", ""];
  const { method } = spare;
  const becomesGet = (status === 303 && method !== "HEAD") || (status < 303 && method === "POST");
  const headers = new Headers(spare.headers);
  if (becomesGet) BODY_HEADERS.forEach((name) => headers.delete(name));
  if (from.origin !== to.origin) CREDENTIALS.forEach((name) => headers.delete(name));
  const keeps = !becomesGet && spare.body !== null;
  const init = { method: becomesGet ? "GET" : method, headers, signal: spare.signal, redirect: "manual" as const };
  return new Request(to, keeps ? ({ ...init, body: spare.body, duplex: "half" } as RequestInit) : init);
}
