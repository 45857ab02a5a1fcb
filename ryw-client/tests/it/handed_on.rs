//! What a request hands on: to the jobs that it leaves behind, by links, and to its client when a called service has lost
//! something.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, StatusCode},
    routing::get,
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use parking_lot::Mutex;
use ryw_client::{Envelope, RywClientLayer, RywClientService, Session};
use ryw_testing::lagging::LaggingStore;
use tower::{Layer, Service};
use tower_ryw::RywContext;

use crate::service::{layer, notes, serve, store};

type Http = RywClientService<Client<HttpConnector, Full<Bytes>>>;

fn http(layer: &RywClientLayer) -> Http {
    layer.layer(Client::builder(TokioExecutor::new()).build_http())
}

fn with(session: Session) -> Http {
    http(&RywClientLayer::new(session))
}

async fn ask(client: &Http, method: &str, uri: &str, headers: &[(&str, &str)]) -> Response<String> {
    let request = headers
        .iter()
        .fold(Request::builder().method(method).uri(uri), |request, (name, value)| request.header(*name, *value));
    let request = request.body(Full::from(Bytes::from_static(b"text"))).unwrap();
    let (head, body) = client.clone().call(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Response::from_parts(head, String::from_utf8(body.to_vec()).unwrap())
}

/// Writes, and leaves a job behind in the middle of that.
async fn order(State(store): State<LaggingStore>, Path(key): Path<String>) -> String {
    let position = store.put("notes", &key, Some("text".into())).unwrap();
    let before = Envelope::current().to_string();
    RywContext::current().unwrap().mark_written_at(position);
    format!("{before} {}", Envelope::current())
}

/// A service, and an instance of it that has marks of its own.
async fn two(store: &LaggingStore) -> (SocketAddr, SocketAddr) {
    let share = async |ryw: RywContext, Path(key): Path<String>| ryw.share_link(&format!("/notes/{key}"));
    let app = || {
        Router::new()
            .route("/order/{key}", axum::routing::post(order))
            .with_state(store.clone())
            .route("/share/{key}", get(share))
            .merge(notes(store))
            .layer(layer(store).build().unwrap())
    };
    (serve(app()).await, serve(app()).await)
}

#[tokio::test]
async fn a_job_sees_what_the_request_has_written_that_left_it() {
    let store = store();
    let (one, other) = two(&store).await;
    for first in [&[][..], &[("x-session-id", "me")]] {
        let job = ask(&with(Session::new()), "POST", &format!("http://{one}/order/k"), first).await.into_body();
        for envelope in job.split(' ') {
            let envelope: Envelope = envelope.parse().unwrap();
            assert!(!envelope.is_empty());
            let worker = with(Session::resume(&envelope));
            let seen = ask(&worker, "GET", &format!("http://{other}/notes/k"), &[]).await;
            assert_eq!(seen.status(), StatusCode::OK, "{envelope}");
        }
        // Of jobs that were dropped as duplicates the one that is kept has what all had to see.
        let mut kept = Envelope::default();
        job.split(' ').for_each(|envelope| kept.join(&envelope.parse().unwrap()));
        let seen = ask(&with(Session::resume(&kept)), "GET", &format!("http://{other}/notes/k"), &[]).await;
        assert_eq!(seen.status(), StatusCode::OK);
    }
    let nobody = with(Session::new());
    assert_eq!(ask(&nobody, "GET", &format!("http://{other}/notes/k"), &[]).await.status(), StatusCode::NOT_FOUND);
    assert!(Envelope::current().is_empty(), "there is no request here");
}

/// Two jobs of two sessions, of which a queue keeps one: whichever it is and in whatever order they were joined.
#[tokio::test]
async fn of_duplicates_the_one_that_is_kept_sees_what_all_have_to_see() {
    let store = store();
    let (one, other) = two(&store).await;
    let mut envelopes = Vec::new();
    for key in ["a", "b"] {
        let session = Session::new();
        ask(&with(session.clone()), "PUT", &format!("http://{one}/notes/{key}"), &[]).await;
        envelopes.push(session.envelope());
    }
    for (keeps, drops) in [(0, 1), (1, 0)] {
        let mut kept: Envelope = envelopes[keeps].to_string().parse().unwrap();
        kept.join(&envelopes[drops]);
        kept.join(&envelopes[drops]);
        let worker = with(Session::resume(&kept));
        for key in ["a", "b"] {
            let seen = ask(&worker, "GET", &format!("http://{other}/notes/{key}"), &[]).await;
            assert_eq!(seen.status(), StatusCode::OK, "{key}");
        }
    }
}

#[tokio::test]
async fn whoever_is_given_a_link_goes_on_with_what_it_says() {
    let store = store();
    let (one, other) = two(&store).await;
    let author = with(Session::new());
    ask(&author, "PUT", &format!("http://{one}/notes/k"), &[]).await;
    let link = ask(&author, "GET", &format!("http://{one}/share/k"), &[]).await.into_body();
    let carried = Envelope::of_link(&format!("http://{other}{link}#top"));
    assert!(!carried.is_empty());
    for (envelope, status) in [(carried, StatusCode::OK), (Envelope::of_link("/notes/k"), StatusCode::NOT_FOUND)] {
        let session = Session::resume(&envelope);
        let seen = ask(&with(session.clone()), "GET", &format!("http://{other}/notes/k"), &[]).await;
        assert_eq!(seen.status(), status);
        assert_eq!(session.id(), None, "a reader of links is nobody's session");
    }
    for nonsense in ["", "?", "?ryw", "?ryw=", "?ryw=%20", "?ryw=a,b", "#?ryw=AQFK", &"?ryw=x".repeat(5000)] {
        assert!(Envelope::of_link(nonsense).is_empty(), "{nonsense}");
    }
}

/// A service that has lost something until it is told that this is known, and what it was told.
async fn forgetful(told: Arc<Mutex<Vec<bool>>>) -> SocketAddr {
    let lossy = move |headers: HeaderMap| async move {
        let knows = headers.get("ryw-lost").is_some_and(|value| value == "ack;epoch=2");
        told.lock().push(knows);
        let mut answer = HeaderMap::new();
        answer.insert("x-consistency-enforced", HeaderValue::from_static(if knows { "true" } else { "false" }));
        if !knows {
            answer.insert("ryw-lost", HeaderValue::from_static("?1;epoch=2;was=1"));
        }
        answer
    };
    serve(Router::new().route("/notes/{key}", get(lossy))).await
}

#[tokio::test]
async fn what_a_called_service_has_lost_the_client_is_told_until_it_knows() {
    let (store, told) = (store(), Arc::new(Mutex::new(Vec::new())));
    let back = forgetful(Arc::clone(&told)).await;
    let front = async |hosts: &[&str]| {
        let client = http(&RywClientLayer::within_request(hosts.iter().copied()).unwrap());
        let look = move || async move { ask(&client, "GET", &format!("http://{back}/notes/k"), &[]).await.status() };
        serve(Router::new().route("/look", get(look)).layer(layer(&store).build().unwrap())).await
    };
    let (telling, silent) = (front(&["127.0.0.1"]).await, front(&[]).await);
    let (session, me) = (Session::builder().send_to("127.0.0.1").build().unwrap(), [("x-session-id", "me")]);
    let client = with(session.clone());

    let answer = ask(&client, "GET", &format!("http://{silent}/look"), &me).await;
    assert!(!answer.headers().contains_key("ryw-lost"), "without the layer on its client nobody knows");
    for _ in 0..2 {
        let answer = ask(&client, "GET", &format!("http://{telling}/look"), &me).await;
        assert_eq!(answer.headers()["ryw-lost"], "?1;epoch=2;was=1");
        assert_eq!(answer.headers()["x-consistency-enforced"], "false");
    }
    assert!(session.acknowledge_lost());
    let answer = ask(&client, "GET", &format!("http://{telling}/look"), &me).await;
    assert!(!answer.headers().contains_key("ryw-lost") && session.lost().is_none(), "{:?}", answer.headers());
    assert_eq!(*told.lock(), [false, false, false, true]);
}

/// A service in the middle that knows nothing of sessions, but hands on the baggage as tracing libraries do.
#[tokio::test]
async fn baggage_goes_through_a_service_that_knows_nothing_of_it() {
    let store = store();
    let (one, other) = two(&store).await;
    let through = move |Path((hands_on, key)): Path<(String, String)>, headers: HeaderMap| async move {
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let mut request = Request::get(format!("http://{other}/notes/{key}"));
        for value in headers.get_all("baggage").iter().filter(|_| hands_on == "hands-on") {
            request = request.header("baggage", value);
        }
        client.request(request.body(Full::default()).unwrap()).await.unwrap().status()
    };
    let middle = serve(Router::new().route("/{hands_on}/{key}", get(through))).await;
    let session = Session::builder().send_to("127.0.0.1").build().unwrap();
    let client = http(&RywClientLayer::new(session).baggage(true));
    ask(&client, "PUT", &format!("http://{one}/notes/k"), &[]).await;
    for (way, status) in [("hands-on", StatusCode::OK), ("drops", StatusCode::NOT_FOUND)] {
        let seen = ask(&client, "GET", &format!("http://{middle}/{way}/k"), &[("baggage", "trace=1")]).await;
        assert_eq!(seen.status(), status, "{way}");
    }
}
