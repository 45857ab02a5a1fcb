//! The inner service's readiness is respected, also by requests that wait.

use std::{
    future::{Ready, ready},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use http::{Request, Response};
use tower::{Layer, Service, ServiceExt, limit::ConcurrencyLimitLayer};
use tower_ryw::RywLayer;

use crate::harness::{request, session, with_positions};

/// Must be ready before each call; a clone does not inherit that.
#[derive(Default)]
struct Probe {
    ready: bool,
    calls: Arc<AtomicUsize>,
}

impl Clone for Probe {
    fn clone(&self) -> Self {
        Self { ready: false, calls: Arc::clone(&self.calls) }
    }
}

impl Service<Request<Body>> for Probe {
    type Response = Response<Body>;
    type Error = std::convert::Infallible;
    type Future = Ready<Result<Response<Body>, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called without having been made ready");
        self.calls.fetch_add(1, SeqCst);
        ready(Ok(Response::new(Body::empty())))
    }
}

#[tokio::test(start_paused = true)]
async fn the_instance_that_was_ready_is_the_one_that_is_called() {
    let fixture = with_positions(|b| b);
    // The first read of a session takes the slow way: its marks are unknown and are settled first.
    let layer = RywLayer::builder().positions(fixture.store.topology().clone()).build().unwrap();
    let probe = Probe::default();
    let mut service = layer.layer(probe.clone());
    for (method, name) in [("GET", "a"), ("PUT", "a"), ("GET", "a"), ("GET", "b"), ("PUT", "c"), ("GET", "d")] {
        let call = service.ready().await.unwrap().call(request(method, "/", &[session(name)], ""));
        call.await.unwrap();
    }
    service.ready().await.unwrap().call(request("GET", "/", &[], "")).await.unwrap();
    assert_eq!(probe.calls.load(SeqCst), 7);
}

#[tokio::test(start_paused = true)]
async fn a_permit_is_kept_by_the_waiting_request_and_given_back() {
    let fixture = with_positions(|b| b);
    let layer = RywLayer::builder().positions(fixture.store.topology().clone()).build().unwrap();
    let limited = ConcurrencyLimitLayer::new(1).layer(Probe::default());
    let mut service = layer.layer(limited);
    let waiting = service.ready().await.unwrap().call(request("GET", "/", &[session("a")], ""));
    let held = tokio::time::timeout(Duration::from_millis(50), service.ready()).await;
    assert!(held.is_err(), "the permit is taken while the request waits for its marks");
    drop(waiting);
    service.ready().await.unwrap().call(request("GET", "/", &[session("b")], "")).await.unwrap();
    service.ready().await.unwrap();
}
