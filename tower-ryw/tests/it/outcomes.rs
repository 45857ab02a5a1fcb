//! What counts as a write, also when it did not end well.

use axum::{Router, http::StatusCode, response::Redirect, routing::post};
use tower::{ServiceBuilder, ServiceExt};
use tower_ryw::{Intent, RouteRule, RywContext, RywLayer};

use crate::harness::{Fixture, answer, request, session, with_positions, with_window};

/// `/status/{code}` answers with any status and writes nothing; the layer can't know that.
async fn fixture(positions: bool) -> Fixture {
    let base = if positions { with_positions(|b| b) } else { with_window(|b| b) };
    let status =
        |axum::extract::Path(code): axum::extract::Path<u16>| async move { StatusCode::from_u16(code).unwrap() };
    let written = || async { RywContext::current().unwrap().mark_written() };
    let not_written = |context: RywContext| async move { context.mark_not_written() };
    let routes = Router::new()
        .route("/status/{code}", post(status).get(status))
        .route("/form", post(|| async { Redirect::to("/v/a") }))
        .route("/panics", post(|| async { panic!("after the write") as StatusCode }))
        .route("/counts-views", axum::routing::get(written))
        .route("/searches", post(not_written))
        .route("/rule", post(|| async {}));
    let builder = RywLayer::builder().route(RouteRule::new("/rule").intent(Intent::Read));
    let builder = if positions { builder.positions(base.store.topology().clone()) } else { builder };
    let app = routes.merge(crate::harness::values(base.store.clone())).layer(builder.build().unwrap());
    let fixture = Fixture { store: base.store, app };
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    fixture.settled().await
}

/// The reason of the session's next read.
async fn next_read(fixture: &Fixture, name: &str) -> String {
    let read = fixture.get("/v/a", &[session(name)]).await;
    read.route().split("reason=").nth(1).unwrap().split(';').next().unwrap().to_owned()
}

/// Whoever was turned away has seen nothing and written nothing. What is not so is told all the same.
#[tokio::test(start_paused = true)]
async fn nothing_is_claimed_of_what_the_service_has_not_looked_at() {
    let fixture = fixture(true).await;
    for (status, claimed) in [
        (200, Some("true")),
        (400, Some("true")),
        (404, Some("true")),
        (405, None),
        (411, None),
        (413, None),
        (414, None),
        (415, None),
        (431, None),
    ] {
        for method in ["GET", "POST"] {
            let answer = fixture.send(method, &format!("/status/{status}"), &[session("me")], "").await;
            assert_eq!(answer.header("x-consistency-enforced"), claimed, "{method} {status}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn statuses() {
    for positions in [true, false] {
        let fixture = fixture(positions).await;
        let (known, unknown) = if positions { ("caught-up", "pending-write") } else { ("window", "window") };
        let none = if positions { "caught-up" } else { "no-marks" };
        for (path, method, expected) in [
            ("/status/200", "POST", known),
            ("/status/303", "POST", known),
            ("/form", "POST", known),
            ("/status/404", "POST", none),
            ("/status/422", "POST", none),
            ("/status/408", "POST", unknown),
            ("/status/500", "POST", unknown),
            ("/status/504", "POST", unknown),
            ("/status/500", "GET", none),
            ("/counts-views", "GET", known),
            ("/searches", "POST", none),
            ("/rule", "POST", none),
        ] {
            let name = format!("{method}{}", path.replace('/', "-"));
            fixture.send(method, path, &[session(&name)], "").await;
            assert_eq!(next_read(&fixture, &name).await, expected, "{method} {path}, positions: {positions}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_that_failed_has_enforced_nothing_and_a_write_is_remembered() {
    let fixture = fixture(true).await;
    for (path, method, expected) in [
        ("/status/200", "POST", "true"),
        ("/status/404", "POST", "true"),
        ("/status/404", "GET", "true"),
        ("/status/500", "POST", "true"),
        ("/status/503", "POST", "true"),
        ("/status/503", "GET", "false"),
        ("/status/408", "POST", "true"),
    ] {
        let answer = fixture.send(method, path, &[session("me")], "").await;
        assert_eq!(answer.header("x-consistency-enforced"), Some(expected), "{method} {path}: {answer:?}");
        assert!(answer.route().contains("reason="), "{method} {path}: {answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_write_gets_its_session_too() {
    let fixture = fixture(true).await;
    let failed = fixture.send("POST", "/status/500", &[], "").await;
    let id = failed.header("x-session-id").unwrap();
    assert_eq!(next_read(&fixture, id).await, "pending-write");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_is_settled_after_the_window() {
    let fixture = fixture(true).await;
    fixture.send("POST", "/status/500", &[session("me")], "").await;
    // It committed after all, a second later.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    fixture.store.put("t", "a", Some("late".into())).unwrap();
    assert_eq!(fixture.get("/v/a", &[session("me")]).await.body, "late");
    tokio::time::sleep(std::time::Duration::from_millis(1150)).await;
    // The window is over: a position that was sampled now stands for the write.
    let read = fixture.get("/v/a", &[session("me")]).await;
    assert_eq!(read.body, "late");
    assert!(!read.route().contains("pending-write"), "{}", read.route());
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!(next_read(&fixture, "me").await, "caught-up");
}

#[tokio::test(start_paused = true)]
async fn panics_and_errors_leave_a_mark() {
    let fixture = fixture(true).await;
    let app = fixture.app.clone();
    let panicked =
        tokio::spawn(async move { app.oneshot(request("POST", "/panics", &[session("p")], "")).await }).await;
    assert!(panicked.unwrap_err().is_panic());
    assert_eq!(next_read(&fixture, "p").await, "pending-write");

    let failing = tower::service_fn(|_: http::Request<axum::body::Body>| async {
        Err::<http::Response<axum::body::Body>, _>(std::io::Error::other("connection reset"))
    });
    let store = tower_ryw::LocalStore::new();
    let layer = || RywLayer::builder().positions(fixture.store.topology().clone()).store(store.clone());
    let keys = tower_ryw::Keyring::random().unwrap();
    let service = ServiceBuilder::new().layer(layer().signing_keys(keys.clone()).build().unwrap()).service(failing);
    service.oneshot(request("POST", "/", &[session("e")], "")).await.unwrap_err();
    let reader = crate::harness::values(fixture.store.clone()).layer(layer().signing_keys(keys).build().unwrap());
    let read = answer(reader.oneshot(request("GET", "/v/a", &[session("e")], "")).await).await;
    assert!(read.route().contains("reason=pending-write"), "{}", read.route());
}

#[tokio::test(start_paused = true)]
async fn a_timeout_inside_the_layer_leaves_a_mark() {
    let fixture = with_positions(|b| b).settled().await;
    let slow = Router::new()
        .route("/slow", post(|| async { tokio::time::sleep(std::time::Duration::from_secs(60)).await }))
        .layer(
            ServiceBuilder::new()
                .layer(axum::error_handling::HandleErrorLayer::new(|_| async { StatusCode::GATEWAY_TIMEOUT }))
                .timeout(std::time::Duration::from_secs(1)),
        );
    let layer = RywLayer::builder().positions(fixture.store.topology().clone()).build().unwrap();
    let app = slow.merge(crate::harness::values(fixture.store.clone())).layer(layer);
    let fixture = Fixture { store: fixture.store, app };
    let answer = fixture.send("POST", "/slow", &[session("me")], "").await;
    assert_eq!(answer.status, 504);
    assert_eq!(next_read(&fixture, "me").await, "pending-write");
}
