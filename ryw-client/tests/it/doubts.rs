//! A write that went without an answer may have happened.

use std::{
    convert::Infallible,
    future::{Future, pending, poll_fn, ready},
    task::Poll,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use ryw_client::{RywClientLayer, Session};
use tower::{Layer, Service, service_fn};

use crate::fake::{Server, answer, get, post, token};

const A: &str = "http://a.example/";

fn ours() -> (Session, RywClientLayer) {
    let session = Session::builder().send_to("a.example").build().unwrap();
    (session.clone(), RywClientLayer::new(session))
}

/// Makes a request that is never answered.
async fn cut_short(layer: &RywClientLayer, request: Request<Full<Bytes>>) {
    let silent = service_fn(|_: Request<Full<Bytes>>| pending::<Result<Response<String>, Infallible>>());
    let mut answer = Box::pin(layer.layer(silent).call(request));
    let polled = poll_fn(|cx| Poll::Ready(answer.as_mut().poll(cx).is_pending())).await;
    assert!(polled, "it is on its way");
}

async fn carried(layer: &RywClientLayer, uri: &str) -> Vec<String> {
    let server = Server::new(|_, _| answer(200, &[]));
    server.ask(layer, get(uri)).await;
    server.seen()[0].all("ryw-token").into_iter().map(String::from).collect()
}

#[tokio::test]
async fn a_write_that_is_given_up_makes_the_session_unknown_until_a_server_has_answered() {
    let (session, layer) = ours();
    cut_short(&layer, post(A, "x")).await;
    assert_eq!(carried(&layer, A).await, ["unknown"]);
    assert!(carried(&layer, "http://b.example/").await.is_empty());
    let worker = Session::resume(&session.envelope().to_string().parse().unwrap());
    assert_eq!(carried(&RywClientLayer::new(worker), A).await, ["unknown"], "a job inherits it");
    let restored = Session::builder().send_to("a.example").restore(&session.save().to_string().parse().unwrap());
    assert_eq!(carried(&RywClientLayer::new(restored.build().unwrap()), A).await, ["unknown"]);

    Server::new(|_, _| answer(200, &[("ryw-token", &token(7))])).ask(&layer, post(A, "x")).await;
    assert_eq!(carried(&layer, A).await, [token(7)]);
}

#[tokio::test]
async fn an_answer_to_what_had_left_before_settles_nothing() {
    let (_, layer) = ours();
    let server = Server::new(|_, _| answer(200, &[("ryw-token", &token(7))]));
    let early = server.ask(&layer, get(A));
    cut_short(&layer, post(A, "x")).await;
    let middle = server.ask(&layer, get(A));
    cut_short(&layer, post(A, "x")).await;
    early.await;
    middle.await;
    assert_eq!(carried(&layer, A).await, [&token(7), "unknown"]);

    // Nor where the doubt that it was told of is over.
    let (_, layer) = ours();
    cut_short(&layer, post(A, "x")).await;
    let (told, late) = (server.ask(&layer, get(A)), server.ask(&layer, get(A)));
    told.await;
    cut_short(&layer, post(A, "x")).await;
    late.await;
    assert_eq!(carried(&layer, A).await, [&token(7), "unknown"]);
}

#[tokio::test]
async fn failures_count_and_answers_and_reads_do_not() {
    for (request, status, headers, unknown) in [
        (post(A, "x"), 502, &[][..], true),
        (post(A, "x"), 504, &[], true),
        (post(A, "x"), 500, &[("x-consistency-enforced", "true")], false),
        (post(A, "x"), 404, &[], false),
        (post(A, "x"), 204, &[], false),
        (post(A, "x"), 408, &[], true),
        (get(A), 504, &[], false),
    ] {
        let (_, layer) = ours();
        Server::new(move |_, _| answer(status, headers)).ask(&layer, request).await;
        assert_eq!(!carried(&layer, A).await.is_empty(), unknown, "{status}");
    }
    let (_, layer) = ours();
    cut_short(&layer, get(A)).await;
    assert!(carried(&layer, A).await.is_empty());

    let failing = service_fn(|_: Request<Full<Bytes>>| async { Err::<Response<String>, _>("connection reset") });
    let mut failed = Box::pin(layer.layer(failing).call(post(A, "x")));
    assert_eq!((&mut failed).await.unwrap_err(), "connection reset");
    assert_eq!(carried(&layer, A).await, ["unknown"], "before the future is gone");
}

/// A proxy (Envoy, nginx) answers a gRPC call that it gave up with 200 and a status of its own.
#[tokio::test]
async fn a_grpc_write_that_a_proxy_gave_up_counts() {
    for (status, unknown) in [("14", true), ("4", true), ("2", true), ("0", false), ("5", false)] {
        let (_, layer) = ours();
        let headers = [("content-type", "application/grpc"), ("grpc-status", status)];
        Server::new(move |_, _| answer(200, &headers)).ask(&layer, post(A, "x")).await;
        assert_eq!(!carried(&layer, A).await.is_empty(), unknown, "{status}");
    }
}

#[tokio::test]
async fn a_grpc_write_that_fails_in_its_trailers_counts() {
    for (request, status, unknown) in
        [(post(A, "x"), "14", true), (post(A, "x"), "0", false), (post(A, "x"), "5", false), (get(A), "14", false)]
    {
        let (_, layer) = ours();
        let server = Server::new(move |_, _| {
            let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static(status))]);
            let body = Full::new(Bytes::from("begun")).with_trailers(ready(Some(Ok(trailers))));
            Response::new(body.boxed())
        });
        server.ask(&layer, request).await;
        assert_eq!(!carried(&layer, A).await.is_empty(), unknown, "{status}");
    }
}
