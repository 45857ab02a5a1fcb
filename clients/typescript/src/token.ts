/**
 * What a token says, read without a key: anybody may have written it.
 *
 * version 1 │ key id 1 │ tenant 8 │ session 16 │ issued at, s 4 │ n 1 │ n × (cluster 8, epoch 4, offset 8) │ flags 1 │ MAC 16
 */

import { MAX_POSITIONS, MAX_TOKEN_LENGTH } from "./wire.js";

const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const MAC_LENGTH = 16;
const UNKNOWN = 1;
const PENDING = 2;

/** A place in the log of a primary. Numbers are in hexadecimal and of equal length, so that they compare as text. */
export interface Position {
  /** Cluster and epoch. */
  readonly log: string;
  readonly offset: string;
}

/** What a token says. */
export interface Peeked {
  /** The id of the key that it says it is signed with, and the keyed hash of its tenant. */
  readonly issuer: string;
  readonly session: string;
  /** In seconds since 1970, by the issuer's clock. */
  readonly issuedAt: number;
  readonly positions: readonly Position[];
  readonly unknown: boolean;
  /** A write may still be on its way. */
  readonly pending: boolean;
}

/** `"newer"`: of a version that this release can't read. `undefined`: no token. */
export function peek(text: string): Peeked | "newer" | undefined {
  const bytes = decode(text);
  if (bytes === undefined || bytes.length === 0) return undefined;
  if (bytes[0] !== 1) return "newer";
  let at = 1;
  const end = bytes.length - MAC_LENGTH;
  const hex = (length: number): string => {
    let digits = "";
    // What lies beyond the end is noticed once, below.
    for (const stop = at + length; at < stop; at += 1) digits += (bytes[at] ?? 0).toString(16).padStart(2, "0");
    return digits;
  };
  const issuer = hex(9);
  const session = hex(16);
  const issuedAt = parseInt(hex(4), 16);
  const count = parseInt(hex(1), 16);
  if (count > MAX_POSITIONS || at + count * 20 + 1 !== end) return undefined;
  const offsets = new Map<string, string>();
  for (let n = 0; n < count; n += 1) {
    const log = hex(12);
    const offset = hex(8);
    const known = offsets.get(log);
    offsets.set(log, known !== undefined && known > offset ? known : offset);
  }
  const flags = bytes[at] ?? 0;
  if ((flags & ~(UNKNOWN | PENDING)) !== 0) return undefined;
  const positions = [...offsets].map(([log, offset]) => ({ log, offset }));
  const [unknown, pending] = [(flags & UNKNOWN) !== 0, (flags & PENDING) !== 0];
  return { issuer, session, issuedAt, positions, unknown, pending };
}

/** Whether `own` requires whatever `other` requires. */
export function covers(own: Peeked, other: Peeked): boolean {
  // A write that is on its way is over some time after its token was issued: the younger one holds for longer.
  if (other.pending && (!own.pending || own.issuedAt < other.issuedAt)) return false;
  if (other.unknown && !own.unknown) return false;
  return other.positions.every(({ log, offset }) =>
    own.positions.some((position) => position.log === log && position.offset >= offset),
  );
}

/** base64url without padding, in its one canonical form. */
function decode(text: string): Uint8Array | undefined {
  if (text.length > MAX_TOKEN_LENGTH || text.length % 4 === 1) return undefined;
  const bytes = new Uint8Array(Math.floor((text.length * 3) / 4));
  let [held, bits, at] = [0, 0, 0];
  for (const character of text) {
    const value = ALPHABET.indexOf(character);
    if (value < 0) return undefined;
    held = ((held << 6) | value) & 0xffff;
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      bytes[at] = (held >> bits) & 0xff;
      at += 1;
    }
  }
  return (held & ((1 << bits) - 1)) === 0 ? bytes : undefined;
}
