//! A client that leaves over a real connection, while the handler is at any of its await points.

use std::{future::pending, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{HeaderValue, Request, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use ryw_testing::lagging::LaggingStore;
use tokio::{io::duplex, sync::watch, task::JoinHandle};
use tower::ServiceExt;
use tower_ryw::{Ladder, Route, RywContext, RywLayer};

/// The handler awaits so often before its write, and as often after it.
const STEPS: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Over {
    Http1,
    Http2,
    Grpc,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Ends {
    Ok,
    Error,
    Panic,
}

/// What the client does at that point.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Leaves {
    /// It closes the connection.
    Connection,
    /// It resets the stream, and keeps the connection.
    Stream,
}

/// One request, and where it is.
struct Stage {
    app: Router,
    at: watch::Receiver<usize>,
}

/// A service over a replica that is a second late, whose handler stops at one of its await points.
async fn stage(over: Over, ends: Ends, stop: usize) -> Stage {
    let store = LaggingStore::builder().replicas(1).lag(Duration::from_secs(1)).start();
    let (reached, at) = watch::channel(0);
    let (reached, writes) = (Arc::new(reached), store.clone());
    let write = move || async move {
        for step in 0..2 * STEPS {
            if step == STEPS {
                writes.put("t", "a", Some("written".into())).unwrap();
            }
            reached.send_replace(step + 1);
            if step == stop {
                pending::<()>().await;
            }
            tokio::task::yield_now().await;
        }
        answer(over, ends)
    };
    let reads = store.clone();
    let read = move || async move {
        let route = RywContext::current().map_or(Route::Primary, |context| context.route());
        reads.get(&route, "t", "a").map_or("nothing".into(), |value| String::from_utf8_lossy(&value).into_owned())
    };
    let layer = RywLayer::builder()
        .positions(store.topology().clone())
        .ladder(Ladder::new().wait(Duration::ZERO))
        // One place: what the store does not know is settled by one read.
        .store_capacity(1);
    let app = Router::new().route("/t.T/Write", post(write)).route("/v", get(read)).layer(layer.build().unwrap());
    let stage = Stage { app, at };
    assert_eq!(stage.read("somebody").await, "nothing");
    stage
}

fn answer(over: Over, ends: Ends) -> Response {
    match (over, ends) {
        (_, Ends::Panic) => std::panic::resume_unwind(Box::new("as asked for")),
        (Over::Grpc, ends) => {
            let mut response = Response::new(Body::empty());
            response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
            let status = if ends == Ends::Ok { "0" } else { "13" };
            response.headers_mut().insert("grpc-status", HeaderValue::from_static(status));
            response
        }
        (_, Ends::Ok) => StatusCode::NO_CONTENT.into_response(),
        (_, Ends::Error) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

impl Stage {
    async fn read(&self, session: &str) -> String {
        let request = Request::get("/v").header("x-session-id", session).body(Body::empty()).unwrap();
        let response = self.app.clone().oneshot(request).await.unwrap();
        String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().into()).unwrap()
    }

    fn serve(&self, over: Over, io: tokio::io::DuplexStream) -> JoinHandle<()> {
        let service = TowerToHyperService::new(self.app.clone());
        tokio::spawn(async move {
            let io = TokioIo::new(io);
            // However it ends: the client has left.
            if over == Over::Http1 {
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
            } else {
                let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = http.serve_connection(io, service).await;
            }
        })
    }
}

fn request(over: Over) -> Request<Full<Bytes>> {
    let mut request = Request::post("http://t/t.T/Write").header("x-session-id", "writer");
    if over == Over::Grpc {
        request = request.header("content-type", "application/grpc").header("te", "trailers");
    }
    request.body(Full::default()).unwrap()
}

/// Makes the request, and leaves once the handler is at its await point `stop`; beyond the last one it is answered.
async fn leave(stage: &mut Stage, over: Over, leaves: Leaves, stop: usize) {
    let (ours, theirs) = duplex(1 << 16);
    let server = stage.serve(over, theirs);
    let (call, connection): (JoinHandle<()>, JoinHandle<()>) = if over == Over::Http1 {
        let (mut sender, connection) = http1::handshake(TokioIo::new(ours)).await.unwrap();
        let call = tokio::spawn(async move { drop(sender.send_request(request(over)).await) });
        (call, tokio::spawn(async move { drop(connection.await) }))
    } else {
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(ours)).await.unwrap();
        let kept = sender.clone();
        let call = tokio::spawn(async move { drop(sender.send_request(request(over)).await) });
        let connection = tokio::spawn(async move {
            let _kept = kept;
            drop(connection.await);
        });
        (call, connection)
    };
    if stop < 2 * STEPS {
        stage.at.wait_for(|at| *at == stop + 1).await.unwrap();
        if leaves == Leaves::Connection {
            connection.abort();
        }
        call.abort();
    } else {
        call.await.unwrap();
    }
    // The other side notices.
    tokio::time::sleep(Duration::from_millis(5)).await;
    connection.abort();
    server.abort();
}

async fn check(over: Over, leaves: Leaves) {
    let mut written = 0;
    for ends in [Ends::Ok, Ends::Error, Ends::Panic] {
        for stop in 0..=2 * STEPS {
            let mut stage = stage(over, ends, stop).await;
            leave(&mut stage, over, leaves, stop).await;
            let case = format!("{over:?} {ends:?}, {leaves:?} left at {stop}");
            assert_eq!(stage.read("another").await, "nothing", "{case}: the replica is late");
            if stop >= STEPS {
                assert_eq!(stage.read("writer").await, "written", "{case}");
                written += 1;
            }
        }
    }
    assert_eq!(written, 3 * (STEPS + 1));
}

#[tokio::test(start_paused = true)]
async fn over_http_1() {
    check(Over::Http1, Leaves::Connection).await;
}

#[tokio::test(start_paused = true)]
async fn over_http_2() {
    check(Over::Http2, Leaves::Stream).await;
    check(Over::Http2, Leaves::Connection).await;
}

#[tokio::test(start_paused = true)]
async fn over_grpc() {
    check(Over::Grpc, Leaves::Stream).await;
    check(Over::Grpc, Leaves::Connection).await;
}
