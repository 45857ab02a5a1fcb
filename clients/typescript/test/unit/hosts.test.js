import assert from "node:assert/strict";
import { test } from "node:test";

import { hostRule } from "../../dist/hosts.js";

test("rules admit what they name", () => {
  for (const [rule, url, admitted] of [
    ["api.example.com", "https://api.example.com/", true],
    ["api.example.com", "http://api.example.com:8080/", true],
    ["API.example.com", "https://api.EXAMPLE.com/", true],
    ["api.example.com", "https://api.example.com.evil.net/", false],
    ["api.example.com", "https://example.com/", false],
    ["api.example.com", "https://x.api.example.com/", false],
    ["api.example.com", "ftp://api.example.com/", false],
    ["api.example.com:8443", "https://api.example.com:8443/", true],
    ["api.example.com:8443", "https://api.example.com/", false],
    ["api.example.com:443", "https://api.example.com/", true],
    ["https://api.example.com", "https://api.example.com/", true],
    ["https://api.example.com", "http://api.example.com/", false],
    ["*.example.com", "https://a.b.example.com/", true],
    ["*.example.com", "https://example.com/", false],
    ["*.example.com", "https://evilexample.com/", false],
    ["api.example.com", "https://api.example.com@evil.net/", false],
    ["[::1]:8080", "http://[::1]:8080/", true],
    ["127.0.0.1", "http://127.0.0.1:4000/", true],
  ]) {
    assert.equal(hostRule(rule).admits(new URL(url)), admitted, `${rule} ${url}`);
  }
});

test("malformed rules are refused in words", () => {
  const rules = ["", "*", "*.", "a b", "ftp://a", "https://", "a/b", "u@a", "a:x", "a:", "a:99999", "a.*.b", "*..b", "a\\b"];
  for (const rule of rules) assert.throws(() => hostRule(rule), /names no host.*api\.example\.com/, rule);
});
