// Tokens as servers make them, without a signature that anybody could check.

const hex = (value, bytes) => Buffer.from(BigInt(value).toString(16).padStart(2 * bytes, "0"), "hex");

export function token({ key = 1, session = 1, issuedAt = 5, positions = [], flags = 0 }) {
  const numbers = positions.map(([cluster, epoch, offset]) => Buffer.concat([hex(cluster, 8), hex(epoch, 4), hex(offset, 8)]));
  const head = [Buffer.from([1, key]), Buffer.alloc(8), Buffer.alloc(16, session), hex(issuedAt, 4), hex(positions.length, 1)];
  return Buffer.concat([...head, ...numbers, Buffer.from([flags]), Buffer.alloc(16, 7)]).toString("base64url");
}

/** The same numbers in each run. */
export function random(seed) {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** What a hostile server, storage or caller may put where a token, a name or a field is expected. */
export const HOSTILE = [
  "", " ", ",", ",,,", ";", ";;;;;;;;;;", ".", "...", "~", "~?", "=", "unknown", "__proto__", "constructor", "toString",
  "hasOwnProperty", "ryw1", "ryw1;;", "ryw1;;;;;", "ryw1;__proto__;__proto__;__proto__;__proto__;__proto__", "ryw2;;",
  "ryw1;two words;", "ryw1;;~zz", "ryw1;;~000000000000000000", "null", "undefined", "[object Object]", "\u{1F600}", "\u0000",
  "A".repeat(512), "A".repeat(513), "A".repeat(1e6), ",".repeat(1e6), "~?.".repeat(1e5), ";".repeat(1e6),
  '{"__proto__":{"polluted":true}}', "?1;epoch=2;was=1;__proto__=3", "?1;epoch=99999999999;was=1", "?1",
];
