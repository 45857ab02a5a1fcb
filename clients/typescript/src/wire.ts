/** Names and limits on the wire, as the servers have them. */

export const SESSION_ID = "x-session-id";
export const CONSISTENCY_LEVEL = "x-consistency-level";
export const CONSISTENCY_ENFORCED = "x-consistency-enforced";
export const TOKEN = "ryw-token";
export const LOST = "ryw-lost";

/** A value of `Ryw-Token` that is no token, so that servers find out for themselves what the session must see. */
export const UNKNOWN_TOKEN = "unknown";

/** Longest list of tokens of one request that a server looks at. */
export const MAX_TOKENS = 8;
/** Longest token, in characters. */
export const MAX_TOKEN_LENGTH = 512;
/** Most positions in one token. */
export const MAX_POSITIONS = 16;
/** Longest text of a saved session, in characters. */
export const MAX_SAVED_LENGTH = 8 * 1024;

/** The name of a session. */
export function isSessionId(name: string): boolean {
  return /^[A-Za-z0-9._~-]{1,128}$/.test(name);
}
/** The parameter of a URL's query that carries the token of a link that is shared. */
export const LINK_PARAMETER = "ryw";
