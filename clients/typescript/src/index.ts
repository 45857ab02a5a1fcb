/** Read-your-writes for `fetch`. */

export { type FetchOptions, type Level, withSession } from "./fetch.js";
export { type Lost } from "./lost.js";
export { type RetryOptions } from "./retry.js";
export { Session, type SessionOptions } from "./session.js";
