//! A client that carries nothing gets a session with its first write, and any one of the things that it was given
//! is enough to see that write.

use crate::gateway::{Gateway, Reply};

/// Late enough that a replica certainly lacks the writes of a test.
const LATE: [&str; 2] = ["--lag-ms", "60000"];
const NOTE: &str = "/v1/memory/acme/note";

fn cookie(reply: &Reply) -> &str {
    let cookie = reply.header("set-cookie").unwrap_or_else(|| panic!("no cookie: {reply:?}"));
    cookie.split(';').next().unwrap()
}

#[tokio::test]
async fn a_session_is_born_with_the_first_write() {
    let gateway = Gateway::start(&LATE).await;
    let anonymous = gateway.get(NOTE, &[("x-consistency-level", "RYW")]).await;
    for name in ["x-session-id", "ryw-token", "set-cookie"] {
        assert_eq!(anonymous.header(name), None, "reading creates nothing: {anonymous:?}");
    }
    assert_eq!(gateway.metric("ryw_sessions_active").await, 0);

    let born = gateway.put(NOTE, &[], "fresh").await;
    let session = born.header("x-session-id").expect("a session");
    assert!(session.len() == 32 && session.bytes().all(|byte| byte.is_ascii_hexdigit()), "{session}");
    let token = born.header("ryw-token").expect("a token");
    let (name, value) = cookie(&born).split_once('=').unwrap();
    assert!(name.starts_with("ryw.") && value == token, "each tenant has a cookie of its own: {}", cookie(&born));
    let attributes = born.header("set-cookie").unwrap();
    for attribute in ["HttpOnly", "SameSite=Lax", "Path=/", "Max-Age="] {
        assert!(attributes.contains(attribute), "{attributes}");
    }
    assert_eq!(born.header("cache-control"), Some("private"));
    assert_eq!(gateway.metric("ryw_sessions_active").await, 1);

    for carried in [("ryw-token", token), ("cookie", cookie(&born)), ("x-session-id", session)] {
        let read = gateway.get(NOTE, &[carried, ("x-consistency-level", "RYW")]).await;
        assert_eq!((read.text(), read.served().by), ("fresh".into(), "primary".into()), "{carried:?}");
    }
    let stranger = gateway.get(NOTE, &[("x-consistency-level", "RYW")]).await;
    assert_eq!(stranger.served().by, "replica", "who carries nothing is somebody else: {stranger:?}");
}

#[tokio::test]
async fn every_write_is_a_session_of_its_own_for_who_carries_nothing() {
    let gateway = Gateway::start(&LATE).await;
    let [one, two] = [gateway.put(NOTE, &[], "one").await, gateway.put(NOTE, &[], "two").await];
    assert_ne!(one.header("x-session-id"), two.header("x-session-id"));
}

#[tokio::test]
async fn who_brings_a_session_keeps_it() {
    let gateway = Gateway::start(&LATE).await;
    let born = gateway.put(NOTE, &[], "one").await;
    for carried in [("cookie", cookie(&born)), ("ryw-token", born.header("ryw-token").unwrap())] {
        let next = gateway.put(NOTE, &[carried], "two").await;
        assert_eq!(next.header("x-session-id"), None, "no second session: {next:?}");
        assert_eq!(gateway.metric("ryw_sessions_active").await, 1, "{carried:?}");
    }
    let named = gateway.put(NOTE, &[("x-session-id", "chosen")], "three").await;
    assert_eq!((named.header("x-session-id"), named.header("set-cookie")), (Some("chosen"), None));
}

#[tokio::test]
async fn a_tenant_does_not_see_the_sessions_of_another() {
    let gateway = Gateway::start(&LATE).await;
    let born = gateway.put(NOTE, &[], "fresh").await;
    let elsewhere = gateway.get("/v1/memory/other/note", &[("ryw-token", born.header("ryw-token").unwrap())]).await;
    assert_eq!((elsewhere.status.as_u16(), gateway.metric("ryw_tokens_refused_total").await), (404, 1));
}

#[tokio::test]
async fn an_exchange_is_a_write_of_the_session_that_the_body_names() {
    let gateway = Gateway::start(&LATE).await;
    let talk = [("x-session-id", "talk"), ("x-consistency-level", "RYW")];
    // Seen before, so that it is not held to what the primary has because it is unknown.
    gateway.get("/v1/memory/acme/ask.talk", &talk).await;
    gateway.put("/v1/memory/acme/sky", &[], "blue").await;
    let question = r#"{"prompt":"what is the sky?","tenant":"acme","conversation_id":"talk"}"#;
    let answer = gateway.send("POST", "/v1/ask", &[], question).await;
    let told: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((&told["answer"], &told["session_id"]), (&"sky: blue".into(), &"talk".into()), "{told}");

    let path = format!("/v1/memory/acme/{}", told["recorded_as"].as_str().unwrap());
    let read = gateway.get(&path, &talk).await;
    assert!(read.text().contains("what is the sky?"), "{read:?}");
}

/// What the answer tells, the next request brings: it has to be the session that the exchange was recorded for.
#[tokio::test]
async fn who_is_named_by_the_body_is_answered_as_that_session() {
    let gateway = Gateway::start(&LATE).await;
    let question = r#"{"prompt":"?","tenant":"acme","session_id":"me","consistency_level":"SESSION"}"#;
    let answer = gateway.send("POST", "/v1/ask", &[], question).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-session-id")), (200, Some("me")), "{answer:?}");
    assert_eq!((answer.served().level, answer.header("set-cookie")), ("session".into(), None), "{answer:?}");
    assert_eq!(gateway.metric("ryw_sessions_active").await, 1, "no other session has begun");
    // What was carried back is enough by itself, in the tenant that the body named.
    let carried = [("ryw-token", answer.header("ryw-token").unwrap()), ("x-consistency-level", "RYW")];
    let read = gateway.get("/v1/memory/acme/ask.me", &carried).await;
    assert_eq!((read.status.as_u16(), gateway.metric("ryw_tokens_refused_total").await), (200, 0), "{read:?}");
    let differing = gateway.send("POST", "/v1/ask", &[("x-consistency-level", "RYW")], question).await;
    assert!(differing.status.as_u16() == 400 && differing.text().contains("more than once"), "{differing:?}");
}

#[tokio::test]
async fn a_conversation_beside_a_session_sees_the_exchange_as_well() {
    let gateway = Gateway::start(&LATE).await;
    // Seen before, so that none is held to what the primary has because it is unknown.
    for name in ["me", "talk", "stranger"] {
        gateway.get(NOTE, &[("x-session-id", name), ("x-consistency-level", "RYW")]).await;
    }
    let question = r#"{"prompt":"?","tenant":"acme","session_id":"me","conversation_id":"talk"}"#;
    let answer = gateway.send("POST", "/v1/ask", &[], question).await;
    let told: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((&told["session_id"], &told["conversation_id"]), (&"me".into(), &"talk".into()), "{told}");
    let path = format!("/v1/memory/acme/{}", told["recorded_as"].as_str().unwrap());
    for (name, expected) in [("me", 200), ("talk", 200), ("stranger", 404)] {
        let read = gateway.get(&path, &[("x-session-id", name), ("x-consistency-level", "RYW")]).await;
        assert_eq!(read.status.as_u16(), expected, "{name}: {read:?}");
    }
}

#[tokio::test]
async fn a_deleted_value_is_gone_for_who_deleted_it() {
    let gateway = Gateway::start(&["--lag-ms", "30"]).await;
    let headers = [("x-session-id", "me"), ("x-consistency-level", "RYW")];
    for _ in 0..100 {
        gateway.put(NOTE, &headers, "value").await;
        assert_eq!(gateway.send("DELETE", NOTE, &headers, "").await.status.as_u16(), 204);
        assert_eq!(gateway.get(NOTE, &headers).await.status.as_u16(), 404);
    }
}

/// `%61` is `a`.
#[tokio::test]
async fn a_tenant_in_another_spelling_is_the_same_tenant() {
    let gateway = Gateway::start(&["--lag-ms", "5000"]).await;
    let headers = [("x-session-id", "me"), ("x-consistency-level", "RYW")];
    // Known, so that it is not held to what the primary has because it is unknown.
    gateway.get(NOTE, &headers).await;
    gateway.put("/v1/memory/%61cme/note", &headers, "fresh").await;
    let read = gateway.get(NOTE, &headers).await;
    assert_eq!(read.text(), "fresh", "{read:?}");
}

/// At EVENTUAL, which is what the gateway serves who asks for nothing.
#[tokio::test]
async fn whoever_follows_a_link_sees_what_was_shared() {
    let gateway = Gateway::start(&LATE).await;
    let born = gateway.put(NOTE, &[], "fresh").await;
    let mine = [("x-session-id", born.header("x-session-id").unwrap())];
    let link = gateway.get(&format!("{NOTE}/link"), &mine).await.text();
    assert!(link.starts_with("/v1/memory/acme/note?ryw="), "{link}");
    assert_eq!(gateway.get(&link, &[]).await.text(), "fresh");
    assert_eq!(gateway.get(NOTE, &[]).await.status, 404, "the replicas do lag");
    let nothing = gateway.get("/v1/memory/acme/other%20note/link", &[]).await;
    assert!(nothing.text().starts_with("/v1/memory/acme/other%20note"), "{nothing:?}");
    let wrong = gateway.send("PUT", &format!("{NOTE}/link"), &[], "x").await;
    assert!(wrong.status == 405 && wrong.text().contains("GET and HEAD"), "{wrong:?}");
}
