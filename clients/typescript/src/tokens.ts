/**
 * A small set of tokens of which none is contained in the others.
 *
 * Without a key two tokens can't be made into one, so all of them are sent and the server joins them. Whoever lies about
 * what a token requires makes a server that checks its signature treat the session as unknown, which is never less.
 */

import { covers, peek, type Peeked } from "./token.js";
import { MAX_TOKENS, UNKNOWN_TOKEN } from "./wire.js";

/** Most tokens that are kept: one place is for the word that says that something is missing. */
export const MAX_HELD = MAX_TOKENS - 1;
/** Most issuers of which it is remembered that a token had to go. */
const MAX_DROPPED = 8;
/** Stands for any issuer. */
const ANYBODY = "";

interface Held {
  readonly text: string;
  /** `undefined` for a version that this release can't read. */
  readonly said: Peeked | undefined;
}

export class TokenSet {
  #held: Held[] = [];
  /** Whose tokens had to go because there were too many. */
  #dropped: string[] = [];

  get isEmpty(): boolean {
    return this.#held.length === 0 && this.#dropped.length === 0;
  }

  /** The tokens, the one whose session the server goes on with first. */
  get texts(): readonly string[] {
    return this.#held.map((held) => held.text);
  }

  /** What a request carries. */
  get values(): readonly string[] {
    return this.#dropped.length === 0 ? this.texts : [...this.texts, UNKNOWN_TOKEN];
  }

  /** Whether some token is of a kind that only a server's answer ends: it says that something is not known yet. */
  get isOpen(): boolean {
    return this.#held.some(({ said }) => said === undefined || said.unknown || said.pending);
  }

  /** Whether what this token says is in the set. */
  covers(text: string): boolean {
    const other = read(text);
    return other !== undefined && this.#held.some((held) => held.text === text || contains(held, other));
  }

  /** Whether this is a token, as far as can be seen without a key. */
  static reads(text: string): boolean {
    return read(text)?.said !== undefined;
  }

  /** Adds a token that answers a request which carried `sent`. Returns whether anything has changed. */
  add(text: string, sent: readonly string[] = []): boolean {
    const added = read(text);
    if (added === undefined) return false;
    let changed = this.#settle(added, sent);
    // The place of what it replaces: the first token's session is the one that the server goes on with.
    let place: number | undefined;
    const take = (gone: (held: Held) => boolean): void => {
      const first = this.#held.findIndex(gone);
      if (first < 0) return;
      place ??= first;
      this.#held = this.#held.filter((held) => !gone(held));
      changed = true;
    };
    take((held) => held.text !== text && sent.includes(held.text) && replaces(added, held));
    const contained = (held: Held): boolean => held.text === text || (sameSession(held, added) && contains(held, added));
    if (this.#held.some(contained)) return changed;
    take((held) => sameSession(held, added) && contains(added, held));
    this.#held.splice(Math.min(place ?? this.#held.length, this.#held.length), 0, added);
    this.#shrink();
    return true;
  }

  /** Remembers that a token is missing, of this issuer or of anybody. */
  drop(issuer: string = ANYBODY): boolean {
    if (this.#dropped.includes(issuer)) return false;
    if (this.#dropped.length < MAX_DROPPED) {
      this.#dropped.push(issuer);
      return true;
    }
    const full = !this.#dropped.includes(ANYBODY);
    if (full) this.#dropped[MAX_DROPPED - 1] = ANYBODY;
    return full;
  }

  /** `token.token.~issuer`. */
  toString(): string {
    return [...this.texts, ...this.#dropped.map((issuer) => `~${issuer}`)].join(".");
  }

  /** A server that was told that something is missing has answered: what it signs contains it from now on. */
  #settle(added: Held, sent: readonly string[]): boolean {
    if (added.said === undefined || !sent.includes(UNKNOWN_TOKEN)) return false;
    const before = this.#dropped.length;
    this.#dropped = this.#dropped.filter((issuer) => issuer !== added.said?.issuer);
    return before !== this.#dropped.length;
  }

  /** None of them is contained in another, so whichever goes is missing: the oldest, and servers are told. */
  #shrink(): void {
    while (this.#held.length > MAX_HELD) {
      const oldest = this.#held.reduce((one, other) => (isWorthLess(other, one) ? other : one));
      this.#held = this.#held.filter((held) => held !== oldest);
      this.drop(oldest.said?.issuer);
    }
  }
}

function read(text: string): Held | undefined {
  const said = text === UNKNOWN_TOKEN ? undefined : peek(text);
  if (said === undefined) return undefined;
  // A newer server's: servers know what it means.
  return { text, said: said === "newer" ? undefined : said };
}

function contains(held: Held, other: Held): boolean {
  return held.said !== undefined && other.said !== undefined && covers(held.said, other.said);
}

function sameSession(one: Held, other: Held): boolean {
  return one.said?.issuer === other.said?.issuer && one.said?.session === other.said?.session;
}

/**
 * Whether a token answers a request that carried `sent`, and so takes its place. A server joins what it is sent into what
 * it answers, and could read what it signs itself. From others, it counts what is seen to be contained.
 */
function replaces(answer: Held, sent: Held): boolean {
  return answer.said?.issuer === sent.said?.issuer || contains(answer, sent);
}

/** What goes first: the oldest; a write that is on its way last, since others may look before it has landed. */
function isWorthLess(one: Held, other: Held): boolean {
  const pending = [one.said?.pending ?? false, other.said?.pending ?? false] as const;
  if (pending[0] !== pending[1]) return other.said?.pending ?? false;
  return (one.said?.issuedAt ?? 0) < (other.said?.issuedAt ?? 0);
}
