//! Over TCP, against a real server: with the session no read is stale, without it reads are.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use ryw_client::{Report, Retry, RywClientLayer, Session};
use tower::{Layer, Service};
use tower_ryw::{Ladder, Route};

use crate::service::{lagging, layer, notes, serve, store};

type Http = Client<HttpConnector, Full<Bytes>>;

fn client() -> Http {
    Client::builder(TokioExecutor::new()).build_http()
}

async fn read<B: http_body::Body<Data = Bytes, Error: std::fmt::Debug>>(response: Response<B>) -> Response<String> {
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    Response::from_parts(parts, String::from_utf8(bytes.to_vec()).unwrap())
}

fn put(uri: &str, value: &str) -> Request<Full<Bytes>> {
    Request::put(uri).body(Full::new(value.to_owned().into())).unwrap()
}

fn get(uri: &str) -> Request<Full<Bytes>> {
    Request::get(uri).body(Full::default()).unwrap()
}

#[tokio::test]
async fn a_carried_session_reads_its_writes_and_a_dropped_one_does_not() {
    const ROUNDS: usize = 60;
    let store = lagging(Duration::from_millis(100));
    let address = serve(notes(&store).layer(layer(&store).build().unwrap())).await;
    let mut plain = client();
    let mut carrying = RywClientLayer::new(Session::new()).layer(client());
    let (mut chances, mut stale_without, mut stale_with) = (0, 0, 0);
    for round in 0..ROUNDS {
        let (value, uri) = (round.to_string(), format!("http://{address}/notes/k"));
        // A client that drops what it was told.
        let dropped = format!("http://{address}/notes/dropped");
        plain.call(put(&dropped, &value)).await.unwrap();
        stale_without += usize::from(*read(plain.call(get(&dropped)).await.unwrap()).await.body() != value);

        carrying.call(put(&uri, &value)).await.unwrap();
        let replica = store.get(&Route::Replica { node: None }, "notes", "k");
        chances += usize::from(replica.is_none_or(|found| found != value));
        let response = read(carrying.call(get(&uri)).await.unwrap()).await;
        assert_eq!(response.headers()["x-consistency-enforced"], "true");
        stale_with += usize::from(*response.body() != value);
    }
    assert!(chances > ROUNDS / 2, "too few chances to read stale data: {chances}");
    assert!(stale_without > ROUNDS / 2, "dropping the token was harmless: {stale_without}");
    assert_eq!(stale_with, 0);
}

#[tokio::test]
async fn concurrent_writers_of_one_session_see_all_of_their_writes() {
    let store = store();
    let address = serve(notes(&store).layer(layer(&store).build().unwrap())).await;
    let session = Session::new();
    let carrying = RywClientLayer::new(session.clone()).layer(client());
    let writes = (0..20).map(|n| {
        let mut carrying = carrying.clone();
        tokio::spawn(async move { carrying.call(put(&format!("http://{address}/notes/{n}"), "x")).await.unwrap() })
    });
    for write in writes.collect::<Vec<_>>() {
        assert_eq!(write.await.unwrap().status(), StatusCode::NO_CONTENT);
    }
    for n in 0..20 {
        let response = carrying.clone().call(get(&format!("http://{address}/notes/{n}"))).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{n}");
    }
}

#[tokio::test]
async fn a_redirect_after_a_write_shows_it() {
    let store = store();
    let address = serve(notes(&store).layer(layer(&store).build().unwrap())).await;
    let mut carrying = RywClientLayer::new(Session::new()).follow_redirects(3).layer(client());
    let submit = Request::post(format!("http://{address}/submit/k")).body(Full::new("text".into())).unwrap();
    let response = read(carrying.call(submit).await.unwrap()).await;
    assert_eq!((response.status(), response.body().as_str()), (StatusCode::OK, "text"));
}

#[tokio::test]
async fn a_read_that_comes_too_early_is_asked_again() {
    let store = lagging(Duration::from_secs(1));
    let ladder = Ladder::new().wait(Duration::ZERO).primary(false);
    let address = serve(notes(&store).layer(layer(&store).ladder(ladder).build().unwrap())).await;
    let uri = format!("http://{address}/notes/k");
    let layer = RywClientLayer::new(Session::new());
    let mut carrying = layer.layer(client());
    carrying.call(put(&uri, "text")).await.unwrap();
    let refused = layer.clone().retry(Retry::never()).layer(client()).call(get(&uri)).await.unwrap();
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE, "the test needs a replica that is behind");
    let response = read(carrying.call(get(&uri)).await.unwrap()).await;
    assert_eq!(response.body(), "text");
    assert!(response.extensions().get::<Report>().unwrap().attempts > 1);
}

#[tokio::test]
async fn a_job_in_another_process_sees_what_was_written() {
    let store = store();
    let address = serve(notes(&store).layer(layer(&store).build().unwrap())).await;
    let uri = format!("http://{address}/notes/k");
    let session = Session::new();
    RywClientLayer::new(session.clone()).layer(client()).call(put(&uri, "text")).await.unwrap();
    let message = session.envelope().to_string();

    let without = client().call(get(&uri)).await.unwrap();
    assert_eq!(without.status(), StatusCode::NOT_FOUND, "the test needs a replica that is behind");
    let worker = Session::resume(&message.parse().unwrap());
    let response = RywClientLayer::new(worker).layer(client()).call(get(&uri)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}
