//! Whatever a client sends gets an answer that names the thing, and nothing is lost.

use axum::body::Body;
use http::Request;
use tower::ServiceExt;
use tower_ryw::{Level, RywLayer, wire::MAX_TOKEN_LEN};

use crate::harness::{answer, level, session, with_positions};

#[tokio::test(start_paused = true)]
async fn is_refused_by_name() {
    let fixture = with_positions(|b| b).settled().await;
    fixture.put("/v/a", &[session("me")], "1").await;
    let long = "x".repeat(129);
    for (headers, parts) in [
        (&[level("RYWW")][..], ["X-Consistency-Level", "EVENTUAL", "STRONG"]),
        (&[level("")], ["X-Consistency-Level", "EVENTUAL", "STRONG"]),
        (&[level("BOUNDED;max=0")], ["X-Consistency-Level", "BOUNDED;max=0", "BOUNDED;max=<"]),
        (&[level("RYW"), level("STRONG")], ["X-Consistency-Level", "more than once", "one"]),
        (&[session("")], ["X-Session-ID", "malformed session id", "128"]),
        (&[session("a b")], ["X-Session-ID", "malformed session id", "A-Z"]),
        (&[session("a/b")], ["X-Session-ID", "malformed session id", "A-Z"]),
        (&[session(&long)], ["X-Session-ID", "malformed session id", "128"]),
        (&[session("a"), session("b")], ["X-Session-ID", "more than once", "one session"]),
    ] {
        for method in ["GET", "PUT"] {
            let refused = fixture.send(method, "/v/a", headers, "2").await;
            assert_eq!(refused.status, 400, "{method} {headers:?}");
            assert_eq!(refused.header("content-type"), Some("application/problem+json"));
            let problem: serde_json::Value = serde_json::from_str(&refused.body).unwrap();
            let detail = problem["detail"].as_str().unwrap();
            assert!(parts.iter().all(|part| detail.contains(part)), "{detail}");
        }
    }
    assert_eq!(fixture.get("/v/a", &[session("me")]).await.body, "1", "nothing was written, nothing was lost");
}

#[tokio::test(start_paused = true)]
async fn bytes_that_are_no_text_are_refused_or_ignored() {
    let fixture = with_positions(|b| b).settled().await;
    for (name, expected) in [("x-session-id", 400), ("x-consistency-level", 400), ("ryw-token", 200), ("cookie", 200)] {
        let request = Request::get("/v/a").header(name, &b"\xff\xfe ryw=\x80"[..]).body(Body::empty()).unwrap();
        let answer = answer(fixture.app.clone().oneshot(request).await).await;
        assert_eq!(answer.status, expected, "{name}: {}", answer.body);
    }
}

#[tokio::test(start_paused = true)]
async fn tokens_that_are_none_cost_freshness_nothing() {
    let fixture = with_positions(|b| b.unproven_reads(100)).settled().await;
    let token = fixture.put("/v/a", &[session("me")], "1").await.header("ryw-token").unwrap().to_owned();
    let last = if token.ends_with('A') { 'Q' } else { 'A' };
    let broken = format!("{}{last}", &token[..token.len() - 1]);
    let oversized = "A".repeat(MAX_TOKEN_LEN + 1);
    for bad in ["", "nonsense", &broken, &oversized, &token[..40]] {
        let read = fixture.get("/v/a", &[("ryw-token", bad)]).await;
        assert_eq!((read.status.as_u16(), read.body.as_str()), (200, "1"), "held to what the primary has: {bad}");
        let cookie = format!("other=1; ryw={bad}");
        let read = fixture.get("/v/a", &[("cookie", &cookie)]).await;
        assert_eq!(read.body, "1", "{cookie}");
        assert!(read.cookie().is_some_and(|cookie| cookie.starts_with("ryw=")), "a dead cookie is replaced");
    }
    let many: Vec<_> = (0..20).map(|_| ("ryw-token", token.as_str())).collect();
    assert_eq!(fixture.get("/v/a", &many).await.body, "1");
}

#[tokio::test(start_paused = true)]
async fn a_replaced_cookie_is_good() {
    for fixture in [with_positions(|b| b), crate::harness::with_window(|b| b)] {
        tokio::time::sleep(std::time::Duration::from_secs(4)).await;
        let fixture = fixture.settled().await;
        let read = fixture.get("/v/a", &[("cookie", "ryw=forged")]).await;
        let cookie = read.cookie().unwrap();
        tokio::time::sleep(std::time::Duration::from_secs(4)).await;
        let read = fixture.get("/v/a", &[("cookie", &cookie)]).await;
        assert!(read.route().starts_with("replica"), "not on the primary for ever: {}", read.route());
        assert_eq!(read.cookie(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn what_only_responses_say_is_not_believed() {
    let echo = tower::service_fn(|request: Request<Body>| async move {
        let seen =
            request.headers().contains_key("ryw-route") || request.headers().contains_key("x-consistency-enforced");
        Ok::<_, std::convert::Infallible>(http::Response::new(Body::from(seen.to_string())))
    });
    let service = tower::Layer::layer(&RywLayer::new(), echo);
    let request = Request::get("/").header("ryw-route", "primary").header("x-consistency-enforced", "true");
    let answer = answer(service.oneshot(request.body(Body::empty()).unwrap()).await).await;
    assert_eq!(answer.body, "false");
}

#[test]
fn settings_that_can_not_be_used_are_named() {
    use std::time::Duration;
    use tower_ryw::{AdaptiveWindow, Intent, Ladder, RouteRule};
    let (zero, minute) = (Duration::ZERO, Duration::from_secs(60));
    for (builder, part) in [
        (RywLayer::builder().window(zero), "window is zero"),
        (RywLayer::builder().adaptive_window(AdaptiveWindow::new(zero, minute)), "adaptive_window is zero"),
        (RywLayer::builder().session_ttl(zero), "session_ttl is zero"),
        (RywLayer::builder().store_deadline(zero), "store_deadline is zero"),
        (RywLayer::builder().sample_deadline(zero), "sample_deadline is zero"),
        (RywLayer::builder().token_max_age(zero), "token_max_age is zero"),
        (RywLayer::builder().link_max_age(zero), "link_max_age is zero"),
        (RywLayer::builder().link_max_age(minute * 60 * 25), "at most"),
        (RywLayer::builder().ladder(Ladder::new().wait(Duration::from_secs(3))), "3s: at most 2s"),
        (RywLayer::builder().route(RouteRule::new("v1")), "\"v1\": a path starts with '/'"),
        (RywLayer::builder().route(RouteRule::new("/*/x").intent(Intent::Read)), "'*' is accepted at its end only"),
        (RywLayer::builder().level(Level::Strong).max_level(Level::ReadYourWrites), "maximum level RYW is below"),
    ] {
        let error = builder.build().unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}
