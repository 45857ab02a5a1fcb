//! Requests that are classified by their bodies.

use std::{convert::Infallible, time::Duration};

use axum::{Router, body::Body, routing::post};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::Request;
use tower::ServiceExt;
use tower_ryw::{ClassifyBodyLayer, Intent, RouteRule, RywContext, RywLayer, RywLayerBuilder};

use crate::harness::{answer, request};

/// Answers with the body that it was given, and `Ryw-Route` says what the request was taken for.
fn app(body: ClassifyBodyLayer, configure: impl FnOnce(RywLayerBuilder) -> RywLayerBuilder) -> Router {
    // So that there is a route to tell also of a read.
    let echo = async |body: Bytes| {
        let _context = RywContext::current();
        body
    };
    let layer = configure(RywLayer::builder()).build().unwrap();
    Router::new().route("/api", post(echo)).route("/other", post(echo)).layer(layer).layer(body)
}

async fn send(app: &Router, request: Request<Body>) -> (bool, String) {
    let answer = answer(app.clone().oneshot(request).await).await;
    assert_eq!(answer.status, 200);
    (answer.route().starts_with("replica"), answer.body)
}

async fn check(app: &Router, path: &str, body: &str, reads: bool) {
    let sent = send(app, request("POST", path, &[("x-session-id", "me")], body)).await;
    assert_eq!(sent, (reads, body.to_owned()), "{path} {body}");
}

const QUERY: &str = r#"{"query": "{ notes { text } }"}"#;
const MUTATION: &str = r#"{"query": "mutation { put(text: \"a\") }"}"#;

#[tokio::test(start_paused = true)]
async fn queries_read_and_mutations_write() {
    let app = app(ClassifyBodyLayer::graphql("/api"), eventual);
    check(&app, "/api", QUERY, true).await;
    check(&app, "/api", MUTATION, false).await;
    check(&app, "/api", "nonsense", false).await;
    check(&app, "/api?x=1", QUERY, true).await;
    check(&app, "/other", QUERY, false).await;
}

fn eventual(builder: RywLayerBuilder) -> RywLayerBuilder {
    builder.level(tower_ryw::Level::Eventual)
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_calls_reads_if_all_of_it_does() {
    let app = app(ClassifyBodyLayer::json_rpc("/api", ["get"]), eventual);
    check(&app, "/api", r#"[{"method": "get"}, {"method": "get"}]"#, true).await;
    check(&app, "/api", r#"[{"method": "get"}, {"method": "put"}]"#, false).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_too_long_or_too_slow_writes_and_arrives_whole() {
    let limited = app(ClassifyBodyLayer::graphql("/api").limit(QUERY.len()), eventual);
    check(&limited, "/api", QUERY, true).await;
    check(&limited, "/api", &format!("{QUERY} "), false).await;
    let app = app(ClassifyBodyLayer::graphql("/api").deadline(Duration::from_secs(1)), eventual);
    for (pause, reads) in [(Duration::from_millis(10), true), (Duration::from_secs(2), false)] {
        let chunks = QUERY.as_bytes().chunks(20).map(Bytes::copy_from_slice).enumerate().collect::<Vec<_>>();
        let slow = stream::iter(chunks).then(move |(n, chunk)| async move {
            if n == 1 {
                tokio::time::sleep(pause).await;
            }
            Ok::<_, Infallible>(chunk)
        });
        let request = Request::post("/api").header("x-session-id", "me").body(Body::from_stream(slow)).unwrap();
        assert_eq!(send(&app, request).await, (reads, QUERY.to_owned()), "{pause:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rule_goes_before_a_body() {
    let writes = RouteRule::new("/api").intent(Intent::Write);
    let app = app(ClassifyBodyLayer::graphql("/api"), |b| eventual(b).route(writes));
    check(&app, "/api", QUERY, false).await;
}
