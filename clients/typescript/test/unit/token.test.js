import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { covers, peek } from "../../dist/token.js";
import { HOSTILE, random, token } from "./kit.js";

const codec = readFileSync(new URL("../../../../ryw-core/src/token.rs", import.meta.url), "utf8");
const golden = (name) => new RegExp(`const ${name}: &str =\\s*"([^"]+)"`).exec(codec)[1];
const said = (text) => {
  const peeked = peek(text);
  const number = (digits) => BigInt(`0x${digits}`);
  const split = ({ log, offset }) => [number(log.slice(0, 16)), number(log.slice(16)), number(offset)];
  return { ...peeked, positions: peeked.positions.map(split) };
};

test("golden vectors, which the codec of the servers has too", () => {
  const [issuer, session] = ["014a764459fdf3fe43", "c7e4233b09360a34e7449bd943e80c5a"];
  const common = { issuer, session, issuedAt: 0x6553f100, unknown: false, pending: false };
  assert.deepEqual(said(golden("GOLDEN_EMPTY")), { ...common, positions: [] });
  assert.deepEqual(said(golden("GOLDEN_ONE")), { ...common, positions: [[7710538791672686422n, 1n, 0x04025c18n]] });
  const positions = [[1n, 1n, 100n], [1n, 2n, 2n ** 64n - 1n], [9n, 1n, 5n]];
  assert.deepEqual(said(golden("GOLDEN_MANY")), { ...common, positions, unknown: true, pending: true });
});

test("what is no token is none, and a newer version is told apart", () => {
  const good = token({ positions: [[1, 1, 1]] });
  const bytes = Buffer.from(good, "base64url");
  const edited = (edit) => {
    const copy = Buffer.from(bytes);
    return (edit(copy) ?? copy).toString("base64url");
  };
  assert.notEqual(peek(good), undefined);
  const none = {
    padded: `${good}=`,
    "plain base64": good.replaceAll("_", "/") + "/",
    "cut short": good.slice(0, -2),
    "with a byte more": edited((copy) => Buffer.concat([copy, Buffer.alloc(1)])),
    "with more positions than it has": edited((copy) => void (copy[30] = 2)),
    "with 17 positions": token({ positions: Array.from({ length: 17 }, (_, n) => [n, 1, 1]) }),
    "with a flag that there is not": token({ flags: 4 }),
    "version 1 and nothing": "AQ",
    "with bits left over": `${good.slice(0, -1)}${good.at(-1) === "9" ? "8" : "9"}`,
  };
  for (const [why, text] of Object.entries(none)) assert.equal(peek(text), undefined, why);
  assert.equal(peek(edited((copy) => void (copy[0] = 2))), "newer");
});

test("any text and any bytes are looked at calmly", () => {
  for (const text of HOSTILE) assert.doesNotThrow(() => peek(text));
  const below = random(1);
  const good = Buffer.from(token({ positions: [[1, 1, 1], [2, 2, 2]] }), "base64url");
  for (let n = 0; n < 5000; n += 1) {
    const bytes = n % 2 ? Buffer.from(good) : Buffer.from(Array.from({ length: below(120) }, () => below(256)));
    if (n % 2) bytes[below(bytes.length)] ^= below(256);
    const peeked = peek(bytes.toString("base64url"));
    assert.ok(typeof peeked !== "object" || peeked.positions.length <= 16);
  }
});

test("one token covers another when nothing of it is missing", () => {
  const peeked = (said) => peek(token(said));
  const at = (...positions) => peeked({ positions });
  for (const [own, other, expected, why] of [
    [at([1, 1, 10]), at([1, 1, 9]), true, "a later place"],
    [at([1, 1, 9]), at([1, 1, 10]), false, "an earlier place"],
    [at([1, 1, 255]), at([1, 1, 256]), false, "as numbers"],
    [at([1, 1, 2n ** 63n]), at([1, 1, 2n ** 53n + 1n]), true, "beyond what a double holds"],
    [at([1, 1, 2n ** 53n]), at([1, 1, 2n ** 53n + 1n]), false, "beyond what a double holds"],
    [at([1, 2, 10]), at([1, 1, 5]), false, "another epoch"],
    [at([2, 1, 10]), at([1, 1, 5]), false, "another cluster"],
    [at([1, 1, 10], [2, 1, 1]), at([2, 1, 1]), true, "several"],
    [peeked({ flags: 1 }), at([1, 1, 1]), false, "unknown says nothing of places"],
    [at([1, 1, 1]), peeked({ flags: 1 }), false, "unknown is something"],
    [peeked({ flags: 2, issuedAt: 6 }), peeked({ flags: 2, issuedAt: 5 }), true, "pending, for longer"],
    [peeked({ flags: 2, issuedAt: 5 }), peeked({ flags: 2, issuedAt: 6 }), false, "pending, for less long"],
  ]) {
    assert.equal(covers(own, other), expected, why);
  }
});
