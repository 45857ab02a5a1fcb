//! Bodies that say what they do.

use std::collections::HashSet;

use serde::Deserialize;

use super::graphql;
use crate::policy::Intent;

#[derive(Deserialize)]
struct Operation {
    query: String,
    #[serde(default, rename = "operationName")]
    name: Option<String>,
}

#[derive(Deserialize)]
struct Call {
    method: String,
}

/// One request, or a batch of them. What names a member twice is neither: servers differ in which one they take.
#[derive(Deserialize)]
#[serde(untagged)]
enum Batch<T> {
    Many(Vec<T>),
    One(T),
}

/// `None` where the body can't be understood.
pub(super) fn graphql(body: &[u8]) -> Option<Intent> {
    all(body, |Operation { query, name }| {
        let name = name.as_deref().filter(|name| !name.is_empty());
        graphql::intent(query, name) == Some(Intent::Read)
    })
}

/// As [`graphql`]. Notifications too: nothing is answered, but something is done.
pub(super) fn json_rpc(body: &[u8], reads: &HashSet<Box<str>>) -> Option<Intent> {
    all(body, |Call { method }| reads.contains(method.as_str()))
}

/// A batch reads only if all of it does.
fn all<'a, T: Deserialize<'a>>(body: &'a [u8], reads: impl Fn(&T) -> bool) -> Option<Intent> {
    let all_read = match serde_json::from_slice(body).ok()? {
        Batch::One(one) => reads(&one),
        Batch::Many(many) => !many.is_empty() && many.iter().all(reads),
    };
    Some(if all_read { Intent::Read } else { Intent::Write })
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: Option<Intent> = Some(Intent::Read);
    const WRITE: Option<Intent> = Some(Intent::Write);

    #[test]
    fn graphql_over_http() {
        for (body, expected) in [
            (r#"{"query": "{ a }"}"#, READ),
            (r#"{"query": "{ a }", "variables": {"query": "mutation"}, "operationName": null}"#, READ),
            (r#"{"query": "query A { a } mutation B { b }", "operationName": "A"}"#, READ),
            (r#"{"query": "query A { a } mutation B { b }", "operationName": "B"}"#, WRITE),
            (r#"{"query": "query A { a } mutation B { b }"}"#, WRITE),
            (r#"{"query": "mut\u0061tion { a }"}"#, WRITE),
            (r#"[{"query": "{ a }"}, {"query": "{ b }"}]"#, READ),
            (r#"[{"query": "{ a }"}, {"query": "mutation { b }"}]"#, WRITE),
            ("[]", WRITE),
            (r#"{"query": "{ a }", "query": "mutation { b }"}"#, None),
            (r#"{"extensions": {"persistedQuery": {}}}"#, None),
            ("query { a }", None),
            ("", None),
        ] {
            assert_eq!(graphql(body.as_bytes()), expected, "{body}");
        }
        assert_eq!(graphql("[".repeat(100_000).as_bytes()), None);
        assert_eq!(graphql(&[b'"', 0xff]), None);
    }

    #[test]
    fn calls_and_batches() {
        let reads = HashSet::from(["get".into(), "list".into()]);
        for (body, expected) in [
            (r#"{"jsonrpc": "2.0", "method": "get", "params": {"method": "put"}, "id": 1}"#, READ),
            (r#"{"jsonrpc": "2.0", "method": "put", "id": 1}"#, WRITE),
            (r#"[{"method": "get", "id": 1}, {"method": "list", "id": 2}]"#, READ),
            (r#"[{"method": "get", "id": 1}, {"method": "put"}]"#, WRITE),
            (r#"[{"method": "get", "id": 1}, 7]"#, None),
            (r#"{"method": "get", "method": "put"}"#, None),
            (r#"{"id": 1}"#, None),
            ("[]", WRITE),
        ] {
            assert_eq!(json_rpc(body.as_bytes(), &reads), expected, "{body}");
        }
    }
}
