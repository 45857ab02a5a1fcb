import assert from "node:assert/strict";
import { test } from "node:test";

import { Session } from "../../dist/index.js";
import { peek } from "../../dist/token.js";
import { HOSTILE, token } from "./kit.js";

const API = new URL("https://api.example.com/");
const OTHER = new URL("https://other.example.com/");
const said = (...fields) => new Headers([["x-consistency-enforced", "true"], ...fields]);
const learn = (session, headers, { sent = session.outgoing(API), cached = false } = {}) =>
  session.learn(API, sent, headers, cached);
const tokens = (session) => session.outgoing(API).tokens;

test("a session is saved and goes on from there", () => {
  const one = token({ positions: [[1, 1, 10]] });
  const session = new Session({ id: "me" });
  learn(session, said(["ryw-token", one], ["ryw-lost", "?1;epoch=2;was=1"]));
  const saved = session.save();
  assert.equal(saved, `ryw1;me;${one};https://api.example.com:443;2-1;`);
  const restored = Session.restore(saved);
  assert.equal(restored.save(), saved);
  assert.equal(restored.trust(OTHER), "foreign");
  assert.deepEqual(restored.lost, { epoch: 2, was: 1 });
  session.doubt(API);
  assert.deepEqual(tokens(Session.restore(session.save())), [one, "unknown"]);
});

test("an empty storage is a new session, and a damaged one an unknown session", () => {
  for (const nothing of [null, undefined]) assert.ok(Session.restore(nothing).isEmpty);
  for (const text of [...HOSTILE, 17, {}, [], true]) {
    let session;
    assert.doesNotThrow(() => (session = Session.restore(text)), String(text).slice(0, 60));
    assert.ok(session.save().length <= 8192);
    assert.ok(session.outgoing(API).tokens.length <= 8);
    assert.notEqual(session.trust(API), "foreign", "there is somebody to ask");
    assert.doesNotThrow(() => session.join(text));
  }
  for (const damaged of ["", "x", "ryw1;me", "ryw2;;", "ryw1;two words;", `ryw1;me;${token({})}x!`, "ryw1;;~zz", "ryw1;me;;nowhere;;"]) {
    assert.deepEqual(tokens(Session.restore(damaged)), ["unknown"], damaged);
  }
  assert.equal({}.polluted, undefined);
});

test("hostile answers teach nothing, and nothing breaks", () => {
  const session = new Session({ sendTo: ["api.example.com"] });
  // Short words can't be told from a newer version's tokens: servers tell them.
  for (const text of HOSTILE.filter((text) => !/[^\x20-\x7e]/.test(text) && peek(text) !== "newer")) {
    for (const name of ["ryw-token", "x-session-id", "ryw-lost", "retry-after"]) learn(session, said([name, text]));
  }
  // These are names like others.
  assert.ok(/^[A-Za-z0-9._~-]{1,128}$/.test(session.id), session.id);
  assert.deepEqual([tokens(session), session.lost], [[], { epoch: 2, was: 1 }]);
});

test("a link that was shared is carried on, and names nobody", () => {
  const shared = token({ session: 0, positions: [[1, 1, 10]] });
  const session = new Session();
  assert.ok(session.joinLink(`https://api.example.com/notes/7?print=1&ryw=${shared}&x#top`));
  assert.deepEqual([tokens(session), session.id], [[shared], undefined]);
  assert.equal(session.joinLink(new URL(`https://api.example.com/?ryw=${shared}`)), false, "it is known");
  for (const nothing of ["", "/", "?", "?ryw", "?ryw=", `#?ryw=${shared}`, `?rywx=${shared}`, `/ryw=${shared}`, "?ryw=%00"]) {
    const empty = new Session();
    assert.equal(empty.joinLink(nothing), false, nothing);
    assert.ok(empty.isEmpty);
  }
  for (const text of HOSTILE) assert.doesNotThrow(() => new Session().joinLink(text));
});

test("tabs join what each has seen", () => {
  const [one, two] = [token({ positions: [[1, 1, 10]] }), token({ session: 2, positions: [[1, 1, 20]] })];
  const tab = new Session();
  learn(tab, said(["ryw-token", one]));
  const other = new Session();
  learn(other, said(["ryw-token", two]));
  tab.join(other.envelope());
  assert.deepEqual(tokens(tab), [one, two]);
});

test("a name is taken from a server that knows sessions, and of two that began at once the first stays", () => {
  const session = new Session({ sendTo: ["api.example.com"] });
  learn(session, new Headers([["x-session-id", "a-proxy's"]]));
  learn(session, new Headers([["x-session-id", "foreign"]]));
  assert.equal(session.id, undefined);
  const sent = session.outgoing(API);
  learn(session, said(["x-session-id", "first"]), { sent });
  learn(session, said(["x-session-id", "second"]), { sent });
  assert.equal(session.id, "first");
  learn(session, said(["x-session-id", "after-login"]));
  assert.equal(session.id, "after-login");
  learn(session, said(["x-session-id", "first"]), { cached: true });
  assert.equal(session.id, "after-login", "a cached page from before the login");
});

test("of a cached answer nothing is taken away", () => {
  const [old, recent] = [token({ positions: [[1, 1, 10]] }), token({ session: 2, positions: [[1, 1, 20]] })];
  const session = new Session();
  learn(session, said(["ryw-token", recent]));
  session.doubt(API);
  learn(session, said(["ryw-token", old]), { cached: true });
  assert.deepEqual(tokens(session), [recent, old, "unknown"]);
  learn(session, said(["ryw-token", old]));
  assert.deepEqual(tokens(session), [old]);
});

test("a loss is told until it is acknowledged, and a later one again", () => {
  const session = new Session({ sendTo: ["api.example.com"] });
  const first = said(["ryw-lost", "?1;epoch=2;was=1"]);
  const early = session.outgoing(API);
  learn(session, first);
  assert.deepEqual(session.lost, { epoch: 2, was: 1 });
  assert.ok(!session.outgoing(API).acknowledges, "the caller has not said so");
  assert.ok(session.acknowledgeLost() && !session.acknowledgeLost());
  learn(session, first, { sent: early });
  assert.equal(session.lost, undefined, "that answer was on its way");
  learn(session, new Headers());
  assert.ok(session.outgoing(API).acknowledges, "a proxy's answer: the server has not heard it");
  learn(session, said());
  assert.ok(!session.outgoing(API).acknowledges);
  learn(session, said(["ryw-lost", "?1;epoch=3;was=2"]));
  assert.equal(session.lost.epoch, 3);
});

test("what is joined after an acknowledgement is not taken for acknowledged", () => {
  const session = new Session({ sendTo: ["api.example.com"] });
  const told = said(["ryw-lost", "?1;epoch=2;was=1"]);
  const message = `ryw1;;${token({ positions: [[1, 1, 100]] })}`;
  const link = `https://api.example.com/notes?ryw=${token({ session: 2, positions: [[1, 1, 200]] })}`;
  for (const join of [() => session.join(message), () => session.joinLink(link)]) {
    learn(session, told);
    assert.ok(session.acknowledgeLost() && session.outgoing(API).acknowledges);
    join();
    assert.ok(!session.outgoing(API).acknowledges);
    learn(session, told);
    assert.ok(session.lost !== undefined && session.acknowledgeLost(), "it is told again");
    join();
    assert.ok(session.outgoing(API).acknowledges, "that is no news");
    learn(session, said());
  }
});

test("what another tab has acknowledged is not what only this one has", () => {
  const [saved, session] = [new Session({ sendTo: ["api.example.com"] }), new Session({ sendTo: ["api.example.com"] })];
  learn(saved, said(["ryw-lost", "?1;epoch=2;was=1"]));
  saved.acknowledgeLost();
  learn(session, said(["ryw-token", token({ positions: [[1, 1, 10]] })]));
  session.join(saved.save());
  assert.ok(!session.outgoing(API).acknowledges);
  assert.ok(Session.restore(saved.save(), { sendTo: ["api.example.com"] }).outgoing(API).acknowledges);
});

test("a doubt is over when a server has answered to it, and not before", () => {
  const session = new Session({ sendTo: ["api.example.com"] });
  const answer = said(["ryw-token", token({ positions: [[1, 1, 1]] })]);
  session.doubt(API);
  const sent = session.outgoing(API);
  session.doubt(API);
  learn(session, answer, { sent });
  assert.equal(tokens(session).at(-1), "unknown", "the second came later");
  learn(session, said());
  assert.equal(tokens(session).at(-1), "unknown", "no token");
  learn(session, answer);
  assert.equal(tokens(session).length, 1);
});

test("onChange is told of changes, and its mistakes are its own", (context) => {
  const error = context.mock.method(console, "error", () => {});
  const saved = [];
  const session = new Session({
    sendTo: ["api.example.com"],
    onChange: (session) => {
      saved.push(session.save());
      session.doubt(API);
      throw new Error("storage is full");
    },
  });
  learn(session, said(["ryw-token", token({ positions: [[1, 1, 1]] })]));
  assert.ok(saved.length > 1 && saved.length <= 8, "bounded, also where it changes the session itself");
  assert.equal(error.mock.callCount(), saved.length);
  learn(session, new Headers());
});

test("options that can't be meant are refused", () => {
  assert.throws(() => new Session({ id: "two words" }), TypeError);
  assert.throws(() => new Session({ sendTo: ["*"] }), TypeError);
});
