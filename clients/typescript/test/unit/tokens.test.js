import assert from "node:assert/strict";
import { test } from "node:test";

import { covers, peek } from "../../dist/token.js";
import { MAX_HELD, TokenSet } from "../../dist/tokens.js";
import { HOSTILE, random, token } from "./kit.js";

const at = (cluster, epoch, offset, more = {}) => token({ positions: [[cluster, epoch, offset]], ...more });
const set = (...tokens) => {
  const set = new TokenSet();
  tokens.forEach((token) => set.add(token));
  return set;
};

test("what another contains goes, in any order", () => {
  const [low, high, other] = [at(1, 1, 10), at(1, 1, 20), at(2, 1, 1)];
  assert.deepEqual(set(low, high).texts, [high]);
  assert.deepEqual(set(high, low).texts, [high]);
  assert.deepEqual(set(low, other, high).texts, [high, other]);
  assert.deepEqual(set(other, other).texts, [other]);
});

test("sessions and issuers are kept apart until a server has joined them", () => {
  const a = at(1, 1, 10);
  const [otherSession, otherKey] = [at(1, 1, 20, { session: 2 }), at(1, 1, 5, { key: 2 })];
  const held = set(a, otherSession, otherKey);
  assert.deepEqual(held.texts, [a, otherSession, otherKey]);
  const answer = at(1, 1, 30, { issuedAt: 6 });
  held.add(answer, held.values);
  assert.deepEqual(held.texts, [answer]);
});

test("an answer leaves what it was not sent, and what another issuer says more", () => {
  const [a, meanwhile, elsewhere] = [at(1, 1, 10), at(1, 1, 15, { session: 2 }), at(2, 1, 10, { key: 2 })];
  const held = set(a);
  const sent = [...held.values, elsewhere];
  held.add(meanwhile);
  held.add(elsewhere);
  const answer = at(1, 1, 30);
  held.add(answer, sent);
  assert.deepEqual(held.texts, [answer, meanwhile, elsewhere]);
});

test("a server's own answer may be smaller, as after a loss that was acknowledged", () => {
  const held = set(at(1, 1, 10));
  const answer = at(1, 2, 3);
  held.add(answer, held.values);
  assert.deepEqual(held.texts, [answer]);
});

test("more than fit make the session unknown until their issuers have answered", () => {
  const tokens = Array.from({ length: 9 }, (_, n) => at(n, 1, 1, { key: 1 + (n % 2), session: n, issuedAt: n }));
  const held = set(...tokens);
  const sent = held.values;
  assert.equal(held.texts.length, MAX_HELD);
  assert.equal(sent.at(-1), "unknown");
  assert.ok(!sent.includes(tokens[0]) && !sent.includes(tokens[1]), "the oldest go");
  const [first, second] = [1, 2].map((key) => at(1, 1, 1, { key, session: 0, issuedAt: 50 }));
  held.add(first);
  assert.equal(held.values.at(-1), "unknown", "that one was not told");
  held.add(first, sent);
  assert.equal(held.values.at(-1), "unknown", "the other issuer's is still missing");
  held.add(second, sent);
  assert.notEqual(held.values.at(-1), "unknown");
});

test("a newer version is carried, and nonsense is not", () => {
  const [newer, newest] = ["AgECAwQFBgcICQ", "AgECAwQFBgcICg"];
  const held = set(newer);
  held.add(newest, held.values);
  // Short words can't be told from a newer version's tokens: servers tell them.
  for (const text of HOSTILE.filter((text) => peek(text) !== "newer")) held.add(text);
  assert.deepEqual(held.texts, [newest]);
});

test("whatever arrives in whatever order, nothing is ever lost", () => {
  const below = random(7);
  for (let run = 0; run < 400; run += 1) {
    const held = new TokenSet();
    const arrived = Array.from({ length: below(30) }, () =>
      at(below(3), 1 + below(2), below(9), { key: 1 + below(2), session: below(3), issuedAt: below(9), flags: 2 * below(2) }),
    );
    for (const token of arrived) {
      held.add(token);
      assert.ok(held.texts.length <= MAX_HELD);
    }
    const positions = held.texts.flatMap((text) => peek(text).positions);
    const pending = held.texts.map(peek).filter((said) => said.pending).map((said) => said.issuedAt);
    const all = { issuedAt: Math.max(-1, ...pending), positions, unknown: false, pending: pending.length > 0 };
    assert.ok(held.values.includes("unknown") || arrived.every((text) => covers(all, peek(text))));
    for (const one of held.texts) {
      for (const other of held.texts) {
        const [a, b] = [peek(one), peek(other)];
        assert.ok(one === other || a.issuer !== b.issuer || a.session !== b.session || !covers(a, b));
      }
    }
  }
});

test("what is missing of many issuers is bounded, and stays", () => {
  const held = new TokenSet();
  for (let n = 0; n < 50; n += 1) held.drop(String(n).padStart(18, "0"));
  assert.equal(held.toString().split(".").length, 8);
  assert.ok(held.toString().endsWith(".~"));
});
