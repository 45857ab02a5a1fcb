//! Bad input is told what is wrong and what is accepted; a token that can't be believed is no error. Neither harms
//! the service or its data.

use axum::http::StatusCode;

use crate::gateway::{Gateway, Headers, Reply};

const HERE: &str = "/v1/memory/acme/here";
const MAX_VALUE: usize = 1 << 20;

struct Case {
    name: &'static str,
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    status: u16,
    /// What the text names.
    says: &'static [&'static str],
}

fn case(name: &'static str, method: &'static str, path: &str, status: u16, says: &'static [&'static str]) -> Case {
    Case { name, method, path: path.into(), headers: Vec::new(), body: Vec::new(), status, says }
}

impl Case {
    fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }
}

fn cases() -> Vec<Case> {
    let session = &["X-Session-ID", "session id", "128", "A-Z a-z 0-9 . _ ~ -"][..];
    let level = &["X-Consistency-Level", "STRONGEST", "EVENTUAL", "BOUNDED", "MONOTONIC", "RYW", "STRONG"][..];
    let question = r#"{"prompt":"here","tenant":"acme","session_id":"one"}"#;
    vec![
        case("unknown level", "GET", HERE, 400, level).header("x-consistency-level", "STRONGEST"),
        case("bound that is none", "GET", HERE, 400, &["X-Consistency-Level", "BOUNDED;max=soon", "milliseconds"])
            .header("x-consistency-level", "BOUNDED;max=soon"),
        case("two levels", "GET", HERE, 400, &["X-Consistency-Level", "more than once"])
            .header("x-consistency-level", "RYW")
            .header("x-consistency-level", "STRONG"),
        case("session with a space", "GET", HERE, 400, session).header("x-session-id", "a b"),
        case("session with a slash", "PUT", HERE, 400, session).header("x-session-id", "a/b"),
        case("session that is empty", "GET", HERE, 400, session).header("x-session-id", ""),
        case("session that is too long", "GET", HERE, 400, session).header("x-session-id", "s".repeat(129)),
        case("two sessions", "PUT", HERE, 400, &["X-Session-ID", "more than once", "one session"])
            .header("x-session-id", "one")
            .header("x-session-id", "two"),
        case("body and header name two sessions", "POST", "/v1/ask", 400, &["X-Session-ID", "body", "one session"])
            .header("x-session-id", "two")
            .body(question),
        case("session of the body", "POST", "/v1/ask", 400, &["session_id", "128", "A-Z a-z 0-9"])
            .body(r#"{"prompt":"","tenant":"acme","session_id":"a b"}"#),
        case("conversation of the body", "POST", "/v1/ask", 400, &["conversation_id", "128", "A-Z a-z 0-9"])
            .body(r#"{"prompt":"","tenant":"acme","session_id":"a","conversation_id":"a b"}"#),
        case("level of the body", "POST", "/v1/ask", 400, &["consistency_level", "STRONGEST", "EVENTUAL", "RYW"])
            .body(r#"{"prompt":"","tenant":"acme","consistency_level":"STRONGEST"}"#),
        case("tenant of the body", "POST", "/v1/ask", 400, &["tenant", "128", "A-Z a-z 0-9"])
            .body(r#"{"prompt":"","tenant":"a b"}"#),
        case("question that is no JSON", "POST", "/v1/ask", 400, &["not a question", "prompt, tenant"])
            .body("what is here?"),
        case("question that is no object", "POST", "/v1/ask", 400, &["expected an object", "prompt, tenant"]).body("7"),
        case("question without a tenant", "POST", "/v1/ask", 400, &["`tenant`", "prompt, tenant"])
            .body(r#"{"prompt":"here"}"#),
        case("question that is too large", "POST", "/v1/ask", 413, &["too large", "65536"]).body(vec![b' '; 65_537]),
        case("value that is too large", "PUT", HERE, 413, &["too large", "1048576"]).body(vec![b'x'; MAX_VALUE + 1]),
        case("tenant of the path", "GET", "/v1/memory/a%20b/here", 400, &["tenant", "128", "A-Z a-z 0-9"]),
        case("key that is too long", "PUT", &format!("/v1/memory/acme/{}", "k".repeat(513)), 400, &["key", "512"]),
        case("key with a NUL", "GET", "/v1/memory/acme/a%00b", 400, &["key", "512", "NUL"]),
        case("unknown route", "GET", "/v2/memory", 404, &["/v1/memory/{tenant}/{key}"]),
        case("unknown key", "GET", "/v1/memory/acme/nowhere", 404, &["tenant", "key"]),
    ]
}

fn check(case: &Case, reply: &Reply) {
    let Case { name, status, says, .. } = case;
    assert_eq!(reply.status.as_u16(), *status, "{name}: {reply:?}");
    assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{name}: {reply:?}");
    let problem: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(problem["status"], *status, "{name}: {problem}");
    assert!(problem["type"].is_string() && problem["title"].is_string(), "{name}: {problem}");
    let detail = problem["detail"].as_str().unwrap();
    assert!(says.iter().all(|part| detail.contains(part)), "{name}: {detail} lacks one of {says:?}");
    assert!(!detail.contains("struct") && !detail.contains("Asked"), "{name} names what is not the client's: {detail}");
    if matches!(status, 405 | 413) {
        assert_eq!(reply.header("x-consistency-enforced"), None, "{name}: {reply:?}");
    }
}

#[tokio::test]
async fn each_mistake_is_named_and_what_is_accepted_too() {
    let gateway = Gateway::start(&[]).await;
    let me: Headers<'_> = &[("x-session-id", "me")];
    gateway.put(HERE, me, "kept").await;
    for case in cases() {
        let headers: Vec<_> = case.headers.iter().map(|(name, value)| (*name, &**value)).collect();
        check(&case, &gateway.send(case.method, &case.path, &headers, case.body.clone()).await);
    }
    let kept = gateway.get(HERE, &[("x-session-id", "me"), ("x-consistency-level", "RYW")]).await;
    assert_eq!((kept.status, kept.text()), (StatusCode::OK, "kept".into()));
    assert!(!gateway.log().contains("panicked"), "{}", gateway.log());
}

#[tokio::test]
async fn mistakes_in_the_request_line_are_problems_too() {
    let gateway = Gateway::start(&[]).await;
    for case in [
        case("method", "PATCH", HERE, 405, &["PATCH", "GET", "PUT", "DELETE"]),
        case("method of health", "PUT", "/v1/health", 405, &["PUT", "GET"]),
        case("tenant that is no text", "GET", "/v1/memory/%FF/here", 400, &["tenant", "128", "A-Z a-z 0-9"]),
        case("key that is no text", "GET", "/v1/memory/acme/%FF", 400, &["key", "512"]),
    ] {
        check(&case, &gateway.send(case.method, &case.path, &[], "").await);
    }
}

/// What a preflight admits is what the route takes.
#[tokio::test]
async fn pages_of_other_origins_may_do_what_each_route_accepts() {
    let origin = "https://app.example.com";
    let gateway = Gateway::start(&["--allow-origin", origin]).await;
    let methods = |text: &str| {
        let mut methods: Vec<_> = text.split(',').map(|method| method.trim().to_owned()).collect();
        methods.sort();
        methods
    };
    for path in [HERE, "/v1/ask", "/v1/health", "/metrics"] {
        let asks = [("origin", origin), ("access-control-request-method", "PUT")];
        let preflight = gateway.send("OPTIONS", path, &asks, "").await;
        assert_eq!(preflight.header("access-control-allow-origin"), Some(origin), "{path}: {preflight:?}");
        let refused = gateway.send("PATCH", path, &[("origin", origin)], "").await;
        assert_eq!(refused.status.as_u16(), 405, "{path}: {refused:?}");
        let admitted = preflight.header("access-control-allow-methods").unwrap();
        assert_eq!(methods(admitted), methods(refused.header("allow").unwrap()), "{path}");
        assert_eq!(refused.header("access-control-allow-origin"), Some(origin), "a page can read why: {path}");
    }
}

#[tokio::test]
async fn what_is_just_within_the_limits_is_accepted() {
    let gateway = Gateway::start(&[]).await;
    let session = "s".repeat(128);
    let headers = [("x-session-id", &*session), ("x-consistency-level", "ryw")];
    let path = format!("/v1/memory/{}/{}", "t".repeat(128), "k".repeat(512));
    let value = vec![b'x'; MAX_VALUE];
    gateway.put(&path, &headers, value.clone()).await;
    let read = gateway.get(&path, &headers).await;
    assert!(read.status == StatusCode::OK && read.body == value, "{}", read.status);
}

#[tokio::test]
async fn a_token_that_cannot_be_believed_costs_nobody_anything() {
    // Late enough that a replica certainly lacks the write.
    let gateway = Gateway::start(&["--lag-ms", "60000"]).await;
    let token = gateway.put(HERE, &[], "fresh").await.header("ryw-token").unwrap().to_owned();
    // One bit of the position.
    let tampered = format!("{}{}{}", &token[..80], if &token[80..81] == "A" { "B" } else { "A" }, &token[81..]);
    let oversized = "A".repeat(600);
    for (refused, token) in (1..).zip([&*oversized, "not a token!", "", &token[..40], &tampered]) {
        let read = gateway.get(HERE, &[("ryw-token", token), ("x-consistency-level", "RYW")]).await;
        assert_eq!((read.status, read.text()), (StatusCode::OK, "fresh".into()), "{token:?}");
        assert_eq!(gateway.metric("ryw_tokens_refused_total").await, refused, "{token:?}");
    }
    let read = gateway.get(HERE, &[("ryw-token", &token), ("x-consistency-level", "RYW")]).await;
    assert_eq!((read.text(), gateway.metric("ryw_tokens_refused_total").await), ("fresh".into(), 5));
}
